//! The old scripts do what they did for twenty years, faults included.

use std::time::Duration;

use kvmnet_tests::{Foreign, Host, Tap, assert_same};

const PATIENCE: Duration = Duration::from_secs(30);

/// A host with the old scripts and without kvmnet.
fn host() -> Host {
    let host = Host::builder().without_kvmnet().build();
    host.install_legacy();
    host
}

/// A snapshot without what one tap changes in it.
fn without_tap(host: &Host, tap: &Tap) -> Foreign {
    host.foreign().without_link(tap.name()).without_forwarding()
}

#[test]
fn natup_and_natdown_work_for_a_lone_guest() {
    let host = host();
    let tap = host.tap("vnet0");
    let before = without_tap(&host, &tap);
    host.ok("/etc/qemu-natup vnet0");
    assert_eq!(host.ports("br0"), ["vnet0"]);
    assert_eq!(host.addresses("br0"), ["192.168.100.1/24"]);
    assert_eq!(host.count_rules("masquerade"), 1);
    assert_eq!(host.sysctl("net/ipv4/ip_forward"), "1");
    host.ok("/etc/qemu-natdown vnet0");
    assert!(host.link("br0").is_none());
    assert_same(&before, &without_tap(&host, &tap));
}

#[test]
fn ifup_adds_the_tap_to_the_bridge_after_a_second() {
    let host = host();
    let _tap = host.tap("vnet0");
    host.ok("ip link add br0 type bridge");
    let start = std::time::Instant::now();
    host.ok("/etc/qemu-ifup vnet0");
    assert_eq!(host.ports("br0"), ["vnet0"]);
    assert!(start.elapsed() > Duration::from_secs(1));
}

#[test]
fn natup_takes_br01_for_br0() {
    let host = host();
    let _tap = host.tap("vnet0");
    host.ok("ip link add br01 type bridge");
    assert!(!host.sh("/etc/qemu-natup vnet0").success());
    assert!(host.link("br0").is_none());
    assert!(host.ports("br01").is_empty());
}

#[test]
fn natups_at_once_add_the_rule_again() {
    let host = host();
    // The race is there without this; this makes sure that it is lost.
    host.write_program(
        "/run/slow/iptables-save",
        "#!/bin/sh\n/usr/sbin/iptables-save \"$@\"; sleep 0.5\n",
    );
    let taps: Vec<_> = (0..4).map(|n| host.tap(&format!("vnet{n}"))).collect();
    let runs: Vec<_> = taps
        .iter()
        .map(|tap| {
            let path = "PATH=/run/slow:$PATH; . /etc/qemu-natup";
            host.spawn(host.command("sh").args(["-c", path, "natup", tap.name()]))
        })
        .collect();
    // Some fail, since others make the bridge between their look and their making it.
    for run in runs {
        run.output(PATIENCE);
    }
    let rules = host.count_rules("masquerade");
    assert!(rules > 1, "{rules}");
}

#[test]
fn the_last_natdown_flushes_foreign_rules() {
    let host = host();
    let _tap = host.tap("vnet0");
    host.ok("iptables -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to 10.0.0.1:80");
    assert_eq!(host.count_rules("dnat"), 1);
    host.ok("/etc/qemu-natup vnet0 && /etc/qemu-natdown vnet0");
    assert_eq!(host.count_rules("dnat"), 0);
}
