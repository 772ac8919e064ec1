//! Settings of IPv4 that rtnetlink tells (`linux/netconf.h`): no file has to be opened for them.

use neli::consts::rtnl::Rtm;

use super::KernelError;
use super::attributes::{Attributes, Malformed, read_i32};
use super::batch::Batch;
use super::payload::Payload;
use super::socket::Socket;

/// `sizeof(struct netconfmsg)`, which is one byte, aligned.
const HEADER: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_FORWARDING: u16 = 2;
/// All interfaces: what `net.ipv4.ip_forward` is for.
const NETCONFA_IFINDEX_ALL: i32 = -1;

/// Whether `net.ipv4.ip_forward` is on.
pub(super) fn forwards_ipv4(socket: &mut Socket) -> Result<bool, KernelError> {
    let what = "look up net.ipv4.ip_forward";
    let ask = |batch: &mut Batch| {
        let mut question = Payload::new(&[libc::AF_INET as u8, 0, 0, 0]);
        question.put(NETCONFA_IFINDEX, NETCONFA_IFINDEX_ALL);
        batch.get(Rtm::Getnetconf, question, what);
    };
    let found = socket.read(ask, |found: &mut Option<bool>, _, payload| {
        *found = parse(payload)?;
        Ok(())
    })?;
    found.ok_or_else(|| KernelError::Answer { what: what.to_owned(), problem: "doesn't tell" })
}

/// Whether the message says that IPv4 is forwarded on all interfaces; none where it is about another.
fn parse(payload: &[u8]) -> Result<Option<bool>, Malformed> {
    let attributes = Attributes::behind(HEADER, payload)?;
    let number = |kind| attributes.find(kind).and_then(read_i32);
    let is_of_all = payload.first().copied().map(i32::from) == Some(libc::AF_INET)
        && number(NETCONFA_IFINDEX) == Some(NETCONFA_IFINDEX_ALL);
    let forwarding = number(NETCONFA_FORWARDING).map(|value| value != 0);
    Ok(forwarding.filter(|_| is_of_all))
}
