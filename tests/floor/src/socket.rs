//! A netlink socket: one send for a request, then its answers, each of them looked at.

use std::ffi::c_int;
use std::mem;

use crate::fail::{errno, fail};
use crate::link::{self, Found};
use crate::message::{Answer, Request, next_answer};

/// The kernel never sends more in one answer (`netlink_dump`, `net/netlink/af_netlink.c`).
const BUFFER: usize = 32 * 1024;
const NLMSG_ERROR: u16 = libc::NLMSG_ERROR as u16;
const NLMSG_DONE: u16 = libc::NLMSG_DONE as u16;

pub struct Socket {
    /// Never closed: the end of the process does that.
    descriptor: c_int,
}

impl Socket {
    pub fn open(protocol: c_int) -> Self {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointer is passed.
        let descriptor = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
        if descriptor < 0 {
            fail("socket", errno());
        }
        let on: c_int = 1;
        // SAFETY: the pointer is to an int, whose size is passed.
        let set = unsafe {
            libc::setsockopt(
                descriptor,
                libc::SOL_NETLINK,
                libc::NETLINK_EXT_ACK,
                (&raw const on).cast(),
                mem::size_of::<c_int>() as libc::socklen_t,
            )
        };
        if set != 0 {
            fail("setsockopt", errno());
        }
        Self { descriptor }
    }

    /// Sends changes; any that fails ends the process.
    pub fn carry_out(&mut self, request: &Request) {
        self.exchange(request, |answer| {
            require_success(answer);
        });
    }

    /// Sends as many questions for one link each, with changes before them, as links are wanted.
    pub fn links<const N: usize>(&mut self, request: &Request) -> [Found; N] {
        let mut found = [Found::Nothing; N];
        let first = request.count - N as u32 + 1;
        self.exchange(request, |answer| match answer.kind {
            NLMSG_ERROR if answer.sequence >= first && error_of(answer) == libc::ENODEV => {}
            libc::RTM_NEWLINK => {
                found[(answer.sequence - first) as usize] =
                    Found::Link(link::parse(answer.payload));
            }
            _ => require_success(answer),
        });
        found
    }

    /// How many links the kernel lists as ports of a bridge. The filter is a wish, so that each is
    /// looked at.
    pub fn count_ports(&mut self, request: &Request, bridge: u32) -> usize {
        let mut count = 0;
        self.exchange(request, |answer| match answer.kind {
            libc::RTM_NEWLINK => {
                count += usize::from(link::parse(answer.payload).master == bridge);
            }
            _ => require_success(answer),
        });
        count
    }

    /// How many rules the kernel lists.
    pub fn count_rules(&mut self, request: &Request) -> usize {
        let mut count = 0;
        self.exchange(request, |answer| match answer.kind {
            crate::firewall::NEWRULE => count += 1,
            crate::firewall::NEWTABLE => {}
            _ => require_success(answer),
        });
        count
    }

    /// Sends, and reads answers until the last that is due has come. The kernel has handled the whole
    /// request when it is sent: no answer is late.
    fn exchange(&mut self, request: &Request, mut each: impl FnMut(&Answer)) {
        let bytes = request.bytes();
        // SAFETY: the pointer is to that many bytes.
        let sent = unsafe { libc::send(self.descriptor, bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent != bytes.len() as isize {
            fail("send", errno());
        }
        let mut buffer = mem::MaybeUninit::<[u8; BUFFER]>::uninit();
        loop {
            let pointer: *mut u8 = buffer.as_mut_ptr().cast();
            // SAFETY: the buffer takes that many bytes.
            let length = unsafe { libc::recv(self.descriptor, pointer.cast(), BUFFER, 0) };
            if length < 0 {
                fail("recv", errno());
            }
            // SAFETY: the kernel has written that many bytes.
            let mut rest = unsafe { std::slice::from_raw_parts(pointer, length as usize) };
            while let Some(answer) = next_answer(&mut rest) {
                each(&answer);
                let is_part_of_list = answer.kind != NLMSG_DONE && answer.kind != NLMSG_ERROR;
                let ends = answer.sequence == request.last_answered;
                if ends && !(is_part_of_list && request.ends_with_list) {
                    return;
                }
            }
        }
    }
}

fn error_of(answer: &Answer) -> i32 {
    let code = answer.payload.get(..4).and_then(|bytes| bytes.try_into().ok());
    -code.map_or(-libc::EPROTO, i32::from_ne_bytes)
}

/// Of an acknowledgement, or of the end of a list.
fn require_success(answer: &Answer) {
    let error = error_of(answer);
    if error != 0 {
        fail("the kernel refused a message", error);
    }
}
