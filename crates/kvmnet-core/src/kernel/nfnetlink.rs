//! The envelope that all of netfilter's messages share (`linux/netfilter/nfnetlink.h`).

use neli::genl::{AttrTypeBuilder, Nlattr, NlattrBuilder};
use neli::types::{Buffer, GenlBuffer};
use neli::{Size, ToBytes};

/// `sizeof(struct nfgenmsg)`.
pub(super) const HEADER: usize = 4;

/// `struct nfgenmsg` and the attributes behind it.
#[derive(Debug, Size, ToBytes)]
pub(super) struct Message {
    family: u8,
    version: u8,
    resource: u16,
    attributes: GenlBuffer<u16, Buffer>,
}

impl Message {
    pub fn new(family: u8, attributes: Vec<Nlattr<u16, Buffer>>) -> Self {
        Self { family, version: 0, resource: 0, attributes: attributes.into_iter().collect() }
    }

    /// The envelope of a transaction names the subsystem in network byte order.
    pub fn envelope(subsystem: u16, attributes: Vec<Nlattr<u16, Buffer>>) -> Self {
        Self { resource: subsystem.to_be(), ..Self::new(0, attributes) }
    }
}

pub(super) fn attribute(kind: u16, value: impl Size + ToBytes) -> Nlattr<u16, Buffer> {
    typed(kind, false, value)
}

/// An attribute that holds other attributes.
pub(super) fn nested(kind: u16, inner: Vec<Nlattr<u16, Buffer>>) -> Nlattr<u16, Buffer> {
    typed(kind, true, inner.into_iter().collect::<GenlBuffer<u16, Buffer>>())
}

/// An attribute that holds other attributes, as the kernel gave them.
pub(super) fn nested_bytes(kind: u16, inner: &[u8]) -> Nlattr<u16, Buffer> {
    typed(kind, true, inner)
}

/// A number, in network byte order as netfilter has it.
pub(super) fn be32(kind: u16, value: u32) -> Nlattr<u16, Buffer> {
    attribute(kind, value.to_be_bytes())
}

fn typed(kind: u16, is_nested: bool, value: impl Size + ToBytes) -> Nlattr<u16, Buffer> {
    let kind = AttrTypeBuilder::default()
        .nla_type(kind)
        .nla_nested(is_nested)
        .build()
        .expect("the type is set");
    NlattrBuilder::default()
        .nla_type(kind)
        .nla_payload(value)
        .build()
        .expect("type and payload are set")
}
