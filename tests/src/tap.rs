//! Taps held open by the test, as QEMU holds them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::Host;
use crate::netns::Netns;

// `TUNSETIFF` is defined as writing an int but takes an ifreq.
nix::ioctl_write_ptr_bad!(tunsetiff, libc::TUNSETIFF, libc::ifreq);

/// What comes before each frame with `IFF_VNET_HDR`; all zero means nothing is left to be done.
const VNET_HEADER: usize = 10;

/// A tap that has carrier for as long as this value lives, then vanishes if it isn't persistent.
#[derive(Debug)]
pub struct Tap {
    name: String,
    queues: Vec<File>,
}

impl Tap {
    /// Opens a tap in the network of this process.
    #[must_use]
    pub fn here(name: &str) -> Self {
        open_tap(&Netns::new("/proc/self/ns/net".into()), name, 1, 0)
    }

    /// The name the kernel gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends an Ethernet frame, as the guest would.
    pub fn send(&self, frame: &[u8]) {
        let mut message = vec![0; VNET_HEADER];
        message.extend_from_slice(frame);
        (&self.queues[0]).write_all(&message).expect("a tap that is up takes frames");
    }

    /// The first queue, which reads and writes frames with a header of ten bytes before each.
    pub(crate) fn queue(&self) -> &File {
        &self.queues[0]
    }

    /// The next Ethernet frame that the guest would get, `None` when there is none in time.
    #[must_use]
    pub fn recv(&self, limit: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + limit;
        let mut buffer = [0; 65_536 + VNET_HEADER];
        loop {
            for mut queue in &self.queues {
                if let Ok(length) = queue.read(&mut buffer) {
                    return Some(buffer[VNET_HEADER..length].to_vec());
                }
            }
            let rest = end.checked_duration_since(Instant::now())?;
            let mut fds: Vec<_> = self
                .queues
                .iter()
                .map(|queue| PollFd::new(queue.as_fd(), PollFlags::POLLIN))
                .collect();
            // Rounded up, or the last millisecond would be spent spinning.
            let rest = PollTimeout::try_from(rest + Duration::from_millis(1));
            let _ = poll(&mut fds, rest.unwrap_or(PollTimeout::MAX));
        }
    }
}

impl Host {
    /// Opens a tap like QEMU does. A name with `%d` gets its number from the kernel.
    #[must_use]
    pub fn tap(&self, name: &str) -> Tap {
        open_tap(&self.net(), name, 1, 0)
    }

    /// Opens a tap with several queues.
    #[must_use]
    pub fn multi_queue_tap(&self, name: &str, queues: usize) -> Tap {
        open_tap(&self.net(), name, queues, libc::IFF_MULTI_QUEUE)
    }

    /// Makes a persistent tap that nobody holds, so that it has no carrier.
    pub fn persistent_tap(&self, name: &str) {
        self.run(&["ip", "tuntap", "add", "dev", name, "mode", "tap"]).expect("ip tuntap add");
    }
}

/// Opens a tap in a network.
pub(crate) fn open_tap(netns: &Netns, name: &str, queues: usize, flags: libc::c_int) -> Tap {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | flags;
    netns.enter(|| {
        let mut name = name.to_owned();
        let queues = (0..queues)
            .map(|_| {
                let (queue, given) = open_queue(&name, flags);
                name = given;
                queue
            })
            .collect();
        Tap { name, queues }
    })
}

/// Opens one queue in the network of the calling thread.
fn open_queue(name: &str, flags: libc::c_int) -> (File, String) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .expect("the kernel has /dev/net/tun");
    assert!(name.len() < libc::IFNAMSIZ, "{name}: too long for an interface");
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let mut request = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short },
    };
    // SAFETY: the descriptor is open and the pointer is to a whole ifreq, in which the kernel
    // may write the name.
    unsafe { tunsetiff(file.as_raw_fd(), &raw mut request) }
        .unwrap_or_else(|error| panic!("tap {name}: {error}"));
    let given =
        request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    (file, String::from_utf8(given).expect("names here are ASCII"))
}
