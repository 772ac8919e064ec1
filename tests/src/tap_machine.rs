//! A machine at the far end of a tap, made of a network namespace: a guest's network without the
//! guest.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::host::Host;
use crate::netns::Netns;
use crate::tap::{Tap, open_tap};

/// How long an answer may take, and for how long none must come.
const SOON: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(700);

/// A machine whose card is the far end of a tap of the host.
#[derive(Debug)]
pub struct TapMachine {
    net: Netns,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TapMachine {
    /// The machine's own network.
    #[must_use]
    pub fn net(&self) -> &Netns {
        &self.net
    }

    /// It gets an answer from that address and port, by TCP and by UDP.
    #[track_caller]
    pub fn assert_reaches(&self, to: &str) {
        let is_good = |answer: &io::Result<String>| {
            answer.as_ref().is_ok_and(|answer| answer.ends_with("hello"))
        };
        let answer = self.net.tcp_connect(to, "hello", SOON);
        assert!(is_good(&answer), "TCP to {to}: {answer:?}");
        let answer = self.net.udp_request(to, "hello", SOON);
        assert!(is_good(&answer), "UDP to {to}: {answer:?}");
    }

    /// It gets none, by neither.
    #[track_caller]
    pub fn assert_does_not_reach(&self, to: &str) {
        assert!(self.net.tcp_connect(to, "hello", SILENCE).is_err(), "TCP to {to}");
        assert!(self.net.udp_request(to, "hello", SILENCE).is_err(), "UDP to {to}");
    }
}

impl Drop for TapMachine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Host {
    /// Opens a tap of the host with a machine behind it, which is gone with the value.
    #[track_caller]
    #[must_use]
    pub fn tap_machine(&self, tap: &str, address: &str, gateway: &str) -> TapMachine {
        let name = format!("at-{tap}");
        self.ok(&format!("ip netns add {name}"));
        let net = self.machine(&name);
        let near = open_tap(&self.net(), tap, 1, 0);
        let far = open_tap(&net, "eth0", 1, 0);
        self.ok(&format!(
            "ip -n {name} address add {address} dev eth0 && ip -n {name} link set eth0 up &&
             ip -n {name} route add default via {gateway}"
        ));
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || carry(&near, &far, &flag));
        TapMachine { net, stop, thread: Some(thread) }
    }
}

/// Carries frames both ways until it is told to stop.
fn carry(near: &Tap, far: &Tap, stop: &AtomicBool) {
    let mut buffer = [0; 65_536 + 64];
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [near, far].map(|tap| PollFd::new(tap.queue().as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut fds, PollTimeout::from(50u8));
        for (mut from, mut to) in [(near.queue(), far.queue()), (far.queue(), near.queue())] {
            while let Ok(length) = from.read(&mut buffer) {
                // A tap that is down takes no frames, like a cable that isn't plugged in.
                let _ = to.write_all(&buffer[..length]);
            }
        }
    }
}
