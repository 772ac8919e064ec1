//! Batches and their answers, on a line that is played.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use neli::consts::rtnl::Rtm;

use super::super::payload::Payload;
use super::*;

/// What was sent and read, and the answers to come.
#[derive(Default)]
struct Line {
    sent: Vec<Vec<u8>>,
    answers: VecDeque<Vec<u8>>,
    /// The answers to the second send.
    later: Vec<Vec<u8>>,
    renewed: usize,
}

impl Transport for Rc<RefCell<Line>> {
    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        let mut line = self.borrow_mut();
        line.sent.push(messages.to_vec());
        if line.sent.len() == 2 {
            let later = std::mem::take(&mut line.later);
            line.answers.extend(later);
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let answer = self.borrow_mut().answers.pop_front();
        let answer = answer.ok_or(io::ErrorKind::WouldBlock)?;
        buffer[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }

    fn renew(&mut self) -> io::Result<()> {
        let mut line = self.borrow_mut();
        line.renewed += 1;
        line.answers.clear();
        Ok(())
    }
}

fn line(answers: impl IntoIterator<Item = Vec<u8>>) -> (Rc<RefCell<Line>>, Socket) {
    let answers = answers.into_iter().collect();
    let line = Rc::new(RefCell::new(Line { answers, ..Line::default() }));
    (Rc::clone(&line), Socket::over(Box::new(line)))
}

/// `struct nlmsghdr`, and what comes behind it.
fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// `NLMSG_ERROR`, with the number that makes it an acknowledgement or not.
fn error(sequence: u32, errno: i32) -> Vec<u8> {
    let mut payload = (-errno).to_ne_bytes().to_vec();
    payload.extend([0; 16]);
    message(libc::NLMSG_ERROR as u16, 0, sequence, &payload)
}

fn three_changes(socket: &Socket) -> Batch {
    let mut batch = socket.batch();
    for what in ["one", "two", "three"] {
        batch.change(Rtm::Newlink, NlmF::empty(), Payload::new(&0u32), what);
    }
    batch
}

#[test]
fn of_several_changes_the_last_is_acknowledged() {
    let (line, mut socket) = line([error(3, 0)]);
    let batch = three_changes(&socket);
    socket.request(batch).unwrap();
    let sent = line.borrow().sent.concat();
    let flags = sent.chunks(20).map(|message| u16::from_ne_bytes([message[6], message[7]]));
    let request = NlmF::REQUEST.bits();
    assert!(flags.eq([request, request, request | NlmF::ACK.bits()]));
}

#[test]
fn what_fails_before_the_last_is_told() {
    for (answers, wanted) in [
        (vec![error(1, libc::EBUSY), error(3, 0)], Some("one")),
        (vec![error(2, libc::EBUSY), error(3, libc::EIO)], Some("two")),
        (vec![error(3, libc::EIO)], Some("three")),
        (vec![error(3, 0)], None),
    ] {
        let (_, mut socket) = line(answers);
        let batch = three_changes(&socket);
        let failed = socket.request(batch).err().map(|error| match error {
            KernelError::Refused { what, .. } => what,
            other => panic!("{other}"),
        });
        assert_eq!(failed.as_deref(), wanted);
    }
    // What failed is told once all are answered, and never that all is well before.
    let (_, mut socket) = line([error(1, libc::EBUSY)]);
    let batch = three_changes(&socket);
    assert!(socket.request(batch).is_err());
    let (_, mut socket) = line([]);
    let batch = three_changes(&socket);
    assert!(socket.request(batch).is_err());
}

#[test]
fn a_long_answer_is_broken_off_where_that_is_enough() {
    const MULTI: u16 = NlmF::MULTI.bits();
    let object = |sequence, number: u8, length| {
        let mut payload = vec![0; length];
        payload[0] = number;
        message(20, MULTI, sequence, &payload)
    };
    let end = |sequence| message(libc::NLMSG_DONE as u16, MULTI, sequence, &[0; 4]);
    let ask = |batch: &mut Batch| batch.dump(Rtm::Getlink, Payload::new(&0u32), "list");
    let long = [2000, FULL, FULL, 8000];
    // As they come where the kernel is short of memory.
    let short = [2000; 4];
    for (lengths, enough, read, renewed) in [
        (long, 1, vec![1, 2], 1),
        (long, 2, vec![1, 2], 1),
        (long, 3, vec![1, 2, 3], 1),
        (long, 4, vec![1, 2, 3, 4], 0),
        (short, 1, vec![1, 2, 3], 1),
        (short, 3, vec![1, 2, 3, 4], 0),
    ] {
        let objects = (1..).zip(lengths).map(|(number, length)| object(1, number, length));
        let (line, mut socket) = line(objects.chain([end(1)]));
        let found = socket.read_until(ask, |found: &mut Vec<u8>, _, payload| {
            found.push(payload[0]);
            let is_enough = payload[0] == enough;
            Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        assert_eq!(found.unwrap(), read, "{enough}");
        assert_eq!(line.borrow().renewed, renewed, "{enough}");
        // What is asked next is answered.
        line.borrow_mut().answers.extend([object(2, 7, 4), end(2)]);
        let next = socket.read(ask, |found: &mut Vec<u8>, _, payload| {
            found.push(payload[0]);
            Ok(())
        });
        assert_eq!(next.unwrap(), [7]);
    }
}

#[test]
fn what_was_too_long_for_a_first_answer_is_asked_for_again() {
    let too_long = (-libc::EMSGSIZE).to_ne_bytes();
    let done = libc::NLMSG_DONE as u16;
    let multi = NlmF::MULTI.bits();
    let ask = |batch: &mut Batch| batch.dump(Rtm::Getlink, Payload::new(&0u32), "list");
    let (line, mut socket) = line([message(done, multi, 1, &too_long)]);
    let again = [message(20, multi, 2, &[7, 0, 0, 0]), message(done, multi, 2, &[0; 4])];
    let take = |found: &mut Vec<u8>, _: usize, payload: &[u8]| {
        found.push(payload[0]);
        Ok(())
    };
    // What isn't there yet when the leftovers are read comes with the second question.
    line.borrow_mut().later.extend(again);
    assert_eq!(socket.read(ask, take).unwrap(), [7]);
}
