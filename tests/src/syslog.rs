//! The host's syslog: what its programs send to `/dev/log`.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Collects the messages; the kernel queues only a few before it makes the senders wait.
#[derive(Debug)]
pub(crate) struct Syslog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    socket: UnixDatagram,
    messages: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Shared {
    /// Takes what is queued. Under the lock, so that no message is between socket and list when
    /// somebody looks.
    fn drain(&self) -> Vec<String> {
        let mut messages = self.messages.lock().expect("no holder of the lock panics");
        let mut buffer = [0; 8192];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        messages.clone()
    }
}

impl Syslog {
    /// Listens at a path, seen through the host's root directory.
    pub(crate) fn listen(path: &Path) -> Self {
        let socket =
            UnixDatagram::bind(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // As syslogd does: everybody may write to it, programs without privileges too.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))
            .expect("root may set the mode of what it made");
        socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        let shared =
            Arc::new(Shared { socket, messages: Mutex::default(), stop: AtomicBool::new(false) });
        let listener = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !listener.stop.load(Ordering::Relaxed) {
                let mut fds = [PollFd::new(listener.socket.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut fds, PollTimeout::from(50u8));
                listener.drain();
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// All messages so far, oldest first, as they were sent.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.shared.drain()
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
