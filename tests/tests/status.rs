//! `kvmnet status --json` on the real kernel, for networks in every state: `status_json` holds each
//! answer to the schema and to what ip, nft and the settings say.

mod status_json;

use kvmnet_tests::{Host, assert_same};
use serde_json::{Value, json};
use status_json::{network, status};

const LAB: &str = "address = \"192.168.150.1/24\"\n";
/// State of the network, state of its rules.
#[track_caller]
fn states(host: &Host, name: &str) -> (String, String) {
    let status = status(host);
    let network = network(&status, name);
    let word = |value: &Value| value.as_str().expect("the schema says so").to_owned();
    (word(&network["state"]), word(&network["rules"]["state"]))
}

fn words(state: &str, rules: &str) -> (String, String) {
    (state.to_owned(), rules.to_owned())
}

fn names(status: &Value) -> Vec<&str> {
    let networks = status["networks"].as_array().expect("the schema says so");
    networks.iter().map(|network| network["name"].as_str().unwrap_or("-")).collect()
}

#[test]
fn every_mode_at_once() {
    let host = Host::new();
    host.describe("lab", &format!("{LAB}mtu = 1400\ntaps = [\"lab*\"]\n"));
    host.describe("dmz", "mode = \"routed\"\naddress = \"10.9.0.1/16\"\nbridge = \"br-dmz\"\nforwarding = \"never\"\n");
    host.describe("cell", "mode = \"isolated\"\n");
    host.describe("lan", "mode = \"bridged\"\nbridge = \"br1\"\n");
    host.describe(
        "own-rules",
        "address = \"10.8.0.1/24\"\nfirewall = \"none\"\nforwarding = \"interfaces\"\n",
    );
    let nothing = status(&host);
    assert_eq!(names(&nothing), ["cell", "default", "dmz", "lab", "lan", "own-rules"]);
    assert!(nothing["networks"].as_array().unwrap().iter().all(|one| one["state"] == "down"));
    assert_eq!(nothing["host"]["uplinks"], json!(["eno1"]));
    host.ok("
        ip link add br1 type bridge && ip addr add 10.1.0.1/24 dev br1
        ip addr add 10.1.1.1/30 dev br1 && ip link set br1 up
        ip link add veth0 type veth peer name veth1 && ip link set veth0 master br1 up
        ip link add eno2 type veth peer name far2 && ip link set eno2 addrgenmode none up && ip link set far2 up
        ip addr add 10.7.0.2/24 dev eno2 && ip route add default via 10.7.0.1 metric 500
    ");
    let before = host.foreign();
    assert_eq!(status(&host)["host"]["uplinks"], json!(["eno1", "eno2"]));
    assert_same(&before, &host.foreign());
    let _taps: Vec<_> = [
        ("own-rules", "t0"),
        ("lab", "t1"),
        ("lab", "t2"),
        ("default", "t3"),
        ("dmz", "t4"),
        ("cell", "t5"),
        ("lan", "t6"),
    ]
    .map(|(network, tap)| host.tap_on(network, tap))
    .into();
    let before = host.foreign();
    let shown = status(&host);
    assert_same(&before, &host.foreign());

    assert_eq!(names(&shown), ["cell", "default", "dmz", "lab", "lan", "own-rules"]);
    assert_eq!(shown["host"]["ipv4_forwarding_turned_on_for"], json!(["lab"]));
    let facts = |name: &str| {
        let one = network(&shown, name);
        let ports = one["ports"].as_array().unwrap().iter().map(|port| port["name"].clone());
        json!([
            one["mode"],
            one["file"],
            one["state"],
            one["address"],
            one["bridge"]["name"],
            one["bridge"]["managed"],
            one["rules"],
            one["forwarding"],
            ports.collect::<Vec<_>>(),
        ])
    };
    let rules = |family: &str, name: &str| {
        let command = format!("nft list table {family} kvmnet-{name}");
        json!({"backend": "nftables", "state": "in-place", "command": command})
    };
    let no_rules = json!({"backend": "none", "state": "none", "command": null});
    let on = |policy: &str| json!({"policy": policy, "on": true});
    let file = |name: &str| format!("/etc/kvmnet/{name}.toml");
    for (name, wanted) in [
        (
            "default",
            json!([
                "nat",
                null,
                "up",
                "192.168.100.1/24",
                "br0",
                true,
                rules("ip", "default"),
                on("global"),
                ["t3"]
            ]),
        ),
        (
            "lab",
            json!([
                "nat",
                file("lab"),
                "up",
                "192.168.150.1/24",
                "lab",
                true,
                rules("ip", "lab"),
                on("global"),
                ["t1", "t2"]
            ]),
        ),
        (
            "dmz",
            json!([
                "routed",
                file("dmz"),
                "up",
                "10.9.0.1/16",
                "br-dmz",
                true,
                rules("ip", "dmz"),
                on("never"),
                ["t4"]
            ]),
        ),
        (
            "cell",
            json!([
                "isolated",
                file("cell"),
                "up",
                null,
                "cell",
                true,
                rules("netdev", "cell"),
                null,
                ["t5"]
            ]),
        ),
        (
            "lan",
            json!([
                "bridged",
                file("lan"),
                "up",
                null,
                "br1",
                false,
                no_rules,
                null,
                ["t6", "veth0"]
            ]),
        ),
        (
            "own-rules",
            json!([
                "nat",
                file("own-rules"),
                "up",
                "10.8.0.1/24",
                "own-rules",
                true,
                no_rules,
                on("interfaces"),
                ["t0"]
            ]),
        ),
    ] {
        assert_eq!(facts(name), wanted, "{name}");
    }
    assert_eq!(network(&shown, "lab")["bridge"]["mtu"], 1400);
    assert_eq!(
        network(&shown, "lan")["bridge"]["addresses"],
        json!(["10.1.0.1/24", "10.1.1.1/30"])
    );

    // Not the host as a whole, but the bridge.
    host.ok("sysctl -w net.ipv4.ip_forward=0 net.ipv4.conf.own-rules.forwarding=1");
    let shown = status(&host);
    assert_eq!(network(&shown, "own-rules")["forwarding"]["on"], true);
    assert_eq!(network(&shown, "lab")["forwarding"]["on"], false);
    if host.sh("test -e /proc/sys/net/bridge").success() {
        for value in [0, 1] {
            host.ok(&format!("sysctl -w net.bridge.bridge-nf-call-iptables={value}"));
            assert_eq!(status(&host)["host"]["bridge_netfilter"], value == 1);
        }
    }
}

#[test]
fn rules_in_every_state() {
    let host = Host::bare();
    host.describe("cell", "mode = \"isolated\"\n");
    let _taps = [host.tap_on("default", "t0"), host.tap_on("cell", "t1")];
    for (name, family) in [("default", "ip"), ("cell", "netdev")] {
        let table = format!("{family} kvmnet-{name}");
        assert_eq!(states(&host, name), words("up", "in-place"));
        host.ok(&format!("nft add chain {table} extra && nft add rule {table} extra accept"));
        assert_eq!(states(&host, name), words("up", "changed"));
        host.ok(&format!("nft flush table {table}"));
        assert_eq!(states(&host, name), words("up", "changed"));
        host.ok(&format!("nft delete table {table}"));
        assert_eq!(states(&host, name), words("up", "missing"));
        host.ok("nft flush ruleset");
        assert_eq!(states(&host, name), words("up", "missing"));
        host.kvmnet_ok(&["reload"]);
        assert_eq!(states(&host, name), words("up", "in-place"));
    }
}

#[test]
fn used_unused_and_pinned() {
    let host = Host::bare();
    host.describe("lab", LAB);
    assert_eq!(states(&host, "lab"), words("down", "none"));
    let tap = host.tap_on("lab", "t0");
    assert_eq!(states(&host, "lab"), words("up", "in-place"));
    // Killed: nothing runs its downscript.
    drop(tap);
    assert_eq!(states(&host, "lab"), words("unused", "in-place"));
    host.persistent_tap("idle");
    host.ok("ip link set idle master lab up");
    assert_eq!(states(&host, "lab"), words("unused", "in-place"));
    // Any other port keeps it.
    host.ok("ip link add veth0 type veth peer name veth1 && ip link set veth0 master lab");
    assert_eq!(states(&host, "lab"), words("up", "in-place"));
    host.ok("ip link del veth0");
    host.kvmnet_ok(&["up", "lab"]);
    assert_eq!(states(&host, "lab"), words("pinned", "in-place"));
    host.kvmnet_ok(&["down", "lab"]);
    assert_eq!(states(&host, "lab"), words("down", "none"));
}

#[test]
fn bridges_that_were_renamed_or_lost_their_alias() {
    let host = Host::bare();
    host.describe("lab", LAB);
    let _taps = [host.tap_on("lab", "t0"), host.tap_on("default", "t1")];
    host.ok("ip link set lab down && ip link set lab name natx && ip link set natx up");
    host.ok("ip link set br0 alias 'VM net'");
    let status = status(&host);
    assert_eq!(names(&status), ["default", "lab"]);
    assert_eq!(network(&status, "lab")["bridge"]["name"], "natx");
    assert_eq!(network(&status, "lab")["state"], "up");
    assert_eq!(network(&status, "default")["bridge"]["managed"], true);
}

#[test]
fn bridges_without_a_good_file() {
    let host = Host::bare();
    for name in ["gone", "moved", "cell"] {
        let mode = if name == "cell" {
            "mode = \"isolated\"\n".to_owned()
        } else {
            format!("address = \"10.{}.0.1/24\"\n", name.len())
        };
        host.describe(name, &mode);
    }
    let _taps = [host.tap_on("gone", "t0"), host.tap_on("moved", "t1"), host.tap_on("cell", "t2")];
    host.ok("rm /etc/kvmnet/gone.toml /etc/kvmnet/cell.toml && nft delete table ip kvmnet-gone");
    // Its file speaks of another bridge now. The one that is there is still kvmnet's.
    host.describe("moved", "mode = \"bridged\"\nbridge = \"br7\"\n");
    // The administrator's, with a guest of kvmnet-ifup's; and one without guests.
    host.ok("for n in 0 8; do ip link add br$n type bridge; ip link set br$n up; done");
    let _lan = host.tap("t3");
    host.helper("ifup", &["t3"]).expect("ifup");
    let status = status(&host);
    let seen: Vec<_> = status["networks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            json!([
                one["name"],
                one["mode"],
                one["state"],
                one["bridge"]["name"],
                one["bridge"]["managed"],
                one["rules"]["state"],
                one["ports"].as_array().unwrap().len()
            ])
        })
        .collect();
    assert_eq!(
        json!(seen),
        json!([
            ["cell", "isolated", "up", "cell", true, "unknown", 1],
            ["default", "nat", "down", "br0", null, "none", 0],
            ["gone", null, "up", "gone", true, "missing", 1],
            ["moved", "bridged", "down", "br7", null, "none", 0],
            ["moved", null, "up", "moved", true, "unknown", 1],
            [null, "bridged", "up", "br0", false, "none", 1],
        ])
    );
    // A file that says bridged, of a bridge that kvmnet made.
    host.describe("moved", "mode = \"bridged\"\nbridge = \"moved\"\n");
    let shown = status_json::status(&host);
    let moved = network(&shown, "moved");
    assert_eq!((&moved["mode"], &moved["bridge"]["managed"]), (&json!("bridged"), &json!(true)));
}
