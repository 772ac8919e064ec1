//! What goes out to the kernel in one send.

use std::io::Cursor;

use neli::consts::nl::{NlType, NlmF};
use neli::nl::{NlPayload, NlmsghdrBuilder};
use neli::{Size, ToBytes};
use nix::errno::Errno;

/// Where the flags are in `struct nlmsghdr`.
const FLAGS: usize = 6;

/// Messages that go out in one `sendmsg`, and what each is for. Made by
/// [`Socket::batch`](super::socket::Socket::batch).
pub(super) struct Batch {
    pub(super) bytes: Cursor<Vec<u8>>,
    pub(super) requests: Vec<Request>,
    /// The sequence number before the first message's.
    pub(super) base: u32,
    /// Where the last message begins, if it is a change.
    last_change: Option<u64>,
}

/// What is to be known of a message when its answer comes.
pub(super) struct Request {
    /// What it is for, as an infinitive.
    pub what: String,
    /// Whether an answer is due even where it succeeds.
    pub answered: bool,
    /// The errors that mean that there is nothing to do.
    pub tolerated: &'static [Errno],
}

impl Batch {
    /// An empty one. `base` is the sequence number before the first message's.
    pub fn behind(base: u32) -> Self {
        let bytes = Cursor::new(Vec::with_capacity(1024));
        Self { bytes, requests: Vec::new(), base, last_change: None }
    }

    /// Asks for one object.
    pub fn get(
        &mut self,
        kind: impl NlType,
        payload: impl Size + ToBytes,
        what: impl Into<String>,
    ) {
        self.push(kind, NlmF::empty(), payload, what.into(), true);
    }

    /// Asks for all objects that fit. No two dumps fit one batch, and it has to be the last message.
    pub fn dump(
        &mut self,
        kind: impl NlType,
        payload: impl Size + ToBytes,
        what: impl Into<String>,
    ) {
        self.push(kind, NlmF::DUMP, payload, what.into(), true);
    }

    /// Asks for a change. Of several behind each other the kernel acknowledges the last: it carries
    /// them out in their order, each whatever became of the one before, and answers one that fails in
    /// any case.
    pub fn change(
        &mut self,
        kind: impl NlType,
        flags: NlmF,
        payload: impl Size + ToBytes,
        what: impl Into<String>,
    ) {
        if let Some(start) = self.last_change {
            self.clear_acknowledge(start);
        }
        let start = self.bytes.position();
        self.push(kind, flags | NlmF::ACK, payload, what.into(), true);
        self.last_change = Some(start);
    }

    /// The message added last, which begins there, is answered only where it fails.
    fn clear_acknowledge(&mut self, start: u64) {
        if let Some(request) = self.requests.last_mut() {
            request.answered = false;
        }
        let flags = start as usize + FLAGS;
        if let Some(flags) = self.bytes.get_mut().get_mut(flags..flags + size_of::<u16>()) {
            let without = u16::from_ne_bytes([flags[0], flags[1]]) & !NlmF::ACK.bits();
            flags.copy_from_slice(&without.to_ne_bytes());
        }
    }

    /// A part of a transaction: answered only where it fails.
    pub fn part(
        &mut self,
        kind: impl NlType,
        flags: NlmF,
        payload: impl Size + ToBytes,
        what: impl Into<String>,
    ) {
        self.push(kind, flags, payload, what.into(), false);
    }

    /// Of the message added last: these errors mean that there is nothing to do.
    pub fn tolerate(&mut self, errors: &'static [Errno]) {
        if let Some(request) = self.requests.last_mut() {
            request.tolerated = errors;
        }
    }

    fn push(
        &mut self,
        kind: impl NlType,
        flags: NlmF,
        payload: impl Size + ToBytes,
        what: String,
        answered: bool,
    ) {
        self.requests.push(Request { what, answered, tolerated: &[] });
        self.last_change = None;
        let message = NlmsghdrBuilder::default()
            .nl_type(kind)
            .nl_flags(flags | NlmF::REQUEST)
            .nl_seq(self.base.wrapping_add(self.requests.len() as u32))
            .nl_payload(NlPayload::Payload(payload))
            .build()
            .expect("type, flags and payload are set");
        message.to_bytes(&mut self.bytes).expect("writing to memory can't fail");
    }
}
