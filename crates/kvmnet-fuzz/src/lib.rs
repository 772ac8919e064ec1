//! Ways in which bytes that a program reads can be wrong.
//!
//! A fuzz test takes a real input and any number of [`Damage`]s: random bytes alone would seldom get
//! past the first look of a parser.

use bolero::TypeGenerator;

/// Something wrong. Places count round and round, so that each is one.
#[derive(Debug, Clone, PartialEq, Eq, TypeGenerator)]
pub enum Damage {
    /// Bits of a byte are others.
    Bits {
        /// Where.
        at: u16,
        /// Those that change.
        mask: u8,
    },
    /// A number of two bytes, at an even place, is another.
    Word {
        /// Where.
        at: u16,
        /// What is there now, in the host's byte order.
        value: u16,
    },
    /// A number of four bytes, at a place that is a multiple of four, is another.
    Number {
        /// Where.
        at: u16,
        /// What is there now, in the host's byte order.
        value: u32,
    },
    /// A byte at a place that is a multiple of four, as lengths have it, is a little more or less.
    Length {
        /// Where.
        at: u16,
        /// How much more.
        by: i8,
    },
    /// The rest is missing.
    Cut {
        /// From where on.
        at: u16,
    },
    /// Some bytes are missing.
    Remove {
        /// From where on.
        at: u16,
        /// How many.
        count: u8,
    },
    /// Some bytes are too many.
    Insert {
        /// Before what.
        at: u16,
        /// These.
        bytes: Vec<u8>,
    },
    /// A piece that means something is too many.
    Piece {
        /// Before what.
        at: u16,
        /// Which.
        number: u8,
    },
    /// Some bytes come again.
    Repeat {
        /// From where on.
        at: u16,
        /// How many.
        count: u16,
    },
}

impl Damage {
    /// Does it to these bytes. Of no bytes only something that is added makes others.
    pub fn apply(&self, bytes: &mut Vec<u8>, pieces: &[&str]) {
        let length = bytes.len();
        let place = |at: u16| usize::from(at) % (length + 1);
        let aligned = |at: u16, to: usize| place(at) / to * to;
        match self {
            Self::Bits { at, mask } => {
                if let Some(byte) = bytes.get_mut(place(*at)) {
                    *byte ^= mask;
                }
            }
            Self::Word { at, value } => write(bytes, aligned(*at, 2), &value.to_ne_bytes()),
            Self::Number { at, value } => write(bytes, aligned(*at, 4), &value.to_ne_bytes()),
            Self::Length { at, by } => {
                if let Some(byte) = bytes.get_mut(aligned(*at, 4)) {
                    *byte = byte.wrapping_add_signed(*by);
                }
            }
            Self::Cut { at } => bytes.truncate(place(*at)),
            Self::Remove { at, count } => {
                let from = place(*at);
                bytes.drain(from..length.min(from + usize::from(*count)));
            }
            Self::Insert { at, bytes: new } => insert(bytes, place(*at), new),
            Self::Piece { at, number } => {
                if let Some(number) = usize::from(*number).checked_rem(pieces.len()) {
                    insert(bytes, place(*at), pieces[number].as_bytes());
                }
            }
            Self::Repeat { at, count } => {
                let from = place(*at);
                let part = bytes[from..length.min(from + usize::from(*count))].to_vec();
                insert(bytes, from, &part);
            }
        }
    }
}

fn write(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..].iter_mut().zip(value).for_each(|(byte, new)| *byte = *new);
}

fn insert(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    drop(bytes.splice(at..at, new.iter().copied()));
}

/// One of these texts, with damages: as bytes, which needn't be a text any more.
///
/// # Panics
/// Where there is no text.
#[must_use]
pub fn damaged(texts: &[&str], which: u8, damages: &[Damage], pieces: &[&str]) -> Vec<u8> {
    let mut bytes = texts[usize::from(which) % texts.len()].as_bytes().to_vec();
    damages.iter().for_each(|damage| damage.apply(&mut bytes, pieces));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(damage: Damage) -> Vec<u8> {
        let mut bytes = b"0123456789".to_vec();
        damage.apply(&mut bytes, &["a", "piece"]);
        bytes
    }

    #[test]
    fn each_does_what_it_says() {
        assert_eq!(after(Damage::Bits { at: 1, mask: 3 }), b"0223456789");
        let value = u16::from_ne_bytes(*b"xy");
        assert_eq!(after(Damage::Word { at: 3, value }), b"01xy456789");
        let value = u32::from_ne_bytes(*b"wxyz");
        assert_eq!(after(Damage::Number { at: 10, value }), b"01234567wx");
        assert_eq!(after(Damage::Length { at: 7, by: -1 }), b"0123356789");
        assert_eq!(after(Damage::Cut { at: 12 }), b"0");
        assert_eq!(after(Damage::Remove { at: 8, count: 9 }), b"01234567");
        assert_eq!(after(Damage::Insert { at: 10, bytes: b"x".to_vec() }), b"0123456789x");
        assert_eq!(after(Damage::Piece { at: 0, number: 3 }), b"piece0123456789");
        assert_eq!(after(Damage::Repeat { at: 8, count: 2 }), b"012345678989");
    }

    #[test]
    fn no_place_is_beyond_the_end() {
        bolero::check!().with_type::<(Vec<u8>, Vec<Damage>)>().for_each(|(bytes, damages)| {
            let mut bytes = bytes.clone();
            for damage in damages {
                damage.apply(&mut bytes, &[]);
                bytes.truncate(1 << 12);
            }
        });
    }
}
