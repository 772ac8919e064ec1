//! Networks of every mode on the real kernel, with taps that the test holds as QEMU would.

use std::net::UdpSocket;
use std::time::Duration;

use kvmnet_core::model::{InterfaceName, ManagedNetwork, Mode, NetworkName};
use kvmnet_core::plan;
use kvmnet_tests::{Foreign, Host, Tap, assert_same};

const LIMIT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(10);
/// How long nothing must come: a hundred times what comes takes.
const SILENCE: Duration = Duration::from_millis(500);

const NAT: &str = "address = \"192.168.150.1/24\"\n";
const ROUTED: &str = "mode = \"routed\"\naddress = \"192.168.150.1/24\"\n";
const ISOLATED: &str = "mode = \"isolated\"\n";
/// kvmnet's interface group.
const GROUP: &str = "27510";

fn write(host: &Host, network: &str, text: &str) {
    host.write(format!("/etc/kvmnet/{network}.toml"), text);
}

/// Refused with exactly this line, and nothing changed.
#[track_caller]
fn refused(host: &Host, name: &str, network: &str, tap: &str, wanted: &str) {
    let before = host.foreign();
    let output = host.run_helper_on(network, name, tap);
    assert_eq!(output.stderr, format!("kvmnet-{name}: {wanted}\n"));
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    assert_same(&before, &host.foreign());
}

/// All but what kvmnet builds for network `lab`, and its taps.
fn foreign(host: &Host) -> Foreign {
    let all = host.foreign().without_table("kvmnet-lab").without_forwarding();
    ["lab", "vnet0", "vnet1"].iter().fold(all, |rest, link| rest.without_link(link))
}

/// The golden text of a network's rules.
fn golden(network: &str, mode: Mode) -> String {
    let bridge = InterfaceName::parse(network.as_ref()).unwrap();
    let network = ManagedNetwork::new(NetworkName::parse(network).unwrap(), bridge, mode);
    plan::table_of(&network).unwrap().to_string()
}

fn routed(address: &str) -> Mode {
    Mode::Routed(address.parse().unwrap())
}

fn nat(address: &str) -> Mode {
    Mode::Nat(address.parse().unwrap())
}

#[track_caller]
fn has_flag(host: &Host, link: &str, flag: &str) -> bool {
    let link = host.link(link).expect("the link is there");
    link["flags"].as_array().expect("ip prints flags").iter().any(|found| found == flag)
}

fn group(host: &Host, link: &str) -> String {
    let group = &host.link(link).expect("the link is there")["group"];
    group.as_str().map_or_else(|| group.to_string(), str::to_owned)
}

/// What the administrator has.
fn furnish(host: &Host) {
    host.ok("
        ip link add br01 type bridge && ip addr add 10.1.0.1/24 dev br01
        # Duplicate address detection ends at some time, and would look like a change of ours.
        echo 1 >/proc/sys/net/ipv6/conf/br01/disable_ipv6 && ip link set br01 up
        iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE
        nft add table inet site
        nft add chain inet site forward '{ type filter hook forward priority 0; }'
        nft add table netdev site
        nft add chain netdev site ingress '{ type filter hook ingress device eno1 priority 0; }'
        ip route add 192.168.0.0/16 via 10.0.0.1
    ");
}

#[test]
fn routed_is_an_address_forwarding_and_one_chain() {
    let host = Host::new();
    furnish(&host);
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    write(&host, "lab", ROUTED);
    assert_eq!(host.sysctl("net/ipv4/ip_forward"), "0");
    let before = foreign(&host);
    host.quiet_helper_on("lab", "natup", "vnet0");
    assert_eq!(host.ports("lab"), ["vnet0"]);
    assert_eq!(host.addresses("lab"), ["192.168.150.1/24"]);
    assert_eq!(host.sysctl("net/ipv4/ip_forward"), "1");
    assert_eq!(host.sysctl("net/ipv6/conf/lab/disable_ipv6"), "1");
    assert_eq!(host.link("lab").unwrap()["ifalias"], "kvmnet:lab:forwarding");
    assert_eq!(group(&host, "lab"), GROUP);
    assert!(!has_flag(&host, "lab", "NOARP"));
    let table = host.nft("ip", "kvmnet-lab").expect("it has its table");
    assert_eq!(table, golden("lab", routed("192.168.150.1/24")));
    // Nothing that costs every packet a look-up, and nothing that changes an address.
    assert!(!table.contains("ct ") && !table.contains("masquerade"), "{table}");
    assert_same(&before, &foreign(&host));
    host.quiet_helper_on("lab", "ifup", "vnet1");
    assert_eq!(host.ports("lab"), ["vnet0", "vnet1"]);
    assert_same(&before, &foreign(&host));
    host.quiet_helper_on("lab", "natdown", "vnet0");
    assert!(host.nft("ip", "kvmnet-lab").is_some());
    host.quiet_helper_on("lab", "natdown", "vnet1");
    assert!(host.link("lab").is_none() && host.nft("ip", "kvmnet-lab").is_none());
    assert_same(&before, &foreign(&host));
    let log = host.syslog().join("\n");
    let built =
        "vnet0: attached to lab; built routed network lab, its rules: nft list table ip kvmnet-lab";
    assert!(log.contains(built), "{log}");
}

#[test]
fn isolated_has_no_address_no_arp_no_ipv6_and_a_chain_that_drops_all() {
    let host = Host::new();
    furnish(&host);
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    write(&host, "lab", ISOLATED);
    let before = foreign(&host);
    let forwarding = host.ok("sysctl -a 2>/dev/null | grep forwarding");
    host.quiet_helper_on("lab", "natup", "vnet0");
    assert_eq!(host.ports("lab"), ["vnet0"]);
    let everything = host.ok("ip addr show dev lab; ip addr show dev vnet0");
    assert!(!everything.contains("inet"), "{everything}");
    assert!(has_flag(&host, "lab", "NOARP") && has_flag(&host, "lab", "UP"));
    assert_eq!(host.sysctl("net/ipv6/conf/lab/disable_ipv6"), "1");
    assert_eq!(host.link("lab").unwrap()["ifalias"], "kvmnet:lab");
    assert_eq!(group(&host, "lab"), GROUP);
    assert_eq!(host.nft("netdev", "kvmnet-lab"), Some(golden("lab", Mode::Isolated)));
    assert!(host.nft("ip", "kvmnet-lab").is_none());
    assert_eq!(host.sysctl("net/ipv4/ip_forward"), "0");
    assert_same(&before, &foreign(&host));
    host.quiet_helper_on("lab", "ifup", "vnet1");
    let once = host.foreign();
    host.quiet_helper_on("lab", "natup", "vnet0");
    assert_same(&once, &host.foreign());
    host.quiet_helper_on("lab", "natdown", "vnet0");
    host.quiet_helper_on("lab", "natdown", "vnet1");
    assert!(host.link("lab").is_none() && host.nft("netdev", "kvmnet-lab").is_none());
    assert_same(&before, &foreign(&host));
    assert_eq!(host.ok("sysctl -a 2>/dev/null | grep forwarding"), forwarding);
    let log = host.syslog().join("\n");
    assert!(
        log.contains("built isolated network lab, its rules: nft list table netdev kvmnet-lab"),
        "{log}"
    );
}

/// A bridge hands up frames to the addresses of IEEE 802.1D (01:80:c2:00:00:0X) by the port they
/// came in by, not by the bridge: a packet in such a frame must not get to the host, either.
#[test]
fn frames_to_link_local_addresses_do_not_get_round_the_isolation() {
    let host = Host::new();
    let tap = host.tap("vnet0");
    write(&host, "lab", ISOLATED);
    host.quiet_helper_on("lab", "natup", "vnet0");
    let socket = host.net().enter(|| UdpSocket::bind(("0.0.0.0", 7000)).unwrap());
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let mut heard = Vec::new();
    for last in 0..16 {
        tap.send(&udp_frame(
            [0x01, 0x80, 0xc2, 0, 0, last],
            [192, 168, 150, 9],
            [10, 0, 0, 11],
            &[last],
        ));
    }
    let mut buffer = [0; 64];
    while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
        heard.push(format!("01:80:c2:00:00:{:02x} from {peer}", buffer[0]));
    }
    assert!(heard.is_empty(), "the host has heard the guest: {heard:?}");
}

/// An Ethernet frame with a UDP datagram to port 7000.
fn udp_frame(to: [u8; 6], source: [u8; 4], destination: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend([0x52, 0x54, 0, 0, 0, 9, 0x08, 0x00]);
    let length = u16::try_from(28 + data.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, 17, 0, 0];
    header.extend(source);
    header.extend(destination);
    let mut sum: u32 =
        header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame.extend(header);
    let length = u16::try_from(8 + data.len()).unwrap().to_be_bytes();
    // A checksum of zero is none.
    frame.extend([0x1b, 0x58, 0x1b, 0x58, length[0], length[1], 0, 0]);
    frame.extend(data);
    frame
}

#[test]
fn forwarding_in_its_three_values() {
    for (mode, address) in [("nat", NAT), ("routed", NAT)] {
        let text = |forwarding: &str| {
            format!("mode = \"{mode}\"\n{address}forwarding = \"{forwarding}\"\n")
        };
        let host = Host::new();
        // A second default route, another link, and nothing forwards.
        host.ok("
            for n in 1 2; do ip link add nic$n type veth peer name far$n; ip link set nic$n up; done
            ip addr add 10.7.0.2/24 dev nic1 && ip route add default via 10.7.0.1 metric 500
        ");
        let _tap = host.tap("vnet0");
        write(&host, "lab", &text("never"));
        refused(
            &host,
            "natup",
            "lab",
            "vnet0",
            "lab: the host doesn't forward IPv4, and forwarding = \"never\" forbids turning it on; \
             do so yourself: sysctl -w net.ipv4.ip_forward=1",
        );
        assert!(host.link("lab").is_none());

        write(&host, "lab", &text("interfaces"));
        let of = |link: &str| host.sysctl(&format!("net/ipv4/conf/{link}/forwarding"));
        let before = foreign(&host);
        host.quiet_helper_on("lab", "natup", "vnet0");
        assert_eq!(host.sysctl("net/ipv4/ip_forward"), "0");
        let forwards = ["lab", "eno1", "nic1", "nic2", "vnet0", "default"].map(of);
        assert_eq!(forwards, ["1", "1", "1", "0", "0", "0"]);
        assert_same(&before, &foreign(&host));
        // Repaired, too.
        host.ok("echo 0 >/proc/sys/net/ipv4/conf/lab/forwarding; echo 0 >/proc/sys/net/ipv4/conf/nic1/forwarding");
        host.quiet_helper_on("lab", "natup", "vnet0");
        assert_eq!([of("lab"), of("nic1")], ["1", "1"]);
        host.quiet_helper_on("lab", "natdown", "vnet0");

        host.ok("sysctl -w net.ipv4.ip_forward=1");
        write(&host, "lab", &text("never"));
        host.quiet_helper_on("lab", "natup", "vnet0");
        // With the guest on it, turned off by somebody: said, and the guest stays as it is.
        host.ok("sysctl -w net.ipv4.ip_forward=0");
        let output = host.run_helper_on("lab", "natup", "vnet0");
        assert!(output.stderr.contains("forwarding = \"never\""), "{output:?}");
        assert_eq!(host.ports("lab"), ["vnet0"]);
        host.quiet_helper_on("lab", "natdown", "vnet0");

        write(&host, "lab", &text("global"));
        host.quiet_helper_on("lab", "natup", "vnet0");
        assert_eq!(host.sysctl("net/ipv4/ip_forward"), "1");
        host.quiet_helper_on("lab", "natdown", "vnet0");
        assert_eq!(host.sysctl("net/ipv4/ip_forward"), "1");
    }
}

#[test]
fn mtu_is_that_of_bridge_and_taps() {
    for mode in [NAT, ROUTED, ISOLATED] {
        let host = Host::bare();
        let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
        write(&host, "lab", &format!("{mode}mtu = 9000\n"));
        let mtus = |links: &[&str]| {
            links
                .iter()
                .map(|link| host.link(link).unwrap()["mtu"].as_u64().unwrap())
                .collect::<Vec<_>>()
        };
        host.quiet_helper_on("lab", "natup", "vnet0");
        assert_eq!(mtus(&["lab", "vnet0"]), [9000, 9000]);
        host.ok("ip link set lab mtu 1400");
        host.quiet_helper_on("lab", "natup", "vnet1");
        assert_eq!(mtus(&["lab", "vnet0", "vnet1"]), [9000, 9000, 9000]);
        host.quiet_helper_on("lab", "natdown", "vnet0");
        host.quiet_helper_on("lab", "natdown", "vnet1");
        assert!(host.link("lab").is_none() && host.nft_tables().is_empty());
        for mtu in [68, 65521] {
            write(&host, "lab", &format!("{mode}mtu = {mtu}\n"));
            host.quiet_helper_on("lab", "natup", "vnet0");
            assert_eq!(mtus(&["lab", "vnet0"]), [mtu, mtu]);
            host.quiet_helper_on("lab", "natdown", "vnet0");
        }
    }
}

#[test]
fn without_a_firewall_there_is_no_table() {
    let host = Host::new();
    furnish(&host);
    let _tap = host.tap("vnet0");
    let before = foreign(&host);
    for mode in [NAT, ROUTED, ISOLATED] {
        write(&host, "lab", &format!("{mode}firewall = \"none\"\n"));
        // One of ours that is there already, such as from a saved ruleset.
        host.ok("nft add table ip kvmnet-lab; nft add table netdev kvmnet-lab; nft add table inet kvmnet-lab");
        host.quiet_helper_on("lab", "natup", "vnet0");
        assert_eq!(host.ports("lab"), ["vnet0"]);
        assert!(
            host.nft("ip", "kvmnet-lab").is_none() && host.nft("netdev", "kvmnet-lab").is_none()
        );
        // Not one that kvmnet could have made.
        host.ok("nft delete table inet kvmnet-lab");
        // From rules to none while the network is up, and back.
        write(&host, "lab", mode);
        host.quiet_helper_on("lab", "natup", "vnet0");
        assert_eq!(
            host.nft_tables().iter().filter(|table| table.ends_with("kvmnet-lab")).count(),
            1
        );
        write(&host, "lab", &format!("{mode}firewall = \"none\"\n"));
        host.quiet_helper_on("lab", "natup", "vnet0");
        assert!(!host.nft_tables().iter().any(|table| table.ends_with("kvmnet-lab")));
        host.quiet_helper_on("lab", "natdown", "vnet0");
        assert!(host.link("lab").is_none());
        assert_same(&before, &foreign(&host));
    }
    assert!(host.syslog()[0].contains("built nat network lab, without rules"));
}

#[test]
fn the_isolated_bridge_is_deleted_behind_our_back() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    write(&host, "lab", ISOLATED);
    let before = foreign(&host);
    host.quiet_helper_on("lab", "natup", "vnet0");
    let whole = host.foreign();
    host.ok("ip link del lab");
    // Whatever the kernel makes of a chain without its device: natup makes it whole...
    let left = host.nft("netdev", "kvmnet-lab");
    host.quiet_helper_on("lab", "natup", "vnet0");
    let diff = whole.diff(&host.foreign());
    assert!(diff.is_empty(), "left was {left:?}\n{diff}");
    // ...and any down clears it away.
    host.ok("ip link del lab");
    host.quiet_helper_on("lab", "natdown", "vnet9");
    assert!(host.nft_tables().is_empty());
    assert_same(&before, &foreign(&host));
    // Made anew by somebody, under the same name, and with our chain hanging nowhere.
    host.quiet_helper_on("lab", "natup", "vnet0");
    host.ok("ip link del lab && ip link add lab type bridge");
    let output = host.run_helper_on("lab", "natup", "vnet0");
    assert!(
        output.stderr.contains("lab: is not kvmnet's and carries no IPv4 address"),
        "{output:?}"
    );
}

/// A saved ruleset may bring back our table while the bridge isn't there, or is not the same.
#[test]
fn a_table_that_hangs_on_another_device() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    write(&host, "lab", ISOLATED);
    host.quiet_helper_on("lab", "natup", "vnet0");
    let whole = host.foreign();
    for damage in [
        "nft delete table netdev kvmnet-lab && nft add table netdev kvmnet-lab && nft add chain netdev \
         kvmnet-lab ingress '{ type filter hook ingress device lo priority 0; policy drop; }'",
        "nft delete table netdev kvmnet-lab && nft add table netdev kvmnet-lab && nft add chain netdev \
         kvmnet-lab ingress '{ type filter hook ingress devices = { lab, lo } priority 0; policy drop; }'",
        "nft delete table netdev kvmnet-lab && nft add table netdev kvmnet-lab && nft add chain netdev \
         kvmnet-lab ingress '{ type filter hook ingress device lab priority 10; policy drop; }'",
        "nft delete table netdev kvmnet-lab && nft add table netdev kvmnet-lab && nft add chain netdev \
         kvmnet-lab ingress",
    ] {
        host.ok(damage);
        host.quiet_helper_on("lab", "natup", "vnet0");
        let diff = whole.diff(&host.foreign());
        assert!(diff.is_empty(), "not repaired: {damage}\n{diff}");
    }
}

#[test]
fn natup_puts_back_whatever_is_missing_in_each_mode() {
    let address = [
        "ip addr flush dev lab",
        "ip addr del 192.168.150.1/24 dev lab",
        "echo 0 >/proc/sys/net/ipv4/ip_forward",
    ];
    let ip = [
        "nft delete table ip kvmnet-lab",
        "nft flush table ip kvmnet-lab",
        "nft flush chain ip kvmnet-lab forward",
        "nft insert rule ip kvmnet-lab forward accept",
        "nft add rule ip kvmnet-lab forward counter",
        "nft 'chain ip kvmnet-lab forward { policy drop; }'",
        "nft add chain ip kvmnet-lab other",
        "nft add set ip kvmnet-lab some '{ type ipv4_addr; }'",
        "nft 'table ip kvmnet-lab { flags dormant; }'",
    ];
    let netdev = [
        "nft delete table netdev kvmnet-lab",
        "nft 'chain netdev kvmnet-lab ingress { policy accept; }'",
        "nft add rule netdev kvmnet-lab ingress accept",
        "nft add rule netdev kvmnet-lab ingress ip saddr 10.0.0.1 accept",
        "nft delete chain netdev kvmnet-lab ingress",
        "nft 'table netdev kvmnet-lab { flags dormant; }'",
        "ip link set lab arp on",
        "ip link set lab arp on down; nft flush ruleset; ip link set lab alias ''",
    ];
    let all = [
        "nft flush ruleset",
        "ip link set lab group default",
        "ip link set lab group 7",
        "ip link set lab down",
        "ip link set lab alias ''",
        "ip link set lab address 02:00:00:00:00:01",
        "ip link set lab type bridge stp_state 1",
        "ip link set lab type bridge forward_delay 1500",
        "ip link set vnet0 nomaster",
        "ip link set vnet0 down",
        "echo 0 >/proc/sys/net/ipv6/conf/lab/disable_ipv6",
    ];
    let (arp, no_arp) = (&["ip link set lab arp off"][..], &[][..]);
    let mut failures = Vec::new();
    for (mode, damages) in [
        (NAT, [&all[..], &address[..], &ip[..], arp]),
        (ROUTED, [&all[..], &address[..], &ip[..], arp]),
        (ISOLATED, [&all[..], &netdev[..], no_arp, no_arp]),
    ] {
        let host = Host::new();
        let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
        write(&host, "lab", mode);
        host.quiet_helper_on("lab", "natup", "vnet0");
        host.quiet_helper_on("lab", "natup", "vnet1");
        let whole = host.foreign();
        for damage in damages.concat() {
            host.ok(damage);
            let damaged = host.foreign();
            assert!(!whole.diff(&damaged).is_empty(), "no damage: {damage}");
            let output = host.run_helper_on("lab", "natup", "vnet0");
            let diff = whole.diff(&host.foreign());
            if !output.success() || !diff.is_empty() {
                failures.push(format!("{mode}{damage}: {output:?}\n{diff}"));
                host.ok("ip link del lab; nft delete table ip kvmnet-lab; nft delete table netdev kvmnet-lab; :");
                host.quiet_helper_on("lab", "natup", "vnet0");
                host.quiet_helper_on("lab", "natup", "vnet1");
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What an isolated network must not have is not put up with.
#[test]
fn an_address_on_an_isolated_bridge_is_refused() {
    let host = Host::bare();
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    write(&host, "lab", ISOLATED);
    host.quiet_helper_on("lab", "natup", "vnet0");
    host.ok("ip addr add 10.3.0.1/24 dev lab");
    refused(
        &host,
        "natup",
        "lab",
        "vnet1",
        "lab: carries 10.3.0.1/24, but the bridge of an isolated network has no address; take it \
         away: ip address flush dev lab, or stop the guests of network lab first",
    );
    host.ok("ip address flush dev lab");
    host.quiet_helper_on("lab", "natup", "vnet1");
}

/// Another subnet while a guest is on the network.
#[test]
fn the_address_changes_between_two_runs() {
    let host = Host::new();
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    write(&host, "lab", NAT);
    host.quiet_helper_on("lab", "natup", "vnet0");
    write(&host, "lab", "address = \"192.168.151.1/24\"");
    let output = host.run_helper_on("lab", "natup", "vnet1");
    // The guests of the old subnet keep their way out, or the start is refused: what must not be
    // is a bridge with both addresses and rules for one of them.
    let (addresses, table) = (host.addresses("lab"), host.nft("ip", "kvmnet-lab").unwrap());
    for address in &addresses {
        let subnet = address.replace(".1/24", ".0/24");
        assert!(table.contains(&subnet), "{output:?}: {addresses:?}\n{table}");
    }
}

/// Another bridge while a guest is on the network: the old guests must not lose what keeps them
/// off the host.
#[test]
fn the_bridge_changes_between_two_runs() {
    let mut failures = Vec::new();
    for mode in [ISOLATED, NAT, ROUTED] {
        let host = Host::new();
        let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
        write(&host, "lab", mode);
        host.quiet_helper_on("lab", "natup", "vnet0");
        write(&host, "lab", &format!("{mode}bridge = \"lab2\""));
        let output = host.run_helper_on("lab", "natup", "vnet1");
        let ruleset = host.ok("nft list ruleset");
        let rules_of = |bridge: &str| ruleset.contains(&format!("\"{bridge}\""));
        assert_eq!(host.ports("lab"), ["vnet0"]);
        if !rules_of("lab") {
            failures.push(format!("{mode}{output:?}: lab has lost its rules:\n{ruleset}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn only_the_network_that_nobody_uses_goes() {
    let host = Host::new();
    furnish(&host);
    let networks = [
        ("one", "address = \"10.21.0.1/24\""),
        ("two", "address = \"10.22.0.1/24\""),
        ("three", "mode = \"routed\"\naddress = \"10.23.0.1/24\""),
        ("four", ISOLATED),
    ];
    let _taps: Vec<_> = networks.iter().map(|(name, _)| host.tap(&format!("t-{name}"))).collect();
    let others = |host: &Host| {
        let all = host.foreign().without_forwarding();
        networks.iter().fold(all, |rest, (name, _)| {
            rest.without_link(name)
                .without_link(&format!("t-{name}"))
                .without_table(&format!("kvmnet-{name}"))
        })
    };
    let before = others(&host);
    for (name, text) in networks {
        write(&host, name, text);
        host.quiet_helper_on(name, "natup", &format!("t-{name}"));
    }
    assert_same(&before, &others(&host));
    let mut left: Vec<&str> = networks.iter().map(|(name, _)| *name).collect();
    for gone in ["two", "four", "one", "three"] {
        let whole = host.foreign();
        host.quiet_helper_on(gone, "natdown", &format!("t-{gone}"));
        left.retain(|name| *name != gone);
        let without = |state: Foreign| {
            state
                .without_link(gone)
                .without_link(&format!("t-{gone}"))
                .without_table(&format!("kvmnet-{gone}"))
        };
        assert_same(&without(whole), &without(host.foreign()));
        let bridges: Vec<_> = networks
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| host.link(name).is_some())
            .collect();
        let mut sorted = left.clone();
        sorted.sort_by_key(|name| networks.iter().position(|(n, _)| n == name));
        assert_eq!(bridges, sorted);
        assert_eq!(
            host.nft_tables().iter().filter(|table| table.contains("kvmnet-")).count(),
            left.len()
        );
    }
    assert_same(&before, &others(&host));
    // Two networks that a killed VM each left: one down of anybody's clears both.
    for (name, tap) in [("one", "k1"), ("four", "k4")] {
        let killed = host.tap(tap);
        host.quiet_helper_on(name, "natup", tap);
        drop(killed);
    }
    assert!(host.link("one").is_some() && host.link("four").is_some());
    host.quiet_helper_on("three", "natdown", "t-three");
    assert_same(&before, &others(&host));
    assert!(host.link("one").is_none() && host.link("four").is_none());
}

#[test]
fn twenty_networks_come_and_go_at_once() {
    const MANY: usize = 20;
    let host = Host::new();
    furnish(&host);
    let taps: Vec<Tap> = (0..2 * MANY).map(|n| host.tap(&format!("vnet{n}"))).collect();
    let text = |n: usize| match n % 4 {
        0 => ISOLATED.to_owned(),
        1 => format!("mode = \"routed\"\naddress = \"10.30.{n}.1/24\""),
        _ => format!("address = \"10.30.{n}.1/24\""),
    };
    let rest = |host: &Host| {
        let mut state = host.foreign().without_forwarding();
        for n in 0..MANY {
            state = state.without_link(&format!("net{n}")).without_table(&format!("kvmnet-net{n}"));
        }
        taps.iter().fold(state, |state, tap| state.without_link(tap.name()))
    };
    for n in 0..MANY {
        write(&host, &format!("net{n}"), &text(n));
    }
    let before = rest(&host);
    let at_once = |helper: &str| {
        let runs: Vec<_> = taps
            .iter()
            .enumerate()
            .map(|(n, tap)| {
                let mut command = host.command(&format!("/usr/libexec/kvmnet-{helper}"));
                command.arg(tap.name()).env("KVMNET_NETWORK", format!("net{}", n % MANY));
                host.spawn(&mut command)
            })
            .collect();
        for run in runs {
            run.output(LIMIT).expect(helper);
        }
    };
    at_once("natup");
    for n in 0..MANY {
        let name = format!("net{n}");
        let (mode, family) = match n % 4 {
            0 => (Mode::Isolated, "netdev"),
            1 => (routed(&format!("10.30.{n}.1/24")), "ip"),
            _ => (nat(&format!("10.30.{n}.1/24")), "ip"),
        };
        let mut ports = vec![format!("vnet{n}"), format!("vnet{}", n + MANY)];
        ports.sort();
        assert_eq!(host.ports(&name), ports);
        assert_eq!(host.nft(family, &format!("kvmnet-{name}")), Some(golden(&name, mode)));
    }
    assert_same(&before, &rest(&host));
    at_once("natdown");
    assert!(host.links().iter().all(|link| !link["ifname"].as_str().unwrap().starts_with("net")));
    assert!(!host.nft_tables().iter().any(|table| table.contains("kvmnet")));
    assert_same(&before, &rest(&host));
}

#[test]
fn bridged_by_file_is_the_administrators_bridge() {
    let host = Host::new();
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    write(&host, "lab", "mode = \"bridged\"\nbridge = \"br1\"\ntaps = [\"vnet*\"]");
    // Here the default route leads over a bridge, but it's br1 that was asked for.
    host.ok("
        ip link add brlan type bridge && ip link set eno1 master brlan && ip link set brlan up
        ip addr flush dev eno1 && ip addr add 10.0.0.11/24 dev brlan && ip route add default via 10.0.0.1
    ");
    let output = host.run_helper_on("lab", "natup", "vnet0");
    assert_eq!(output.code, 1);
    assert!(output.stderr.starts_with("kvmnet-natup: br1: there is no such bridge"), "{output:?}");
    assert!(
        !output.stderr.contains("no default route leads over a bridge"),
        "one does: {output:?}"
    );
    assert!(host.ports("brlan") == ["eno1"]);
}

#[test]
fn bridged_by_file_with_every_helper() {
    let host = Host::new();
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    write(&host, "lab", "mode = \"bridged\"\nbridge = \"br1\"\ntaps = [\"vnet*\"]");
    host.ok("
        ip link add br1 type bridge && ip link set eno1 address 02:00:00:00:00:42 mtu 9000
        ip link set eno1 master br1 && ip link set br1 up
        ip addr flush dev eno1 && ip addr add 10.0.0.11/24 dev br1 && ip route add default via 10.0.0.1
        echo 1 >/proc/sys/net/ipv6/conf/br1/disable_ipv6
    ");
    let tapless = || host.foreign().without_link("vnet0").without_link("vnet1");
    let before = tapless();
    for up in ["natup", "ifup"] {
        for down in ["natdown", "ifdown"] {
            // By name, and by the taps.
            for network in ["lab", ""] {
                host.quiet_helper_on(network, up, "vnet0");
                host.quiet_helper_on(network, up, "vnet1");
                assert_eq!(host.ports("br1"), ["eno1", "vnet0", "vnet1"]);
                assert_eq!(host.link("vnet0").unwrap()["mtu"], 9000);
                assert_same(&before, &tapless());
                host.quiet_helper_on(network, down, "vnet0");
                host.quiet_helper_on(network, down, "vnet1");
                assert_eq!(host.ports("br1"), ["eno1"]);
                assert_same(&before, &tapless());
            }
        }
    }
    // Without the file natdown can't know that it was natup's: ifdown does it, and natdown says so.
    host.quiet_helper_on("lab", "natup", "vnet0");
    host.ok("rm /etc/kvmnet/lab.toml");
    refused(
        &host,
        "natdown",
        "lab",
        "vnet0",
        "vnet0: is a port of br1, which is not kvmnet's; release it with kvmnet-ifdown vnet0",
    );
    host.quiet_helper_on("lab", "ifdown", "vnet0");
    assert_same(&before, &tapless());
}

/// With a tap machine for each: what `forwarding = "interfaces"` turns on is enough.
#[test]
fn forwarding_of_the_interfaces_carries_packets() {
    let host = Host::new();
    let machine = host.tap_machine("vnet0", "192.168.150.10/24", "192.168.150.1");
    write(&host, "lab", &format!("{NAT}forwarding = \"interfaces\""));
    host.quiet_helper_on("lab", "natup", "vnet0");
    let _server = host.outside_tcp_server(7001);
    let answer = machine.net().tcp_connect("203.0.113.1:7001", "hello", SOON).expect("it forwards");
    assert!(answer.starts_with("10.0.0.11:"), "{answer}");
    host.ok("echo 0 >/proc/sys/net/ipv4/conf/lab/forwarding");
    assert!(machine.net().tcp_connect("203.0.113.1:7001", "hello", SILENCE).is_err());
}
