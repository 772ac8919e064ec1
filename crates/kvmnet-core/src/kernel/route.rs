//! IPv4 routes (rtnetlink(7), `linux/rtnetlink.h`).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use neli::consts::rtnl::{RtAddrFamily, RtScope, RtTable, Rtm, Rtn, Rtprot};
use neli::rtnl::RtmsgBuilder;
use nix::errno::Errno;

use super::KernelError;
use super::attributes::{Attributes, read_u32};
use super::socket::{Batch, Socket};

/// `sizeof(struct rtmsg)`.
const HEADER: usize = 12;
/// Offset of `rtnh_ifindex` in `struct rtnexthop`.
const NEXTHOP_INDEX: usize = 4;

/// A route as the kernel shows it.
pub(super) struct KernelRoute {
    pub destination: Ipv4Net,
    pub table: u32,
    /// The interface, or the first of several.
    pub interface: Option<u32>,
    /// Its metric: of two to the same destination the lower one counts.
    pub metric: u32,
}

/// The IPv4 routes, of one table or (`Unspec`) of all, that `wanted` keeps.
pub(super) fn list(
    socket: &mut Socket,
    table: RtTable,
    wanted: impl Fn(&KernelRoute) -> bool,
) -> Result<Vec<KernelRoute>, KernelError> {
    let ask = |batch: &mut Batch| {
        let message = RtmsgBuilder::default()
            .rtm_family(RtAddrFamily::Inet)
            .rtm_dst_len(0)
            .rtm_src_len(0)
            .rtm_tos(0)
            .rtm_table(table)
            .rtm_protocol(Rtprot::Unspec)
            .rtm_scope(RtScope::Universe)
            .rtm_type(Rtn::Unspec)
            .build()
            .expect("all fields without a default are set");
        batch.dump(Rtm::Getroute, message, "list the routes");
        // A network namespace that never had a route has no table either.
        batch.tolerate(&[Errno::ENOENT]);
    };
    socket.read(ask, |routes: &mut Vec<KernelRoute>, _, payload| {
        routes.extend(parse(payload).filter(&wanted));
    })
}

/// The interfaces of the default routes of the main table, that of the lowest metric first.
pub(super) fn default_interfaces(socket: &mut Socket) -> Result<Vec<u32>, KernelError> {
    let mut routes = list(socket, RtTable::Main, |route| {
        route.destination.prefix_len() == 0 && route.table == u32::from(libc::RT_TABLE_MAIN)
    })?;
    routes.sort_by_key(|route| route.metric);
    Ok(routes.iter().filter_map(|route| route.interface).collect())
}

/// Reads a route message; `None` where it is none for IPv4.
fn parse(payload: &[u8]) -> Option<KernelRoute> {
    let &[family, prefix_len, _, _, table, ..] = payload else {
        return None;
    };
    if i32::from(family) != libc::AF_INET {
        return None;
    }
    let attributes = Attributes(payload.get(HEADER..)?);
    let octets: [u8; 4] = match attributes.find(libc::RTA_DST) {
        Some(bytes) => bytes.try_into().ok()?,
        None => [0; 4],
    };
    let number = |kind| attributes.find(kind).and_then(read_u32);
    Some(KernelRoute {
        destination: Ipv4Net::new(Ipv4Addr::from(octets), prefix_len).ok()?,
        table: number(libc::RTA_TABLE).unwrap_or_else(|| u32::from(table)),
        interface: number(libc::RTA_OIF).or_else(|| first_nexthop(attributes)),
        metric: number(libc::RTA_PRIORITY).unwrap_or_default(),
    })
}

/// The interface of a multipath route's first next hop (`struct rtnexthop`).
fn first_nexthop(attributes: Attributes<'_>) -> Option<u32> {
    let nexthop = attributes.find(libc::RTA_MULTIPATH)?;
    read_u32(nexthop.get(NEXTHOP_INDEX..)?)
}
