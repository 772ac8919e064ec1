//! `kvmnet up` and `down` killed before any of their system calls, or with any of them failing; and
//! many runs at once.

use std::time::Duration;

use kvmnet_tests::{Host, Tap, amount, assert_same};

const LIMIT: Duration = Duration::from_secs(60);
const UP: [&str; 3] = ["kvmnet", "up", "lab"];
const DOWN: [&str; 3] = ["kvmnet", "down", "lab"];

/// What there is of links, addresses and rules, without what the kernel passes on late.
fn state(host: &Host) -> String {
    host.ok("
        { ip -o link; ip -o addr; nft list ruleset; sysctl net.ipv6.conf.lab.disable_ipv6; } 2>&1 |
            sed -E 's/state [A-Z]+//; s/NO-CARRIER,//; s/,LOWER_UP//; s/valid_lft.*//'
    ")
}

struct Scene {
    host: Host,
    /// The network is down.
    clean: String,
    /// It is up and pinned.
    whole: String,
}

impl Scene {
    fn set(mode: &str) -> Self {
        let host = Host::new();
        host.ok("iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE");
        host.describe("lab", mode);
        // Once through: from then on forwarding is on.
        host.ok("kvmnet up lab && kvmnet down lab");
        let clean = state(&host);
        host.ok("kvmnet up lab");
        let whole = state(&host);
        host.ok("kvmnet down lab");
        assert_eq!(state(&host), clean);
        Self { host, clean, whole }
    }

    #[track_caller]
    fn run(&self, program: &[&str], after: &str) {
        let output = self.host.run(program);
        assert!(output.success(), "{program:?} after {after}: {output:?}");
    }

    /// Kills a program before each of its system calls; each time `mend` has to put things right.
    #[track_caller]
    fn kill_everywhere(&self, program: &[&str], prepare: impl Fn(), mend: impl Fn(&str)) {
        prepare();
        let calls = self.host.system_calls(program);
        mend("an undisturbed run");
        assert!(calls.len() > 50, "{calls:?}");
        let (mut killed, mut tried) = (0, 0);
        for (name, number) in calls.iter().step_by(amount(3, 1)) {
            prepare();
            let what = format!("inject={name}:signal=KILL:when={number}");
            let (output, _) = self.host.strace(&["-e", &what], program);
            // What the program does at its very end may come too late to be killed.
            assert!(output.code == 128 + 9 || output.success(), "{what}: {output:?}");
            killed += usize::from(!output.success());
            tried += 1;
            mend(&format!("{program:?}, killed before {name} number {number}"));
        }
        println!("{program:?}: killed before {killed} of {} system calls", calls.len());
        assert!(killed + 3 > tried, "{killed} of {tried}: {calls:?}");
    }
}

const NAT: &str = "address = \"192.168.150.1/24\"\n";
const ISOLATED: &str = "mode = \"isolated\"\n";

#[test]
fn up_is_killed_and_the_next_up_mends_it() {
    let scene = Scene::set(NAT);
    scene.kill_everywhere(
        &UP,
        || (),
        |after| {
            scene.run(&UP, after);
            assert_eq!(state(&scene.host), scene.whole, "after {after}");
            scene.run(&DOWN, after);
            assert_eq!(state(&scene.host), scene.clean, "after {after}");
        },
    );
}

#[test]
fn up_of_an_isolated_network_is_killed_and_down_cleans_up() {
    let scene = Scene::set(ISOLATED);
    scene.kill_everywhere(
        &UP,
        || (),
        |after| {
            scene.run(&DOWN, after);
            assert_eq!(state(&scene.host), scene.clean, "after {after}");
        },
    );
}

#[test]
fn down_is_killed_and_the_next_down_mends_it() {
    for mode in [NAT, ISOLATED] {
        let scene = Scene::set(mode);
        scene.kill_everywhere(
            &DOWN,
            || scene.run(&UP, "a clean start"),
            |after| {
                scene.run(&DOWN, after);
                assert_eq!(state(&scene.host), scene.clean, "after {after}");
            },
        );
    }
}

/// Each system call fails once: up succeeds all the same, or undoes what it did and says why.
#[test]
fn a_system_call_of_up_fails_once() {
    let (mut undone, mut succeeded) = (0, 0);
    for mode in [NAT, ISOLATED] {
        let scene = Scene::set(mode);
        for (call, errors) in [
            ("sendto", &["ENOBUFS", "EPERM", "EINTR"][..]),
            ("recvfrom", &["ENOBUFS", "EAGAIN", "ENOMEM"]),
            ("socket", &["EMFILE"]),
            ("flock", &["ENOLCK"]),
            ("openat", &["EMFILE"]),
        ] {
            for error in errors {
                for when in 1.. {
                    // A run without that many such calls has seen no error.
                    let what = format!("inject={call}:error={error}:when={when}");
                    let trace = format!("trace={call}");
                    let (output, seen) = scene.host.strace(&["-e", &trace, "-e", &what], &UP);
                    if output.success() {
                        succeeded += 1;
                        assert_eq!(
                            state(&scene.host),
                            scene.whole,
                            "{what}: success, but not done"
                        );
                        scene.run(&DOWN, &what);
                    } else {
                        undone += 1;
                        assert_eq!(
                            (output.code, output.stderr.lines().count()),
                            (1, 1),
                            "{output:?}"
                        );
                    }
                    assert_eq!(state(&scene.host), scene.clean, "after {what}: {output:?}");
                    if !seen.contains("(INJECTED)") {
                        break;
                    }
                }
            }
        }
    }
    println!("{undone} failures undone and reported, {succeeded} runs that succeeded all the same");
    assert!(undone > 40 && succeeded > 10, "{undone} {succeeded}");
}

/// An up that fails on a network that guests use takes nothing from under them.
#[test]
fn a_failed_up_leaves_guests_alone() {
    let host = Host::new();
    host.describe("lab", NAT);
    let _tap = host.tap_on("lab", "t0");
    let used = state(&host);
    let mut failed = 0;
    for (call, error) in [("sendto", "ENOBUFS"), ("recvfrom", "ENOMEM"), ("socket", "EMFILE")] {
        for when in 1.. {
            let what = format!("inject={call}:error={error}:when={when}");
            let (output, seen) = host.strace(&["-e", &format!("trace={call}"), "-e", &what], &UP);
            failed += usize::from(!output.success());
            assert!(host.ports("lab") == ["t0"] && host.addresses("lab") == ["192.168.150.1/24"]);
            // Pinned or not: a run whose last answer is lost may have succeeded.
            host.kvmnet_ok(&["down", "lab"]);
            assert_eq!(state(&host), used, "after {what}: {output:?}");
            if !seen.contains("(INJECTED)") {
                break;
            }
        }
    }
    assert!(failed > 5, "{failed}");
}

const MANY: usize = 16;

/// Starts everything at once and waits for all.
#[track_caller]
fn at_once(host: &Host, helper: &str, taps: &[Tap], commands: &[&[&str]]) -> Vec<String> {
    let mut runs = Vec::new();
    for (n, tap) in taps.iter().enumerate() {
        let program = format!("/usr/libexec/kvmnet-{helper}");
        runs.push(host.spawn(host.command(&program).arg(tap.name()).env("KVMNET_NETWORK", "lab")));
        if n % 4 == 1 {
            for command in commands {
                runs.push(host.spawn(host.command("kvmnet").args(*command)));
            }
        }
    }
    let outputs: Vec<_> = runs.into_iter().map(|run| run.output(LIMIT)).collect();
    for output in &outputs {
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    }
    outputs.into_iter().map(|output| output.stdout).collect()
}

#[test]
fn up_and_gc_among_guests_that_come_and_go() {
    let host = Host::new();
    host.describe("lab", NAT);
    let taps: Vec<Tap> = (0..MANY).map(|n| host.tap(&format!("t{n}"))).collect();
    let before = host.foreign_to_kvmnet(&[]);
    let gc: [&[&str]; 2] = [&["gc"], &["status", "--json"]];
    let up: [&[&str]; 3] = [&["up", "lab"], &["gc"], &["reload"]];
    for _ in 0..3 {
        // gc takes nothing from under a guest, and the last guest takes it down.
        at_once(&host, "natup", &taps, &gc);
        assert_eq!(host.ports("lab").len(), MANY);
        assert_eq!(host.count_rules("masquerade"), 3);
        at_once(&host, "natdown", &taps, &gc);
        assert!(host.link("lab").is_none() && host.nft_tables().is_empty());
        // Whoever comes first, it is pinned in the end.
        at_once(&host, "natup", &taps, &up);
        assert_eq!(host.ports("lab").len(), MANY);
        at_once(&host, "natdown", &taps, &up);
        assert!(host.ports("lab").is_empty());
        assert_eq!(host.count_rules("masquerade"), 3);
        assert!(host.link("lab").unwrap()["ifalias"].as_str().unwrap().contains(":pinned"));
        assert_eq!(host.kvmnet_ok(&["down", "lab"]), "lab: taken down\n");
        assert!(host.link("lab").is_none() && host.nft_tables().is_empty());
    }
    let (mut before, mut after) = (before, host.foreign_to_kvmnet(&[]));
    for tap in &taps {
        (before, after) = (before.without_link(tap.name()), after.without_link(tap.name()));
    }
    assert_same(&before, &after);
}

/// Up and down of one network by many at once, and of others beside it.
#[test]
fn up_and_down_at_once() {
    let host = Host::bare();
    for (name, number) in [("lab", 1), ("dmz", 2), ("web", 3)] {
        host.describe(name, &format!("address = \"10.20.{number}.1/24\"\n"));
    }
    let before = host.foreign().without_forwarding();
    let commands =
        ["up", "down"].into_iter().flat_map(|verb| ["lab", "dmz", "web"].map(|name| [verb, name]));
    let runs: Vec<_> = commands
        .cycle()
        .take(48)
        .map(|command| host.spawn(host.command("kvmnet").args(command)))
        .collect();
    for run in runs {
        let output = run.output(LIMIT);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
    }
    for name in ["lab", "dmz", "web"] {
        let table = host.nft("ip", &format!("kvmnet-{name}"));
        assert_eq!(host.link(name).is_some(), table.is_some(), "{name}");
        host.kvmnet_ok(&["down", name]);
    }
    assert_same(&before, &host.foreign().without_forwarding());
}
