//! The process itself: what it inherits from QEMU, and what it may do.

use std::fs::File;
use std::os::fd::BorrowedFd;

use caps::{CapSet, Capability};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::stat::{Mode, umask};
use nix::unistd::getuid;

/// Signals that would end or stop a run halfway. They reach the helper too when somebody presses
/// Ctrl-C or Ctrl-Z at the terminal that QEMU runs in: both are in one process group.
const HELD_OFF: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGPIPE,
];

/// Opens `/dev/null` in the place of each standard stream that is closed: the first socket would take
/// its number, and a message for people would go to the kernel.
pub fn fill_standard_streams() {
    let streams = [0, 1, 2].map(|number| {
        // SAFETY: poll only looks at the descriptors, and reports one that is closed as such.
        #[allow(unsafe_code, reason = "what may be closed can be borrowed in no other way")]
        unsafe {
            BorrowedFd::borrow_raw(number)
        }
    });
    let mut fds = streams.map(|stream| PollFd::new(stream, PollFlags::empty()));
    if poll(&mut fds, PollTimeout::ZERO).is_err() {
        return;
    }
    let is_closed =
        |fd: &PollFd<'_>| fd.revents().is_some_and(|is| is.contains(PollFlags::POLLNVAL));
    for _ in fds.iter().filter(|fd| is_closed(fd)) {
        // It gets the lowest number that is free.
        if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
            std::mem::forget(null);
        }
    }
}

/// Sets signal mask and umask, whatever QEMU has left of them. A run is short and ends whole;
/// signals that wait until then die with the process.
pub fn isolate() {
    let mut mask = SigSet::empty();
    for signal in HELD_OFF {
        mask.add(signal);
    }
    // It can only fail for an invalid argument.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None);
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
}

/// Whether the program has more rights than its caller: setuid, setgid, or with capabilities of its
/// file (`AT_SECURE`, getauxval(3)). Root's own calls have nothing to gain that way; of those the
/// kernel says so, too, when AppArmor changes the profile at exec.
#[must_use]
pub fn is_privileged_by_its_file() -> bool {
    // SAFETY: getauxval takes any number, reads what the kernel put on the stack at exec, and
    // returns 0 for what it doesn't know.
    #[allow(unsafe_code, reason = "neither std nor nix wraps getauxval")]
    let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) != 0 };
    is_secure && !getuid().is_root()
}

/// Whether the process may change the network of its user namespace. A kernel that can't be asked
/// will say no by itself.
#[must_use]
pub fn may_change_network() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(true)
}
