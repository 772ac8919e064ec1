//! Real guests on networks of every mode, and whom they reach.

use std::net::UdpSocket;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvmnet_tests::{
    Guest, GuestSpec, Host, Netns, PacketSocket, assert_same, boot_all, seen, wait_until,
};

const SOON: Duration = Duration::from_secs(10);
/// How long nothing must come: a hundred times what comes takes.
const SILENCE: Duration = Duration::from_secs(1);
/// Where all guests serve TCP and UDP.
const PORT: u16 = 7000;

/// Files for networks, and a helper by a name of its own for each.
fn configure(host: &Host, networks: &[(&str, &str)]) {
    host.ok("mkdir /run/x");
    for (name, text) in networks {
        host.write(format!("/etc/kvmnet/{name}.toml"), text);
        for helper in ["natup", "natdown"] {
            host.ok(&format!("ln -s /usr/libexec/kvmnet-{helper} /run/x/kvmnet-{helper}@{name}"));
        }
    }
}

/// A guest that chooses its network by the names of its scripts.
fn spec(network: &str, tap: &str, address: &str) -> GuestSpec {
    let script = |helper: &str| format!("/run/x/kvmnet-{helper}@{network}");
    GuestSpec::new(tap)
        .tap(tap, &script("natup"), &script("natdown"))
        .ip(&format!("{address}/24"))
        .program(env!("CARGO_BIN_EXE_talk"))
}

fn serve(guest: &mut Guest<'_>) {
    guest.ok(&format!("talk serve {PORT} >/dev/null 2>&1 &"));
    let serves = || guest.sh(&format!("echo x | nc -w 1 127.0.0.1 {PORT}")).success();
    assert!(wait_until(SOON, serves));
}

/// Everything by which the host could hear a guest on an isolated network.
struct Ears {
    packets: Vec<(&'static str, PacketSocket)>,
    datagrams: Vec<(String, UdpSocket)>,
}

impl Ears {
    fn open(net: &Netns, bridge: &str, addresses: &[&str]) -> Self {
        let protocols =
            [("IPv4", libc::ETH_P_IP), ("IPv6", libc::ETH_P_IPV6), ("ARP", libc::ETH_P_ARP)];
        let packets = protocols
            .into_iter()
            .flat_map(|(name, protocol)| {
                // At the bridge; and at all interfaces, since a frame might come up by its port.
                [Some(bridge), None].map(|at| (name, net.packet_socket(at, protocol)))
            })
            .collect();
        let datagrams = addresses
            .iter()
            .map(|address| {
                // The kernel gives a datagram to the socket that knows its address best, so that the
                // one for any address has a port of its own.
                let port = if *address == "0.0.0.0" { PORT + 1 } else { PORT };
                let socket = net.enter(|| UdpSocket::bind((*address, port)));
                let socket = socket.unwrap_or_else(|error| panic!("{address}: {error}"));
                socket.set_nonblocking(true).unwrap();
                ((*address).to_owned(), socket)
            })
            .collect();
        Self { packets, datagrams }
    }

    /// What came in at these interfaces since it was last asked.
    fn heard(&self, interfaces: &[&str]) -> Vec<String> {
        let mut heard = Vec::new();
        let mut limit = SILENCE;
        for (name, socket) in &self.packets {
            let packets = socket.heard(interfaces, limit);
            heard.extend(packets.into_iter().map(|packet| format!("{name} at {packet}")));
            // Once one has waited, all have what there is.
            limit = Duration::from_millis(1);
        }
        let mut buffer = [0; 64];
        for (address, socket) in &self.datagrams {
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                heard.push(format!("UDP to {address} from {peer}"));
            }
        }
        heard
    }
}

#[test]
fn isolated_guests_reach_each_other_and_no_frame_reaches_the_host() {
    let host = Host::new();
    let (anna, bert) = ("192.168.60.10", "192.168.60.11");
    configure(&host, &[("iso", "mode = \"isolated\"\n")]);
    // The host has an address in the guests' subnet, too, and forwards.
    host.ok(
        "ip link add eno2 type veth peer name far2 && ip link set eno2 up && ip link set far2 up
             ip addr add 192.168.60.1/24 dev eno2; sysctl -w net.ipv4.ip_forward=1",
    );
    let mut guests = boot_all(&host, [spec("iso", "t0", anna), spec("iso", "t1", bert)]);
    assert_eq!(host.ports("iso"), ["t0", "t1"]);
    guests.iter_mut().for_each(serve);
    let [a, b] = &mut guests[..] else { unreachable!() };
    for (from, own, to) in [(&mut *a, anna, bert), (&mut *b, bert, anna)] {
        from.ok(&format!("ping -c1 -W2 {to}"));
        assert_eq!(from.tcp(to, PORT).ip().to_string(), own);
        assert_eq!(from.udp(to, PORT).ip().to_string(), own);
    }
    // The kernel makes the address when it believes in the carrier, which can take it a second.
    let has_inet6 = "for _ in $(seq 100); do ip -6 addr show dev eth0 | grep -q fe80 && exit 0
                     sleep 0.1; done; exit 1";
    for guest in [&mut *a, &mut *b] {
        assert!(guest.sh(has_inet6).success(), "the guests have IPv6");
    }

    let hosts = ["10.0.0.11", "192.168.60.1"];
    let ears =
        Ears::open(&host.net(), "iso", &["0.0.0.0", "10.0.0.11", "192.168.60.1", "127.0.0.1"]);
    let bridge = host.link("iso").unwrap();
    let mac = bridge["address"].as_str().unwrap().to_owned();
    // The kernel's own way to the host: by ARP it wouldn't find it. Then the bridge's own address,
    // all ones, and one that no bridge passes on.
    let mut shout = String::from("ip route add 10.0.0.0/24 dev eth0 2>/dev/null\n");
    for to in [&*mac, "ff:ff:ff:ff:ff:ff"] {
        for address in hosts {
            shout += &format!(
                "arp -s {address} {to} || exit 9
                 talk udp 0 {address}:{PORT} hello & talk udp 0 {address}:7001 hello &
                 ping -c1 -W1 {address} & echo hello | nc -w 1 {address} {PORT} &\n"
            );
        }
        shout += "wait\n";
    }
    for address in hosts {
        shout += &format!("arp -d {address}; arping -c1 -w1 -I eth0 {address} &\n");
    }
    shout += "arping -U -c1 -w1 -I eth0 192.168.60.1 &
              for to in ff02::1 ff02::2 ff02::16; do ping -6 -c1 -W1 -I eth0 $to & done
              ping -c1 -W1 255.255.255.255 & ping -c1 -W1 224.0.0.1 & wait";
    a.ok(&shout);
    let heard = ears.heard(&["iso", "t0", "t1"]);
    assert!(heard.is_empty(), "the host has heard the guest:\n{}", heard.join("\n"));
    assert!(a.sh(&format!("arp -s 10.0.0.11 {mac}; talk udp 0 10.0.0.11:{PORT} x")).code != 0);

    // It was the rule that kept the guest off: without it the same ears hear all of it.
    host.ok("nft delete table netdev kvmnet-iso");
    a.ok(&shout);
    let heard = ears.heard(&["iso", "t0", "t1"]);
    for what in [
        "IPv4 at iso",
        "IPv6 at iso",
        "ARP at iso",
        "UDP to 10.0.0.11",
        "UDP to 192.168.60.1",
        "UDP to 0.0.0.0",
    ] {
        assert!(heard.iter().any(|line| line.starts_with(what)), "{what}: {heard:#?}");
    }
    // Any natup puts it back, here for a guest that is attached already.
    host.run(&["/run/x/kvmnet-natup@iso", "t0"]).expect("natup");
    let _ = ears.heard(&["iso"]);
    a.ok(&shout);
    let heard = ears.heard(&["iso", "t0", "t1"]);
    assert!(heard.is_empty(), "the host has heard the guest:\n{}", heard.join("\n"));
    a.ok(&format!("ping -c1 -W2 {bert}"));

    // By way of the link-local addresses of IEEE 802.1D, which a bridge hands up by the port.
    a.ok(&format!(
        "for last in 00 02 03 0e; do
             arp -s 10.0.0.11 01:80:c2:00:00:$last && talk udp 0 10.0.0.11:{PORT} hello
             arp -d 10.0.0.11
         done; true"
    ));
    let heard = ears.heard(&["iso", "t0", "t1"]);
    for guest in &mut guests {
        assert_eq!(guest.power_off(), 0);
    }
    assert!(host.link("iso").is_none() && host.nft_tables().is_empty());
    assert!(heard.is_empty(), "the host has heard the guest:\n{}", heard.join("\n"));
}

const NETWORKS: [(&str, &str); 4] = [
    ("nat1", "address = \"10.31.0.1/24\"\n"),
    ("nat2", "address = \"172.20.5.1/24\"\nbridge = \"br-nat2\"\n"),
    ("routed1", "mode = \"routed\"\naddress = \"10.33.0.1/24\"\n"),
    ("routed2", "mode = \"routed\"\naddress = \"10.34.0.1/24\"\n"),
];
const ADDRESSES: [(&str, &str); 4] = [
    ("10.31.0.10", "10.31.0.1"),
    ("172.20.5.10", "172.20.5.1"),
    ("10.33.0.10", "10.33.0.1"),
    ("10.34.0.10", "10.34.0.1"),
];
const OUTSIDE: &str = "203.0.113.1";
/// The same machine for UDP: a server on all addresses answers from that of the interface.
const OUTSIDE_UDP: &str = "10.0.0.1";

struct Networks {
    host: &'static Host,
    /// One guest on each network.
    guests: Vec<Guest<'static>>,
}

/// One test at a time has the networks.
fn networks() -> MutexGuard<'static, Networks> {
    static NETWORK: LazyLock<Mutex<Networks>> = LazyLock::new(|| Mutex::new(boot()));
    NETWORK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn boot() -> Networks {
    let host: &'static Host = Box::leak(Box::new(Host::new()));
    configure(host, &NETWORKS);
    // The outside knows the way to all of them, so that only rules can keep it off.
    for (_, gateway) in ADDRESSES {
        let (net, _) = gateway.rsplit_once('.').expect("it has dots");
        host.outside_ok(&format!("ip route add {net}.0/24 via 10.0.0.11"));
    }
    let specs = NETWORKS.iter().zip(ADDRESSES).map(|((name, _), (address, gateway))| {
        spec(name, &format!("t-{name}"), address).gateway(gateway)
    });
    let mut guests = boot_all(host, specs);
    guests.iter_mut().for_each(serve);
    Networks { host, guests }
}

#[test]
fn outside_and_a_routed_guest_see_each_others_own_addresses() {
    let Networks { host, guests } = &mut *networks();
    let _servers = (host.outside_tcp_server(7002), host.outside_udp_server(7002));
    for at in [2, 3] {
        let (own, guest) = (ADDRESSES[at].0, &mut guests[at]);
        assert_eq!(guest.tcp(OUTSIDE, 7002).ip().to_string(), own);
        assert_eq!(guest.udp(OUTSIDE_UDP, 7002).ip().to_string(), own);
        let capture = host.outside_tcpdump("lan0", "icmp[icmptype] == icmp-echo");
        guest.ok(&format!("ping -c1 -W2 {OUTSIDE}"));
        let packet = capture.output(SOON).stdout;
        assert!(packet.contains(&format!("IP {own} > {OUTSIDE}: ICMP echo request")), "{packet}");
        // Asked by nobody.
        let to_guest = format!("{own}:{PORT}");
        let outside = host.outside();
        for answer in [
            outside.tcp_connect(&to_guest, "hello", SOON),
            outside.udp_request(&to_guest, "hello", SOON),
        ] {
            assert_eq!(seen(&answer.expect("the guest answers")).ip().to_string(), "10.0.0.1");
        }
        host.outside_ok(&format!("ping -c1 -W2 {own}"));
        let answer = host.net().tcp_connect(&to_guest, "hello", SOON).expect("the guest answers");
        assert_eq!(seen(&answer).ip().to_string(), ADDRESSES[at].1);
    }
}

#[test]
fn outside_sees_the_host_for_guests_of_every_nat_network_and_reaches_none() {
    let Networks { host, guests } = &mut *networks();
    let _servers = (host.outside_tcp_server(7003), host.outside_udp_server(7003));
    for at in [0, 1] {
        let (own, guest) = (ADDRESSES[at].0, &mut guests[at]);
        assert_eq!(guest.tcp(OUTSIDE, 7003).ip().to_string(), "10.0.0.11");
        assert_eq!(guest.udp(OUTSIDE_UDP, 7003).ip().to_string(), "10.0.0.11");
        guest.ok(&format!("ping -c1 -W2 {OUTSIDE}"));
        let to_guest = format!("{own}:{PORT}");
        assert!(host.outside().tcp_connect(&to_guest, "hello", SILENCE).is_err());
        assert!(host.outside().udp_request(&to_guest, "hello", SILENCE).is_err());
        // The way and the guest are there.
        let table = format!("kvmnet-{}", NETWORKS[at].0);
        host.ok(&format!("nft flush chain ip {table} forward"));
        assert!(host.outside().tcp_connect(&to_guest, "hello", SOON).is_ok());
        repair(host, at);
        assert!(host.outside().tcp_connect(&to_guest, "hello", SILENCE).is_err());
    }
}

#[track_caller]
fn repair(host: &Host, at: usize) {
    let name = NETWORKS[at].0;
    host.run(&[&format!("/run/x/kvmnet-natup@{name}"), &format!("t-{name}")]).expect("natup");
}

/// Which of the other guests this one reaches, by TCP and by ping.
#[track_caller]
fn reached(guest: &mut Guest<'_>, own: &str) -> Vec<String> {
    let mut script = String::new();
    for (address, _) in ADDRESSES.iter().filter(|(address, _)| *address != own) {
        script += &format!(
            "(echo hello | nc -w 2 {address} {PORT} 2>/dev/null | grep -q hello && echo tcp {address}) &
             (ping -c1 -W2 {address} >/dev/null && echo ping {address}) &\n"
        );
    }
    let answer = guest.ok(&format!("{script}wait"));
    let mut reached: Vec<_> = answer.lines().map(str::to_owned).collect();
    reached.sort_unstable();
    reached
}

#[test]
fn guests_of_two_networks_do_not_reach_each_other() {
    let Networks { host, guests } = &mut *networks();
    assert_eq!(ways(guests), Vec::<String>::new());
    // It was the rules: without those of both networks every pair reaches each other.
    for (name, _) in NETWORKS {
        host.ok(&format!("nft flush chain ip kvmnet-{name} forward"));
    }
    let all = ways(guests);
    assert_eq!(all.len(), 4 * 3 * 2, "{all:#?}");
    // The rules of one network alone keep all others off its guests.
    for at in [0, 2] {
        repair(host, at);
        let ways = ways(guests);
        let own = format!(" {}", ADDRESSES[at].0);
        assert!(!ways.iter().any(|way| way.ends_with(&own)), "{own}: {ways:#?}");
    }
    repair(host, 1);
    repair(host, 3);
    assert_eq!(ways(guests), Vec::<String>::new());
}

/// Every way from a guest to another, all tried at once.
fn ways(guests: &mut [Guest<'_>]) -> Vec<String> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = guests
            .iter_mut()
            .zip(ADDRESSES)
            .map(|(guest, (own, _))| {
                scope.spawn(move || {
                    let reached = reached(guest, own);
                    reached.iter().map(|way| format!("{own} {way}")).collect::<Vec<_>>()
                })
            })
            .collect();
        asked.into_iter().flat_map(|answer| answer.join().expect("the guest answers")).collect()
    })
}

/// The administrator's bridge keeps all it has while guests come and go by file.
#[test]
fn a_guest_on_the_administrators_bridge_by_file() {
    let host = Host::new();
    configure(&host, &[("lan", "mode = \"bridged\"\nbridge = \"br1\"\n")]);
    host.outside_ok("ip link set lan0 mtu 9000");
    host.ok("ip address flush dev eno1 && ip link set eno1 address fc:ff:ff:00:00:01 mtu 9000 &&
         ip link add br1 type bridge forward_delay 0 && ip link set eno1 master br1 &&
         echo 1 >/proc/sys/net/ipv6/conf/br1/disable_ipv6 && ip link set br1 up &&
         ip address add 10.0.0.11/24 dev br1 && ip route add default via 10.0.0.1 dev br1");
    let before = host.foreign();
    assert!(host.link("br1").unwrap()["mtu"] == 9000);
    let mut guest = Guest::boot(&host, spec("lan", "vnet0", "10.0.0.20").gateway("10.0.0.1"));
    assert_eq!(host.ports("br1"), ["eno1", "vnet0"]);
    assert_eq!(host.link("vnet0").unwrap()["mtu"], 9000);
    assert_same(&before, &host.foreign().without_link("vnet0"));
    let _servers = (host.outside_tcp_server(7001), host.outside_udp_server(7001));
    assert_eq!(guest.tcp(OUTSIDE, 7001).ip().to_string(), "10.0.0.20");
    assert_eq!(guest.udp(OUTSIDE_UDP, 7001).ip().to_string(), "10.0.0.20");
    serve(&mut guest);
    let to_guest = format!("10.0.0.20:{PORT}");
    let answer = host.outside().tcp_connect(&to_guest, "hello", SOON).expect("the guest answers");
    assert_eq!(seen(&answer).ip().to_string(), "10.0.0.1");
    let answer = host.net().tcp_connect(&to_guest, "hello", SOON).expect("the guest answers");
    assert_eq!(seen(&answer).ip().to_string(), "10.0.0.11");
    assert_eq!(guest.power_off(), 0);
    assert_same(&before, &host.foreign());
}
