//! Who is behind a port: what a bridge and the host have learnt from a guest's own frames
//! (rtnetlink(7), `linux/neighbour.h`).

use std::net::Ipv4Addr;

use linux_raw_sys::netlink as raw;
use neli::consts::rtnl::{Nda, Nud, RtAddrFamily, Rtm, Rtn};
use neli::rtnl::NdmsgBuilder;
use neli::types::RtBuffer;

use super::KernelError;
use super::attributes::{Attributes, Malformed, read_u16, read_u32};
use super::batch::Batch;
use super::payload::Payload;
use super::socket::Socket;
use crate::model::{Link, Mac};

/// `sizeof(struct ndmsg)`.
const HEADER: usize = 12;
/// Learnt, and not of the host's own making: an entry of either table in one of these states.
const LEARNT: u16 = (raw::NUD_REACHABLE | raw::NUD_STALE | raw::NUD_DELAY | raw::NUD_PROBE) as u16;

/// The IPv4 addresses that the host, by way of this bridge, has found at the MAC addresses that the
/// bridge has learnt from the port.
pub(super) fn addresses_behind(
    socket: &mut Socket,
    bridge: u32,
    port: &Link,
) -> Result<Vec<Ipv4Addr>, KernelError> {
    let family = RtAddrFamily::from(libc::AF_BRIDGE as u8);
    let what = format!("list what is behind {}", port.name);
    let of_port = Question { family, index: port.index, interface: None };
    let macs: Vec<Mac> = list(socket, &of_port, &what, |entry| {
        Some(entry.mac).filter(|_| entry.index == port.index)
    })?;
    if macs.is_empty() {
        return Ok(Vec::new());
    }
    let on_bridge = Question { family: RtAddrFamily::Inet, index: 0, interface: Some(bridge) };
    list(socket, &on_bridge, &what, |entry| {
        entry.address.filter(|_| entry.index == bridge && macs.contains(&entry.mac))
    })
}

/// A question that can be put again.
struct Question {
    family: RtAddrFamily,
    index: u32,
    /// `NDA_IFINDEX`.
    interface: Option<u32>,
}

impl Question {
    fn message(&self) -> Payload {
        let header = NdmsgBuilder::default()
            .ndm_family(self.family)
            .ndm_index(self.index as libc::c_int)
            .ndm_state(Nud::empty())
            .ndm_type(Rtn::Unspec)
            .rtattrs(RtBuffer::new())
            .build();
        let mut message = Payload::new(&header.expect("all fields without a default are set"));
        message.put_any(Nda::Ifindex, self.interface);
        message
    }
}

fn list<T>(
    socket: &mut Socket,
    question: &Question,
    what: &str,
    wanted: impl Fn(Entry) -> Option<T>,
) -> Result<Vec<T>, KernelError> {
    let ask = |batch: &mut Batch| batch.dump(Rtm::Getneigh, question.message(), what);
    socket.read(ask, |found: &mut Vec<T>, _, payload| {
        found.extend(parse(payload)?.and_then(&wanted));
        Ok(())
    })
}

struct Entry {
    index: u32,
    mac: Mac,
    address: Option<Ipv4Addr>,
}

/// Reads a neighbour message; none where nobody was learnt.
fn parse(payload: &[u8]) -> Result<Option<Entry>, Malformed> {
    let attributes = Attributes::behind(HEADER, payload)?;
    let index = payload.get(4..).and_then(read_u32).ok_or(Malformed)?;
    let state = payload.get(8..).and_then(read_u16).ok_or(Malformed)?;
    let mac = attributes.find(raw::NDA_LLADDR as u16).and_then(|bytes| bytes.try_into().ok());
    let address = attributes.find(raw::NDA_DST as u16);
    Ok(mac.filter(|_| state & LEARNT != 0).map(|mac| Entry {
        index,
        mac: Mac(mac),
        address: address.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(Ipv4Addr::from),
    }))
}
