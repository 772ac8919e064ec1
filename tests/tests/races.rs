//! Many runs at once.

use std::time::Duration;

use kvmnet_tests::{Host, Tap, assert_same};

const LIMIT: Duration = Duration::from_secs(60);
const MANY: usize = 32;

fn taps(host: &Host) -> Vec<Tap> {
    (0..MANY).map(|n| host.tap(&format!("vnet{n}"))).collect()
}

/// Starts a helper for every tap at once and waits for all.
#[track_caller]
fn all_at_once(host: &Host, helper_of: impl Fn(usize) -> &'static str, taps: &[Tap]) {
    let runs: Vec<_> = taps
        .iter()
        .enumerate()
        .map(|(n, tap)| {
            let program = format!("/usr/libexec/kvmnet-{}", helper_of(n));
            host.spawn(host.command(&program).arg(tap.name()))
        })
        .collect();
    for run in runs {
        let output = run.output(LIMIT);
        assert!(output.success(), "{output:?}");
    }
}

#[test]
fn many_come_and_go_at_once() {
    let host = Host::new();
    let taps = taps(&host);
    let before = host.foreign().without_forwarding();
    all_at_once(&host, |_| "natup", &taps);
    assert_eq!(host.ports("br0").len(), MANY);
    assert_eq!(host.addresses("br0"), ["192.168.100.1/24"]);
    // One for TCP, one for UDP, one for all else.
    assert_eq!(host.count_rules("masquerade"), 3);
    all_at_once(&host, |_| "natdown", &taps);
    assert!(host.link("br0").is_none() && host.nft_tables().is_empty());
    let mut after = host.foreign().without_forwarding();
    let mut before = before;
    for tap in &taps {
        (before, after) = (before.without_link(tap.name()), after.without_link(tap.name()));
    }
    assert_same(&before, &after);
}

#[test]
fn half_go_while_half_come() {
    let host = Host::bare();
    let taps = taps(&host);
    let (first, second) = taps.split_at(MANY / 2);
    for round in 0..4 {
        let (coming, going) = if round % 2 == 0 { (first, second) } else { (second, first) };
        let is_coming = |n: usize| coming.iter().any(|tap| tap.name() == taps[n].name());
        all_at_once(&host, |n| if is_coming(n) { "natup" } else { "natdown" }, &taps);
        let mut wanted: Vec<_> = coming.iter().map(Tap::name).collect();
        wanted.sort_unstable();
        assert_eq!(host.ports("br0"), wanted);
        assert_eq!(host.count_rules("masquerade"), 3);
        let _ = going;
    }
}

#[test]
fn many_bridged_guests_at_once() {
    let host = Host::bare();
    host.ok("ip link add br0 type bridge && ip link set br0 up");
    let taps = taps(&host);
    all_at_once(&host, |_| "ifup", &taps);
    assert_eq!(host.ports("br0").len(), MANY);
    all_at_once(&host, |_| "ifdown", &taps);
    assert!(host.ports("br0").is_empty() && host.link("br0").is_some());
}

/// Others who have the kernel's lock on links nearly all the time, as a host with many containers does.
#[test]
fn while_others_keep_the_links_busy() {
    let host = Host::new();
    let taps = taps(&host);
    let busy = host.spawn(host.command("sh").args([
        "-c",
        "for n in $(seq 0 49); do
             echo \"link add a$n type veth peer name b$n\"; echo \"link set a$n up\"
         done >/run/make
         seq 0 49 | sed 's/^/link del a/' >/run/unmake
         until [ -e /run/enough ]; do
             ip -batch /run/make; ip -batch /run/unmake; echo >>/run/rounds
         done",
    ]));
    let rounds = || host.ok("cat /run/rounds 2>/dev/null || :").lines().count();
    while rounds() < 3 {
        all_at_once(&host, |_| "natup", &taps);
        assert_eq!(host.ports("br0").len(), MANY);
        assert_eq!(host.count_rules("masquerade"), 3);
        all_at_once(&host, |_| "natdown", &taps);
        assert!(host.link("br0").is_none() && host.nft_tables().is_empty());
    }
    host.ok("touch /run/enough");
    let output = busy.output(LIMIT);
    assert!(output.success(), "{output:?}");
}
