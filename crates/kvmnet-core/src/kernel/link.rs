//! Asking for links, and reading what the kernel says of them (rtnetlink(7), `linux/if_link.h`).

use std::ops::ControlFlow;

use linux_raw_sys::netlink as raw;
use neli::consts::rtnl::{Ifla, IflaInfo, RtAddrFamily, Rtm};
use neli::rtnl::IfinfomsgBuilder;
use nix::errno::Errno;

use super::KernelError;
use super::attributes::{
    Attributes, Malformed, read_i32, read_string, read_u8, read_u16, read_u32, without_nul,
};
use super::batch::Batch;
use super::payload::Payload;
use super::socket::Socket;
use crate::model::{Inet6, Link, LinkKind, Mac};

/// `sizeof(struct ifinfomsg)`.
const HEADER: usize = 16;
/// `DEVCONF_DISABLE_IPV6`, the place of `disable_ipv6` in `IFLA_INET6_CONF` (`linux/ipv6.h`).
const DEVCONF_DISABLE_IPV6: usize = 26;
/// `IN6_ADDR_GEN_MODE_NONE` (`linux/if_link.h`).
pub(super) const ADDR_GEN_MODE_NONE: u8 = 1;

/// A link message: flags and index as set in `builder`, for attributes to come behind.
pub(super) fn message(builder: IfinfomsgBuilder) -> Payload {
    let header = builder.ifi_family(RtAddrFamily::Unspecified).build();
    Payload::new(&header.expect("the family is set and all else has defaults"))
}

/// Whether links are to come with their statistics, which nobody reads here.
#[derive(Clone, Copy)]
enum Statistics {
    /// They make most of an answer. But the kernel begins it at once.
    ///
    /// Of a list in which a link doesn't fit an answer nothing comes from there on but an end without an
    /// error: such a list tells what is there, and nothing of what isn't.
    With,
    /// The kernel first looks how long each link's answer would be (`rtnl_calcit`,
    /// `net/core/rtnetlink.c`), which takes 0.7 µs a link, whatever is asked for. So the list is whole.
    Without,
}

fn skip_statistics(question: &mut Payload) {
    question.put(Ifla::ExtMask, raw::RTEXT_FILTER_SKIP_STATS);
}

/// Which link is asked for.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    Name(&'a str),
    Index(u32),
}

/// Adds the question for one link; [`Errno::ENODEV`] is the answer where there is none.
fn get(batch: &mut Batch, which: Which<'_>) {
    let builder = IfinfomsgBuilder::default();
    let (mut question, what) = match which {
        Which::Name(name) => {
            let mut question = message(builder);
            question.put(Ifla::Ifname, name);
            (question, format!("look up {name}"))
        }
        Which::Index(index) => {
            let what = format!("look up the interface with index {index}");
            (message(builder.ifi_index(index as libc::c_int)), what)
        }
    };
    skip_statistics(&mut question);
    batch.get(Rtm::Getlink, question, what);
    batch.tolerate(&[Errno::ENODEV]);
}

/// Looks up several links in one send, in their order.
pub(super) fn lookup<const N: usize>(
    socket: &mut Socket,
    which: [Which<'_>; N],
) -> Result<[Option<Link>; N], KernelError> {
    let ask = |batch: &mut Batch| {
        for one in which {
            get(batch, one);
        }
    };
    let found: Vec<(usize, Link)> = socket.read(ask, |found: &mut Vec<_>, number, payload| {
        found.push((number, parse(payload)?));
        Ok(())
    })?;
    let mut links = [const { None }; N];
    for (number, link) in found {
        if let Some(place) = links.get_mut(number) {
            *place = Some(link);
        }
    }
    Ok(links)
}

/// Looks up one link.
pub(super) fn one(socket: &mut Socket, which: Which<'_>) -> Result<Option<Link>, KernelError> {
    let [link] = lookup(socket, [which])?;
    Ok(link)
}

/// All links of a kind.
pub(super) fn all_of_kind(socket: &mut Socket, kind: &str) -> Result<Vec<Link>, KernelError> {
    Ok(one_and_all_of_kind(socket, None, kind)?.1)
}

/// Looks up one link, where one is asked for, and all of a kind, in one send.
pub(super) fn one_and_all_of_kind(
    socket: &mut Socket,
    which: Option<Which<'_>>,
    kind: &str,
) -> Result<(Option<Link>, Vec<Link>), KernelError> {
    let dumped = usize::from(which.is_some());
    let ask = |batch: &mut Batch| {
        if let Some(which) = which {
            get(batch, which);
        }
        let of_kind = |question: &mut Payload| {
            question.nest(Ifla::Linkinfo, |info| {
                info.put(IflaInfo::Kind, kind);
            });
        };
        let what = format!("list the links of kind {kind}");
        push_dump(batch, of_kind, Statistics::Without, &what);
    };
    socket.read(ask, |(one, all): &mut (Option<Link>, Vec<Link>), number, payload| {
        let link = parse(payload)?;
        if number != dumped {
            *one = Some(link);
        } else if matches_kind(&link, kind) {
            // The filter is a wish: what doesn't fit can come all the same.
            all.push(link);
        }
        Ok(())
    })
}

/// The ports of one master.
pub(super) fn ports_of(socket: &mut Socket, master: &Link) -> Result<Vec<Link>, KernelError> {
    let ask = |batch: &mut Batch| push_ports(batch, master, Statistics::Without);
    socket.read(ask, |ports: &mut Vec<Link>, _, payload| {
        ports.extend(Some(parse(payload)?).filter(|port| port.master == Some(master.index)));
        Ok(())
    })
}

/// Of the ports of these masters as many as it takes to have one on each that `suffices`: of a thousand
/// the first few, as a rule. All where there is none.
pub(super) fn some_ports_of(
    socket: &mut Socket,
    masters: &[&Link],
    suffices: impl Fn(&Link) -> bool,
) -> Result<Vec<Link>, KernelError> {
    if masters.len() > FEW {
        return Ok(until_each_has_one(socket, push_all, masters, suffices)?.0);
    }
    let mut ports = Vec::new();
    for master in masters {
        let (seen, is_enough) = glance(socket, master, &suffices)?;
        ports.extend(if is_enough { seen } else { ports_of(socket, master)? });
    }
    Ok(ports)
}

/// Of how many masters the ports are best asked for one by one. The kernel goes through all links for every
/// question, but to hear of each of a thousand takes ten times as long.
const FEW: usize = 8;

/// Ports of one master, and whether one of them suffices. That there is none it doesn't tell: a link
/// that is too long for an answer ends the list ([`Statistics::With`]).
fn glance(
    socket: &mut Socket,
    master: &Link,
    suffices: impl Fn(&Link) -> bool,
) -> Result<(Vec<Link>, bool), KernelError> {
    let ask = |batch: &mut Batch| {
        push_ports(batch, master, Statistics::With);
        batch.tolerate(&[Errno::EMSGSIZE]);
    };
    until_each_has_one(socket, ask, &[master], suffices)
}

/// Reads links until each of the masters has a port that suffices; what was read of their ports, and
/// whether it came to that.
fn until_each_has_one(
    socket: &mut Socket,
    ask: impl Fn(&mut Batch),
    masters: &[&Link],
    suffices: impl Fn(&Link) -> bool,
) -> Result<(Vec<Link>, bool), KernelError> {
    let found = socket.read_until(ask, |found: &mut SomePorts, _, payload| {
        let port = parse(payload)?;
        let is_port = |master: &&Link| port.master == Some(master.index);
        let Some(master) = masters.iter().position(is_port) else {
            return Ok(ControlFlow::Continue(()));
        };
        if suffices(&port) && !found.satisfied.contains(&master) {
            found.satisfied.push(master);
        }
        found.ports.push(port);
        let is_enough = found.satisfied.len() == masters.len();
        Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok((found.ports, found.satisfied.len() == masters.len()))
}

#[derive(Default)]
struct SomePorts {
    ports: Vec<Link>,
    /// Which of the masters have one that suffices.
    satisfied: Vec<usize>,
}

/// All links of the network namespace.
pub(super) fn all(socket: &mut Socket) -> Result<Vec<Link>, KernelError> {
    socket.read(push_all, |links: &mut Vec<Link>, _, payload| {
        links.push(parse(payload)?);
        Ok(())
    })
}

fn matches_kind(link: &Link, kind: &str) -> bool {
    match &link.kind {
        LinkKind::Bridge { .. } => kind == "bridge",
        LinkKind::Tap { .. } | LinkKind::Tun => kind == "tun",
        LinkKind::Other(other) => kind == other,
    }
}

/// Adds the question for all links.
fn push_all(batch: &mut Batch) {
    push_dump(batch, |_| {}, Statistics::Without, "list the links");
}

/// Adds the question for the ports of one master.
fn push_ports(batch: &mut Batch, master: &Link, statistics: Statistics) {
    let of_master = |question: &mut Payload| {
        question.put(Ifla::Master, master.index);
    };
    push_dump(batch, of_master, statistics, &format!("list the ports of {}", master.name));
}

/// Adds the question for all links that fit.
fn push_dump(batch: &mut Batch, filter: impl Fn(&mut Payload), statistics: Statistics, what: &str) {
    let mut question = message(IfinfomsgBuilder::default());
    filter(&mut question);
    if let Statistics::Without = statistics {
        skip_statistics(&mut question);
    }
    batch.dump(Rtm::Getlink, question, what);
}

/// Reads a link message.
fn parse(payload: &[u8]) -> Result<Link, Malformed> {
    let index = payload.get(4..).and_then(read_u32).ok_or(Malformed)?;
    let flags = payload.get(8..).and_then(read_u32).ok_or(Malformed)?;
    let mut link = Link {
        index,
        name: String::new(),
        kind: LinkKind::Other(String::new()),
        master: None,
        up: flags & libc::IFF_UP as u32 != 0,
        forwarded_groups: 0,
        filters_frames: false,
        noarp: flags & libc::IFF_NOARP as u32 != 0,
        group: 0,
        carrier: false,
        mtu: 0,
        mac: None,
        alias: String::new(),
        inet6: None,
    };
    // Once through: of a thousand ports each has some ninety of them.
    Attributes::each(HEADER, payload, |kind, value| {
        match kind {
            libc::IFLA_IFNAME => link.name = read_string(value),
            libc::IFLA_IFALIAS => link.alias = read_string(value),
            libc::IFLA_MASTER => link.master = read_u32(value).filter(|&master| master != 0),
            libc::IFLA_GROUP => link.group = read_u32(value).unwrap_or_default(),
            libc::IFLA_MTU => link.mtu = read_u32(value).unwrap_or_default(),
            libc::IFLA_CARRIER => link.carrier = read_u8(value) == Some(1),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            libc::IFLA_LINKINFO => {
                let info = Info::read(value)?;
                link.kind = info.kind();
                link.forwarded_groups = info.forwarded_groups;
                link.filters_frames = info.filters_frames();
            }
            libc::IFLA_AF_SPEC => {
                let of_families = Attributes::behind(0, value)?;
                link.inet6 = inet6(of_families.nested(libc::AF_INET6 as u16)?);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(link)
}

/// What is said of a link's kind (`IFLA_LINKINFO`).
struct Info<'a> {
    /// Without its terminating NUL.
    kind: &'a [u8],
    /// What belongs to its kind.
    data: Attributes<'a>,
    /// As a port of a bridge.
    forwarded_groups: u16,
}

impl<'a> Info<'a> {
    fn read(info: &'a [u8]) -> Result<Self, Malformed> {
        let [mut kind, mut data, mut port_kind, mut port] = [&[][..]; 4];
        Attributes::each(0, info, |found, value| {
            match found {
                libc::IFLA_INFO_KIND => kind = without_nul(value),
                libc::IFLA_INFO_DATA => data = value,
                libc::IFLA_INFO_SLAVE_KIND => port_kind = without_nul(value),
                libc::IFLA_INFO_SLAVE_DATA => port = value,
                _ => {}
            }
            Ok(())
        })?;
        // Other kinds have other meanings for the numbers, and needn't have attributes at all.
        let is_known = matches!(kind, b"bridge" | b"tun");
        let data = if is_known { Attributes::behind(0, data)? } else { Attributes::default() };
        let mut forwarded_groups = 0;
        if port_kind == b"bridge" {
            Attributes::each(0, port, |found, value| {
                if found == raw::IFLA_BRPORT_GROUP_FWD_MASK as u16 {
                    forwarded_groups = read_u16(value).unwrap_or_default();
                }
                Ok(())
            })?;
        }
        Ok(Self { kind, data, forwarded_groups })
    }

    fn kind(&self) -> LinkKind {
        let data = self.data;
        match self.kind {
            b"bridge" => {
                let number = |kind| data.find(kind).and_then(read_u32).unwrap_or_default();
                LinkKind::Bridge {
                    stp: number(raw::IFLA_BR_STP_STATE as u16) != 0,
                    forward_delay: number(raw::IFLA_BR_FORWARD_DELAY as u16),
                }
            }
            b"tun" => {
                let number = |kind| data.find(kind).and_then(read_u8).unwrap_or_default();
                if libc::c_int::from(number(raw::IFLA_TUN_TYPE as u16)) == libc::IFF_TAP {
                    LinkKind::Tap { persistent: number(raw::IFLA_TUN_PERSIST as u16) != 0 }
                } else {
                    LinkKind::Tun
                }
            }
            other => LinkKind::Other(read_string(other)),
        }
    }

    fn filters_frames(&self) -> bool {
        let settings = [raw::IFLA_BR_NF_CALL_IPTABLES, raw::IFLA_BR_NF_CALL_IP6TABLES];
        let is_on = |kind| self.data.find(kind as u16).and_then(read_u8) == Some(1);
        self.kind == b"bridge" && settings.into_iter().any(is_on)
    }
}

fn inet6(settings: Attributes<'_>) -> Option<Inet6> {
    let configuration = settings.find(raw::IFLA_INET6_CONF as u16)?;
    let disable_ipv6 = configuration.get(4 * DEVCONF_DISABLE_IPV6..).and_then(read_i32);
    let mode = settings.find(raw::IFLA_INET6_ADDR_GEN_MODE as u16).and_then(read_u8);
    Some(Inet6 {
        disabled: disable_ipv6.is_some_and(|value| value != 0),
        generates_address: mode != Some(ADDR_GEN_MODE_NONE),
    })
}
