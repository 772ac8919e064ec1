//! Real guests on the administrator's own bridge, side by side with the machines of the LAN.

use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Host, TcpServer, assert_same, wait_until};

const SOON: Duration = Duration::from_secs(10);
const GUEST: &str = "10.0.0.20";
const LAN: &str = "10.0.0.1";
const PORT: u16 = 7000;

/// Moves the host's address and routes from the NIC to a bridge of the administrator's, of which
/// the NIC is a port. The bridge has taken MTU and MAC from the NIC, and would take them from
/// another port, too: its MAC is the lowest, the NIC's is as high as they are sold.
fn make_bridge(host: &Host, bridge: &str) {
    host.outside_ok("ip link set lan0 mtu 9000");
    host.ok(&format!(
        "ip address flush dev eno1 && ip link set eno1 address fc:ff:ff:00:00:01 mtu 9000 &&
         ip link add {bridge} type bridge forward_delay 0 &&
         ip link set eno1 master {bridge} && ip link set {bridge} up &&
         ip address add 10.0.0.11/24 dev {bridge} && ip route add default via {LAN} dev {bridge}"
    ));
    // Duplicate address detection ends at some time, and would look like a change of ours.
    host.ok(&format!("echo 1 >/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"));
    let link = host.link(bridge).expect("it has just been made");
    assert_eq!((&link["mtu"], &link["address"]), (&9000.into(), &"fc:ff:ff:00:00:01".into()));
}

fn spec(name: &str) -> GuestSpec {
    GuestSpec::new(name).ip(&format!("{GUEST}/24")).gateway(LAN).program(env!("CARGO_BIN_EXE_talk"))
}

/// TCP and UDP in both directions, with addresses as they are.
#[track_caller]
fn assert_on_the_lan(host: &Host, guest: &mut Guest<'_>, server: &TcpServer) {
    let answer = guest.ok(&format!("echo hello | nc -w 5 {LAN} {}", server.address().port()));
    let peer = server.accept_peer(SOON).expect("the server saw the guest");
    assert_eq!((peer.ip().to_string().as_str(), answer), (GUEST, format!("{peer}\nhello\n")));

    guest.ok(&format!("talk serve {PORT} >/dev/null 2>&1 &"));
    let address = format!("{GUEST}:{PORT}");
    let outside = host.outside();
    assert!(wait_until(SOON, || outside.tcp_connect(&address, "", SOON).is_ok()));
    for answer in
        [outside.tcp_connect(&address, "hello", SOON), outside.udp_request(&address, "hello", SOON)]
    {
        let answer = answer.expect("the guest answers");
        assert!(answer.starts_with("10.0.0.1:") && answer.ends_with("\nhello"), "{answer}");
    }
    let answer = host.net().tcp_connect(&address, "hello", SOON).expect("the guest answers");
    assert!(answer.starts_with("10.0.0.11:"), "{answer}");
}

/// The command line of the old document, which leaves the downscript to QEMU's default.
#[test]
fn a_guest_by_the_old_command_line_is_on_the_lan_and_the_bridge_stays_as_it_was() {
    let host = Host::new();
    make_bridge(&host, "br0");
    host.write_program("/etc/qemu-ifdown", "#!/bin/sh\nexec /usr/libexec/kvmnet-ifdown \"$@\"\n");
    let server = host.outside_tcp_server(7001);
    let tap = "vnet0.0";
    let before = host.foreign();
    let mut guest = Guest::boot(
        &host,
        spec("old").line(
            "-net nic,model=virtio,macaddr=52:54:00:12:34:56 \
             -net tap,ifname=vnet0.0,script=/usr/libexec/kvmnet-ifup",
        ),
    );
    assert_eq!(host.ports("br0"), ["eno1", tap]);
    assert_eq!(host.link(tap).expect("it is a port")["mtu"], 9000);
    assert_eq!(guest.ok("cat /sys/class/net/eth0/address"), "52:54:00:12:34:56\n");
    assert_on_the_lan(&host, &mut guest, &server);
    assert_same(&before, &host.foreign().without_link(tap));
    assert_eq!(guest.power_off(), 0);
    assert_same(&before, &host.foreign());
    let log = host.syslog();
    assert!(log.iter().any(|line| line.ends_with("vnet0.0: attached to br0")), "{log:?}");
    assert!(log.iter().any(|line| line.ends_with("vnet0.0: released from br0")), "{log:?}");
}

#[test]
fn without_br0_a_guest_is_on_the_bridge_that_holds_the_default_route() {
    let host = Host::new();
    make_bridge(&host, "brlan");
    host.ok("ip link add br01 type bridge && ip link set br01 up
             echo 1 >/proc/sys/net/ipv6/conf/br01/disable_ipv6");
    let server = host.outside_tcp_server(7001);
    let before = host.foreign();
    let mut guest = Guest::boot(&host, spec("fallback").bridged("vnet0"));
    assert_eq!(host.ports("brlan"), ["eno1", "vnet0"]);
    assert_on_the_lan(&host, &mut guest, &server);
    assert_same(&before, &host.foreign().without_link("vnet0"));
    // The guest's own end, rather than the administrator's.
    guest.kill();
    assert_same(&before, &host.foreign());
}
