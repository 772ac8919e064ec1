//! What a killed QEMU leaves goes by itself: the rule runs `kvmnet gc` when a tap of kvmnet's vanishes.

use std::time::Instant;

use kvmnet_tests::{Guest, Host, wait_until};

use crate::{NATUP, QEMUS, SLOW, boot, install, open, run};

/// Opens taps on the NAT network, which have no downscript.
#[track_caller]
fn open_all(guest: &mut Guest, taps: &[&str]) {
    open(guest, &taps.iter().map(|tap| (*tap, QEMUS, NATUP)).collect::<Vec<_>>());
}

/// Kills those who hold the taps, all at once.
fn kill(guest: &mut Guest, taps: &[&str]) -> Instant {
    let pids: Vec<_> = taps.iter().map(|tap| format!("$(cat /run/pid.{tap})")).collect();
    run(guest, &format!("kill -KILL {}", pids.join(" ")));
    Instant::now()
}

const GONE: &str = "! ip link show br0 2>/dev/null && ! nft list tables | grep kvmnet";

/// The network goes, and nobody has done anything for it.
#[track_caller]
fn assert_goes(guest: &mut Guest, who: &str, since: Instant) {
    if !wait_until(SLOW, || guest.sh(GONE).success()) {
        panic!("{who}: {}", guest.sh("kvmnet status; journalctl -b -n 40 --no-pager").stdout);
    }
    println!("{who}: gone, as seen {:.1} s after the kill", since.elapsed().as_secs_f32());
}

#[track_caller]
fn assert_stays(guest: &mut Guest, ports: &str) {
    run(guest, "udevadm settle; sleep 1; udevadm settle");
    let found = run(guest, "ip -br link show master br0 | sort | awk '{ printf \"%s \", $1 }'");
    assert_eq!(found.trim(), ports);
}

#[test]
fn what_a_killed_guest_leaves_goes_by_itself() {
    let host = Host::builder().without_uplink().build();
    let mut guest = boot(&host, "killed", "");
    let guest = &mut guest;

    // Without the rule it waits for somebody's next run.
    open_all(guest, &["vnet0"]);
    kill(guest, &["vnet0"]);
    run(
        guest,
        "until ! ip link show vnet0 2>/dev/null; do sleep 0.1; done; udevadm settle; sleep 2",
    );
    let status = run(guest, "kvmnet status | cat");
    assert!(status.contains(" unused "), "it went without the rule: {status}");
    run(guest, "kvmnet gc");
    install(guest);

    open_all(guest, &["vnet0"]);
    let killed = kill(guest, &["vnet0"]);
    assert_goes(guest, "the only one", killed);

    open_all(guest, &["vnet0", "vnet1", "vnet2"]);
    kill(guest, &["vnet1"]);
    assert_stays(guest, "vnet0 vnet2");
    kill(guest, &["vnet0"]);
    assert_stays(guest, "vnet2");
    // A name that has changed since is no matter.
    run(guest, "ip link set vnet2 name web0; udevadm settle");
    let killed = kill(guest, &["vnet2"]);
    assert_goes(guest, "the last one", killed);

    let ten: Vec<_> = (0..10).map(|number| format!("vnet{number}")).collect();
    let ten: Vec<_> = ten.iter().map(String::as_str).collect();
    open_all(guest, &ten);
    let killed = kill(guest, &ten);
    assert_goes(guest, "ten at once", killed);

    // A pinned network stays.
    run(guest, "kvmnet up default");
    open_all(guest, &["vnet0"]);
    kill(guest, &["vnet0"]);
    assert_stays(guest, "");
    run(guest, "kvmnet down default");

    // The real one, which starts a guest and is killed.
    run(
        guest,
        "qemu-system-x86_64 -M none -S -display none -monitor none -serial none \
             -netdev tap,id=n0,ifname=vnet0,script=/usr/libexec/kvmnet-natup,downscript=/usr/libexec/kvmnet-natdown \
             </dev/null >/run/qemu 2>&1 &
         echo $! >/run/pid.vnet0; until ip link show master br0 | grep vnet0; do sleep 0.1; done; udevadm settle",
    );
    let killed = kill(guest, &["vnet0"]);
    assert_goes(guest, "QEMU", killed);
    assert_eq!(run(guest, "systemctl --failed --no-legend").trim(), "");
    let log = run(guest, "journalctl -b -o cat -t kvmnet");
    assert!(log.contains("took down what nobody used: default"), "{log}");
}
