//! What the kernel answered once, kept as text, and played again: whole, or with something wrong.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use neli::consts::socket::NlFamily;
use nix::errno::Errno;

use super::super::socket::{Connection, Transport};

/// Offset and length of `nlmsg_seq` in `struct nlmsghdr`.
const SEQUENCE: std::ops::Range<usize> = 8..12;
/// More than any question takes: whoever reads on and on is caught.
const PATIENCE: usize = 10_000;

/// What a read from the socket gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A datagram. The sequence numbers count from the first request of the send, which has 1.
    Datagram(Vec<u8>),
    Error(Errno),
}

/// The answers to each send, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation(pub Vec<Vec<Answer>>);

impl Conversation {
    /// Reads what [`Conversation::to_text`] wrote.
    pub fn from_text(text: &str) -> Self {
        let mut sends: Vec<Vec<Answer>> = Vec::new();
        for line in text.lines() {
            match line {
                "sent" => sends.push(Vec::new()),
                hex => sends
                    .last_mut()
                    .expect("a send comes first")
                    .push(Answer::Datagram(from_hexadecimal(hex))),
            }
        }
        Self(sends)
    }

    /// A line for each send and each datagram.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for answers in &self.0 {
            text.push_str("sent\n");
            for answer in answers {
                let Answer::Datagram(bytes) = answer else { panic!("only datagrams are kept") };
                text.push_str(&to_hexadecimal(bytes));
                text.push('\n');
            }
        }
        text
    }

    /// The datagrams, one after the other.
    pub fn datagrams_mut(&mut self) -> impl Iterator<Item = &mut Vec<u8>> {
        self.0.iter_mut().flatten().filter_map(|answer| match answer {
            Answer::Datagram(bytes) => Some(bytes),
            Answer::Error(_) => None,
        })
    }
}

/// Two digits for each byte.
pub fn to_hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`to_hexadecimal`] wrote.
pub fn from_hexadecimal(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// Adds to the sequence number of each message, as far as they can be told apart.
fn shift(datagram: &mut [u8], by: u32) {
    let mut at = 0;
    while let Some(message) = datagram.get_mut(at..) {
        let Some(number) = message.get(SEQUENCE).and_then(|bytes| bytes.try_into().ok()) else {
            return;
        };
        let shifted = u32::from_ne_bytes(number).wrapping_add(by);
        message[SEQUENCE].copy_from_slice(&shifted.to_ne_bytes());
        let length = u32::from_ne_bytes(message[..4].try_into().expect("four bytes")) as usize;
        // One that lies about its length is the last whose number is of interest.
        at += length.clamp(16, 1 << 20).next_multiple_of(4);
    }
}

/// What the sequence numbers of a send are counted from.
fn base(messages: &[u8]) -> u32 {
    let first = messages[SEQUENCE].try_into().expect("a send begins with a message");
    u32::from_ne_bytes(first).wrapping_sub(1)
}

/// Plays a conversation. After its end nothing is answered.
pub struct Player {
    sends: VecDeque<Vec<Answer>>,
    /// Whether a question that is put again is answered as before.
    insists: bool,
    /// The last send, its sequence numbers counted as in an answer, and what it was answered.
    last: (Vec<u8>, Vec<Answer>),
    pending: VecDeque<Answer>,
    base: u32,
    reads: usize,
}

impl Player {
    pub fn of(conversation: &Conversation) -> Box<Self> {
        let sends = conversation.0.iter().cloned().collect();
        let last = (Vec::new(), Vec::new());
        let pending = VecDeque::new();
        Box::new(Self { sends, insists: false, last, pending, base: 0, reads: 0 })
    }

    /// Its like, but a question that is put again is answered as before.
    pub fn insisting(conversation: &Conversation) -> Box<Self> {
        Box::new(Self { insists: true, ..*Self::of(conversation) })
    }
}

impl Transport for Player {
    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        self.base = base(messages);
        let mut question = messages.to_vec();
        shift(&mut question, self.base.wrapping_neg());
        if !self.insists || self.last.0 != question {
            self.last = (question, self.sends.pop_front().unwrap_or_default());
        }
        self.pending.extend(self.last.1.iter().cloned());
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        assert!(self.reads < PATIENCE, "it reads without an end");
        match self.pending.pop_front() {
            Some(Answer::Datagram(mut bytes)) => {
                shift(&mut bytes, self.base);
                let fits = bytes.len().min(buffer.len());
                buffer[..fits].copy_from_slice(&bytes[..fits]);
                Ok(bytes.len())
            }
            Some(Answer::Error(errno)) => Err(errno.into()),
            None => Err(Errno::EAGAIN.into()),
        }
    }

    fn renew(&mut self) -> io::Result<()> {
        self.pending.clear();
        Ok(())
    }
}

/// The kernel, with a record of what it answers.
pub struct Recorder {
    socket: Connection,
    base: u32,
    record: Rc<RefCell<Conversation>>,
}

impl Recorder {
    pub fn open(family: NlFamily) -> (Box<Self>, Rc<RefCell<Conversation>>) {
        let socket = Connection::open(family).expect("a netlink socket");
        let record = Rc::default();
        (Box::new(Self { socket, base: 0, record: Rc::clone(&record) }), record)
    }
}

impl Transport for Recorder {
    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        self.base = base(messages);
        self.record.borrow_mut().0.push(Vec::new());
        Transport::send(&mut self.socket, messages)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = Transport::receive(&mut self.socket, buffer)?;
        let mut bytes = buffer[..length].to_vec();
        shift(&mut bytes, self.base.wrapping_neg());
        let mut record = self.record.borrow_mut();
        record.0.last_mut().expect("a send came first").push(Answer::Datagram(bytes));
        Ok(length)
    }

    fn renew(&mut self) -> io::Result<()> {
        self.socket.renew()
    }
}
