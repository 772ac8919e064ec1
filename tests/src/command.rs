//! kvmnet's programs as administrators and QEMU run them.

use crate::host::Host;
use crate::process::{Output, PATIENCE, Process};
use crate::tap::Tap;

impl Host {
    /// Runs the administrator's command.
    #[track_caller]
    pub fn kvmnet(&self, arguments: &[&str]) -> Output {
        Process::start(self.command("kvmnet").args(arguments)).output(PATIENCE)
    }

    /// Runs the administrator's command, which must succeed without a word on stderr, and returns
    /// what it printed.
    #[track_caller]
    pub fn kvmnet_ok(&self, arguments: &[&str]) -> String {
        let output = self.kvmnet(arguments);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{arguments:?}: {output:?}");
        output.stdout
    }

    /// The command fails with exactly this line, prints nothing else, and changes nothing.
    #[track_caller]
    pub fn kvmnet_refuses(&self, arguments: &[&str], wanted: &str) {
        let before = self.foreign();
        let output = self.kvmnet(arguments);
        assert_eq!(output.stderr, format!("kvmnet: {wanted}\n"), "{arguments:?}");
        assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{arguments:?}");
        crate::foreign::assert_same(&before, &self.foreign());
    }

    /// Runs a helper for a tap of that network.
    #[track_caller]
    pub fn run_helper_on(&self, network: &str, name: &str, tap: &str) -> Output {
        let mut command = self.command(&format!("/usr/libexec/kvmnet-{name}"));
        Process::start(command.arg(tap).env("KVMNET_NETWORK", network)).output(PATIENCE)
    }

    /// The same, which must succeed.
    #[track_caller]
    pub fn helper_on(&self, network: &str, name: &str, tap: &str) {
        let output = self.run_helper_on(network, name, tap);
        output.expect(&format!("{name} {tap} on {network}"));
    }

    /// The same, which must succeed without a word.
    #[track_caller]
    pub fn quiet_helper_on(&self, network: &str, name: &str, tap: &str) {
        let output = self.run_helper_on(network, name, tap);
        assert_eq!((output.code, output.stderr.as_str(), output.stdout.as_str()), (0, "", ""));
    }

    /// Opens a tap and makes it a port of that network.
    #[track_caller]
    #[must_use]
    pub fn tap_on(&self, network: &str, name: &str) -> Tap {
        let tap = self.tap(name);
        self.helper_on(network, "natup", name);
        tap
    }

    /// Runs the administrator's command as a user without any privileges.
    #[track_caller]
    pub fn kvmnet_unprivileged(&self, arguments: &[&str]) -> Output {
        let options =
            "--reuid 1000 --regid 1000 --clear-groups --bounding-set=-all --inh-caps=-all";
        let mut command = self.command("setpriv");
        command.args(options.split(' ')).arg("kvmnet").args(arguments);
        Process::start(&mut command).output(PATIENCE)
    }

    /// Writes a network's file.
    pub fn describe(&self, network: &str, text: &str) {
        self.write(format!("/etc/kvmnet/{network}.toml"), text);
    }

    /// Runs a program under strace; its output, and what strace saw, a line a call.
    #[track_caller]
    pub fn strace(&self, options: &[&str], program: &[&str]) -> (Output, String) {
        let mut strace = self.command("strace");
        strace.args(["-qq", "-o", "/run/strace"]).args(options).args(program);
        let output = Process::start(&mut strace).output(PATIENCE);
        (output, self.ok("cat /run/strace"))
    }

    /// Every system call that a program makes, as its name and how many of that name it is. Those that
    /// the kernel restarts by itself count once: a write to an IPv6 sysctl is restarted for as long as
    /// somebody else on the machine holds RTNL (`restart_syscall` in net/ipv6/addrconf.c).
    #[track_caller]
    pub fn system_calls(&self, program: &[&str]) -> Vec<(String, usize)> {
        let (output, trace) = self.strace(&[], program);
        assert!(output.success(), "{output:?}");
        calls_in(&trace)
    }
}

/// The system calls that strace saw, as [`Host::system_calls`] has them.
#[must_use]
pub fn calls_in(trace: &str) -> Vec<(String, usize)> {
    let mut calls: Vec<(String, usize)> = Vec::new();
    for line in trace.lines().filter(|line| !line.ends_with("(To be restarted)")) {
        let Some((name, _)) = line.split_once('(') else { continue };
        let number = calls.iter().filter(|(known, _)| known == name).count() + 1;
        calls.push((name.to_owned(), number));
    }
    // The first is strace's own, which starts the program.
    calls.split_off(1)
}
