//! As many as there can be: ports of one bridge, networks of one host, shutdowns at once.

use std::fmt::Write;

use kvmnet_tests::{Host, Tally, amount, assert_same};
use serde_json::Value;

/// `BR_MAX_PORTS` (`net/bridge/br_private.h`) less the number 0.
const MAX_PORTS: usize = 1023;

/// Makes taps `t0`, `t1` and so on which no program holds open.
fn persistent_taps(host: &Host, count: usize) {
    let mut batch = String::new();
    for n in 0..count {
        writeln!(batch, "tuntap add t{n} mode tap").expect("memory takes all");
    }
    host.write("/tmp/taps", batch);
    host.ok("ip -batch /tmp/taps");
}

/// Runs a helper for each of these taps, one after the other.
fn each(host: &Host, helper: &str, taps: std::ops::Range<usize>) {
    host.ok(&format!(
        "for n in $(seq {} {}); do /usr/libexec/kvmnet-{helper} t$n || exit; done",
        taps.start,
        taps.end - 1
    ));
}

fn status(host: &Host) -> Value {
    serde_json::from_str(&host.ok("kvmnet status --json")).expect("it is JSON")
}

#[test]
fn a_bridge_takes_as_many_ports_as_the_kernel_allows() {
    let mut tally = Tally::new("1,023 ports on a bridge, and one more");
    let host = Host::bare();
    let _guest = host.tap("vnet0");
    persistent_taps(&host, MAX_PORTS);
    assert!(host.helper("natup", &["vnet0"]).success());
    each(&host, "natup", 0..MAX_PORTS - 1);
    assert_eq!(host.ports("br0").len(), MAX_PORTS);
    let rules = host.nft("ip", "kvmnet-default");
    let bridge = || host.ok("ip -d -o link show br0 | sed 's/gc_timer.*//'");
    let before = bridge();
    let last = format!("t{}", MAX_PORTS - 1);

    let refused = host.helper("natup", &[&last]);
    let wanted = format!(
        "kvmnet-natup: {last}: not attached: cannot make {last} a port of br0: the bridge has 1023 ports, \
         the most that the kernel allows; put this guest on another bridge, that of another network\n"
    );
    assert_eq!((refused.code, refused.stderr), (1, wanted));
    let tap = host.link(&last).unwrap();
    assert!(tap["master"].is_null() && !tap["flags"].to_string().contains("UP"), "{tap}");
    assert_eq!((host.nft("ip", "kvmnet-default"), bridge()), (rules, before));
    assert_eq!(host.ports("br0").len(), MAX_PORTS);
    tally.converged();

    // An administrator's bridge is full in the same way.
    host.ok("ip link add br1 type bridge && seq 1 1023 | sed 's/.*/tuntap add b& mode tap/' >/tmp/more &&
         ip -batch /tmp/more && seq 1 1023 | sed 's/.*/link set b& master br1/' >/tmp/more && ip -batch /tmp/more");
    host.describe("lan", "mode = \"bridged\"\nbridge = \"br1\"\n");
    let refused = host.sh(&format!("KVMNET_NETWORK=lan /usr/libexec/kvmnet-ifup {last}"));
    assert!(refused.code == 1 && refused.stderr.contains("port of br1: the bridge has 1023 ports"));
    tally.converged();

    // There is room again when one leaves; whoever stays keeps the network.
    each(&host, "natdown", 7..8);
    assert!(host.helper("natup", &[&last]).success());
    let status = status(&host);
    assert_eq!(status["networks"][0]["ports"].as_array().map(Vec::len), Some(MAX_PORTS));
    each(&host, "natdown", 8..20);
    assert_eq!(host.ports("br0").len(), MAX_PORTS - 12);
    assert!(host.helper("natdown", &["vnet0"]).success());
    assert!(host.link("br0").is_none() && host.nft_tables().is_empty());
    tally.converged();
    tally.finish();
}

#[test]
fn hundreds_of_networks() {
    let count = amount(40, 200);
    let mut tally = Tally::new(format!("{count} networks at once"));
    let host = Host::new();
    let before = host.foreign().without_forwarding();
    for n in 0..count {
        let address = format!("address = \"172.20.{n}.1/24\"\ntaps = [\"vm{n}-*\"]\n");
        let mode = ["", "mode = \"routed\"\n"][n % 2];
        host.describe(&format!("net{n}"), &format!("{mode}{address}"));
    }
    let all = |command: &str| {
        host.ok(&format!("for n in $(seq 0 {}); do {command} || exit; done", count - 1));
    };
    all("kvmnet up net$n");
    let status = status(&host);
    let up = status["networks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|network| network["state"] == "pinned");
    assert_eq!(up.count(), count);
    assert_eq!(host.count_rules("masquerade"), count.div_ceil(2) * 3);
    // A guest finds its own among all the files.
    let _tap = host.tap("vm17-0");
    assert!(host.helper("natup", &["vm17-0"]).success());
    assert_eq!(host.ports("net17"), ["vm17-0"]);
    host.ok("kvmnet check && kvmnet gc && kvmnet reload");
    assert_eq!(host.count_rules("masquerade"), count.div_ceil(2) * 3);
    assert!(host.helper("natdown", &["vm17-0"]).success());
    all("kvmnet down net$n");
    assert!(host.nft_tables().is_empty());
    assert_same(&before, &host.foreign().without_forwarding().without_link("vm17-0"));
    (0..count).for_each(|_| tally.converged());
    tally.finish();
}

/// All at once, as when a host goes down: each waits for its turn, longer than one holder may have the
/// lock, and nobody gives up.
#[test]
fn two_hundred_shutdowns_at_once() {
    const MANY: usize = 200;
    let mut tally = Tally::new("200 shutdowns at once");
    let host = Host::bare();
    persistent_taps(&host, MANY);
    let _guest = host.tap("vnet0");
    assert!(host.helper("natup", &["vnet0"]).success());
    each(&host, "natup", 0..MANY);
    let log = host.ok("for tap in vnet0 $(seq 0 199 | sed s/^/t/); do
             { /usr/libexec/kvmnet-natdown $tap; echo $tap $?; } &
         done 2>&1; wait");
    for line in log.lines() {
        if line.ends_with(" 0") { tally.converged() } else { tally.leaked(line) }
    }
    assert!(host.link("br0").is_none() && host.nft_tables().is_empty());
    tally.finish();
}
