//! A helper that is killed before any of its system calls, and one whose system calls fail: one
//! more ordinary run puts things right.

use kvmnet_tests::{Host, Output, Tap, amount};

/// What there is of links, addresses and rules, without what the kernel passes on late.
/// Without the mark's word on who turned forwarding on: a run that mends finds it on already.
fn state(host: &Host) -> String {
    host.ok("
        { ip -o link; ip -o addr; nft list ruleset; } |
            sed -E 's/state [A-Z]+//; s/NO-CARRIER,//; s/,LOWER_UP//; s/valid_lft.*//; s/:forwarding$//'
    ")
}

struct Scene {
    host: Host,
    taps: Vec<Tap>,
    clean: String,
    /// `vnet0` is attached.
    first: String,
    whole: String,
}

impl Scene {
    /// Two taps. `clean`: none is attached; `whole`: both are.
    fn set() -> Self {
        let host = Host::new();
        host.ok("iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE");
        let taps = vec![host.tap("vnet0"), host.tap("vnet1")];
        // Once through: from then on forwarding is on and the taps have their addresses.
        let mut scene =
            Self { host, taps, clean: String::new(), first: String::new(), whole: String::new() };
        scene.all("natup");
        scene.whole = state(&scene.host);
        assert!(scene.host.helper("natdown", &["vnet1"]).success());
        scene.first = state(&scene.host);
        scene.all("natdown");
        scene.clean = state(&scene.host);
        scene
    }

    #[track_caller]
    fn all(&self, helper: &str) {
        for tap in &self.taps {
            let output = self.host.helper(helper, &[tap.name()]);
            assert!(output.success(), "{helper}: {output:?}");
        }
    }

    /// Runs a helper under strace with something injected; also what strace saw, a line a call.
    fn inject(&self, helper: &str, tap: &str, what: &[&str]) -> (Output, String) {
        self.host.strace(what, &[&format!("/usr/libexec/kvmnet-{helper}"), tap])
    }

    #[track_caller]
    fn assert_clean(&self, after: &str) {
        assert_eq!(state(&self.host), self.clean, "after {after}");
    }

    /// Kills `helper` before each of its system calls; each time it finds what `prepare` leaves,
    /// and `mend` has to put things right.
    #[track_caller]
    fn kill_everywhere(&self, helper: &str, tap: &str, prepare: impl Fn(), mend: impl Fn(&str)) {
        prepare();
        let calls = self.host.system_calls(&[&format!("/usr/libexec/kvmnet-{helper}"), tap]);
        mend("an undisturbed run");
        assert!(calls.len() > 50, "{calls:?}");
        let step = amount(3, 1);
        for (name, number) in calls.iter().skip(helper.len() % step).step_by(step) {
            prepare();
            let what = format!("inject={name}:signal=KILL:when={number}");
            let (output, _) = self.inject(helper, tap, &["-e", &what]);
            // What the program does at its very end may come too late to be killed.
            assert!(output.code == 128 + 9 || output.success(), "{what}: {output:?}");
            mend(&format!("{helper}, killed before {name} number {number}"));
        }
        println!("{helper} {tap}: {} system calls, killed before every {step}.", calls.len());
    }
}

#[test]
fn the_first_natup_is_killed_and_the_next_natup_mends_it() {
    let scene = Scene::set();
    scene.kill_everywhere(
        "natup",
        "vnet0",
        || scene.assert_clean("natdown"),
        |after| {
            scene.all("natup");
            assert_eq!(state(&scene.host), scene.whole, "after {after}");
            scene.all("natdown");
        },
    );
}

#[test]
fn the_first_natup_is_killed_and_its_natdown_cleans_up() {
    let scene = Scene::set();
    scene.kill_everywhere(
        "natup",
        "vnet0",
        || {},
        |after| {
            let output = scene.host.helper("natdown", &["vnet0"]);
            assert!(output.success(), "after {after}: {output:?}");
            scene.assert_clean(after);
        },
    );
}

#[test]
fn a_later_natup_is_killed() {
    let scene = Scene::set();
    let first = || assert!(scene.host.helper("natup", &["vnet0"]).success());
    scene.kill_everywhere("natup", "vnet1", first, |after| {
        scene.all("natup");
        assert_eq!(state(&scene.host), scene.whole, "after {after}");
        scene.all("natdown");
        scene.assert_clean(after);
    });
}

#[test]
fn the_last_natdown_is_killed() {
    let scene = Scene::set();
    let first = || assert!(scene.host.helper("natup", &["vnet0"]).success());
    scene.kill_everywhere("natdown", "vnet0", first, |after| {
        let output = scene.host.helper("natdown", &["vnet9"]);
        assert!(output.success(), "after {after}: {output:?}");
        if scene.host.ports("br0").is_empty() {
            scene.assert_clean(after);
        } else {
            // It was killed before it released its tap, which keeps the network.
            assert!(scene.host.helper("natdown", &["vnet0"]).success());
            scene.assert_clean(after);
        }
    });
}

/// Each send, receive and other system call fails once: the run succeeds all the same, or undoes
/// what it did and says why.
#[test]
fn a_system_call_of_natup_fails_once() {
    let scene = Scene::set();
    let (mut undone, mut succeeded) = (0, 0);
    for (call, errors) in [
        ("sendto", &["ENOBUFS", "ENOMEM", "EPERM", "EINTR"][..]),
        ("recvfrom", &["ENOBUFS", "EAGAIN", "EINTR", "ENOMEM"]),
        ("socket", &["EMFILE", "ENOMEM"]),
        ("bind", &["ENOMEM"]),
        ("setsockopt", &["ENOPROTOOPT"]),
        ("flock", &["EINTR", "ENOLCK"]),
        ("openat", &["ENOMEM", "EMFILE"]),
        ("mkdirat", &["ENOSPC"]),
        ("write", &["EIO"]),
        ("capget", &["EPERM"]),
    ] {
        for error in errors {
            for when in 1.. {
                // A run without that many such calls has seen no error.
                let traced = format!("inject={call}:error={error}:when={when}");
                let trace = format!("trace={call}");
                let what = ["-e", trace.as_str(), "-e", &traced];
                let (output, seen) = scene.inject("natup", "vnet0", &what);
                if output.success() {
                    succeeded += 1;
                    assert_eq!(state(&scene.host), scene.first, "{traced}: success, but not done");
                    assert!(scene.host.helper("natdown", &["vnet0"]).success());
                } else {
                    undone += 1;
                    assert_eq!(output.code, 1, "{traced}: {output:?}");
                    assert_eq!(output.stderr.lines().count(), 1, "{traced}: {output:?}");
                }
                scene.assert_clean(&traced);
                if !seen.contains("(INJECTED)") {
                    break;
                }
            }
        }
    }
    println!("{undone} failures undone and reported, {succeeded} runs that succeeded all the same");
    assert!(undone > 40 && succeeded > 10, "{undone} {succeeded}");
}

/// Of natdown each lost answer is asked for again; what can't be done is said, and the next run does
/// it.
#[test]
fn a_system_call_of_natdown_fails_once() {
    let scene = Scene::set();
    let (mut failed, mut succeeded) = (0, 0);
    for (call, error) in [
        ("sendto", "ENOBUFS"),
        ("sendto", "ENOMEM"),
        ("recvfrom", "ENOBUFS"),
        ("recvfrom", "EAGAIN"),
        ("recvfrom", "EINTR"),
        ("socket", "ENOMEM"),
    ] {
        for when in 1.. {
            assert!(scene.host.helper("natup", &["vnet0"]).success());
            let traced = format!("inject={call}:error={error}:when={when}");
            let trace = format!("trace={call}");
            let what = ["-e", trace.as_str(), "-e", &traced];
            let (output, seen) = scene.inject("natdown", "vnet0", &what);
            if output.success() {
                succeeded += 1;
            } else {
                failed += 1;
                assert_eq!((output.code, output.stderr.lines().count()), (1, 1), "{output:?}");
                assert!(scene.host.helper("natdown", &["vnet0"]).success());
            }
            // A tap that lost its bridge with the bridge is free, and QEMU takes it away.
            scene.host.ok("ip link set vnet0 down");
            scene.assert_clean(&traced);
            if !seen.contains("(INJECTED)") {
                break;
            }
        }
    }
    println!("{failed} failures reported, {succeeded} runs that succeeded all the same");
    assert!(failed > 10 && succeeded > 15, "{failed} {succeeded}");
}
