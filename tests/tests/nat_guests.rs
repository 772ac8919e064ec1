//! Two real guests on the default network, and whom they reach. All tests here share one boot.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Host, boot_all, seen, wait_until};

const SOON: Duration = Duration::from_secs(10);
/// How long nothing must come: a hundred times what comes takes.
const SILENCE: Duration = Duration::from_secs(1);

const ANNA: &str = "192.168.100.10";
const BERT: &str = "192.168.100.11";
const GATEWAY: &str = "192.168.100.1";
const OUTSIDE: &str = "203.0.113.1";
/// The same machine for UDP: a server on all addresses answers from that of the interface.
const OUTSIDE_UDP: &str = "10.0.0.1";
/// Where both guests serve TCP and UDP.
const PORT: u16 = 7000;

struct Network {
    host: &'static Host,
    anna: Guest<'static>,
    bert: Guest<'static>,
}

/// One test at a time has the network. It is never dropped: the host's keeper sees the end of the
/// test's process, and all goes with it.
fn network() -> MutexGuard<'static, Network> {
    static NETWORK: LazyLock<Mutex<Network>> = LazyLock::new(|| Mutex::new(boot()));
    NETWORK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn boot() -> Network {
    let host: &'static Host = Box::leak(Box::new(Host::new()));
    let spec = |name: &str, tap: &str, address: &str| {
        GuestSpec::new(name)
            .nat(tap)
            .ip(&format!("{address}/24"))
            .gateway(GATEWAY)
            .program(env!("CARGO_BIN_EXE_talk"))
    };
    let guests = boot_all(host, [spec("anna", "vnet0", ANNA), spec("bert", "vnet1", BERT)]);
    let Ok([mut anna, mut bert]) = <[_; 2]>::try_from(guests) else {
        panic!("two guests were booted")
    };
    for (guest, address) in [(&mut anna, ANNA), (&mut bert, BERT)] {
        guest.ok(&format!("talk serve {PORT} >/dev/null 2>&1 &"));
        let serves = || host.net().tcp_connect(&format!("{address}:{PORT}"), "", SOON).is_ok();
        assert!(wait_until(SOON, serves), "{}", guest.report());
    }
    host.assert_network(&["vnet0", "vnet1"]);
    Network { host, anna, bert }
}

#[test]
fn guests_reach_each_other() {
    let Network { anna, bert, .. } = &mut *network();
    for (from, own, to) in [(&mut *anna, ANNA, BERT), (&mut *bert, BERT, ANNA)] {
        from.ok(&format!("ping -c1 -W2 {to}"));
        assert_eq!(from.tcp(to, PORT).ip().to_string(), own);
        assert_eq!(from.udp(to, PORT).ip().to_string(), own);
    }
}

#[test]
fn guests_and_the_gateway_reach_each_other() {
    let Network { host, anna, .. } = &mut *network();
    let _servers = (host.net().tcp_server(7001), host.net().udp_server(7001));
    anna.ok(&format!("ping -c1 -W2 {GATEWAY}"));
    assert_eq!(anna.tcp(GATEWAY, 7001).ip().to_string(), ANNA);
    assert_eq!(anna.udp(GATEWAY, 7001).ip().to_string(), ANNA);
    let guest = format!("{ANNA}:{PORT}");
    let answers = [
        host.net().tcp_connect(&guest, "hello", SOON),
        host.net().udp_request(&guest, "hello", SOON),
    ];
    for answer in answers {
        assert_eq!(seen(&answer.expect("the guest answers")).ip().to_string(), GATEWAY);
    }
}

#[test]
fn outside_sees_the_host_and_no_guest() {
    let Network { host, anna, bert } = &mut *network();
    let _servers = (host.outside_tcp_server(7002), host.outside_udp_server(7002));
    for guest in [&mut *anna, bert] {
        assert_eq!(guest.tcp(OUTSIDE, 7002).ip().to_string(), "10.0.0.11");
        assert_eq!(guest.udp(OUTSIDE_UDP, 7002).ip().to_string(), "10.0.0.11");
    }
    let capture = host.outside_tcpdump("lan0", "icmp[icmptype] == icmp-echo");
    anna.ok(&format!("ping -c1 -W2 {OUTSIDE}"));
    let packet = capture.output(SOON).stdout;
    assert!(packet.contains("IP 10.0.0.11 > 203.0.113.1: ICMP echo request"), "{packet}");
}

/// An error belongs to the connection it is about, so it gets in.
#[test]
fn icmp_errors_come_back_to_the_guest() {
    let Network { anna, .. } = &mut *network();
    let output = anna.sh(&format!("talk udp 0 {OUTSIDE}:9 hello"));
    assert!(output.stdout.contains("Connection refused"), "{output:?}");
}

/// Some servers trust a client that speaks from a port below 1024, which takes root on its host.
#[test]
fn a_privileged_source_port_is_not_passed_on() {
    let Network { host, anna, .. } = &mut *network();
    let _servers = (host.outside_tcp_server(7003), host.outside_udp_server(7003));
    for port in [1, 512, 1000, 1023] {
        let peers = [
            seen(&anna.ok(&format!("echo hello | nc -w 5 -p {port} {OUTSIDE} 7003"))),
            seen(&anna.ok(&format!("talk udp {port} {OUTSIDE_UDP}:7003 hello"))),
        ];
        for peer in peers {
            assert!(peer.ip().to_string() == "10.0.0.11" && peer.port() >= 1024, "{port}: {peer}");
        }
    }
}

#[test]
fn nobody_outside_reaches_a_guest_unasked() {
    let Network { host, anna, .. } = &mut *network();
    // Without a route of its own the outside would fail for that alone.
    host.outside_ok("ip route add 192.168.100.0/24 via 10.0.0.11");
    let guest = format!("{ANNA}:{PORT}");
    let outside = host.outside();
    let tcp = |limit| outside.tcp_connect(&guest, "hello", limit);
    let udp = |limit| outside.udp_request(&guest, "hello", limit);
    let ping = || host.outside_sh(&format!("ping -c1 -W1 {ANNA}")).success();
    assert!(tcp(SILENCE).is_err() && udp(SILENCE).is_err() && !ping());
    // It was the rule that held them off, not the way, nor the guest.
    host.ok("nft flush chain ip kvmnet-default forward");
    for answer in [tcp(SOON), udp(SOON)] {
        assert_eq!(seen(&answer.expect("nothing holds it off")).ip().to_string(), "10.0.0.1");
    }
    assert!(ping());
    // Any natup puts the rule back, here for a guest that is attached already.
    host.helper("natup", &["vnet0"]).expect("natup");
    assert!(tcp(SILENCE).is_err() && udp(SILENCE).is_err());
    host.outside_ok("ip route del 192.168.100.0/24");
    anna.ok(&format!("ping -c1 -W2 {OUTSIDE}"));
}

#[test]
fn the_administrators_port_forwards_work() {
    let Network { host, .. } = &mut *network();
    let outside = host.outside();
    let to_guest = format!("{BERT}:{PORT}");
    host.ok(&format!(
        "nft -f - <<'END'
         table ip site {{
             chain prerouting {{
                 type nat hook prerouting priority dstnat;
                 iifname eno1 meta l4proto {{ tcp, udp }} th dport 8022 dnat to {to_guest}
             }}
         }}
END
         for protocol in tcp udp; do
             iptables -t nat -A PREROUTING -i eno1 -p $protocol --dport 8023 \\
                 -j DNAT --to-destination {to_guest}
         done"
    ));
    for port in [8022, 8023] {
        let host_port = format!("10.0.0.11:{port}");
        let answers = [
            outside.tcp_connect(&host_port, "hello", SOON),
            outside.udp_request(&host_port, "hello", SOON),
        ];
        for answer in answers {
            let peer = seen(&answer.unwrap_or_else(|error| panic!("{port}: {error}")));
            assert_eq!(peer.ip().to_string(), "10.0.0.1");
        }
    }
    host.ok("nft delete table ip site; iptables -t nat -F PREROUTING");
    // It was the rules that let them in.
    assert!(outside.tcp_connect("10.0.0.11:8022", "hello", SILENCE).is_err());
}
