//! Netlink messages, laid one behind the other for one send (netlink(7)).

const CAPACITY: usize = 4096;
const MESSAGE_HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// Messages that go out together. The first has the sequence number 1.
pub struct Request {
    bytes: [u8; CAPACITY],
    length: usize,
    /// Where the last message begins.
    message: usize,
    /// How many messages there are.
    pub count: u32,
    /// The last one that the kernel answers even where it succeeds.
    pub last_answered: u32,
    /// Whether that is a question for a list.
    pub ends_with_list: bool,
}

impl Request {
    pub const fn new() -> Self {
        Self {
            bytes: [0; CAPACITY],
            length: 0,
            message: 0,
            count: 0,
            last_answered: 0,
            ends_with_list: false,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Begins a message: its type, flags beside `NLM_F_REQUEST`, and the family's own header.
    pub fn message(&mut self, kind: u16, flags: i32, header: &[u8]) {
        self.count += 1;
        // Flags of changes have the bits of `NLM_F_DUMP` one by one.
        let asks_for_list = flags & libc::NLM_F_DUMP == libc::NLM_F_DUMP;
        if flags & libc::NLM_F_ACK != 0 || asks_for_list || kind == libc::RTM_GETLINK {
            self.last_answered = self.count;
            self.ends_with_list = asks_for_list;
        }
        self.message = self.length;
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        self.push(&0u32.to_ne_bytes());
        self.push(&kind.to_ne_bytes());
        self.push(&flags.to_ne_bytes());
        self.push(&self.count.to_ne_bytes());
        self.push(&0u32.to_ne_bytes());
        self.push(header);
        self.end_message();
    }

    /// Adds an attribute to the last message.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (ATTRIBUTE_HEADER + value.len()) as u16;
        self.push(&length.to_ne_bytes());
        self.push(&kind.to_ne_bytes());
        self.push(value);
        self.length = aligned(self.length);
        self.end_message();
    }

    /// An attribute that holds a number as netfilter has it.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// An attribute that holds a number as rtnetlink has it.
    pub fn ne32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// An attribute that holds those which `inner` adds.
    pub fn nested(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) {
        let start = self.length;
        self.attribute(kind | NESTED, &[]);
        inner(self);
        let length = (self.length - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn end_message(&mut self) {
        let length = (self.length - self.message) as u32;
        self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// A message that the kernel sent.
pub struct Answer<'a> {
    pub kind: u16,
    pub sequence: u32,
    pub payload: &'a [u8],
}

/// Takes the first message off what was received.
pub fn next_answer<'a>(bytes: &mut &'a [u8]) -> Option<Answer<'a>> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let message = bytes.get(..length)?;
    *bytes = bytes.get(aligned(length)..).unwrap_or_default();
    Some(Answer {
        kind: u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?),
        sequence: u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?),
        payload: message.get(MESSAGE_HEADER..)?,
    })
}

/// Takes the first attribute off a run of them.
pub fn next_attribute<'a>(bytes: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
    let value = bytes.get(ATTRIBUTE_HEADER..length)?;
    *bytes = bytes.get(aligned(length)..).unwrap_or_default();
    Some((kind & !NESTED, value))
}

const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}
