//! IPv4 routes (rtnetlink(7), `linux/rtnetlink.h`).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use neli::consts::rtnl::{RtAddrFamily, RtScope, RtTable, Rtm, Rtn, Rtprot};
use neli::rtnl::RtmsgBuilder;
use nix::errno::Errno;

use super::KernelError;
use super::attributes::{Attributes, Malformed, read_u16, read_u32};
use super::batch::Batch;
use super::socket::Socket;

/// `sizeof(struct rtmsg)`.
const HEADER: usize = 12;
/// `sizeof(struct rtnexthop)`.
const NEXTHOP: usize = 8;
/// Offset of `rtnh_ifindex` in it.
const NEXTHOP_INDEX: usize = 4;

/// A route as the kernel shows it.
#[derive(Debug)]
pub(super) struct KernelRoute {
    pub destination: Ipv4Net,
    pub table: u32,
    /// The interface, or the first of several.
    pub interface: Option<u32>,
    /// All of them.
    pub interfaces: Vec<u32>,
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
        routes.extend(parse(payload)?.filter(&wanted));
        Ok(())
    })
}

/// The interfaces of the default routes of the main table, that of the lowest metric first.
pub(super) fn default_interfaces(socket: &mut Socket) -> Result<Vec<u32>, KernelError> {
    let mut routes = list(socket, RtTable::Main, |route| {
        route.destination.prefix_len() == 0 && route.table == u32::from(libc::RT_TABLE_MAIN)
    })?;
    routes.sort_by_key(|route| route.metric);
    Ok(routes.into_iter().flat_map(|route| route.interfaces).collect())
}

/// Reads a route message; none where it is none of IPv4.
fn parse(payload: &[u8]) -> Result<Option<KernelRoute>, Malformed> {
    let attributes = Attributes::behind(HEADER, payload)?;
    let &[family, prefix_len, _, _, table, ..] = payload else {
        return Err(Malformed);
    };
    if i32::from(family) != libc::AF_INET {
        return Ok(None);
    }
    let octets: [u8; 4] = match attributes.find(libc::RTA_DST) {
        Some(bytes) => bytes.try_into().map_err(|_| Malformed)?,
        None => [0; 4],
    };
    let number = |kind| attributes.find(kind).and_then(read_u32);
    let interfaces = match number(libc::RTA_OIF) {
        Some(interface) => vec![interface],
        None => nexthops(attributes.find(libc::RTA_MULTIPATH).unwrap_or_default())?,
    };
    let destination = Ipv4Net::new(Ipv4Addr::from(octets), prefix_len).map_err(|_| Malformed)?;
    Ok(Some(KernelRoute {
        destination,
        table: number(libc::RTA_TABLE).unwrap_or_else(|| u32::from(table)),
        interface: interfaces.first().copied(),
        interfaces,
        metric: number(libc::RTA_PRIORITY).unwrap_or_default(),
    }))
}

/// The interfaces of a multipath route's next hops (`struct rtnexthop`, one behind the other).
fn nexthops(mut rest: &[u8]) -> Result<Vec<u32>, Malformed> {
    let mut interfaces = Vec::new();
    while !rest.is_empty() {
        let length = read_u16(rest).map(usize::from).ok_or(Malformed)?;
        let hop = rest.get(..length).filter(|hop| hop.len() >= NEXTHOP).ok_or(Malformed)?;
        interfaces.push(hop.get(NEXTHOP_INDEX..).and_then(read_u32).ok_or(Malformed)?);
        // Padded to four bytes (`RTNH_ALIGN`).
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(interfaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Next hops over these interfaces, each with as many bytes of attributes.
    fn multipath(hops: &[(u32, usize)]) -> Vec<u8> {
        let mut hops_bytes = Vec::new();
        for &(interface, attributes) in hops {
            let length = (NEXTHOP + attributes) as u16;
            hops_bytes.extend(length.to_ne_bytes());
            hops_bytes.extend([0, 0]);
            hops_bytes.extend(interface.to_ne_bytes());
            hops_bytes.resize(hops_bytes.len() + attributes.next_multiple_of(4), 0);
        }
        hops_bytes
    }

    #[test]
    fn every_next_hop_is_read() {
        let hops = multipath(&[(3, 8), (7, 0), (9, 5)]);
        assert_eq!(nexthops(&hops), Ok(vec![3, 7, 9]));
        assert_eq!(nexthops(&[]), Ok(vec![]));
        for length in [0, 7, 17, 255] {
            let mut broken = multipath(&[(3, 8)]);
            broken[0] = length;
            assert_eq!(nexthops(&broken), Err(Malformed), "{length}");
        }
    }
}
