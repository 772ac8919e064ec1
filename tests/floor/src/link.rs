//! rtnetlink's messages for links and addresses (rtnetlink(7)).

use crate::message::{Request, next_attribute};

/// `RTEXT_FILTER_SKIP_STATS` (`linux/rtnetlink.h`).
const WITHOUT_STATISTICS: u32 = 8;
/// The bridge's own, as kvmnet's default network has it.
const BRIDGE_MAC: [u8; 6] = [0x02, 0x6b, 0x76, 0x20, 0xc5, 0xfe];
/// The link group of kvmnet's bridges.
const GROUP: u32 = 0x6b76;
/// Any that is free; the message after the one that makes the bridge needs it.
const BRIDGE_INDEX: u32 = 0x6b_7600;
/// 192.168.100.1/24.
const ADDRESS: [u8; 4] = [192, 168, 100, 1];
const BROADCAST: [u8; 4] = [192, 168, 100, 255];
const PREFIX_LENGTH: u8 = 24;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
/// `sizeof(struct ifinfomsg)`.
const HEADER: usize = 16;
const UP: u32 = libc::IFF_UP as u32;

/// What the floor has to know of a link.
#[derive(Clone, Copy)]
pub struct Link {
    pub index: u32,
    pub master: u32,
    pub mtu: u32,
    pub is_marked: bool,
}

/// An answer to a question for one link.
#[derive(Clone, Copy)]
pub enum Found {
    Link(Link),
    Nothing,
}

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

pub fn get_by_name(request: &mut Request, name: &[u8]) {
    request.message(libc::RTM_GETLINK, 0, &header(0, 0, 0));
    request.attribute(libc::IFLA_IFNAME, name);
    request.ne32(libc::IFLA_EXT_MASK, WITHOUT_STATISTICS);
}

pub fn get_by_index(request: &mut Request, index: u32) {
    request.message(libc::RTM_GETLINK, 0, &header(index, 0, 0));
    request.ne32(libc::IFLA_EXT_MASK, WITHOUT_STATISTICS);
}

pub fn list_ports(request: &mut Request, bridge: u32) {
    request.message(libc::RTM_GETLINK, libc::NLM_F_DUMP, &header(0, 0, 0));
    request.ne32(libc::IFLA_MASTER, bridge);
    request.ne32(libc::IFLA_EXT_MASK, WITHOUT_STATISTICS);
}

/// Makes the bridge, marks it (the kernel ignores an alias in the message that makes a link), and asks
/// for it.
pub fn make_bridge(request: &mut Request, mark: &[u8]) {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL | libc::NLM_F_ACK;
    request.message(libc::RTM_NEWLINK, flags, &header(BRIDGE_INDEX, UP, UP));
    request.attribute(libc::IFLA_IFNAME, crate::BRIDGE);
    request.attribute(libc::IFLA_ADDRESS, &BRIDGE_MAC);
    request.ne32(libc::IFLA_GROUP, GROUP);
    request.nested(libc::IFLA_LINKINFO, |info| {
        info.attribute(libc::IFLA_INFO_KIND, b"bridge\0");
        info.nested(libc::IFLA_INFO_DATA, |data| {
            data.ne32(IFLA_BR_FORWARD_DELAY, 0);
            data.ne32(IFLA_BR_STP_STATE, 0);
        });
    });
    request.message(libc::RTM_NEWLINK, 0, &header(BRIDGE_INDEX, 0, 0));
    request.attribute(libc::IFLA_IFALIAS, mark);
    no_inet6_address(request);
    get_by_index(request, BRIDGE_INDEX);
}

pub fn add_address(request: &mut Request, index: u32) {
    // `struct ifaddrmsg`.
    let mut header = [libc::AF_INET as u8, PREFIX_LENGTH, 0, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE | libc::NLM_F_ACK;
    request.message(libc::RTM_NEWADDR, flags, &header);
    request.attribute(libc::IFA_LOCAL, &ADDRESS);
    request.attribute(libc::IFA_ADDRESS, &ADDRESS);
    request.attribute(libc::IFA_BROADCAST, &BROADCAST);
}

/// Makes a tap a port: first it is kept from having an IPv6 address, which has to be a message of its
/// own, then it gets all else in one, so that the bridge keeps its address and its MTU.
pub fn attach(request: &mut Request, tap: &Link, name: &[u8], bridge: u32, mtu: u32) {
    request.message(libc::RTM_NEWLINK, 0, &header(tap.index, 0, UP));
    no_inet6_address(request);
    request.message(libc::RTM_NEWLINK, libc::NLM_F_ACK, &header(tap.index, UP, UP));
    request.attribute(libc::IFLA_ADDRESS, &mac_of_tap(name));
    request.ne32(libc::IFLA_MTU, mtu);
    request.ne32(libc::IFLA_MASTER, bridge);
}

fn no_inet6_address(request: &mut Request) {
    request.nested(libc::IFLA_AF_SPEC, |families| {
        families.nested(libc::AF_INET6 as u16, |inet6| {
            inet6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
        });
    });
}

pub fn release(request: &mut Request, index: u32) {
    request.message(libc::RTM_NEWLINK, libc::NLM_F_ACK, &header(index, 0, UP));
    request.ne32(libc::IFLA_MASTER, 0);
}

pub fn delete(request: &mut Request, index: u32) {
    request.message(libc::RTM_DELLINK, libc::NLM_F_ACK, &header(index, 0, 0));
}

/// Reads a link out of `RTM_NEWLINK`.
pub fn parse(payload: &[u8]) -> Link {
    let number = |bytes: &[u8]| {
        bytes.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
    };
    let index = number(payload.get(4..).unwrap_or_default());
    let mut link = Link { index, master: 0, mtu: 0, is_marked: false };
    let mut rest = payload.get(HEADER..).unwrap_or_default();
    while let Some((kind, value)) = next_attribute(&mut rest) {
        match kind {
            libc::IFLA_MASTER => link.master = number(value),
            libc::IFLA_MTU => link.mtu = number(value),
            libc::IFLA_IFALIAS => link.is_marked = value.starts_with(crate::MARK),
            _ => {}
        }
    }
    link
}

/// As kvmnet derives it: 0xFE and five bytes of the name's hash (FNV-1a).
fn mac_of_tap(name: &[u8]) -> [u8; 6] {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.iter().take_while(|byte| **byte != 0) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let hash = hash.to_be_bytes();
    [0xfe, hash[3], hash[4], hash[5], hash[6], hash[7]]
}
