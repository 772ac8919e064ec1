//! The harness itself: what it makes is as real as it says, and goes when the test goes.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Host, assert_same, boot_all, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// A host that doesn't need kvmnet, which may not be built yet.
fn host() -> Host {
    Host::builder().without_kvmnet().build()
}

#[test]
fn all_goes_with_a_test_that_is_killed() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_doomed"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program was built with this test");
    let stdout = BufReader::new(child.stdout.take().expect("it was piped"));
    let line = stdout
        .lines()
        .map_while(Result::ok)
        .find(|line| line.contains("pids "))
        .expect("the child says its pids");
    let (_, pids) = line.split_once("pids ").expect("it was found by that");
    let pids: Vec<_> = pids.split(' ').map(|pid| format!("/proc/{pid}")).collect();
    assert!(pids.iter().all(|path| Path::new(path).exists()));
    child.kill().expect("our own child can be killed");
    child.wait().expect("our own child can be waited for");
    for path in &pids {
        assert!(wait_until(SOON, || !Path::new(path).exists()), "{path}");
    }
}

#[test]
fn a_host_is_private() {
    let host = host();
    assert_eq!(host.sysctl("net/ipv4/ip_forward"), "0");
    assert_eq!(host.addresses("eno1"), ["10.0.0.11/24"]);
    host.ok("test ! -e /run/kvmnet && test ! -e /etc/kvmnet && test -c /dev/net/tun");
    host.write("/etc/kvmnet-harness/file", "mine");
    assert_eq!(host.ok("cat /etc/kvmnet-harness/file"), "mine");
    assert!(!Path::new("/etc/kvmnet-harness").exists());
    host.ok("echo mine >/tmp/kvmnet-harness");
    assert!(!Path::new("/tmp/kvmnet-harness").exists());
    assert!(!host.sh("echo mine >/usr/kvmnet-harness").success());
    // A pid namespace of its own: few processes, and sysfs shows its own links.
    assert!(host.ok("ls -d /proc/[0-9]*").lines().count() < 5);
    assert_eq!(host.ok("ls /sys/class/net"), "eno1\nlo\n");
}

#[test]
fn orphans_leave_no_zombies() {
    let host = host();
    host.ok("sleep 0.05 & sleep 0.05 &");
    // A process that ends while it is looked at makes cat fail.
    let sleepers = || host.sh("cat /proc/[0-9]*/stat").stdout.contains("(sleep)");
    assert!(wait_until(SOON, || !sleepers()));
}

#[test]
fn syslog_is_heard() {
    let host = host();
    host.ok("for i in $(seq 40); do logger -p user.err -t kvmnet-test \"message $i\"; done");
    let messages = host.syslog();
    assert_eq!(messages.len(), 40, "{messages:?}");
    assert!(messages[39].contains("message 40"), "{messages:?}");
}

#[test]
fn outputs_and_exit_codes_come_through() {
    let host = host();
    let output = host.sh("echo out; echo err >&2; exit 3");
    assert_eq!(
        (output.code, output.stdout.as_str(), output.stderr.as_str()),
        (3, "out\n", "err\n")
    );
    let mut sleeper = host.spawn(host.command("sleep").arg("600"));
    assert!(wait_until(SOON, || sleeper.pid().is_some()));
    let pid = sleeper.pid().expect("it sleeps");
    assert_eq!(host.ok(&format!("cat /proc/{pid}/comm")), "sleep\n");
    sleeper.kill();
    assert!(!sleeper.is_running());
    assert_eq!(host.sh("kill -KILL $$").code, 137);
}

#[test]
fn the_uplink_reaches_outside_and_no_guest_subnet_is_routed_back() {
    let host = host();
    host.ok("ping -c1 -W2 203.0.113.1");
    let routes = host.outside_ok("ip route");
    assert_eq!(routes.lines().count(), 1, "{routes}");
    let server = host.outside_tcp_server(7000);
    let answer = host.net().tcp_connect("203.0.113.1:7000", "hello", SOON);
    let peer = server.accept_peer(SOON).expect("the server saw us");
    assert_eq!(peer.ip().to_string(), "10.0.0.11");
    assert_eq!(answer.expect("it answers"), format!("{peer}\nhello"));
    let server = host.outside_udp_server(7001);
    let answer = host.net().udp_request("10.0.0.1:7001", "hello", SOON);
    let peer = server.receive_peer(SOON).expect("the server saw us");
    assert_eq!(answer.expect("it answers"), format!("{peer}\nhello"));
    let refused = host.outside_tcp_connect("10.0.0.11", 9, SOON);
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn a_tap_has_carrier_while_it_is_held() {
    let host = host();
    let tap = host.tap("vnet0");
    host.ok("ip link set vnet0 up");
    let link = host.link("vnet0").expect("the tap is there");
    assert!(link["flags"].to_string().contains("LOWER_UP"), "{link}");
    host.persistent_tap("vnet1");
    host.ok("ip link set vnet1 up");
    let link = host.link("vnet1").expect("the tap is there");
    assert!(link["flags"].to_string().contains("NO-CARRIER"), "{link}");
    let queues = host.multi_queue_tap("vnet2", 4);
    assert!(host.ok("ip tuntap").contains("vnet2: tap multi_queue vnet_hdr"));
    assert_eq!((tap.name(), queues.name()), ("vnet0", "vnet2"));
    drop((tap, queues));
    assert!(host.link("vnet0").is_none() && host.link("vnet2").is_none());
}

#[test]
fn frames_pass_between_taps_on_a_bridge() {
    let host = host();
    let (a, b) = (host.tap("vnet0"), host.tap("vnet1"));
    host.ok("ip link add br9 type bridge forward_delay 0; ip link set br9 up
             for tap in vnet0 vnet1; do ip link set $tap master br9 up; done");
    assert_eq!(host.ports("br9"), ["vnet0", "vnet1"]);
    let mut frame = vec![0xff; 6];
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.resize(60, 7);
    a.send(&frame);
    // The host speaks on the wire, too.
    let seen = wait_until(SOON, || b.recv(SOON).is_some_and(|got| got == frame));
    assert!(seen);
    assert!(b.recv(Duration::ZERO).is_none_or(|got| got != frame));
}

#[test]
fn snapshots_notice_what_is_foreign() {
    let host = host();
    host.ok(
        "iptables-nft -A FORWARD -j ACCEPT; iptables-legacy -t nat -A POSTROUTING -j MASQUERADE
             nft add table ip mine; nft add chain ip mine c; nft add rule ip mine c counter drop",
    );
    assert_eq!(host.count_rules("masquerade"), 1);
    let before = host.foreign();
    assert_same(&before, &host.foreign());
    for (change, undo, sign) in [
        ("nft add rule ip mine c accept", "", "+ "),
        ("iptables-nft -D FORWARD -j ACCEPT", "iptables-nft -A FORWARD -j ACCEPT", "- "),
        ("iptables-legacy -t nat -F", "", "- nat: -A POSTROUTING -j MASQUERADE"),
        ("ip address add 10.9.9.9/32 dev eno1", "", "10.9.9.9"),
        ("ip route add 10.8.0.0/16 via 10.0.0.1", "", "10.8.0.0/16"),
        ("ip link set eno1 mtu 1400", "", "+ eno1: mtu = 1400"),
        ("echo 1 >/proc/sys/net/ipv4/conf/eno1/proxy_arp", "", "+ ipv4/conf/eno1/proxy_arp = 1"),
    ] {
        let before = host.foreign();
        host.ok(change);
        let diff = before.diff(&host.foreign());
        assert!(diff.contains(sign), "{change}: {diff:?}");
        host.ok(&format!(": ; {undo}"));
    }
}

#[test]
fn snapshots_leave_out_what_they_are_told_to() {
    let host = host();
    let before = host.foreign();
    host.ok("ip link add br9 type bridge; ip address add 10.9.9.1/24 dev br9; ip link set br9 up
             nft add table ip kvmnet-x; nft add chain ip kvmnet-x c; iptables -t nat -L >/dev/null
             echo 1 >/proc/sys/net/ipv4/ip_forward");
    let after = host.foreign();
    assert_ne!(before, after);
    let left = after.without_link("br9").without_table("kvmnet-x");
    assert_same(&before.without_forwarding(), &left.without_forwarding());
}

#[test]
fn guests_boot_talk_and_power_off() {
    let host = host();
    host.ok("ip link add br9 type bridge forward_delay 0; ip link set br9 up
             ip address add 192.168.100.1/24 dev br9");
    host.write_program("/etc/up", "#!/bin/sh\nip link set $1 master br9 up\n");
    host.write_program("/etc/down", "#!/bin/sh\necho $1 >>/run/downs\n");
    let spec = |number: u8| {
        GuestSpec::new(&format!("guest{number}"))
            .tap(&format!("vnet{number}"), "/etc/up", "/etc/down")
            .ip(&format!("192.168.100.1{number}/24"))
            .gateway("192.168.100.1")
    };
    let mut guests = boot_all(&host, [spec(0), spec(1)]);
    assert_eq!(host.ports("br9"), ["vnet0", "vnet1"]);
    guests[0].ok("ping -c1 -W2 192.168.100.1");
    guests[0].ok("ping -c1 -W2 192.168.100.11");
    let output = guests[0].sh("printf 'a\\\\b\n'; printf 'no newline'; exit 7");
    assert_eq!((output.code, output.stdout.as_str()), (7, "a\\b\nno newline"));
    let server = host.net().tcp_server(7000);
    let answer = guests[1].ok("echo hello | nc 192.168.100.1 7000");
    let peer = server.accept_peer(SOON).expect("the server saw the guest");
    assert_eq!(answer, format!("{peer}\nhello\n"));
    assert_eq!(peer.ip().to_string(), "192.168.100.11");
    assert!(guests[0].monitor("info network").contains("ifname=vnet0"));
    assert_eq!(guests[0].power_off(), 0);
    assert_eq!(host.ok("cat /run/downs"), "vnet0\n");
    guests[1].kill();
    assert!(wait_until(SOON, || host.link("vnet1").is_none()));
    assert_eq!(host.ok("cat /run/downs"), "vnet0\n");
}

#[test]
fn a_guest_in_the_background_is_found_and_ended() {
    let host = host();
    let mut guest = Guest::boot(&host, GuestSpec::new("daemon").line("-daemonize"));
    let pid = guest.pid();
    assert_eq!(guest.ok("echo hi"), "hi\n");
    assert!(guest.is_running());
    guest.kill();
    assert!(!guest.is_running());
    assert!(!host.path(format!("/proc/{pid}")).exists());
}

#[test]
#[should_panic(expected = "no-such-device")]
fn a_guest_that_does_not_start_says_why() {
    let host = host();
    let _ = Guest::boot(&host, GuestSpec::new("broken").line("-device no-such-device"));
}
