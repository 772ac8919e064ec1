//! The real firewalld, in a host.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::host::Host;
use crate::process::{Process, wait_until};

/// It is up in three seconds alone, and others run beside it.
const START: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(30);

/// A firewalld that runs, and the system bus that it is asked by.
#[derive(Debug)]
pub struct Firewalld<'host> {
    host: &'host Host,
    // Dropped first: it wants the bus while it ends.
    daemon: Option<Process>,
    bus: Process,
}

impl Host {
    /// Starts a system bus and firewalld, and waits until it answers. The host is one with
    /// firewalls.
    #[track_caller]
    #[must_use]
    pub fn firewalld(&self) -> Firewalld<'_> {
        self.ok("mkdir -p /run/dbus");
        let bus = ["--system", "--nofork", "--nopidfile", "--nosyslog"];
        let bus = self.spawn(self.command("dbus-daemon").args(bus));
        let listens = || self.path("/run/dbus/system_bus_socket").exists();
        assert!(wait_until(START, listens), "dbus-daemon: {}", bus.written().1);
        let mut firewalld = Firewalld { host: self, daemon: None, bus };
        firewalld.start();
        firewalld
    }
}

impl Firewalld<'_> {
    /// Starts firewalld, which doesn't run, and waits until it answers.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.daemon.is_none(), "firewalld runs already");
        let mut daemon =
            self.host.spawn(self.host.command("firewalld").args(["--nofork", "--nopid"]));
        let answers = wait_until(START, || {
            !daemon.is_running() || self.host.run(&["firewall-cmd", "--state"]).success()
        });
        assert!(answers && daemon.is_running(), "firewalld isn't up: {:?}", daemon.written());
        self.daemon = Some(daemon);
    }

    /// Stops firewalld as systemd does.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("it runs");
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait(STOP).is_some(), "firewalld still runs: {:?}", daemon.written());
    }

    /// Kills firewalld, whose rules stay.
    pub fn kill(&mut self) {
        self.daemon.take().expect("it runs").kill();
    }

    /// Stops the system bus, as a debugger would: it is there, and says nothing.
    pub fn freeze_bus(&self) {
        self.bus.signal(Signal::SIGSTOP);
    }

    /// Kills the system bus, whose socket stays.
    pub fn kill_bus(&mut self) {
        self.bus.kill();
    }

    /// Stops and starts firewalld.
    #[track_caller]
    pub fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Runs firewall-cmd with the arguments of a line, which must succeed, and returns what it said.
    #[track_caller]
    pub fn command(&self, line: &str) -> String {
        self.host.ok(&format!("firewall-cmd {line}"))
    }
}
