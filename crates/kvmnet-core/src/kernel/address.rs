//! IPv4 addresses of links (rtnetlink(7), `linux/if_addr.h`).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifa, RtAddrFamily, RtScope, Rtm};
use neli::rtnl::IfaddrmsgBuilder;
use neli::types::RtBuffer;

use super::KernelError;
use super::attributes::{Attributes, Malformed, read_u32};
use super::batch::Batch;
use super::payload::Payload;
use super::socket::Socket;
use crate::model::Link;

/// `sizeof(struct ifaddrmsg)`.
const HEADER: usize = 8;

fn message(index: u32, prefix_len: u8) -> Payload {
    let header = IfaddrmsgBuilder::default()
        .ifa_family(RtAddrFamily::Inet)
        .ifa_prefixlen(prefix_len)
        .ifa_scope(RtScope::Universe)
        .ifa_index(index)
        .rtattrs(RtBuffer::new())
        .build();
    Payload::new(&header.expect("all fields without a default are set"))
}

/// Adds the message that gives a link an address; one that it has already stays.
pub(super) fn push_add(batch: &mut Batch, index: u32, link: &str, address: Ipv4Net) {
    let bytes = address.addr().octets();
    let mut message = message(index, address.prefix_len());
    message.put(Ifa::Local, bytes).put(Ifa::Address, bytes);
    // RFC 3021: a /31 has no broadcast address, nor has a /32.
    if address.prefix_len() < 31 {
        message.put(Ifa::Broadcast, address.broadcast().octets());
    }
    let what = format!("give {link} the address {address}");
    batch.change(Rtm::Newaddr, NlmF::CREATE | NlmF::REPLACE, message, what);
}

/// The IPv4 addresses of a link.
pub(super) fn of_link(socket: &mut Socket, link: &Link) -> Result<Vec<Ipv4Net>, KernelError> {
    let found = list(socket, link.index, format!("list the addresses of {}", link.name))?;
    let its_own = found.into_iter().filter(|(index, _)| *index == link.index);
    Ok(its_own.map(|(_, address)| address).collect())
}

/// All IPv4 addresses, each with the index of its link.
pub(super) fn all(socket: &mut Socket) -> Result<Vec<(u32, Ipv4Net)>, KernelError> {
    list(socket, 0, "list the addresses".to_owned())
}

/// The addresses of the link with this index, or (0) of all; the filter is a wish.
fn list(socket: &mut Socket, index: u32, what: String) -> Result<Vec<(u32, Ipv4Net)>, KernelError> {
    let ask = |batch: &mut Batch| {
        batch.dump(Rtm::Getaddr, message(index, 0), what.as_str());
    };
    socket.read(ask, |addresses: &mut Vec<_>, _, payload| {
        addresses.extend(parse(payload)?);
        Ok(())
    })
}

/// Reads an address message: the link's index and the address; none where it is none of IPv4.
fn parse(payload: &[u8]) -> Result<Option<(u32, Ipv4Net)>, Malformed> {
    let attributes = Attributes::behind(HEADER, payload)?;
    let &[family, prefix_len, _, _, ref index @ ..] = payload else {
        return Err(Malformed);
    };
    let index = read_u32(index).ok_or(Malformed)?;
    // IFA_LOCAL is the host's own address; IFA_ADDRESS is its peer's on a point-to-point link.
    let Some(bytes) = attributes.find(libc::IFA_LOCAL) else {
        return Ok(None);
    };
    if i32::from(family) != libc::AF_INET {
        return Ok(None);
    }
    let octets: [u8; 4] = bytes.try_into().map_err(|_| Malformed)?;
    let address = Ipv4Net::new(Ipv4Addr::from(octets), prefix_len).map_err(|_| Malformed)?;
    Ok(Some((index, address)))
}
