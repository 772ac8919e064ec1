//! One run at a time in a network namespace: a flock(2) that goes with its process, however it
//! ends.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use linux_raw_sys::net as raw;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, Flock, FlockArg, OFlag, openat};
use nix::sys::socket::getsockopt;
use nix::sys::stat::{Mode, SFlag, fstat, lstat, major, minor, mkdirat, stat};
use nix::unistd::{Uid, geteuid};
use nix::{getsockopt_impl, sockopt_impl};
use thiserror::Error;

/// Root's own: whoever can open the lock's file can hold it, and so stop every start of a VM.
const DIRECTORY: &str = "/run/kvmnet";
const NETWORK_NAMESPACE: &str = "/proc/self/ns/net";
const NETNS_COOKIE: libc::c_int = raw::SO_NETNS_COOKIE as libc::c_int;
const OWN_LOCKS: &str = "/proc/locks";

/// How long one and the same holder may keep the lock. Two hundred shutdowns in a row take longer,
/// each of them a fraction of a second.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked at who holds the lock.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_micros(250);
const LONGEST_PAUSE: Duration = Duration::from_millis(8);

/// Why the lock can't be had.
#[derive(Debug, Error)]
pub enum LockError {
    /// Something about the lock's directory or file.
    #[error("{}: cannot {what}; kvmnet keeps its lock there, and /run must be a writable directory", .path.display())]
    System {
        /// The file or directory.
        path: PathBuf,
        /// What was attempted, as an infinitive.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Somebody other than root could take the lock.
    #[error("{}: {problem}; remove it, kvmnet makes it anew: rm -rf {DIRECTORY}", .path.display())]
    Unsafe {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// One process holds it and doesn't let go.
    #[error("{}: held for more than 5 s by {holder}; see what it waits for, and end it if it hangs", .path.display())]
    Held {
        /// The lock's file.
        path: PathBuf,
        /// Process id and command.
        holder: String,
    },
}

sockopt_impl!(
    /// The number of the socket's network namespace (`asm-generic/socket.h`, Linux 5.14).
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    NETNS_COOKIE,
    u64
);

/// A network namespace, by a number that no other has as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace(u64);

impl Namespace {
    /// That of a socket, which is the one that its process was in.
    ///
    /// # Errors
    /// Those of getsockopt(2); on a kernel before 5.14 those of stat(2), by `/proc`.
    pub fn of_socket(socket: BorrowedFd<'_>) -> io::Result<Self> {
        match getsockopt(&socket, NetnsCookie) {
            // Only this: two runs that name one namespace by different numbers would run at once.
            Err(Errno::ENOPROTOOPT) => Ok(Self(stat(NETWORK_NAMESPACE)?.st_ino)),
            cookie => Ok(Self(cookie?)),
        }
    }

    fn lock(self) -> PathBuf {
        Path::new(DIRECTORY).join(format!("net-{}", self.0))
    }
}

/// The lock, held until dropped.
pub struct Lock {
    file: Option<Flock<File>>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Left to itself nix would panic where the system call fails. The kernel takes the lock
        // away with the process in any case.
        if let Some(Err((still_locked, _))) = self.file.take().map(Flock::unlock) {
            std::mem::forget(still_locked);
        }
    }
}

impl Lock {
    /// Takes a network namespace's lock, waiting for it where need be.
    ///
    /// # Errors
    /// [`LockError::Held`] where the same process has held it for 5 s; the others where the lock
    /// can't be made, or not safely.
    pub fn acquire(namespace: Namespace) -> Result<Self, LockError> {
        let user = geteuid();
        make_directory(user)?;
        let path = namespace.lock();
        loop {
            let file = wait(open(&path)?, &path)?;
            let found = fstat(file.as_fd()).map_err(|errno| system(&path, "look at it", errno))?;
            // Somebody may have removed the file while it was waited for, and others lock a new one.
            if found.st_nlink == 0 {
                continue;
            }
            check_owner(&path, found.st_uid, user)?;
            if found.st_mode & 0o077 != 0 {
                return Err(unsafe_at(&path, "others than its owner can open it"));
            }
            return Ok(Self { file: Some(file) });
        }
    }

    /// Whether some run has a network namespace's. This neither opens the file nor takes the lock, if
    /// only for a moment: nobody is held up. Where it can't be seen, nobody has it.
    #[must_use]
    pub fn is_held(namespace: Namespace) -> bool {
        let file = fs::symlink_metadata(namespace.lock()).ok();
        file.and_then(|file| holder_of(&file)).is_some()
    }
}

fn system(path: &Path, what: &'static str, source: impl Into<io::Error>) -> LockError {
    LockError::System { path: path.to_owned(), what, source: source.into() }
}

fn make_directory(user: Uid) -> Result<(), LockError> {
    let path = Path::new(DIRECTORY);
    let found = match lstat(path) {
        // Somebody else may make it meanwhile.
        Err(Errno::ENOENT) => match mkdirat(AT_FDCWD, path, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => lstat(path),
            Err(errno) => return Err(system(path, "make the directory", errno)),
        },
        found => found,
    };
    let found = found.map_err(|errno| system(path, "look at it", errno))?;
    let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFDIR {
        return Err(unsafe_at(path, "is not a directory"));
    }
    check_owner(path, found.st_uid, user)?;
    if found.st_mode & 0o022 != 0 {
        return Err(unsafe_at(path, "others than its owner can write to it"));
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, LockError> {
    let flags =
        OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    openat(AT_FDCWD, path, flags, Mode::S_IRUSR | Mode::S_IWUSR)
        .map(File::from)
        .map_err(|errno| system(path, "open it", errno))
}

fn check_owner(path: &Path, owner: u32, user: Uid) -> Result<(), LockError> {
    if owner == user.as_raw() { Ok(()) } else { Err(unsafe_at(path, "belongs to another user")) }
}

fn unsafe_at(path: &Path, problem: &'static str) -> LockError {
    LockError::Unsafe { path: path.to_owned(), problem }
}

/// Tries until it has the lock. A clock bounds the wait: QEMU leaves SIGALRM blocked.
fn wait(mut file: File, path: &Path) -> Result<Flock<File>, LockError> {
    let mut pause = FIRST_PAUSE;
    let mut patience = Patience::new();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EWOULDBLOCK | Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(system(path, "lock it", errno)),
        }
        if let Some(holder) = patience.exhausted_by(&file) {
            return Err(LockError::Held { path: path.to_owned(), holder });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Who has held the lock since when.
struct Patience {
    holder: Option<u32>,
    since: Instant,
    looked: Instant,
}

impl Patience {
    fn new() -> Self {
        let now = Instant::now();
        Self { holder: None, since: now, looked: now }
    }

    /// Describes the holder once it has been the same for too long.
    fn exhausted_by(&mut self, file: &File) -> Option<String> {
        let now = Instant::now();
        if now - self.looked < LOOK_EVERY {
            return None;
        }
        self.looked = now;
        let holder = file.metadata().ok().and_then(|file| holder_of(&file));
        if holder != self.holder {
            self.holder = holder;
            self.since = now;
        }
        (now - self.since >= PATIENCE).then(|| describe(holder))
    }
}

/// The process that holds a flock on the file, by `/proc/locks` (proc_locks(5)); none where it has
/// let go or can't be seen from this process id namespace.
fn holder_of(found: &fs::Metadata) -> Option<u32> {
    let (major, minor) = (major(found.dev()), minor(found.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", found.ino());
    fs::read_to_string(OWN_LOCKS).ok()?.lines().find_map(|line| holder_in(line, &file))
}

/// A line such as `3: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF`.
fn holder_in(line: &str, file: &str) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    if fields.next() != Some("FLOCK") {
        return None;
    }
    let pid = fields.nth(2)?.parse().ok()?;
    (fields.next()? == file && pid != 0).then_some(pid)
}

fn describe(holder: Option<u32>) -> String {
    let Some(pid) = holder else {
        return "a process that cannot be seen from here".to_owned();
    };
    match fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(command) => format!("process {pid} ({})", command.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_read_from_proc_locks() {
        let line = "3: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF";
        assert_eq!(holder_in(line, "00:19:1234"), Some(4711));
        assert_eq!(holder_in(line, "00:1a:1234"), None);
        assert_eq!(holder_in(line, "00:19:123"), None);
        for other in [
            "3: POSIX  ADVISORY  WRITE 4711 00:19:1234 0 EOF",
            "3: -> FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF",
            "3: FLOCK  ADVISORY  WRITE 0 00:19:1234 0 EOF",
            "3: FLOCK",
            "",
        ] {
            assert_eq!(holder_in(other, "00:19:1234"), None, "{other}");
        }
    }

    #[test]
    fn patience_begins_anew_with_each_holder() {
        let file = tempfile();
        let mut patience = Patience::new();
        assert_eq!(patience.exhausted_by(&file), None);
        let long_ago = Instant::now() - 2 * PATIENCE;
        patience.looked = long_ago;
        patience.since = long_ago;
        patience.holder = Some(1);
        // Nobody holds it now: the holder has changed.
        assert_eq!(patience.exhausted_by(&file), None);
        patience.looked = long_ago;
        patience.since = long_ago;
        assert!(patience.exhausted_by(&file).is_some());
    }

    fn tempfile() -> File {
        File::open("/proc/self/exe").unwrap()
    }
}
