//! `kvmnet reload`: what somebody took from networks that are up comes back, under the guests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use kvmnet_tests::{Foreign, Host, assert_same};

const SOON: Duration = Duration::from_secs(10);
const LAB: &str = "address = \"192.168.150.1/24\"\n";

/// All is there again. A table that was made anew stands behind the others.
#[track_caller]
fn assert_whole(whole: &Foreign, host: &Host) {
    let diff = whole.diff(&host.foreign());
    let is_order = diff == "nft ruleset:\n    the same lines in another order\n";
    assert!(diff.is_empty() || is_order, "{diff}");
}

#[test]
fn everything_comes_back() {
    let host = Host::new();
    host.describe("lab", &format!("mode = \"routed\"\n{LAB}mtu = 1400\n"));
    host.describe("cell", "mode = \"isolated\"\n");
    host.describe("off", "address = \"10.8.0.1/24\"\n");
    host.ok("iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE; nft add table inet site");
    let _taps = [host.tap_on("default", "t0"), host.tap_on("lab", "t1"), host.tap_on("cell", "t2")];
    host.kvmnet_ok(&["up", "cell"]);
    let whole = host.foreign();
    let well = "cell: is as it should be\ndefault: is as it should be\nlab: is as it should be\n";
    let handles = host.ok("nft -a list ruleset");
    assert_eq!(host.kvmnet_ok(&["reload"]), well);
    assert_same(&whole, &host.foreign());
    assert_eq!(host.ok("nft -a list ruleset"), handles, "rules were made anew");
    let nat = "kvmnet-default";
    for (damage, told) in [
        (format!("nft delete table ip {nat}"), "default: repaired: make table ip kvmnet-default\n"),
        (format!("nft flush table ip {nat}"), "default: repaired: replace table ip kvmnet-default\n"),
        (format!("nft insert rule ip {nat} forward accept"), "default: repaired: replace table ip kvmnet-default\n"),
        ("nft flush table netdev kvmnet-cell; nft delete table netdev kvmnet-cell".to_owned(), "cell: repaired: make table netdev kvmnet-cell\n"),
        ("ip addr flush dev lab".to_owned(), "lab: repaired: give lab the address 192.168.150.1/24\n"),
        ("ip link set lab mtu 1300".to_owned(), "lab: repaired: repair bridge lab: MTU 1400\n"),
        ("ip link set cell arp on".to_owned(), "cell: repaired: repair bridge cell: no ARP\n"),
        ("sysctl -w net.ipv6.conf.cell.disable_ipv6=0".to_owned(), "cell: repaired: set disable_ipv6 of cell to 1\n"),
        ("ip link set br0 down".to_owned(), "default: repaired: repair bridge br0: up\n"),
        ("ip link set br0 group default type bridge stp_state 1".to_owned(), "default: repaired: repair bridge br0: no STP, no forward delay kvmnet's interface group\n"),
        ("ip link set lab alias ''".to_owned(), "lab: repaired: repair bridge lab: alias kvmnet:lab\n"),
        (
            "ip link set br0 down; ip addr flush dev br0; ip addr flush dev lab; ip link set lab down; \
             nft delete table ip kvmnet-default; nft delete table ip kvmnet-lab; \
             nft delete table netdev kvmnet-cell"
                .to_owned(),
            "cell: repaired: make table netdev kvmnet-cell\n",
        ),
    ] {
        host.ok(&damage);
        let damaged = host.foreign();
        assert!(!whole.diff(&damaged).is_empty(), "no damage: {damage}");
        let said = host.kvmnet_ok(&["reload"]);
        assert!(said.contains(told), "{damage}: {said}");
        assert_whole(&whole, &host);
        assert_eq!(host.kvmnet_ok(&["reload"]), well);
    }
    // The one thing whose loss nobody sees: forwarding, where the first network needs it.
    host.ok("sysctl -w net.ipv4.ip_forward=0");
    let said = host.kvmnet_ok(&["reload"]);
    assert!(said.contains("repaired: repair bridge br0: alias kvmnet:default:forwarding; set net.ipv4.ip_forward to 1") || said.contains("default: repaired: set net.ipv4.ip_forward to 1\n"), "{said}");
    assert_whole(&whole, &host);
    let log = host.syslog().join("\n");
    assert!(log.contains("]: lab: repaired: give lab the address"), "{log}");
}

/// A service that loads its rules anew, as `systemctl restart nftables` does.
#[test]
fn after_all_rules_are_flushed() {
    let host = Host::new();
    host.describe("lab", &format!("mode = \"routed\"\n{LAB}"));
    host.describe("cell", "mode = \"isolated\"\n");
    let _taps = [host.tap_on("default", "t0"), host.tap_on("lab", "t1"), host.tap_on("cell", "t2")];
    let whole = host.foreign();
    host.ok("nft flush ruleset");
    assert!(host.nft_tables().is_empty());
    host.kvmnet_ok(&["reload"]);
    assert_whole(&whole, &host);
}

/// Neither builds, pins nor takes down.
#[test]
fn networks_that_are_down_stay_down_and_unused_ones_stay() {
    let host = Host::new();
    host.describe("lab", LAB);
    let before = host.foreign();
    assert_eq!(host.kvmnet_ok(&["reload"]), "no network that is described is up\n");
    assert_same(&before, &host.foreign());
    drop(host.tap_on("lab", "t0"));
    let left = host.foreign();
    assert_eq!(host.kvmnet_ok(&["reload"]), "lab: is as it should be\n");
    assert_same(&left, &host.foreign());
    host.ok("nft flush ruleset");
    host.kvmnet_ok(&["reload"]);
    assert_same(&left, &host.foreign());
    assert_eq!(host.kvmnet_ok(&["gc"]), "took down what nobody used: lab\n");
    assert!(host.link("lab").is_none());
    // One whose table alone came back at boot isn't up.
    host.ok("nft add table ip kvmnet-lab");
    let before = host.foreign();
    assert_eq!(host.kvmnet_ok(&["reload"]), "no network that is described is up\n");
    assert_same(&before, &host.foreign());
    // A bridge of the administrator's under the network's name is none of kvmnet's.
    host.ok("nft delete table ip kvmnet-lab; ip link add lab type bridge; ip link set lab up");
    host.ok("ip addr add 192.168.150.1/24 dev lab");
    let before = host.foreign();
    assert_eq!(host.kvmnet_ok(&["reload"]), "no network that is described is up\n");
    assert_same(&before, &host.foreign());
}

/// What can't be put right is said, and the others are put right all the same.
#[test]
fn one_that_fails_does_not_stop_the_others() {
    let host = Host::new();
    host.describe("a-moved", "address = \"10.7.0.1/24\"\n");
    host.describe("b-open", "mode = \"isolated\"\n");
    host.describe("c-never", "address = \"10.6.0.1/24\"\nforwarding = \"never\"\n");
    host.describe("lab", LAB);
    host.ok("sysctl -w net.ipv4.ip_forward=1");
    let _taps: Vec<_> = [("a-moved", "t0"), ("b-open", "t1"), ("c-never", "t2"), ("lab", "t3")]
        .map(|(network, tap)| host.tap_on(network, tap))
        .into();
    host.describe("a-moved", "address = \"10.7.1.1/24\"\n");
    host.describe("b-open", "address = \"10.5.0.1/24\"\n");
    host.describe("zoo", "mode = zoo\n");
    host.ok("sysctl -w net.ipv4.ip_forward=0");
    host.ok("ip link set c-never down");
    let rest = |host: &Host| {
        host.foreign().without_table("kvmnet-lab").without_link("lab").without_forwarding()
    };
    let before = rest(&host);
    host.ok("nft delete table ip kvmnet-lab");
    let output = host.kvmnet(&["reload"]);
    assert_eq!(output.code, 1);
    assert_eq!(output.stderr.lines().count(), 1);
    for part in [
        "kvmnet: not all is as it should be: /etc/kvmnet/zoo.toml:1: a word without quotes",
        "; a-moved: carries 10.7.0.1/24, but the address of network a-moved is 10.7.1.1/24",
        "; c-never: the host doesn't forward IPv4, and forwarding = \"never\"",
        "; b-open: ",
    ] {
        assert!(output.stderr.contains(part), "{part}\n{}", output.stderr);
    }
    assert!(output.stdout.starts_with("lab: repaired: make table ip kvmnet-lab"), "{output:?}");
    assert!(host.nft("ip", "kvmnet-lab").is_some());
    assert_same(&before, &rest(&host));
}

/// Says something and hears it back.
#[track_caller]
fn say(stream: &mut TcpStream, word: &str) {
    stream.write_all(word.as_bytes()).unwrap();
    let mut answer = vec![0; word.len()];
    stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{word}: {error}"));
    assert_eq!(answer, word.as_bytes());
}

/// A connection: the address that the other side saw, and what goes on being said.
#[track_caller]
fn connect(net: &kvmnet_tests::Netns, to: &str) -> (String, TcpStream) {
    let address = to.parse().unwrap();
    let mut stream = net.enter(|| TcpStream::connect_timeout(&address, SOON)).expect(to);
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut peer = Vec::new();
    while peer.last() != Some(&b'\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        peer.push(byte[0]);
    }
    (String::from_utf8(peer).unwrap().trim_end().to_owned(), stream)
}

#[test]
fn connections_live_through_it() {
    let host = Host::new();
    host.describe("cell", "mode = \"isolated\"\n");
    let guest = host.tap_machine("vnet0", "192.168.100.10/24", "192.168.100.1");
    host.helper("natup", &["vnet0"]).expect("natup");
    let cells = ["cell0", "cell1"].map(|tap| {
        let number = if tap == "cell0" { 10 } else { 11 };
        let machine = host.tap_machine(tap, &format!("10.9.0.{number}/24"), "10.9.0.1");
        host.helper_on("cell", "natup", tap);
        machine
    });
    let (outside, own) = (host.outside_tcp_server(7000), host.net().tcp_server(7001));
    let between = cells[1].net().tcp_server(7002);
    let mut streams = Vec::new();
    for (net, to, seen) in [
        (guest.net(), "203.0.113.1:7000", "10.0.0.11"),
        (guest.net(), "192.168.100.1:7001", "192.168.100.10"),
        (cells[0].net(), "10.9.0.11:7002", "10.9.0.10"),
    ] {
        let (peer, stream) = connect(net, to);
        assert_eq!(peer.rsplit_once(':').unwrap().0, seen);
        streams.push(stream);
    }
    let say_all = |streams: &mut Vec<TcpStream>, word: &str| {
        streams.iter_mut().for_each(|stream| say(stream, word));
    };
    say_all(&mut streams, "before");
    for _ in 0..5 {
        host.kvmnet_ok(&["reload"]);
        say_all(&mut streams, "nothing was missing");
    }
    for damage in [
        "nft flush ruleset",
        "ip addr flush dev br0",
        "nft insert rule ip kvmnet-default forward drop; nft add chain netdev kvmnet-cell more",
        "sysctl -w net.ipv4.ip_forward=0",
        "ip link set br0 type bridge stp_state 1",
        "ip link set br0 down; ip link set cell arp on",
    ] {
        host.ok(damage);
        host.kvmnet_ok(&["reload"]);
        say_all(&mut streams, damage);
        // And new ones are what they should be.
        assert!(connect(guest.net(), "203.0.113.1:7000").0.starts_with("10.0.0.11:"), "{damage}");
    }
    drop((outside, own, between));
}
