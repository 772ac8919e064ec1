//! `kvmnet status` with real guests: which VM, and which process, holds each tap.

mod status_json;

use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Host, Process, boot_all, wait_until};
use serde_json::{Value, json};
use status_json::{network, status};

const SOON: Duration = Duration::from_secs(10);
const NATUP: &str = "/usr/libexec/kvmnet-natup";
const NATDOWN: &str = "/usr/libexec/kvmnet-natdown";
const QEMU: &str = "qemu-system-x86_64";

/// Ports of a network with `pid program vm` of each holder.
#[track_caller]
fn ports(host: &Host, name: &str) -> Value {
    let status = status(host);
    let ports = network(&status, name)["ports"].as_array().expect("the schema says so").clone();
    ports
        .into_iter()
        .map(|port| (port["name"].as_str().unwrap().to_owned(), port["holders"].clone()))
        .collect()
}

fn holder(pid: i32, program: &str, vm: Option<&str>) -> Value {
    json!({"pid": pid, "program": program, "vm": vm})
}

/// A program that isn't QEMU and holds taps.
#[track_caller]
fn hold(host: &Host, words: &[&str]) -> Process {
    let (program, arguments) = words.split_first().unwrap();
    let process = host.spawn(host.command(program).args(arguments));
    assert!(wait_until(SOON, || process.written().0.contains("held")), "{:?}", process.written());
    process
}

#[test]
fn two_guests_with_queues_two_cards_and_one_plugged_in() {
    let host = Host::new();
    let anna = GuestSpec::new("anna")
        .args(["-smp", "2", "-netdev"])
        .args([format!("tap,id=q,ifname=vnet0,queues=2,script={NATUP},downscript={NATDOWN}")])
        .args(["-device", "virtio-net-pci,netdev=q,mq=on,vectors=6,mac=52:54:00:00:00:51"])
        .nat("vnet1")
        .ip("192.168.100.10/24");
    let bert = GuestSpec::new("bert").nat("vnet2").ip("192.168.100.11/24");
    let mut guests = boot_all(&host, [anna, bert]);
    let pids: Vec<i32> = guests.iter_mut().map(Guest::pid).collect();
    let of_anna = json!([holder(pids[0], QEMU, Some("anna"))]);
    let of_bert = json!([holder(pids[1], QEMU, Some("bert"))]);
    assert_eq!(
        ports(&host, "default"),
        json!({"vnet0": of_anna, "vnet1": of_anna, "vnet2": of_bert})
    );
    let add = format!("netdev_add tap,id=n,ifname=vnet3,script={NATUP},downscript={NATDOWN}");
    assert_eq!(guests[1].monitor(&add), "");
    assert_eq!(ports(&host, "default")["vnet3"], of_bert);

    // The same in words.
    let table = host.kvmnet_ok(&["status"]);
    let row = |tap: &str| {
        let line = table.lines().find(|line| line.starts_with(tap)).expect(tap);
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for (tap, vm, pid) in [("vnet0", "anna", pids[0]), ("vnet3", "bert", pids[1])] {
        assert_eq!(row(tap), [tap, "default", vm, &pid.to_string(), QEMU]);
    }
    let tree = host.kvmnet_ok(&["status", "--tree"]);
    assert!(tree.contains(&format!("vnet1  anna (pid {})\n", pids[0])), "{tree}");

    assert_eq!(guests[1].monitor("netdev_del n"), "");
    assert_eq!(guests[0].power_off(), 0);
    assert_eq!(ports(&host, "default"), json!({"vnet2": of_bert}));
    // What a killed VM leaves.
    guests[1].kill();
    assert!(wait_until(SOON, || host.link("vnet2").is_none()));
    assert_eq!(network(&status(&host), "default")["state"], "unused");
    host.kvmnet_ok(&["gc"]);
    host.assert_no_network();
    assert_eq!(network(&status(&host), "default")["state"], "down");
}

/// QEMU reads its own options; what it makes of them is what counts.
#[test]
fn names_as_qemu_reads_them() {
    let host = Host::bare();
    let start = |given: &[&str]| {
        let mut qemu = host.command(QEMU);
        qemu.args(["-machine", "none", "-nodefaults", "-display", "none", "-S"]);
        qemu.args(["-netdev", &format!("tap,id=n,ifname=vnet0,script={NATUP},downscript=no")]);
        host.spawn(qemu.args(given))
    };
    for (given, vm) in [
        (&["-name", "web,,1,process=q"][..], Some("web,1")),
        (&["-name", "debug-threads=on,guest=web"], Some("web")),
        (&["--name", "one", "-name", "zwei ü"], Some("zwei ü")),
        (&["-name", "\x1b[31mred"], Some("\x1b[31mred")),
        (&[], None),
    ] {
        let mut qemu = start(given);
        assert!(wait_until(SOON, || host.ports("br0") == ["vnet0"]), "{:?}", qemu.written());
        let pid = qemu.pid().expect("it runs");
        // QEMU gives its script the tap along; that lets go of it with its end.
        let wanted = json!({"vnet0": [holder(pid, QEMU, vm)]});
        let is_shown = wait_until(SOON, || ports(&host, "default") == wanted);
        assert!(is_shown, "{} in place of {wanted}", ports(&host, "default"));
        qemu.kill();
        assert!(wait_until(SOON, || host.link("vnet0").is_none()));
    }
}

#[test]
fn other_programs_idle_taps_and_taps_elsewhere() {
    let host = Host::bare();
    let program = env!("CARGO_BIN_EXE_hold");
    let mut held = hold(&host, &[program, "vnet0", "vnet1"]);
    let pid = held.pid().expect("it runs");
    host.persistent_tap("idle");
    host.ok("ip link add veth0 type veth peer name veth1");
    for tap in ["vnet0", "vnet1"] {
        host.helper_on("default", "natup", tap);
    }
    host.ok("ip link set veth0 master br0; ip link set idle master br0 up");
    let of_hold = json!([holder(pid, "hold", None)]);
    let wanted = json!({"idle": [], "veth0": [], "vnet0": of_hold, "vnet1": of_hold});
    assert_eq!(ports(&host, "default"), wanted);

    // Taps of the same names in another network are others, whoever holds them.
    host.ok("ip netns add far");
    let mut far = hold(&host, &["ip", "netns", "exec", "far", program, "vnet0", "idle"]);
    assert_eq!(host.ok("ip -n far -o link show dev vnet0 | wc -l"), "1\n");
    assert_eq!(ports(&host, "default"), wanted);
    let seen_there = host.ok("ip netns exec far kvmnet status --json");
    assert_eq!(status_json::validated(&seen_there)["networks"][0]["state"], "down");

    // One that is held by two programs.
    let mut second = hold(&host, &[program, "idle"]);
    let of_second = json!([holder(second.pid().expect("it runs"), "hold", None)]);
    assert_eq!(ports(&host, "default")["idle"], of_second);
    second.kill();
    far.kill();
    assert_eq!(ports(&host, "default")["idle"], json!([]));

    // It has another name by now.
    host.ok("ip link set vnet1 down && ip link set vnet1 name web && ip link set web up");
    assert_eq!(ports(&host, "default")["web"], of_hold);
    held.kill();
    assert!(wait_until(SOON, || host.ports("br0") == ["idle", "veth0"]));
    assert_eq!(ports(&host, "default"), json!({"idle": [], "veth0": []}));
}
