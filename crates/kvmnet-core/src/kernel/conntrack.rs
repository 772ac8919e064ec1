//! Connections that the kernel tracks, over netlink (`linux/netfilter/nfnetlink_conntrack.h`), without
//! the `conntrack` program.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use neli::consts::nl::NlmF;
use nix::errno::Errno;

use super::attributes::{Attributes, Malformed};
use super::batch::Batch;
use super::nfnetlink::{self, HEADER, nested};
use super::payload::Payload;
use super::socket::Socket;
use super::{KernelError, sysctl};

/// How many connections this network namespace has.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
/// `CTA_FILTER_F_CTA_IP_SRC` (`net/netfilter/nf_internals.h`): the source address decides.
const BY_SOURCE: u32 = 1;

/// Deletions in one send: should all fail, their answers have to fit the socket's buffer.
const AT_ONCE: usize = 128;

/// Whether any connection is tracked. Where none is, nothing is asked: the question alone would load
/// the kernel's modules for it.
pub(super) fn is_in_use() -> Result<bool, KernelError> {
    let count = sysctl::read_if_there(COUNT)?;
    Ok(count.is_some_and(|count| count.first().is_some_and(|&digit| digit != b'0')))
}

/// A connection, as the kernel needs it to find it again.
#[derive(Debug)]
pub(super) struct Connection {
    origin: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

/// Deletes the IPv4 connections that somebody in one of these subnets opened or was sent, also by
/// another address (masquerade, port forwards). Of a single address the kernel finds them itself.
pub(super) fn forget(socket: &mut Socket, subnets: &[Ipv4Net]) -> Result<(), KernelError> {
    for &subnet in subnets {
        let what = format!("forget the connections of {subnet}");
        let filters: &[Option<u16>] = match subnet.prefix_len() {
            // The first says who opened it, the second who was sent it.
            32 => &[Some(CTA_TUPLE_ORIG), Some(CTA_TUPLE_REPLY)],
            _ => &[None],
        };
        for &filter in filters {
            let found = list(socket, subnet, filter, &what)?;
            for connections in found.chunks(AT_ONCE) {
                delete(socket, connections, &what)?;
            }
        }
    }
    Ok(())
}

pub(super) fn list(
    socket: &mut Socket,
    subnet: Ipv4Net,
    filter: Option<u16>,
    what: &str,
) -> Result<Vec<Connection>, KernelError> {
    let ask = |batch: &mut Batch| {
        let mut question = message();
        if let Some(tuple) = filter {
            by_source(&mut question, tuple, subnet.addr());
        }
        batch.dump(kind(IPCTNL_MSG_CT_GET), question, what);
        // A kernel without ctnetlink has no way to tell.
        batch.tolerate(&[Errno::EINVAL, Errno::EOPNOTSUPP]);
    };
    socket.read(ask, |found: &mut Vec<_>, _, payload| {
        found.extend(parse(payload, subnet)?);
        Ok(())
    })
}

/// Kernels before 5.8 don't know it, and answer with all there are.
fn by_source(question: &mut Payload, tuple: u16, address: Ipv4Addr) {
    let (origin, reply) = if tuple == CTA_TUPLE_ORIG { (BY_SOURCE, 0) } else { (0, BY_SOURCE) };
    question.nest(nested(tuple), |tuple| {
        tuple.nest(nested(CTA_TUPLE_IP), |ip| {
            ip.put(CTA_IP_V4_SRC, address.octets());
        });
    });
    // These two are in the host's byte order.
    question.nest(nested(CTA_FILTER), |flags| {
        flags.put(CTA_FILTER_ORIG_FLAGS, origin).put(CTA_FILTER_REPLY_FLAGS, reply);
    });
}

/// Reads a connection; none where nobody in the subnet has part in it.
fn parse(payload: &[u8], subnet: Ipv4Net) -> Result<Option<Connection>, Malformed> {
    let attributes = Attributes::behind(HEADER, payload)?;
    let sources =
        [source(attributes.nested(CTA_TUPLE_ORIG)?)?, source(attributes.nested(CTA_TUPLE_REPLY)?)?];
    if !sources.into_iter().flatten().any(|ip| subnet.contains(&ip)) {
        return Ok(None);
    }
    let bytes = |kind| attributes.find(kind).map(<[u8]>::to_vec);
    let connection = |origin| Connection { origin, id: bytes(CTA_ID), zone: bytes(CTA_ZONE) };
    Ok(bytes(CTA_TUPLE_ORIG).map(connection))
}

/// None where it isn't one of IPv4.
fn source(tuple: Attributes<'_>) -> Result<Option<Ipv4Addr>, Malformed> {
    let bytes = tuple.nested(CTA_TUPLE_IP)?.find(CTA_IP_V4_SRC);
    let octets = bytes.map(<[u8; 4]>::try_from).transpose().map_err(|_| Malformed)?;
    Ok(octets.map(Ipv4Addr::from))
}

fn delete(socket: &mut Socket, found: &[Connection], what: &str) -> Result<(), KernelError> {
    let mut batch = socket.batch();
    for connection in found {
        let mut delete = message();
        delete.put(nested(CTA_TUPLE_ORIG), connection.origin.as_slice());
        // By its number: one that was opened anew by the same address and port meanwhile stays.
        delete.put_any(CTA_ID, connection.id.as_deref());
        delete.put_any(CTA_ZONE, connection.zone.as_deref());
        batch.change(kind(IPCTNL_MSG_CT_DELETE), NlmF::empty(), delete, what);
        batch.tolerate(&[Errno::ENOENT]);
    }
    socket.request(batch)
}

fn message() -> Payload {
    nfnetlink::message(libc::AF_INET as u8)
}

fn kind(message: u16) -> u16 {
    ((libc::NFNL_SUBSYS_CTNETLINK as u16) << 8) | message
}
