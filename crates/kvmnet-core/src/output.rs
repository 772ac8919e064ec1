//! Where messages go: syslog and stderr, neither of which may hold up or end a run.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use log::{Level, LevelFilter};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socket};
use nix::unistd::getppid;

const SYSLOG: &str = "/dev/log";
const JOURNAL: &str = "/run/systemd/journal/socket";
/// `LOG_DAEMON` (syslog.h), shifted as in a message's priority.
const FACILITY: u8 = 3 << 3;
/// A pipe that poll(2) calls writable takes so many bytes without blocking (`PIPE_BUF`, pipe(7)).
const UNBLOCKED: usize = 4096;
/// How long to wait for a reader of stderr, in milliseconds.
const STDERR_PATIENCE: u16 = 500;
/// Name of the environment variable with the log filter, as `RUST_LOG` of `env_logger` has it.
const FILTER: &str = "KVMNET_LOG";

/// The debugging log, kept until the lock is released: stderr may be a pipe that nobody reads.
#[derive(Clone, Default)]
pub struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    /// Sends `log` into a buffer as far as `KVMNET_LOG` asks for it; without it nothing is logged.
    #[must_use]
    pub fn install() -> Self {
        let mut buffer = Self::default();
        let Ok(filter) = std::env::var(FILTER) else {
            log::set_max_level(LevelFilter::Off);
            return buffer;
        };
        // env_logger's own parser writes to stderr what it doesn't understand, and panics where
        // that takes nothing.
        if let Err(problem) = env_filter::Builder::new().try_parse(&filter) {
            let _ = writeln!(buffer, "{FILTER} is ignored: {problem}");
            log::set_max_level(LevelFilter::Off);
            return buffer;
        }
        env_logger::Builder::new()
            .parse_filters(&filter)
            .target(env_logger::Target::Pipe(Box::new(buffer.clone())))
            .format(|out, record| writeln!(out, "{}: {}", record.level(), record.args()))
            .init();
        buffer
    }

    /// What has gathered.
    #[must_use]
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One line without characters that could forge another line, steer a terminal, or turn the order of
/// what is read (U+202E, say).
#[must_use]
pub fn printable(line: &str) -> String {
    line.chars().map(|c| if is_printable(c) { c } else { '?' }).collect()
}

/// What Rust itself prints as it is, where it shows a text to a programmer.
fn is_printable(c: char) -> bool {
    !c.is_control() && !c.escape_debug().take(2).eq(['\\', 'u'])
}

/// Writes a line to the journal or, where there is none, to syslog, if it takes it at once. libc's
/// syslog(3) would wait.
///
/// A helper is gone before the journal gets to look whose unit it was in. So the journal is told in its own
/// protocol (systemd.journal-fields(7)) that the line is about the process that started this one, QEMU:
/// with that `journalctl -u` finds it.
pub fn to_syslog(program: &str, level: Level, line: &str) {
    let severity = match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let Ok(socket) = socket(AddressFamily::Unix, SockType::Datagram, flags, None) else { return };
    let send = |to: &str, message: String| {
        let to = UnixAddr::new(to)?;
        sendto(socket.as_raw_fd(), message.as_bytes(), &to, MsgFlags::MSG_NOSIGNAL)
    };
    let (id, parent, facility) = (process::id(), getppid(), FACILITY >> 3);
    let text = line.replace('\n', " ");
    let fields = format!(
        "PRIORITY={severity}\nSYSLOG_FACILITY={facility}\nSYSLOG_IDENTIFIER={program}\nSYSLOG_PID={id}\n\
         OBJECT_PID={parent}\nMESSAGE={text}\n"
    );
    if send(JOURNAL, fields).is_err() {
        let priority = FACILITY | severity;
        // No syslog, or a full one: the message is lost, the run isn't.
        let _ = send(SYSLOG, format!("<{priority}>{program}[{id}]: {line}"));
    }
}

/// Writes to stderr what it takes within half a second: QEMU's may be a pipe that nobody reads, and
/// QEMU waits for this process without a limit.
pub fn to_stderr(bytes: &[u8]) {
    let stderr = io::stderr();
    for part in bytes.chunks(UNBLOCKED) {
        let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        let ready = poll(&mut fds, PollTimeout::from(STDERR_PATIENCE));
        if ready != Ok(1) || stderr.lock().write_all(part).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_no_part_of_a_line() {
        assert_eq!(printable("a\nb\x1b[31mc\u{9b}d\u{fc}"), "a?b?[31mc?d\u{fc}");
        assert_eq!(printable("a\u{202e}b\u{2028}c\u{feff}d\u{200b}e"), "a?b?c?d?e");
        assert_eq!(printable("'a' \"b\" \\u é 中 ✓"), "'a' \"b\" \\u é 中 ✓");
    }
}
