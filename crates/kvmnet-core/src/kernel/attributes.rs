//! Reading netlink attributes in place (`struct nlattr`, netlink(7)): nothing is copied, so that a
//! thousand links cost little, and nothing is trusted.

/// The two flag bits of an attribute's type (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const TYPE_FLAGS: u16 = 0xc000;
/// `sizeof(struct nlattr)`: the length, then the type.
pub(super) const HEADER: usize = 4;

/// Netlink pads messages and attributes to four bytes.
pub(super) const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// An answer says that it has more than there is. What is left of it could be taken for the whole: a
/// port that seems to be nobody's, a bridge that seems to be unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// A run of attributes, all of which fit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Those behind a header of so many bytes.
    pub fn behind(header: usize, bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::each(header, bytes, |_, _| Ok(()))?;
        Ok(Self(&bytes[header..]))
    }

    /// Hands each of those behind a header of so many bytes to `take`, in one pass.
    pub fn each(
        header: usize,
        bytes: &'a [u8],
        mut take: impl FnMut(u16, &'a [u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut run = Self(bytes.get(header..).ok_or(Malformed)?).into_iter();
        for (kind, value) in run.by_ref() {
            take(kind, value)?;
        }
        if run.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// The value of the first attribute of `kind`.
    pub fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter().find(|&(found, _)| found == kind).map(|(_, value)| value)
    }

    /// The attributes nested in the first one of `kind`; empty where there is none.
    pub fn nested(self, kind: u16) -> Result<Attributes<'a>, Malformed> {
        Self::behind(0, self.find(kind).unwrap_or_default())
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter(self.0)
    }
}

pub(super) struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(read_u16(self.0)?);
        let kind = read_u16(self.0.get(2..)?)?;
        let value = self.0.get(HEADER..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some((kind & !TYPE_FLAGS, value))
    }
}

fn first<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

pub(super) fn read_u8(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied()
}

pub(super) fn read_u16(bytes: &[u8]) -> Option<u16> {
    first(bytes).map(u16::from_ne_bytes)
}

pub(super) fn read_u32(bytes: &[u8]) -> Option<u32> {
    first(bytes).map(u32::from_ne_bytes)
}

/// nf_tables sends its numbers in network byte order.
pub(super) fn read_be32(bytes: &[u8]) -> Option<u32> {
    first(bytes).map(u32::from_be_bytes)
}

pub(super) fn read_i32(bytes: &[u8]) -> Option<i32> {
    first(bytes).map(i32::from_ne_bytes)
}

/// The bytes of a string that may have a terminating NUL.
pub(super) fn without_nul(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(&[0]).unwrap_or(bytes)
}

/// A string with or without its terminating NUL. The kernel has names that are no UTF-8.
pub(super) fn read_string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    #[test]
    fn attributes_are_found_by_their_type_whatever_its_flags() {
        let inner = attribute(7, b"br0\0");
        let bytes = [attribute(3, &[1]), attribute(0x8000 | 18, &inner)].concat();
        let attributes = Attributes::behind(0, &bytes).unwrap();
        assert_eq!(attributes.find(3), Some(&[1][..]));
        let name = attributes.nested(18).unwrap().find(7).map(read_string);
        assert_eq!(name, Some("br0".to_owned()));
        assert_eq!(attributes.find(4), None);
        assert_eq!(attributes.nested(4).unwrap().into_iter().count(), 0);
    }

    #[test]
    fn the_last_attribute_may_lack_its_padding() {
        let mut bytes = attribute(3, &[1, 2, 3, 4]);
        bytes.extend([5, 0, 9, 0, 42]);
        assert_eq!(Attributes::behind(0, &bytes).unwrap().find(9), Some(&[42][..]));
    }

    #[test]
    fn lengths_that_lie_are_noticed() {
        for bytes in [&[3, 0, 1, 0][..], &[0, 0, 1, 0], &[200, 0, 1, 0, 9], &[4, 0, 1], &[4]] {
            assert_eq!(Attributes::behind(0, bytes).err(), Some(Malformed), "{bytes:?}");
            let behind_a_whole_one = [&attribute(3, &[1]), bytes].concat();
            assert_eq!(Attributes::behind(0, &behind_a_whole_one).err(), Some(Malformed));
            let within_one = attribute(3, bytes);
            let attributes = Attributes::behind(0, &within_one).unwrap();
            assert_eq!(attributes.nested(3).err(), Some(Malformed), "{bytes:?}");
        }
        assert_eq!(Attributes::behind(5, &[0; 4]).err(), Some(Malformed));
    }

    #[test]
    fn short_numbers_are_no_numbers() {
        assert_eq!(read_u32(&[1, 2, 3]), None);
        assert_eq!(read_be32(&[0, 0, 1, 2]), Some(258));
        assert_eq!(read_i32(&(-5i32).to_ne_bytes()), Some(-5));
        assert_eq!(read_string(b"a\xffb\0c"), "a\u{fffd}b");
    }
}
