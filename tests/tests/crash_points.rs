//! Every verb in every mode with every backend: killed before each of its system calls, a terminal's
//! signal at each, and each that can fail made to fail. One more ordinary run leaves the host exactly as
//! an undisturbed run does.
//!
//! A kill before the call behind a send is the kill between the send and its answer: the kernel has
//! carried out the change when the send returns.

use std::fmt;

use kvmnet_tests::{Host, Tally, Tap, amount, calls_in};

/// What there is of links, addresses and rules, ours and others', without what the kernel passes on late.
const STATE: &str = "
    { ip -o link; ip -o addr; ip -o route; nft list ruleset; iptables-legacy-save; ip6tables-legacy-save; } 2>&1 |
        sed -E 's/state [A-Z]+//; s/NO-CARRIER,//; s/,LOWER_UP//; s/valid_lft.*//; s/ linkdown//; s/ tentative//; s/packets [0-9]+ bytes [0-9]+//; /^#/d; s/ \\[[0-9:]+\\]$//'";
/// What tells that a line of it is none of kvmnet's: the administrator's bridge and rules, the uplink.
const STRANGERS: [&str; 4] = [" br0:", "10.1.0.", "eno1", " lo:"];
/// Between the parts of an answer.
const CUT: &str = "----";

const NAT: &str = "address = \"192.168.150.1/24\"\n";
const ROUTED: &str = "mode = \"routed\"\naddress = \"192.168.150.1/24\"\n";
const ISOLATED: &str = "mode = \"isolated\"\n";

/// How a network's rules are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Nftables,
    IptablesNft,
    IptablesLegacy,
}

/// A program on a host that `prepare` has made ready.
struct Verb {
    name: &'static str,
    prepare: &'static str,
    program: &'static str,
    /// Whether a run that fails has to leave the host as it found it.
    undoes: bool,
}

const VERBS: [Verb; 8] = [
    Verb { name: "natup, first guest", prepare: ":", program: "natup vnet0", undoes: true },
    Verb {
        name: "natup, later guest",
        prepare: "natup vnet0",
        program: "natup vnet1",
        undoes: true,
    },
    Verb {
        name: "natdown, not last",
        prepare: "natup vnet0; natup vnet1",
        program: "natdown vnet1",
        undoes: false,
    },
    Verb { name: "natdown, last", prepare: "natup vnet0", program: "natdown vnet0", undoes: false },
    Verb { name: "up", prepare: ":", program: "kvmnet up lab", undoes: true },
    Verb { name: "down", prepare: "kvmnet up lab", program: "kvmnet down lab", undoes: false },
    Verb { name: "gc", prepare: "kvmnet up lab; unpin", program: "kvmnet gc", undoes: false },
    Verb {
        name: "reload",
        prepare: "natup vnet0; damage",
        program: "kvmnet reload",
        undoes: false,
    },
];

/// On an administrator's bridge.
const BRIDGED: [Verb; 2] = [
    Verb { name: "ifup", prepare: ":", program: "ifup lan0", undoes: true },
    Verb { name: "ifdown", prepare: "ifup lan0", program: "ifdown lan0", undoes: false },
];

/// One fault.
#[derive(Clone)]
enum Fault {
    Kill,
    Signal(&'static str),
    Error(&'static str),
}

/// What a terminal sends; one of them at each place.
const SIGNALS: [&str; 4] = ["INT", "TERM", "HUP", "QUIT"];

/// Which errors a system call can have.
const ERRORS: [(&str, &[&str]); 10] = [
    ("sendto", &["ENOBUFS", "ENOMEM", "EPERM", "EINTR"]),
    ("recvfrom", &["ENOBUFS", "EAGAIN", "EINTR", "ENOMEM"]),
    ("socket", &["EMFILE", "ENOMEM"]),
    ("bind", &["ENOMEM"]),
    ("setsockopt", &["ENOPROTOOPT"]),
    ("flock", &["EINTR", "ENOLCK"]),
    ("openat", &["ENOMEM", "EMFILE"]),
    ("mkdirat", &["ENOSPC"]),
    ("write", &["EIO"]),
    ("capget", &["EPERM"]),
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => f.write_str("signal=KILL"),
            Self::Signal(signal) => write!(f, "signal={signal}"),
            Self::Error(error) => write!(f, "error={error}"),
        }
    }
}

struct Scene {
    host: Host,
    _taps: Vec<Tap>,
}

impl Scene {
    fn set(backend: Backend, mode: &str) -> Self {
        let host = Host::new();
        let firewall = match backend {
            Backend::Nftables => "nftables",
            Backend::IptablesNft | Backend::IptablesLegacy => "iptables",
        };
        host.use_iptables(if backend == Backend::IptablesLegacy { "legacy" } else { "nft" });
        host.describe("lab", &format!("{mode}firewall = \"{firewall}\"\ntaps = [\"vnet*\"]\n"));
        host.ok(
            "sysctl -w net.ipv4.ip_forward=1; ip link add br0 type bridge; ip link set br0 up
             iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE; iptables -A FORWARD -s 10.1.0.9 -j DROP",
        );
        let taps = ["vnet0", "vnet1", "lan0"].map(|tap| host.tap(tap)).into();
        let mut scene = Self { host, _taps: taps };
        // Once through: from then on the taps have their addresses, and iptables its empty tables.
        scene.sh("kvmnet up lab; natup vnet0; natup vnet1; ifup lan0");
        scene.sh(":");
        scene
    }

    /// Runs a script that has the helpers as commands, and then takes all down.
    fn sh(&mut self, script: &str) -> String {
        self.host.ok(&format!(
            "for helper in natup natdown ifup ifdown; do
                 eval \"$helper() {{ /usr/libexec/kvmnet-$helper \\\"\\$@\\\"; }}\"
             done
             state() {{ {STATE}
             }}
             # A tap that lost its bridge with the bridge is free, and QEMU takes it away.
             free_taps_down() {{
                 for tap in vnet0 vnet1 lan0; do
                     case $(ip -o link show $tap) in *' master '*) ;; *) ip link set $tap down ;; esac
                 done
             }}
             unpin() {{ ip link set lab alias \"$(ip -o link show lab | sed -E 's/.*alias //; s/:pinned//')\"; }}
             damage() {{
                 ip addr flush dev lab; ip link set lab down
                 nft delete table ip kvmnet-lab; nft delete table netdev kvmnet-lab
                 for table in filter nat; do iptables -t $table -F kvmnet-lab; done
             }} 2>/dev/null
             {script}
             {{ natdown vnet0; natdown vnet1; ifdown lan0; kvmnet down lab; }} >/dev/null 2>&1"
        ))
    }
}

/// The program as strace takes it.
fn path(program: &str) -> String {
    if program.starts_with("kvmnet") {
        program.to_owned()
    } else {
        format!("/usr/libexec/kvmnet-{program}")
    }
}

/// All faults at every `step`th place of the verb.
fn campaign(scene: &mut Scene, name: &str, verb: &Verb, step: usize, tallies: &mut Tallies) {
    let program = path(verb.program);
    let prepare = format!("{{ {}; }} >/dev/null 2>&1", verb.prepare);
    let trace = scene.sh(&format!(
        "{prepare}; state; echo {CUT}; strace -qq -o /run/trace {program} >/dev/null; state; echo {CUT}; cat /run/trace"
    ));
    let parts: Vec<&str> = trace.split(&format!("{CUT}\n")).collect();
    let [prepared, wanted, calls] = parts[..] else { panic!("{trace}") };
    assert_ne!(prepared, wanted, "{name}: it does nothing");
    let calls = calls_in(calls);
    assert!(calls.len() > 50, "{name}: {calls:?}");
    // Somewhere else in each campaign, so that many together come by everywhere.
    let offset = name.len() % step;
    for (place, (call, number)) in calls.iter().enumerate().skip(offset).step_by(step) {
        let mut faults = vec![Fault::Kill, Fault::Signal(SIGNALS[place % SIGNALS.len()])];
        let errors = ERRORS.iter().find(|(known, _)| known == call);
        faults.extend(
            errors.iter().flat_map(|(_, errors)| errors.iter().map(|error| Fault::Error(error))),
        );
        for fault in faults {
            let what = format!("inject={call}:{fault}:when={number}");
            let after = format!("{name}: {what}");
            let answer = scene.sh(&format!(
                "{prepare}; strace -qq -o /dev/null -e {what} {program} 2>/run/err >/dev/null
                 echo $?; cat /run/err; echo {CUT}; state; echo {CUT}
                 {program} 2>&1 >/dev/null; echo {CUT}; free_taps_down; state"
            ));
            let parts: Vec<&str> = answer.split(&format!("{CUT}\n")).collect();
            let [outcome, left, again, found] = parts[..] else { panic!("{after}: {answer}") };
            let (code, stderr) = outcome.split_once('\n').unwrap_or((outcome, ""));
            let tally = tallies.of(&fault);
            if !again.is_empty() {
                tally.leaked(format!("after {after} the next run says {again}"));
                continue;
            }
            match (&fault, code) {
                // What a program does at its very end may come too late to be killed.
                (Fault::Kill, "137") => tally.judge(after, found, wanted),
                (_, "0") => tally.judge(after, left, wanted),
                // Before the program has had the time to hold it off, and so before it has begun.
                (Fault::Signal(_), "129" | "130" | "131" | "143") if left == prepared => {
                    tally.judge(after, found, wanted);
                }
                (Fault::Error(_), "1") if stderr.lines().count() != 1 => {
                    tally.leaked(format!("{after}: {stderr}"));
                }
                (Fault::Error(_), "1") if verb.undoes && left != prepared => {
                    tally.judge(format!("{after}, which failed"), left, prepared);
                }
                (Fault::Error(_), "1") => tally.judge(after, found, wanted),
                _ => tally.leaked(format!("{after}: exit {code}: {stderr}")),
            }
        }
    }
}

struct Tallies {
    kills: Tally,
    signals: Tally,
    errors: Tally,
}

impl Tallies {
    fn of(&mut self, fault: &Fault) -> &mut Tally {
        match fault {
            Fault::Kill => &mut self.kills,
            Fault::Signal(_) => &mut self.signals,
            Fault::Error(_) => &mut self.errors,
        }
    }
}

fn all(backend: Backend, step: usize) {
    let tally =
        |fault: &str| Tally::new(format!("{fault}, {backend:?}")).with_strangers(&STRANGERS);
    let mut tallies = Tallies {
        kills: tally("killed before a system call"),
        signals: tally("INT, TERM, HUP, QUIT at a system call"),
        errors: tally("a system call fails"),
    };
    for (mode_name, mode) in [("nat", NAT), ("routed", ROUTED), ("isolated", ISOLATED)] {
        let mut scene = Scene::set(backend, mode);
        for verb in &VERBS {
            let name = format!("{backend:?}, {mode_name}, {}", verb.name);
            campaign(&mut scene, &name, verb, step, &mut tallies);
        }
        if backend == Backend::Nftables && mode == NAT {
            for verb in &BRIDGED {
                campaign(&mut scene, verb.name, verb, step, &mut tallies);
            }
        }
    }
    tallies.kills.finish();
    tallies.signals.finish();
    tallies.errors.finish();
}

#[test]
fn with_nftables() {
    all(Backend::Nftables, amount(53, 1));
}

#[test]
fn with_iptables_nft() {
    all(Backend::IptablesNft, amount(149, 7));
}

#[test]
fn with_iptables_legacy() {
    all(Backend::IptablesLegacy, amount(149, 7));
}
