//! The wire to the agent in a guest, and to QEMU's monitor: a socket that QEMU connects to.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Why an answer didn't come.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The time was over.
    Late,
    /// QEMU has ended.
    Ended,
}

/// One line to QEMU. The test listens and QEMU connects, so nothing said at boot is lost.
#[derive(Debug)]
pub(crate) struct Serial {
    listener: UnixListener,
    stream: Option<UnixStream>,
    received: Vec<u8>,
}

impl Serial {
    pub(crate) fn listen(path: &Path) -> Self {
        let listener =
            UnixListener::bind(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        Self { listener, stream: None, received: Vec::new() }
    }

    /// Sends a line.
    pub(crate) fn send(&mut self, line: &str) {
        let stream = self.stream.as_mut().expect("QEMU has connected");
        // It may just have ended, which the reader will see.
        let _ = stream.write_all(line.as_bytes());
        let _ = stream.write_all(b"\n");
    }

    /// Reads until the marker, and returns what came before it.
    pub(crate) fn read_until(&mut self, marker: &str, limit: Duration) -> Result<String, NoAnswer> {
        let end = Instant::now() + limit;
        loop {
            if let Some(at) = find(&self.received, marker.as_bytes()) {
                let rest = self.received.split_off(at + marker.len());
                let mut before = std::mem::replace(&mut self.received, rest);
                before.truncate(at);
                return Ok(String::from_utf8_lossy(&before).into_owned());
            }
            if Instant::now() >= end {
                return Err(NoAnswer::Late);
            }
            self.receive()?;
        }
    }

    /// What has been received and not yet been taken.
    pub(crate) fn pending(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// Whether QEMU has connected yet.
    pub(crate) fn connect(&mut self) -> bool {
        if self.stream.is_none() {
            if let Ok((stream, _)) = self.listener.accept() {
                stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.set_read_timeout(Some(Duration::from_millis(20))))
                    .expect("a socket takes a timeout");
                self.stream = Some(stream);
            }
        }
        self.stream.is_some()
    }

    /// Takes what there is, or waits a little for it.
    fn receive(&mut self) -> Result<(), NoAnswer> {
        if !self.connect() {
            std::thread::sleep(Duration::from_millis(5));
            return Ok(());
        }
        let stream = self.stream.as_mut().expect("it has just been looked at");
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(0) => Err(NoAnswer::Ended),
            Ok(length) => {
                self.received.extend_from_slice(&buffer[..length]);
                Ok(())
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(_) => Err(NoAnswer::Ended),
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
