//! The envelope that all of netfilter's messages share (`linux/netfilter/nfnetlink.h`).

use neli::{Size, ToBytes};

use super::payload::Payload;

/// `sizeof(struct nfgenmsg)`.
pub(super) const HEADER: usize = 4;
/// `NLA_F_NESTED` (`linux/netlink.h`).
const NESTED: u16 = 1 << 15;

/// `struct nfgenmsg`.
#[derive(Debug, Size, ToBytes)]
struct Header {
    family: u8,
    version: u8,
    resource: u16,
}

/// A message of a family, for attributes to come behind.
pub(super) fn message(family: u8) -> Payload {
    Payload::new(&Header { family, version: 0, resource: 0 })
}

/// The envelope of a transaction names the subsystem in network byte order.
pub(super) fn envelope(subsystem: u16) -> Payload {
    Payload::new(&Header { family: 0, version: 0, resource: subsystem.to_be() })
}

/// The type of an attribute that holds others, as netfilter has it.
pub(super) const fn nested(kind: u16) -> u16 {
    kind | NESTED
}
