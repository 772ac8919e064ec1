//! The floor does what kvmnet does: after each verb of both the kernel has the same bridge, address,
//! ports, rules and forwarding. Else it would be no floor.
//!
//! Two things that kvmnet does besides need messages that aren't in the floor's list, and are left out
//! here: IPv6 is off on its bridge (the floor's has no address of it), and its ports hand on
//! link-local groups.

use kvmnet_tests::Host;
use serde_json::{Value, json};

const FLOOR: &str = env!("CARGO_BIN_EXE_floor");
const TAPS: [&str; 2] = ["vnet0", "vnet1"];

/// What both have to agree in.
fn state(host: &Host) -> Value {
    let link = |link: &Value| {
        let settings = &link["linkinfo"]["info_data"];
        json!({
            "name": link["ifname"], "flags": link["flags"], "master": link["master"],
            "mtu": link["mtu"], "address": link["address"], "alias": link["ifalias"],
            "group": link["group"], "stp": settings["stp_state"],
            "delay": settings["forward_delay"], "state": link["linkinfo"]["info_slave_data"]["state"],
            "generates": link["inet6_addr_gen_mode"],
        })
    };
    let links = host.links();
    let bridge = links.iter().find(|link| link["ifname"] == "br0");
    let ports = links.iter().filter(|link| link["master"] == "br0");
    json!({
        "bridge": bridge.map(|bridge| {
            let mut bridge = link(bridge);
            bridge["generates"].take();
            bridge
        }),
        "ports": ports.map(link).collect::<Vec<_>>(),
        "released": links.iter().filter(|link| link["master"].is_null()).filter(|link| {
            TAPS.iter().any(|tap| link["ifname"] == *tap)
        }).map(|link| json!([link["ifname"], link["flags"]])).collect::<Vec<_>>(),
        "addresses": host.addresses("br0"),
        "inet6": host.ok("ip -6 -o address | grep -E 'br0|vnet' || :"),
        "table": host.nft("ip", "kvmnet-default"),
        "tables": host.nft_tables(),
        "forwarding": host.sysctl("net/ipv4/ip_forward"),
    })
}

/// The state after each verb, on a host of its own.
fn states(setup: &str, program: &str, verbs: &[(&str, &str)]) -> Vec<Value> {
    let host = Host::new();
    host.ok(setup);
    let _taps = TAPS.map(|tap| {
        // Else each run has another address in it.
        let made = host.tap(tap);
        host.ok(&format!("ip link set {tap} address 02:00:00:00:00:0{}", &tap[4..]));
        made
    });
    let run = |(verb, tap): &(&str, &str)| {
        host.ok(&format!("{program}{verb} {tap}"));
        state(&host)
    };
    verbs.iter().map(run).collect()
}

#[track_caller]
fn assert_same_states(setup: &str, verbs: &[(&str, &str)]) {
    let wanted = states(setup, "/usr/libexec/kvmnet-", verbs);
    let found = states(setup, &format!("{FLOOR} "), verbs);
    for ((verb, wanted), found) in verbs.iter().zip(&wanted).zip(&found) {
        assert_eq!(wanted, found, "{verb:?}: kvmnet's state left, the floor's right");
    }
}

#[test]
fn the_nat_network_is_kvmnets_after_each_verb() {
    let verbs =
        [("natup", "vnet0"), ("natup", "vnet1"), ("natdown", "vnet1"), ("natdown", "vnet0")];
    assert_same_states(":", &verbs);
    assert_same_states("echo 1 >/proc/sys/net/ipv4/ip_forward", &verbs);
}

#[test]
fn a_port_of_the_administrators_bridge_is_as_kvmnet_makes_it() {
    assert_same_states(
        "ip link add br0 mtu 1400 address 02:00:00:00:00:aa type bridge && ip link set br0 up",
        &[("ifup", "vnet0"), ("ifup", "vnet1"), ("ifdown", "vnet0")],
    );
}

#[test]
fn it_says_when_the_kernel_refuses() {
    let host = Host::bare();
    let run = |verb: &str| {
        let output = host.sh(&format!("{FLOOR} {verb} vnet0"));
        (output.code, output.stderr)
    };
    for verb in ["natup", "natdown", "ifup", "ifdown"] {
        assert_eq!(run(verb), (1, "floor: no tap: No such device\n".to_owned()), "{verb}");
    }
    let _tap = host.tap("vnet0");
    host.ok("nft add table ip kvmnet-default");
    assert_eq!(run("natup"), (1, "floor: the kernel refused a message: File exists\n".to_owned()));
    assert!(host.link("br0").is_none());
}
