//! A network's file gets another mode: the network is turned into what the file says, or the start is
//! refused with the reason; never half of each, and never against the guests that are on it.

use std::time::Duration;

use kvmnet_core::model::{InterfaceName, ManagedNetwork, Mode, NetworkName};
use kvmnet_core::plan;
use kvmnet_tests::{Host, Output, assert_same};

const LIMIT: Duration = Duration::from_secs(60);
const NAT: &str = "address = \"192.168.150.1/24\"\n";
const ROUTED: &str = "mode = \"routed\"\naddress = \"192.168.150.1/24\"\n";
const ISOLATED: &str = "mode = \"isolated\"\n";

fn write(host: &Host, text: &str) {
    host.write("/etc/kvmnet/lab.toml", text);
}

fn helper(host: &Host, name: &str, tap: &str) -> Output {
    let mut command = host.command(&format!("/usr/libexec/kvmnet-{name}"));
    host.spawn(command.arg(tap).env("KVMNET_NETWORK", "lab")).output(LIMIT)
}

#[track_caller]
fn ok(host: &Host, name: &str, tap: &str) {
    let output = helper(host, name, tap);
    assert_eq!((output.code, output.stderr.as_str(), output.stdout.as_str()), (0, "", ""));
}

/// Refused with exactly this line by whatever program, and nothing changed.
#[track_caller]
fn refused(host: &Host, tap: &str, wanted: &str) {
    let before = host.foreign();
    for name in ["natup", "ifup"] {
        let output = helper(host, name, tap);
        assert_eq!(output.stderr, format!("kvmnet-{name}: {wanted}\n"));
        assert_eq!((output.code, output.stdout.as_str()), (1, ""));
        assert_same(&before, &host.foreign());
    }
}

fn nat() -> Mode {
    Mode::Nat("192.168.150.1/24".parse().unwrap())
}

fn routed() -> Mode {
    Mode::Routed("192.168.150.1/24".parse().unwrap())
}

/// The network is this and nothing else.
#[track_caller]
fn assert_runs_as(host: &Host, mode: Mode) {
    let bridge = InterfaceName::parse("lab".as_ref()).unwrap();
    let network = ManagedNetwork::new(NetworkName::parse("lab").unwrap(), bridge, mode);
    let family = if mode == Mode::Isolated { "netdev" } else { "ip" };
    assert_eq!(host.nft_tables(), [format!("{family} kvmnet-lab")]);
    let rules = plan::table_of(&network).unwrap().to_string();
    assert_eq!(host.nft(family, "kvmnet-lab"), Some(rules));
    let addresses: Vec<_> = mode.address().iter().map(ToString::to_string).collect();
    assert_eq!(host.addresses("lab"), addresses);
    assert_eq!(has_no_arp(host), mode == Mode::Isolated);
}

#[track_caller]
fn has_no_arp(host: &Host) -> bool {
    let link = host.link("lab").expect("the bridge is there");
    link["flags"].as_array().expect("ip prints flags").iter().any(|flag| flag == "NOARP")
}

fn opening(mode: &str) -> String {
    format!(
        "lab: network lab runs on it as isolated, but its file says {mode}; stop the guests of \
         network lab first, then start them anew"
    )
}

#[test]
fn from_nat_to_routed_to_isolated_with_a_guest_on_it() {
    let host = Host::new();
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    write(&host, NAT);
    ok(&host, "natup", "vnet0");
    write(&host, ROUTED);
    ok(&host, "natup", "vnet1");
    assert_runs_as(&host, routed());
    assert_eq!(host.ports("lab"), ["vnet0", "vnet1"]);
    ok(&host, "natdown", "vnet1");

    write(&host, ISOLATED);
    refused(
        &host,
        "vnet1",
        "lab: carries 192.168.150.1/24, but the bridge of an isolated network has no address; \
         take it away: ip address flush dev lab, or stop the guests of network lab first",
    );
    // The remedy it names.
    host.ok("ip address flush dev lab");
    ok(&host, "natup", "vnet1");
    assert_runs_as(&host, Mode::Isolated);
    for tap in ["vnet0", "vnet1"] {
        ok(&host, "natdown", tap);
    }
    assert!(host.link("lab").is_none() && host.nft_tables().is_empty());
}

/// Guests who were started behind closed doors stay there, whatever else somebody has done.
#[test]
fn an_isolated_network_is_not_opened_to_its_guests() {
    for (text, word, mode) in [(NAT, "nat", nat()), (ROUTED, "routed", routed())] {
        let host = Host::new();
        let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
        write(&host, ISOLATED);
        ok(&host, "natup", "vnet0");
        write(&host, text);
        refused(&host, "vnet1", &opening(word));
        assert_runs_as(&host, Mode::Isolated);
        for damage in [
            "ip link set lab arp on",
            "ip addr add 192.168.150.1/24 dev lab",
            "ip addr flush dev lab; ip link set lab arp off; nft flush ruleset",
        ] {
            host.ok(damage);
            refused(&host, "vnet1", &opening(word));
        }
        // With its own mode in the file it is repaired.
        write(&host, ISOLATED);
        ok(&host, "natup", "vnet1");
        assert_runs_as(&host, Mode::Isolated);
        // The remedy.
        ok(&host, "natdown", "vnet1");
        ok(&host, "natdown", "vnet0");
        write(&host, text);
        ok(&host, "natup", "vnet0");
        assert_runs_as(&host, mode);
        // Without the sign of another mode, what is lost is put back with guests on it.
        host.ok("ip link set lab arp off; nft flush ruleset");
        ok(&host, "natup", "vnet1");
        assert_runs_as(&host, mode);
    }
}

/// What a killed guest has left, and a tap that nobody holds open, keep no network as it was.
#[test]
fn an_isolated_network_without_guests_takes_on_another_mode() {
    let host = Host::new();
    let (guest, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    write(&host, ISOLATED);
    ok(&host, "natup", "vnet0");
    host.ok("ip tuntap add idle mode tap && ip link set idle master lab up");
    write(&host, NAT);
    refused(&host, "vnet1", &opening("nat"));
    drop(guest);
    ok(&host, "natup", "vnet1");
    assert_runs_as(&host, nat());
    assert_eq!(host.ports("lab"), ["idle", "vnet1"]);
}

/// A port that isn't a tap is somebody's, too.
#[test]
fn any_port_keeps_an_isolated_network_isolated() {
    let host = Host::new();
    let (guest, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    write(&host, ISOLATED);
    ok(&host, "natup", "vnet0");
    host.ok("ip link add pod0 type veth peer name pod1 && ip link set pod0 master lab up");
    drop(guest);
    write(&host, NAT);
    refused(&host, "vnet1", &opening("nat"));
    host.ok("ip link del pod0");
    ok(&host, "natup", "vnet1");
    assert_runs_as(&host, nat());
}
