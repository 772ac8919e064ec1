//! Two socket options: what a table is like, and the table itself.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockFlag, SockType, socket};

use super::Layout;
use crate::kernel::attributes::read_u32;

/// `IPT_SO_GET_INFO`, `IP6T_SO_GET_INFO`: asked with a table's name, answered with a `struct
/// ipt_getinfo`.
const GET_INFO: libc::c_int = 64;
/// `IPT_SO_GET_ENTRIES`, `IP6T_SO_GET_ENTRIES`: asked with name and size (`struct ipt_get_entries`).
const GET_ENTRIES: libc::c_int = 65;
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `sizeof(struct ipt_getinfo)`: behind the name `valid_hooks`, five `hook_entry`, five `underflow`,
/// `num_entries` and `size`, 32 bits each.
const INFO: usize = NAME + 13 * 4;
const VALID_HOOKS: usize = NAME;
const HOOK_ENTRY: usize = NAME + 4;
const UNDERFLOW: usize = HOOK_ENTRY + 5 * 4;
const SIZE: usize = INFO - 4;
/// Where the entries begin in a `struct ipt_get_entries`.
const ENTRIES: usize = NAME + 8;
/// How often a table is asked for that others keep changing.
const ATTEMPTS: usize = 32;

/// A table as the kernel gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// From where the chain of the forward hook begins to where its policy is, of the entries; none: of a
    /// table without that hook.
    pub forward: Option<Range<usize>>,
    /// A `struct ipt_get_entries`.
    bytes: Vec<u8>,
}

impl Answer {
    /// The entries, one behind the other.
    pub fn entries(&self) -> &[u8] {
        self.bytes.get(ENTRIES..).unwrap_or_default()
    }

    /// One with these entries.
    #[cfg(test)]
    pub fn with(forward: Option<Range<usize>>, entries: &[u8]) -> Self {
        Self { forward, bytes: [&[0; ENTRIES][..], entries].concat() }
    }
}

/// Asks for a table. One that isn't there would be made.
pub(super) fn table(layout: &Layout, name: &str) -> io::Result<Answer> {
    // Any socket of the family's will do; this kind takes no rights.
    let socket = socket(layout.domain, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut result = Err(Errno::EAGAIN.into());
    for _ in 0..ATTEMPTS {
        result = try_table(layout, name, &socket);
        let is_changed = |error: &io::Error| error.raw_os_error() == Some(libc::EAGAIN);
        if !result.as_ref().is_err_and(is_changed) {
            break;
        }
    }
    result
}

fn try_table(layout: &Layout, name: &str, socket: &OwnedFd) -> io::Result<Answer> {
    let info = info(layout, name, socket)?;
    let number = |at: usize| read_u32(&info[at..]).unwrap_or_default() as usize;
    // Memory that is zero from the start costs nothing to clear.
    let mut bytes = vec![0; ENTRIES + number(SIZE)];
    bytes[..NAME].copy_from_slice(&info[..NAME]);
    bytes[NAME..NAME + 4].copy_from_slice(&info[SIZE..]);
    let length = option(layout, socket, GET_ENTRIES, &mut bytes)?;
    // The kernel notices no other change than one of the size.
    if self::info(layout, name, socket)? != info {
        return Err(Errno::EAGAIN.into());
    }
    bytes.truncate(length);
    let of_forward = 4 * libc::NF_INET_FORWARD as usize;
    let has_forward = number(VALID_HOOKS) & (1 << libc::NF_INET_FORWARD) != 0;
    let forward = number(HOOK_ENTRY + of_forward)..number(UNDERFLOW + of_forward);
    Ok(Answer { forward: has_forward.then_some(forward), bytes })
}

fn info(layout: &Layout, name: &str, socket: &OwnedFd) -> io::Result<[u8; INFO]> {
    let mut info = [0; INFO];
    let place = info[..NAME - 1].get_mut(..name.len()).ok_or(Errno::ENAMETOOLONG)?;
    place.copy_from_slice(name.as_bytes());
    option(layout, socket, GET_INFO, &mut info)?;
    Ok(info)
}

/// getsockopt(2) of an option that reads what it is asked from where it answers; the answer's length.
fn option(
    layout: &Layout,
    socket: impl AsFd,
    option: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let mut length = buffer.len() as libc::socklen_t;
    // SAFETY: the kernel writes no more than `length` bytes to the buffer, which has as many.
    #[allow(unsafe_code, reason = "nix reads options, and asks nothing by them")]
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            layout.level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(buffer.len().min(length as usize))
}
