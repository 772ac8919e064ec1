//! Ways in which answers can be wrong.

use bolero::TypeGenerator;
use nix::errno::Errno;

use super::conversation::{Answer, Conversation};

/// One of them. Numbers count round and round, so that each is one of a datagram.
#[derive(Debug, Clone, TypeGenerator)]
pub enum Damage {
    /// Something is wrong in a datagram.
    Within { datagram: u8, damage: kvmnet_fuzz::Damage },
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
            Self::Within { datagram, damage } => with(conversation, *datagram, |answers, at| {
                if let Answer::Datagram(bytes) = &mut answers[at] {
                    damage.apply(bytes, &[]);
                }
            }),
            Self::Again { datagram, to } => with(conversation, *datagram, |answers, at| {
                let answer = answers[at].clone();
                answers.insert(usize::from(*to) % (answers.len() + 1), answer);
            }),
            Self::Lose { datagram } => {
                with(conversation, *datagram, |answers, at| drop(answers.remove(at)));
            }
            Self::Fail { datagram, errno } => with(conversation, *datagram, |answers, at| {
                answers[at] = Answer::Error(Errno::from_raw(i32::from(*errno)));
            }),
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
