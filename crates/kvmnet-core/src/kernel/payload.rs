//! Writing what a message carries: its type's header, and attributes behind it (`struct nlattr`,
//! netlink(7)). All of it goes straight into one buffer.

use std::io::Cursor;

use neli::err::SerError;
use neli::{Size, ToBytes};

use super::attributes::{HEADER, aligned};

/// A header, and the attributes that were put behind it so far.
#[derive(Debug)]
pub(super) struct Payload(Cursor<Vec<u8>>);

impl Payload {
    /// Begins with a header that belongs to the message's type.
    pub fn new(header: &impl ToBytes) -> Self {
        let mut payload = Self(Cursor::new(Vec::with_capacity(256)));
        payload.write(header);
        payload
    }

    /// Adds an attribute.
    pub fn put(&mut self, kind: impl Into<u16>, value: impl ToBytes) -> &mut Self {
        self.nest(kind, |inner| inner.write(&value))
    }

    /// Adds an attribute where there is a value for it.
    pub fn put_any(&mut self, kind: impl Into<u16>, value: Option<impl ToBytes>) -> &mut Self {
        match value {
            Some(value) => self.put(kind, value),
            None => self,
        }
    }

    /// Adds an attribute that holds other attributes.
    pub fn nest(&mut self, kind: impl Into<u16>, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.0.get_ref().len();
        self.write(&0u16);
        self.write(&kind.into());
        fill(self);
        let bytes = self.0.get_mut();
        let length = bytes.len() - start;
        let told = u16::try_from(length).expect("an attribute of ours is shorter than 64 KiB");
        bytes[start..start + HEADER / 2].copy_from_slice(&told.to_ne_bytes());
        bytes.resize(start + aligned(length), 0);
        self.0.set_position(self.0.get_ref().len() as u64);
        self
    }

    fn write(&mut self, value: &impl ToBytes) {
        value.to_bytes(&mut self.0).expect("writing to memory can't fail");
    }
}

impl Size for Payload {
    fn unpadded_size(&self) -> usize {
        self.0.get_ref().len()
    }
}

impl ToBytes for Payload {
    fn to_bytes(&self, buffer: &mut Cursor<Vec<u8>>) -> Result<(), SerError> {
        self.0.get_ref().as_slice().to_bytes(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::attributes::{Attributes, read_string, read_u32};
    use super::*;

    #[test]
    fn what_was_put_is_found_again() {
        let mut payload = Payload::new(&[1u8, 2, 3, 4]);
        payload.put(3u16, "br0").put_any(4u16, None::<u32>).put_any(5u16, Some(7u32));
        payload.nest(18u16, |info| {
            info.put(1u16, [9u8]).nest(2u16, |data| {
                data.put(6u16, 8u32);
            });
        });
        payload.put(9u16, [5u8]);

        let bytes = payload.0.into_inner();
        assert_eq!(bytes.len() % 4, 0);
        let attributes = Attributes::behind(4, &bytes).unwrap();
        assert_eq!(attributes.find(3).map(read_string), Some("br0".to_owned()));
        assert_eq!(attributes.find(4), None);
        assert_eq!(attributes.find(5).and_then(read_u32), Some(7));
        let info = attributes.nested(18).unwrap();
        assert_eq!(info.find(1), Some(&[9][..]));
        assert_eq!(info.nested(2).unwrap().find(6).and_then(read_u32), Some(8));
        assert_eq!(attributes.find(9), Some(&[5][..]));
    }
}
