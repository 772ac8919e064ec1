//! Ways in which an answer can be wrong.

use bolero::TypeGenerator;
use nix::errno::Errno;

use super::conversation::{Answer, Conversation};

/// One of them. Places count round and round, so that each hits something.
#[derive(Debug, Clone, TypeGenerator)]
pub enum Damage {
    /// Bits of a byte are others.
    Bits { datagram: u8, at: u16, mask: u8 },
    /// A length, a type or a flag is another.
    Word { datagram: u8, at: u16, value: u16 },
    /// A length is a little wrong.
    Length { datagram: u8, at: u16, by: i8 },
    /// A number is another.
    Number { datagram: u8, at: u16, value: u32 },
    /// The rest is missing.
    Cut { datagram: u8, at: u16 },
    /// Some bytes are missing.
    Remove { datagram: u8, at: u16, count: u8 },
    /// Some bytes are too many.
    Insert { datagram: u8, at: u16, bytes: Vec<u8> },
    /// Some bytes come again.
    Repeat { datagram: u8, at: u16, count: u16 },
    /// A datagram comes again, at another place.
    Again { datagram: u8, to: u8 },
    /// A datagram is missing.
    Lose { datagram: u8 },
    /// The socket says this in place of a datagram.
    Fail { datagram: u8, errno: u8 },
    /// One send gets the answers of another.
    Mix { one: u8, other: u8 },
}

impl Damage {
    /// Does it to what the kernel answers.
    pub fn apply(&self, conversation: &mut Conversation) {
        match self {
            Self::Bits { datagram, at, mask } => {
                at_place(conversation, *datagram, *at, |bytes, at| bytes[at] ^= mask);
            }
            Self::Word { datagram, at, value } => {
                write(conversation, *datagram, at & !1, &value.to_ne_bytes());
            }
            Self::Length { datagram, at, by } => {
                at_place(conversation, *datagram, at & !3, |bytes, at| {
                    bytes[at] = bytes[at].wrapping_add_signed(*by);
                });
            }
            Self::Number { datagram, at, value } => {
                write(conversation, *datagram, at & !3, &value.to_ne_bytes());
            }
            Self::Cut { datagram, at } => {
                at_place(conversation, *datagram, *at, |bytes, at| bytes.truncate(at));
            }
            Self::Remove { datagram, at, count } => {
                at_place(conversation, *datagram, *at, |bytes, at| {
                    let end = bytes.len().min(at + usize::from(*count));
                    bytes.drain(at..end);
                });
            }
            Self::Insert { datagram, at, bytes: new } => {
                at_place(conversation, *datagram, *at, |bytes, at| {
                    bytes.splice(at..at, new.iter().copied());
                });
            }
            Self::Repeat { datagram, at, count } => {
                at_place(conversation, *datagram, at & !3, |bytes, at| {
                    let end = bytes.len().min(at + usize::from(*count));
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                });
            }
            Self::Again { datagram, to } => {
                with(conversation, *datagram, |answers, at| {
                    let answer = answers[at].clone();
                    answers.insert(usize::from(*to) % (answers.len() + 1), answer);
                });
            }
            Self::Lose { datagram } => {
                with(conversation, *datagram, |answers, at| drop(answers.remove(at)));
            }
            Self::Fail { datagram, errno } => {
                with(conversation, *datagram, |answers, at| {
                    answers[at] = Answer::Error(Errno::from_raw(i32::from(*errno)));
                });
            }
            Self::Mix { one, other } => {
                let sends = conversation.0.len();
                if sends > 0 {
                    conversation.0.swap(usize::from(*one) % sends, usize::from(*other) % sends);
                }
            }
        }
    }
}

/// The answers of the send that has the datagram, and its number among them.
fn with(
    conversation: &mut Conversation,
    datagram: u8,
    change: impl FnOnce(&mut Vec<Answer>, usize),
) {
    let total: usize = conversation.0.iter().map(Vec::len).sum();
    let Some(mut number) = usize::from(datagram).checked_rem(total) else { return };
    for answers in &mut conversation.0 {
        if number < answers.len() {
            return change(answers, number);
        }
        number -= answers.len();
    }
}

fn at_place(
    conversation: &mut Conversation,
    datagram: u8,
    at: u16,
    change: impl FnOnce(&mut Vec<u8>, usize),
) {
    with(conversation, datagram, |answers, number| {
        let Answer::Datagram(bytes) = &mut answers[number] else { return };
        if let Some(at) = usize::from(at).checked_rem(bytes.len()) {
            change(bytes, at);
        }
    });
}

fn write(conversation: &mut Conversation, datagram: u8, at: u16, value: &[u8]) {
    at_place(conversation, datagram, at, |bytes, at| {
        let end = bytes.len().min(at + value.len());
        bytes[at..end].copy_from_slice(&value[..end - at]);
    });
}
