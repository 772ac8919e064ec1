//! Ctrl-C and its like: QEMU's helper is in QEMU's process group, so a terminal's signals reach it.

use std::fs;
use std::time::Duration;

use kvmnet_tests::{Host, Process, assert_same, wait_until};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(10);

/// What a terminal or its end, or a shutting down system, sends.
const SIGNALS: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// The lock of kvmnet, held by somebody else: whoever wants it is in the middle of its run, for as
/// long as the test likes (but not for five seconds, which is its patience).
struct Lock(Process);

impl Lock {
    fn hold(host: &Host) -> Self {
        // The first run makes the file.
        host.helper("natdown", &["vnet9"]).expect("natdown");
        let holder = host.spawn(
            host.command("sh").args(["-c", "exec flock --no-fork /run/kvmnet/net-* sleep 60"]),
        );
        let held = || !host.sh("flock --nonblock /run/kvmnet/net-* true").success();
        assert!(wait_until(SOON, held));
        Self(holder)
    }

    fn release(mut self) {
        self.0.kill();
    }
}

/// Whether a process, named by its pid as the test sees it, holds off a signal.
fn holds_off(pid: i32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal as u32 - 1)) != 0)
}

/// The children of a process, by pids as the test sees them.
fn children(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn helper(host: &Host, verb: &str, tap: &str) -> Process {
    host.spawn(host.command(&format!("/usr/libexec/kvmnet-{verb}")).arg(tap))
}

#[test]
fn a_helper_ends_its_run_whatever_the_terminal_sends() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    for (verb, ports) in [
        ("natup", Some(&["vnet0"][..])),
        ("natdown", None),
        ("natup", Some(&["vnet0"])),
        ("ifdown", None),
    ] {
        let lock = Lock::hold(&host);
        let run = helper(&host, verb, "vnet0");
        let started = || run.outer_pid().is_some_and(|pid| holds_off(pid, Signal::SIGINT));
        assert!(wait_until(SOON, started), "{verb} doesn't hold SIGINT off");
        for _ in 0..100 {
            SIGNALS.iter().for_each(|signal| run.signal(*signal));
        }
        lock.release();
        let output = run.output(SOON);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{verb}");
        match ports {
            Some(ports) => host.assert_network(ports),
            None => host.assert_no_network(),
        }
    }
}

/// No point of the run is special: signals rain on it from its first instruction to its end.
#[test]
fn a_helper_is_whole_or_was_never_there() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    let before = host.foreign_to_kvmnet(&["vnet0"]);
    let (mut hit, mut died) = (0, 0);
    for verb in ["natup", "natdown"].into_iter().cycle().take(24) {
        let was_there = host.link("br0").is_some();
        let mut run = helper(&host, verb, "vnet0");
        while run.is_running() {
            for signal in SIGNALS {
                run.signal(signal);
            }
            // Stopped by SIGTSTP before it came to hold that off, it would wait for `fg`.
            run.signal(Signal::SIGCONT);
            hit += 1;
        }
        // A signal that came before the first instruction of ours was for QEMU's child, which
        // isn't ours yet; from then on the run ends by itself.
        let code = run.output(SOON).code;
        died += i32::from(code != 0);
        let is_there = if code == 0 { verb == "natup" } else { was_there };
        match is_there {
            true => host.assert_network(&["vnet0"]),
            false => host.assert_no_network(),
        }
    }
    println!("{hit} times all signals, {died} runs ended before they began");
    host.helper("natdown", &["vnet0"]).expect("natdown");
    host.assert_no_network();
    assert_same(&before, &host.foreign_to_kvmnet(&["vnet0"]));
}

/// The whole process group: QEMU and its script.
#[test]
fn ctrl_c_while_natup_runs_ends_qemu_and_leaves_nothing() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    let lock = Lock::hold(&host);
    let mut qemu = host.spawn(host.command("setsid").args([
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-nodefaults",
        "-display",
        "none",
        "-netdev",
        "tap,id=n,ifname=vnet0,script=/usr/libexec/kvmnet-natup,\
         downscript=/usr/libexec/kvmnet-natdown",
    ]));
    let script = || {
        let children = children(qemu.outer_pid()?);
        children.into_iter().find(|pid| holds_off(*pid, Signal::SIGINT))
    };
    assert!(wait_until(SOON, || script().is_some()), "{:?}", qemu.written());
    let script = script().expect("it waits for the lock");
    let group = qemu.outer_pid().expect("it waits for its script");
    killpg(Pid::from_raw(group), Signal::SIGINT).expect("it is the leader of a group");
    lock.release();
    assert!(qemu.wait(SOON).is_some(), "QEMU still runs");
    assert!(wait_until(SOON, || kill(Pid::from_raw(script), None).is_err()), "natup still runs");
    assert!(wait_until(SOON, || host.link("vnet0").is_none()));
    host.helper("natdown", &["vnet0"]).expect("natdown");
    host.assert_no_network();
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}
