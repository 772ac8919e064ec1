//! Reading the messages of an answer (`struct nlmsghdr`, netlink(7)), and what they say of a request.

use neli::consts::nl::NlmF;
use nix::errno::Errno;

use super::attributes::{
    Attributes, Malformed, aligned, read_i32, read_string, read_u16, read_u32,
};

/// `sizeof(struct nlmsghdr)`.
const HEADER: usize = 16;
/// The kernel's words about an error (`linux/netlink.h`).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The messages of one answer (`struct nlmsghdr`). The last is [`Malformed`] where something is left
/// that is none.
pub(super) struct Messages<'a>(pub &'a [u8]);

pub(super) struct Message<'a> {
    kind: u16,
    pub flags: u16,
    pub sequence: u32,
    payload: &'a [u8],
}

/// What a message says of the request that it answers.
pub(super) enum Outcome<'a> {
    /// An object that was asked for.
    Object(&'a [u8]),
    /// It is carried out, or its objects are complete.
    Done,
    /// It failed, with the kernel's words where it gave any.
    Failed(Errno, Option<String>),
    /// A part of it got lost (`NLMSG_OVERRUN`).
    Lost,
    /// Nothing (`NLMSG_NOOP`).
    Nothing,
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = std::mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        let Some((message, length)) = first(bytes) else {
            return Some(Err(Malformed));
        };
        self.0 = bytes.get(aligned(length)..).unwrap_or_default();
        Some(Ok(message))
    }
}

/// The message at the start, and its length without padding.
fn first(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let length = read_u32(bytes)? as usize;
    let payload = bytes.get(HEADER..length)?;
    let message = Message {
        kind: read_u16(bytes.get(4..)?)?,
        flags: read_u16(bytes.get(6..)?)?,
        sequence: read_u32(bytes.get(8..)?)?,
        payload,
    };
    Some((message, length))
}

impl<'a> Message<'a> {
    pub fn outcome(&self) -> Outcome<'a> {
        match libc::c_int::from(self.kind) {
            libc::NLMSG_ERROR | libc::NLMSG_DONE => match read_i32(self.payload) {
                Some(code) if code < 0 => {
                    Outcome::Failed(Errno::from_raw(code.wrapping_neg()), self.text())
                }
                _ => Outcome::Done,
            },
            libc::NLMSG_OVERRUN => Outcome::Lost,
            kind if kind < libc::NLMSG_MIN_TYPE => Outcome::Nothing,
            _ => Outcome::Object(self.payload),
        }
    }

    /// The kernel's words about an error, behind the request that it quotes whole or in part.
    fn text(&self) -> Option<String> {
        if self.flags & NlmF::ACK_TLVS.bits() == 0 {
            return None;
        }
        let quoted = match libc::c_int::from(self.kind) {
            libc::NLMSG_DONE => 0,
            _ if self.flags & NlmF::CAPPED.bits() != 0 => HEADER,
            _ => aligned(read_u32(self.payload.get(4..)?)? as usize),
        };
        // The words are a help and no more: an answer without them is one, too.
        let attributes = Attributes::behind(4 + quoted, self.payload).ok()?;
        attributes.find(NLMSGERR_ATTR_MSG).map(read_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: i32, flags: NlmF, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend((kind as u16).to_ne_bytes());
        bytes.extend(flags.bits().to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn only(bytes: &[u8]) -> Message<'_> {
        let mut messages = Messages(bytes);
        let message = messages.next().unwrap().unwrap();
        assert!(messages.next().is_none());
        message
    }

    #[test]
    fn an_error_carries_number_and_words() {
        let quoted = message(16, NlmF::REQUEST, 9, b"12345678");
        let mut payload = (-16i32).to_ne_bytes().to_vec();
        payload.extend(&quoted);
        payload.extend([12, 0, 1, 0]);
        payload.extend(b"no way\0\0");
        let bytes = message(libc::NLMSG_ERROR, NlmF::ACK_TLVS, 9, &payload);
        let Outcome::Failed(errno, text) = only(&bytes).outcome() else {
            panic!("no failure");
        };
        assert_eq!((errno, text.as_deref()), (Errno::EBUSY, Some("no way")));
    }

    /// neli's own parser fails on this one.
    #[test]
    fn a_success_may_carry_words_too() {
        let mut payload = 0i32.to_ne_bytes().to_vec();
        payload.extend(message(16, NlmF::REQUEST, 9, b""));
        payload.extend([12, 0, 1, 0]);
        payload.extend(b"warning\0");
        let flags = NlmF::ACK_TLVS | NlmF::CAPPED;
        let bytes = message(libc::NLMSG_ERROR, flags, 9, &payload);
        assert!(matches!(only(&bytes).outcome(), Outcome::Done));
    }

    #[test]
    fn a_dump_can_end_in_an_error() {
        let bytes = message(libc::NLMSG_DONE, NlmF::MULTI, 1, &(-12i32).to_ne_bytes());
        assert!(matches!(only(&bytes).outcome(), Outcome::Failed(Errno::ENOMEM, None)));
        let bytes = message(libc::NLMSG_DONE, NlmF::MULTI, 1, &0i32.to_ne_bytes());
        assert!(matches!(only(&bytes).outcome(), Outcome::Done));
        let bytes = message(libc::NLMSG_DONE, NlmF::MULTI, 1, &[]);
        assert!(matches!(only(&bytes).outcome(), Outcome::Done));
    }

    #[test]
    fn what_is_no_message_is_noticed() {
        let whole = message(16, NlmF::empty(), 1, &[0; 32]);
        assert_eq!(Messages(&[]).count(), 0);
        for cut in 1..whole.len() {
            let found: Vec<_> = Messages(&whole[..cut]).collect();
            assert!(matches!(found[..], [Err(Malformed)]), "{cut}");
            let behind_a_whole_one = [&whole[..], &whole[..cut]].concat();
            let found: Vec<_> = Messages(&behind_a_whole_one).collect();
            assert!(matches!(found[..], [Ok(_), Err(Malformed)]), "{cut}");
        }
        for length in [0u32, 1, 15, 17, 4000, u32::MAX] {
            let mut lying = whole.clone();
            lying[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(Messages(&lying).last().unwrap().is_err(), "{length}");
        }
        let mut least = (i32::MIN).to_ne_bytes().to_vec();
        least.extend([0xff; 40]);
        let bytes = message(libc::NLMSG_ERROR, NlmF::ACK_TLVS, 1, &least);
        assert!(matches!(only(&bytes).outcome(), Outcome::Failed(_, None)));
    }

    #[test]
    fn what_netlink_says_of_itself_is_no_object() {
        let bytes = message(libc::NLMSG_NOOP, NlmF::empty(), 1, &[0; 32]);
        assert!(matches!(only(&bytes).outcome(), Outcome::Nothing));
        let bytes = message(libc::NLMSG_OVERRUN, NlmF::empty(), 1, &[0; 32]);
        assert!(matches!(only(&bytes).outcome(), Outcome::Lost));
    }
}
