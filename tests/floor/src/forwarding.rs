//! `net.ipv4.ip_forward`, which is looked at before it is written: writing 1 over 1 would reset what
//! hangs on it for each interface.

use std::ffi::c_int;

use crate::fail::{errno, fail};

pub struct Forwarding {
    descriptor: c_int,
    pub is_on: bool,
}

pub fn look() -> Forwarding {
    let path = c"/proc/sys/net/ipv4/ip_forward";
    // SAFETY: the path ends with NUL.
    let descriptor = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if descriptor < 0 {
        fail("open ip_forward", errno());
    }
    let mut value = [0u8; 1];
    // SAFETY: the buffer takes one byte.
    if unsafe { libc::pread(descriptor, value.as_mut_ptr().cast(), 1, 0) } != 1 {
        fail("read ip_forward", errno());
    }
    Forwarding { descriptor, is_on: value != *b"0" }
}

impl Forwarding {
    pub fn turn_on(&self) {
        // SAFETY: the text is one byte long.
        if !self.is_on && unsafe { libc::pwrite(self.descriptor, c"1".as_ptr().cast(), 1, 0) } != 1
        {
            fail("write ip_forward", errno());
        }
    }
}
