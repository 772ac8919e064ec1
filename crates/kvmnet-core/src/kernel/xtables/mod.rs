//! The tables of x_tables, which iptables-legacy works on and netlink knows nothing of: read as the
//! kernel has them, without the host's programs (`linux/netfilter/x_tables.h`,
//! `linux/netfilter_ipv4/ip_tables.h`, `linux/netfilter_ipv6/ip6_tables.h`). To change them is left to
//! those: it takes a lock of theirs, and the extensions of every rule that is there.

use nix::sys::socket::AddressFamily;

mod ask;
mod entry;
mod rule;
mod table;
#[cfg(test)]
mod tests;

pub(super) use rule::connection;
pub use table::{LegacyTable, legacy_table};

/// What the two families have different: where the fields of an entry are (`struct ipt_entry`, `struct
/// ip6t_entry`), in bytes. (As where numbers of 64 bits begin at multiples of eight bytes, which is
/// everywhere but on i386. There the kernel takes the question for nonsense, and iptables-legacy is asked.)
#[derive(Debug)]
struct Layout {
    /// The number of the family (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
    family: u8,
    /// `AF_INET`, `AF_INET6`.
    domain: AddressFamily,
    /// The level of its socket options.
    level: libc::c_int,
    /// The length of an address.
    address: usize,
    /// `iniface`, behind which `outiface` and both masks follow.
    interfaces: usize,
    /// `flags`, behind which `invflags` follows.
    flags: usize,
    /// Of those the ones without a meaning of their own.
    idle_flags: u8,
    /// The end of what a packet must be (`struct ipt_ip`, `struct ip6t_ip6`).
    conditions: usize,
    /// `target_offset`, behind which `next_offset` follows.
    offsets: usize,
    /// The end of the entry, where matches begin.
    entry: usize,
}

static IPV4: Layout = Layout {
    family: libc::NFPROTO_IPV4 as u8,
    domain: AddressFamily::Inet,
    level: libc::SOL_IP,
    address: 4,
    interfaces: 16,
    flags: 82,
    idle_flags: 0,
    conditions: 84,
    offsets: 88,
    entry: 112,
};

static IPV6: Layout = Layout {
    family: libc::NFPROTO_IPV6 as u8,
    domain: AddressFamily::Inet6,
    level: libc::SOL_IPV6,
    address: 16,
    interfaces: 64,
    flags: 131,
    // `IP6T_F_PROTO`: whether the protocol, of which 0 is any, counts.
    idle_flags: 1,
    conditions: 133,
    offsets: 140,
    entry: 168,
};

impl Layout {
    /// That of a family.
    fn of(family: u8) -> &'static Self {
        if family == IPV4.family { &IPV4 } else { &IPV6 }
    }
}
