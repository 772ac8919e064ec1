//! A netlink socket that sends several messages at once and reads all their answers (netlink(7)).
//!
//! The kernel has handled every message, and queued every answer, when `sendmsg` returns; reading
//! therefore never waits, and an answer that isn't there is lost, not late.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use neli::consts::nl::NlmF;
use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use nix::errno::Errno;

use super::KernelError;
use super::answer::{Messages, Outcome};
use super::attributes::Malformed;
use super::batch::{Batch, Request};
use crate::lock::Namespace;

/// The kernel gathers no more objects in one answer than its reader takes, up to 32 KiB
/// (`netlink_dump`, `net/netlink/af_netlink.c`), or than make up the longest of them.
const PART: usize = 32 * 1024;
/// A link's other names alone may be 64 KiB.
const LONGEST: usize = 128 * 1024;
/// One for all sockets, and not of the heap, which would have to be cleared first: of this the kernel
/// gives a process only the pages that an answer comes to.
static BUFFER: Mutex<[u8; LONGEST]> = Mutex::new([0; LONGEST]);
/// Behind a datagram of a dump that is as long as this there is more to come; behind a shorter one there is the
/// end, or what the kernel has ready, so that it costs less to read on than to begin anew.
const FULL: usize = PART / 4 * 3;
/// So many shorter ones that have nothing new are a long answer, too: of a kernel that is short of memory.
const READ_ON: usize = 2;
/// How often a question is put before it counts as unanswerable.
const ATTEMPTS: usize = 16;

/// What carries messages to the kernel, and its answers back.
pub(super) trait Transport {
    fn send(&mut self, messages: &[u8]) -> io::Result<()>;

    /// Reads one answer, and never waits for it. Says how long it was, also where it didn't fit.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Begins anew, with no answer under way.
    fn renew(&mut self) -> io::Result<()>;
}

/// A netlink socket of the kernel's.
pub(super) struct Connection {
    family: NlFamily,
    socket: NlSocket,
}

impl Connection {
    pub fn open(family: NlFamily) -> io::Result<Self> {
        // The kernel gives it an address of its own with the first send.
        let socket = NlSocket::new(family)?;
        // Only a help: where it is refused, errors come without the kernel's own words.
        let _ = socket.enable_ext_ack(true);
        if family == NlFamily::Route {
            // Without it the kernel ignores the filters of an address dump.
            socket.enable_strict_checking(true)?;
        }
        Ok(Self { family, socket })
    }
}

impl Transport for Connection {
    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        self.socket.send(messages, Msg::empty()).map(drop)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.recv(buffer, Msg::DONTWAIT | Msg::TRUNC).map(|(length, _)| length)
    }

    fn renew(&mut self) -> io::Result<()> {
        *self = Self::open(self.family)?;
        Ok(())
    }
}

pub(super) struct Socket {
    transport: Box<dyn Transport>,
    /// The last sequence number used: an answer left over from an earlier send must never be taken
    /// for one of this.
    sequence: u32,
}

impl Socket {
    pub fn open(family: NlFamily) -> io::Result<Self> {
        Ok(Self::over(Box::new(Connection::open(family)?)))
    }

    /// As [`Socket::open`]; and the network namespace that it leads to, where that can be told.
    pub fn open_in_namespace(family: NlFamily) -> io::Result<(Self, io::Result<Namespace>)> {
        let connection = Connection::open(family)?;
        // SAFETY: the socket is open for as long as it is borrowed, which is in this function.
        #[allow(unsafe_code, reason = "neli gives no descriptor that could be borrowed")]
        let descriptor = unsafe { BorrowedFd::borrow_raw(connection.socket.as_raw_fd()) };
        let namespace = Namespace::of_socket(descriptor);
        Ok((Self::over(Box::new(connection)), namespace))
    }

    pub fn over(transport: Box<dyn Transport>) -> Self {
        Self { transport, sequence: 0 }
    }

    /// An empty batch.
    pub fn batch(&self) -> Batch {
        Batch::behind(self.sequence)
    }

    /// Asks for objects and gathers the answers. It asks anew where the kernel's state changed while
    /// it was read, or an answer got lost: asking changes nothing.
    pub fn read<T: Default>(
        &mut self,
        ask: impl Fn(&mut Batch),
        mut take: impl FnMut(&mut T, usize, &[u8]) -> Result<(), Malformed>,
    ) -> Result<T, KernelError> {
        self.read_until(ask, |found, number, payload| {
            take(found, number, payload).map(ControlFlow::Continue)
        })
    }

    /// As [`Socket::read`], but of a long answer no more than the datagram in which `take` breaks off, and
    /// those that are no longer than what the kernel has ready.
    pub fn read_until<T: Default>(
        &mut self,
        ask: impl Fn(&mut Batch),
        mut take: impl FnMut(&mut T, usize, &[u8]) -> Result<ControlFlow<()>, Malformed>,
    ) -> Result<T, KernelError> {
        let mut attempts = 1;
        loop {
            let mut batch = self.batch();
            ask(&mut batch);
            let mut found = T::default();
            match self.exchange(batch, |number, payload| take(&mut found, number, payload)) {
                Err(error) if attempts < ATTEMPTS && is_passing(&error) => {
                    attempts += 1;
                    self.drain();
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(found),
            }
        }
    }

    /// Has the kernel carry out the batch; the first error of any message is the error of all.
    pub fn request(&mut self, batch: Batch) -> Result<(), KernelError> {
        self.exchange(batch, |_, _| Ok(ControlFlow::Continue(())))
    }

    /// Sends the batch and reads all answers. `each` gets the objects, with the number of the request
    /// that they answer, from 0.
    fn exchange(
        &mut self,
        batch: Batch,
        each: impl FnMut(usize, &[u8]) -> Result<ControlFlow<()>, Malformed>,
    ) -> Result<(), KernelError> {
        let Batch { bytes, requests, base, .. } = batch;
        self.sequence = base.wrapping_add(requests.len() as u32);
        let what = || requests.first().map_or_else(String::new, |request| request.what.clone());
        retry(|| self.transport.send(bytes.get_ref()))
            .map_err(|error| KernelError::system(what(), error))?;
        self.answers(&requests, base, each)
    }

    fn answers(
        &mut self,
        requests: &[Request],
        base: u32,
        mut each: impl FnMut(usize, &[u8]) -> Result<ControlFlow<()>, Malformed>,
    ) -> Result<(), KernelError> {
        let mut buffer = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due: Vec<bool> = requests.iter().map(|request| request.answered).collect();
        let mut failure = None;
        let mut is_enough = false;
        let mut read_on = 0;
        while due.contains(&true) {
            let what = || requests.first().map_or_else(String::new, |request| request.what.clone());
            let length = match retry(|| self.transport.receive(&mut buffer[..])) {
                Ok(0) => return Err(bad_answer(what(), "is empty")),
                Ok(length) if length <= buffer.len() => length,
                Ok(_) => return Err(bad_answer(what(), "is longer than any can be")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A transaction that failed as a whole is answered once.
                    return Err(failure.unwrap_or_else(|| bad_answer(what(), "is missing")));
                }
                Err(error) => return Err(KernelError::system(what(), error)),
            };
            for message in Messages(&buffer[..length]) {
                let Ok(message) = message else {
                    failure.get_or_insert_with(|| bad_answer(what(), MALFORMED));
                    break;
                };
                let number = message.sequence.wrapping_sub(base).wrapping_sub(1) as usize;
                let Some(request) = requests.get(number) else {
                    continue;
                };
                if message.flags & NlmF::DUMP_INTR.bits() != 0 {
                    failure.get_or_insert_with(|| {
                        bad_answer(request.what.clone(), "changed while it was read")
                    });
                }
                match message.outcome() {
                    Outcome::Object(payload) => {
                        match each(number, payload) {
                            Ok(flow) => is_enough |= flow.is_break(),
                            Err(Malformed) => {
                                let what = request.what.clone();
                                failure.get_or_insert_with(|| bad_answer(what, MALFORMED));
                            }
                        }
                        due[number] &= message.flags & NlmF::MULTI.bits() != 0;
                    }
                    Outcome::Nothing => {}
                    Outcome::Lost => {
                        failure.get_or_insert_with(|| {
                            bad_answer(request.what.clone(), "is incomplete")
                        });
                    }
                    Outcome::Done => due[number] = false,
                    Outcome::Failed(errno, text) => {
                        due[number] = false;
                        if !request.tolerated.contains(&errno) {
                            failure.get_or_insert_with(|| KernelError::Refused {
                                what: request.what.clone(),
                                errno,
                                message: text,
                            });
                        }
                    }
                }
            }
            let is_long = (length >= FULL || read_on >= READ_ON) && due.contains(&true);
            if is_enough && is_long && failure.is_none() && self.transport.renew().is_ok() {
                break;
            }
            read_on += usize::from(is_enough);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Reads what is left of earlier answers: while a dump is under way the kernel begins no other
    /// (EBUSY).
    fn drain(&mut self) {
        let mut buffer = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
        // A lost answer is reported once (ENOBUFS), and there may be more behind it.
        let mut failures = 0;
        while failures < ATTEMPTS {
            match self.transport.receive(&mut buffer[..]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => failures += 1,
            }
        }
    }
}

/// Whether the same question may be answered the next time: `NLM_F_DUMP_INTR`, an overrun (netlink(7)), or an
/// object longer than the page that a socket gets for its first answer, and for no other.
fn is_passing(error: &KernelError) -> bool {
    matches!(error, KernelError::Answer { .. })
        || matches!(error.errno(), Some(Errno::ENOBUFS | Errno::EBUSY | Errno::EMSGSIZE))
}

/// Tries again what a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Of an answer that says that it has more than there is.
const MALFORMED: &str = "is cut short";

fn bad_answer(what: String, problem: &'static str) -> KernelError {
    KernelError::Answer { what, problem }
}

#[cfg(test)]
mod tests;
