//! Connections that the kernel tracks are forgotten with whom they belonged to: what answers them must
//! not reach the next guest at that address.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use kvmnet_tests::{Host, TapMachine};

const SOON: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_millis(700);
const GATEWAY: &str = "192.168.100.1";
const OUTSIDE: &str = "10.0.0.1:7000";

/// The source addresses of the connections of that kind, sorted: whoever opened them.
fn openers(host: &Host, protocol: &str) -> Vec<String> {
    let list = format!(
        "conntrack -L -p {protocol} 2>/dev/null | sed -nE 's/^[^=]*src=([0-9.]+) .*/\\1/p' | sort -u"
    );
    host.ok(&list).lines().map(str::to_owned).collect()
}

fn guest(host: &Host, tap: &str, address: &str) -> TapMachine {
    let machine = host.tap_machine(tap, &format!("{address}/24"), GATEWAY);
    assert!(host.helper("natup", &[tap]).success());
    machine
}

fn natdown(host: &Host, tap: &str) {
    let output = host.helper("natdown", &[tap]);
    assert!(output.success(), "{output:?}");
}

/// A datagram socket of a guest's, on a port of its own.
fn guest_socket(guest: &TapMachine) -> UdpSocket {
    let socket = guest.net().enter(|| UdpSocket::bind(("0.0.0.0", 6000))).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// The guest speaks to somebody outside, who learns where to answer.
fn speak(from: &UdpSocket, host: &Host, to: &UdpSocket) -> SocketAddr {
    let mut buffer = [0; 64];
    from.send_to(b"who is there?", OUTSIDE).unwrap();
    let (_, peer) = to.recv_from(&mut buffer).unwrap();
    assert_eq!(peer.ip().to_string(), "10.0.0.11", "{}", host.ok("conntrack -L"));
    peer
}

/// Whether what is sent there from outside reaches the guest.
fn hears(guest: &UdpSocket, outside: &UdpSocket, at: SocketAddr) -> bool {
    let mut buffer = [0; 64];
    guest.set_read_timeout(Some(SILENCE)).unwrap();
    outside.send_to(b"for your predecessor", at).unwrap();
    match guest.recv_from(&mut buffer) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

fn outside_socket(host: &Host) -> UdpSocket {
    let socket = host.outside().enter(|| UdpSocket::bind(("0.0.0.0", 7000))).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// The next guest at an address isn't sent what answers the one before, whether the network stayed
/// up meanwhile or not, or somebody deleted its bridge under the guest.
#[test]
fn the_next_guest_gets_nothing_of_its_predecessors() {
    enum Meanwhile {
        Down,
        OthersStay,
        Pinned,
        BridgeDeleted,
    }
    for meanwhile in
        [Meanwhile::Down, Meanwhile::OthersStay, Meanwhile::Pinned, Meanwhile::BridgeDeleted]
    {
        let host = Host::new();
        let outside = outside_socket(&host);
        let _other = matches!(meanwhile, Meanwhile::OthersStay)
            .then(|| guest(&host, "vnet1", "192.168.100.11"));
        if matches!(meanwhile, Meanwhile::Pinned) {
            host.ok("kvmnet up default");
        }
        let first = guest(&host, "vnet0", "192.168.100.10");
        let socket = guest_socket(&first);
        let peer = speak(&socket, &host, &outside);
        assert!(hears(&socket, &outside, peer), "its own answers");
        match meanwhile {
            Meanwhile::BridgeDeleted => {
                host.ok("ip link del br0");
            }
            _ => natdown(&host, "vnet0"),
        }
        drop((socket, first));
        host.ok("ip netns del at-vnet0");

        let second = guest(&host, "vnet0", "192.168.100.10");
        let socket = guest_socket(&second);
        assert!(!hears(&socket, &outside, peer), "{}", host.ok("conntrack -L"));
        let peer = speak(&socket, &host, &outside);
        assert!(hears(&socket, &outside, peer), "its own answers");
    }
}

/// With the network go its guests' connections by all protocols, those that were opened to them (port
/// forwards, the host's own) among them, and nobody else's.
#[test]
fn a_network_takes_its_guests_connections_with_it() {
    let host = Host::new();
    let _server = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
    let guest = guest(&host, "vnet0", "192.168.100.10");
    let _guests_own = guest.net().tcp_server(80);
    host.ok("iptables -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to 192.168.100.10:80");
    guest.assert_reaches(OUTSIDE);
    guest.net().tcp_connect("192.168.100.1:1", "", SOON).unwrap_err();
    host.net().tcp_connect("192.168.100.10:80", "", SOON).unwrap();
    host.outside_tcp_connect("10.0.0.11", 8080, SOON).unwrap();
    let mut own = host.net().tcp_converse(OUTSIDE, SOON).unwrap();
    host.sh("ping -c1 -W1 10.0.0.1");
    assert_eq!(openers(&host, "udp"), ["192.168.100.10"]);
    let tcp = ["10.0.0.1", "10.0.0.11", "192.168.100.1", "192.168.100.10"];
    assert_eq!(openers(&host, "tcp"), tcp, "{}", host.ok("conntrack -L"));

    natdown(&host, "vnet0");
    assert_eq!(openers(&host, "udp"), [""; 0]);
    assert_eq!(openers(&host, "tcp"), ["10.0.0.11"], "{}", host.ok("conntrack -L"));
    assert_eq!(openers(&host, "icmp"), ["10.0.0.11"]);
    own.say("still there", SOON).unwrap();
}

/// A guest that leaves takes its own connections with it, and the others' go on.
#[test]
fn a_guest_takes_its_connections_with_it() {
    let host = Host::new();
    let _server = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
    let leaves = guest(&host, "vnet0", "192.168.100.10");
    let stays = guest(&host, "vnet1", "192.168.100.11");
    let _guests_own = leaves.net().tcp_server(80);
    leaves.assert_reaches(OUTSIDE);
    stays.assert_reaches(OUTSIDE);
    host.net().tcp_connect("192.168.100.10:80", "", SOON).unwrap();
    let mut goes_on = stays.net().tcp_converse(OUTSIDE, SOON).unwrap();
    assert_eq!(openers(&host, "udp"), ["192.168.100.10", "192.168.100.11"]);

    natdown(&host, "vnet0");
    assert_eq!(openers(&host, "udp"), ["192.168.100.11"], "{}", host.ok("conntrack -L"));
    assert_eq!(openers(&host, "tcp"), ["192.168.100.11"], "{}", host.ok("conntrack -L"));
    goes_on.say("still there", SOON).unwrap();
}

/// More connections than one answer, or one send, takes.
#[test]
fn thousands_of_connections() {
    let host = Host::new();
    let _guest = guest(&host, "vnet0", "192.168.100.10");
    // Entries as of guests' and of the host's own, half and half.
    host.ok(
        "for n in $(seq 1 1500); do
             for source in 192.168.100.$((n % 250 + 2)) 10.0.0.11; do
                 echo \"-I -p udp -s $source -d 203.0.113.9 --sport $((n + 1024)) --dport 53 -t 300\"
             done
         done >/tmp/entries; conntrack -R /tmp/entries >/tmp/log 2>&1 || { tail -3 /tmp/log >&2; false; }",
    );
    let count = |source: &str| {
        host.ok(&format!("conntrack -L -p udp 2>/dev/null | grep -c 'src={source}.* dst=203' || :"))
    };
    assert_eq!((count("192.168.100").as_str(), count("10.0.0.11").as_str()), ("1500\n", "1500\n"));
    natdown(&host, "vnet0");
    assert_eq!((count("192.168.100").as_str(), count("10.0.0.11").as_str()), ("0\n", "1500\n"));
}

/// Where nothing is tracked, nothing is asked.
#[test]
fn nothing_is_asked_where_nothing_is_tracked() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    // A bridge that snoops on multicast joins a group itself (RFC 4286), and says so by IGMP.
    host.ok("nft 'table ip site { chain output {
             type filter hook output priority raw; ip protocol igmp notrack; }; }'");
    assert!(host.helper("natup", &["vnet0"]).success());
    assert_eq!(host.ok("cat /proc/sys/net/netfilter/nf_conntrack_count"), "0\n");
    let (output, seen) =
        host.strace(&["-e", "trace=openat"], &["/usr/libexec/kvmnet-natdown", "vnet0"]);
    assert!(output.success() && seen.contains("nf_conntrack_count"), "{output:?} {seen}");
    assert!(host.link("br0").is_none());
}
