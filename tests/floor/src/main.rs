//! The floor that kvmnet is measured against: for each verb the messages that the kernel has to get,
//! and nothing else. No options, no files, no lock, no log, no look at anybody else's firewall, no way
//! back after a failure. It is frozen: kvmnet is tuned toward it, it isn't tuned.
//!
//! `floor ifup|ifdown|natup|natdown IFNAME`. The messages of each verb stand in docs/performance.md.
//! Without the runtime of std, whose start-up costs what isn't netlink's.
#![no_main]

mod fail;
mod firewall;
mod forwarding;
mod link;
mod message;
mod socket;

use std::ffi::{CStr, c_char, c_int};

use fail::fail;
use link::{Found, Link};
use message::Request;
use socket::Socket;

const BRIDGE: &[u8] = b"br0\0";
const MARK: &[u8] = b"kvmnet:default";
/// The mark of a network for which forwarding was turned on.
const MARK_FORWARDING: &[u8] = b"kvmnet:default:forwarding";

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    if count != 3 {
        fail("usage: floor ifup|ifdown|natup|natdown IFNAME", 0);
    }
    // SAFETY: the system hands `main` as many strings as it says, each ended by NUL.
    let [verb, tap] = [1, 2].map(|n| unsafe { CStr::from_ptr(*arguments.add(n)) });
    let mut kernel = Socket::open(libc::NETLINK_ROUTE);
    let tap = tap.to_bytes_with_nul();
    match verb.to_bytes() {
        b"ifup" => ifup(&mut kernel, tap),
        b"ifdown" => ifdown(&mut kernel, tap),
        b"natup" => natup(&mut kernel, tap),
        b"natdown" => natdown(&mut kernel, tap),
        _ => fail("no such verb", 0),
    }
    0
}

fn ifup(kernel: &mut Socket, name: &[u8]) {
    let (tap, bridge) = look(kernel, name);
    let Some(bridge) = bridge else { fail("no bridge", libc::ENODEV) };
    let mut request = Request::new();
    link::attach(&mut request, &tap, name, bridge.index, bridge.mtu);
    kernel.carry_out(&request);
}

fn ifdown(kernel: &mut Socket, name: &[u8]) {
    let mut request = Request::new();
    link::get_by_name(&mut request, name);
    let [Found::Link(tap)] = kernel.links(&request) else { fail("no tap", libc::ENODEV) };
    let mut request = Request::new();
    link::release(&mut request, tap.index);
    kernel.carry_out(&request);
}

fn natup(kernel: &mut Socket, name: &[u8]) {
    let (tap, bridge) = look(kernel, name);
    let mut firewall = Socket::open(libc::NETLINK_NETFILTER);
    let mut request = Request::new();
    let Some(bridge) = bridge else {
        let forwarding = forwarding::look();
        firewall.carry_out(&firewall::install());
        link::make_bridge(&mut request, if forwarding.is_on { MARK } else { MARK_FORWARDING });
        let [Found::Link(bridge)] = kernel.links(&request) else { fail("no bridge made", 0) };
        let mut request = Request::new();
        link::add_address(&mut request, bridge.index);
        link::attach(&mut request, &tap, name, bridge.index, bridge.mtu);
        kernel.carry_out(&request);
        forwarding.turn_on();
        return;
    };
    require_mark(&bridge);
    if firewall.count_rules(&firewall::list()) != firewall::RULES {
        fail("other rules than ours", 0);
    }
    link::attach(&mut request, &tap, name, bridge.index, bridge.mtu);
    kernel.carry_out(&request);
}

fn natdown(kernel: &mut Socket, name: &[u8]) {
    let mut request = Request::new();
    link::get_by_name(&mut request, name);
    let [Found::Link(tap)] = kernel.links(&request) else { fail("no tap", libc::ENODEV) };
    let mut request = Request::new();
    link::get_by_index(&mut request, tap.master);
    let [Found::Link(bridge)] = kernel.links(&request) else { fail("no port", libc::ENODEV) };
    require_mark(&bridge);
    let mut request = Request::new();
    link::release(&mut request, tap.index);
    kernel.carry_out(&request);
    let mut request = Request::new();
    link::list_ports(&mut request, bridge.index);
    if kernel.count_ports(&request, bridge.index) > 0 {
        return;
    }
    // It stays open until the bridge is gone: closing it waits for the deletion of the table, and the
    // two waits overlap.
    let mut firewall = Socket::open(libc::NETLINK_NETFILTER);
    firewall.carry_out(&firewall::remove());
    let mut request = Request::new();
    link::delete(&mut request, bridge.index);
    kernel.carry_out(&request);
}

/// The tap, which has to be there, and the bridge.
fn look(kernel: &mut Socket, tap: &[u8]) -> (Link, Option<Link>) {
    let mut request = Request::new();
    link::get_by_name(&mut request, tap);
    link::get_by_name(&mut request, BRIDGE);
    match kernel.links(&request) {
        [Found::Link(tap), Found::Link(bridge)] => (tap, Some(bridge)),
        [Found::Link(tap), Found::Nothing] => (tap, None),
        [Found::Nothing, _] => fail("no tap", libc::ENODEV),
    }
}

fn require_mark(bridge: &Link) {
    if !bridge.is_marked {
        fail("the bridge isn't kvmnet's", 0);
    }
}
