//! The one way out but success.

use std::ffi::CStr;

/// Says what failed and, where a system call did, how; ends the process.
pub fn fail(what: &str, errno: i32) -> ! {
    say(b"floor: ");
    say(what.as_bytes());
    if errno != 0 {
        say(b": ");
        // SAFETY: strerror gives a string that ends with NUL, for any number.
        say(unsafe { CStr::from_ptr(libc::strerror(errno)) }.to_bytes());
    }
    say(b"\n");
    // SAFETY: no pointer is passed.
    unsafe { libc::_exit(1) }
}

fn say(text: &[u8]) {
    // SAFETY: the pointer is to that many bytes. Where it can't be written nobody can be told so.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// `errno` of the call that has just failed.
pub fn errno() -> i32 {
    // SAFETY: it points at the thread's own, always.
    unsafe { *libc::__errno_location() }
}
