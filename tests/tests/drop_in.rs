//! The same cases with the old scripts and with kvmnet: where they agree, and where theirs fails.

use std::time::Duration;

use kvmnet_tests::{Foreign, Host, Output, assert_same};

const LIMIT: Duration = Duration::from_secs(60);

/// Whose scripts a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scripts {
    Old,
    Kvmnet,
}

const BOTH: [Scripts; 2] = [Scripts::Old, Scripts::Kvmnet];

impl Scripts {
    fn path(self, name: &str) -> String {
        match self {
            Self::Old => format!("/etc/qemu-{name}"),
            Self::Kvmnet => format!("/usr/libexec/kvmnet-{name}"),
        }
    }

    /// QEMU's own way: the path, and the tap's name as the only argument.
    fn run(self, host: &Host, name: &str, tap: &str) -> Output {
        host.run(&[&self.path(name), tap])
    }
}

fn host() -> Host {
    let host = Host::new();
    host.install_legacy();
    host
}

/// All but the tap, what a network consists of, and forwarding, which both leave on.
fn foreign(host: &Host) -> Foreign {
    host.foreign()
        .without_link("vnet0")
        .without_link("br0")
        .without_table("kvmnet-default")
        .without_forwarding()
}

#[test]
fn a_lone_nat_guest_finds_the_same_network() {
    for scripts in BOTH {
        let host = host();
        let guest = host.tap_machine("vnet0", "192.168.100.10/24", "192.168.100.1");
        let before = foreign(&host);
        let output = scripts.run(&host, "natup", "vnet0");
        assert!(output.success(), "{scripts:?}: {output:?}");
        assert_eq!(host.ports("br0"), ["vnet0"], "{scripts:?}");
        assert_eq!(host.addresses("br0"), ["192.168.100.1/24"], "{scripts:?}");
        assert_eq!(host.sysctl("net/ipv4/ip_forward"), "1", "{scripts:?}");
        assert!(host.count_rules("masquerade") > 0, "{scripts:?}");
        let flags = host.link("vnet0").unwrap()["flags"].to_string();
        assert!(flags.contains("\"UP\""), "{scripts:?}: {flags}");
        let server = host.outside_tcp_server(7000);
        let answer = guest.net().tcp_connect("203.0.113.1:7000", "hello", LIMIT);
        let peer = server.accept_peer(LIMIT).unwrap();
        assert_eq!(peer.ip().to_string(), "10.0.0.11", "{scripts:?}");
        assert_eq!(answer.unwrap(), format!("{peer}\nhello"), "{scripts:?}");
        if scripts == Scripts::Kvmnet {
            assert_same(&before, &foreign(&host));
        }
        assert!(scripts.run(&host, "natdown", "vnet0").success());
        assert!(host.link("br0").is_none(), "{scripts:?}");
        assert_eq!(host.count_rules("masquerade"), 0, "{scripts:?}");
        // Nobody else has had any rules here.
        assert_same(&before, &foreign(&host));
    }
}

/// The old script, Debian's, and ours. Only with ours the bridge keeps its MTU and MAC, which it
/// has from the NIC: with the others it takes what the tap has, and the LAN loses sight of it.
#[test]
fn a_bridged_guest_is_on_the_lan_of_br0() {
    for (scripts, host) in
        [(Scripts::Old, host()), (Scripts::Old, Host::new()), (Scripts::Kvmnet, host())]
    {
        host.outside_ok("ip link set lan0 mtu 9000");
        host.ok("ip address flush dev eno1; ip link set eno1 address fc:ff:ff:00:00:01 mtu 9000
                 ip link add br0 type bridge forward_delay 0
                 ip link set eno1 master br0; ip link set br0 up
                 echo 1 >/proc/sys/net/ipv6/conf/br0/disable_ipv6
                 ip address add 10.0.0.11/24 dev br0; ip route add default via 10.0.0.1");
        let guest = host.tap_machine("vnet0", "10.0.0.20/24", "10.0.0.1");
        host.ok("ip link set vnet0 address 02:00:00:00:00:01");
        let before = host.foreign().without_link("vnet0");
        let output = scripts.run(&host, "ifup", "vnet0");
        assert!(output.success(), "{scripts:?}: {output:?}");
        assert_eq!(host.ports("br0"), ["eno1", "vnet0"], "{scripts:?}");

        let (outside, inside) = (host.outside_tcp_server(7000), guest.net().tcp_server(7000));
        guest.net().tcp_connect("10.0.0.1:7000", "", LIMIT).unwrap();
        assert_eq!(outside.accept_peer(LIMIT).unwrap().ip().to_string(), "10.0.0.20");
        host.outside_tcp_connect("10.0.0.20", 7000, LIMIT).unwrap();
        assert_eq!(inside.accept_peer(LIMIT).unwrap().ip().to_string(), "10.0.0.1");

        let bridge = host.link("br0").unwrap();
        let kept =
            (&bridge["mtu"], &bridge["address"]) == (&9000.into(), &"fc:ff:ff:00:00:01".into());
        assert_eq!(kept, scripts == Scripts::Kvmnet, "{scripts:?}: {bridge}");
        if scripts == Scripts::Kvmnet {
            assert_same(&before, &host.foreign().without_link("vnet0"));
            assert!(scripts.run(&host, "ifdown", "vnet0").success());
            assert_same(&before, &host.foreign().without_link("vnet0"));
        }
    }
}

/// One comes while the old script's network is up, as on a host that is being moved over.
#[test]
fn old_and_new_share_the_old_scripts_network() {
    let host = host();
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    assert!(Scripts::Old.run(&host, "natup", "vnet0").success());
    assert!(Scripts::Kvmnet.run(&host, "natup", "vnet1").success());
    assert_eq!(host.ports("br0"), ["vnet0", "vnet1"]);
    assert_eq!(host.count_rules("masquerade"), 1);
    assert!(Scripts::Kvmnet.run(&host, "natdown", "vnet1").success());
    assert_eq!(host.ports("br0"), ["vnet0"]);
    assert!(Scripts::Old.run(&host, "natdown", "vnet0").success());
    assert!(host.link("br0").is_none());
}

/// A VM that was started with kvmnet's natup and ends with the old natdown: that one knows the
/// bridge, not our table.
#[test]
fn the_next_run_clears_away_what_the_old_natdown_leaves_of_ours() {
    let host = host();
    let _tap = host.tap("vnet0");
    let before = foreign(&host);
    assert!(Scripts::Kvmnet.run(&host, "natup", "vnet0").success());
    assert!(Scripts::Old.run(&host, "natdown", "vnet0").success());
    assert!(host.link("br0").is_none() && host.nft("ip", "kvmnet-default").is_some());
    assert!(Scripts::Kvmnet.run(&host, "natdown", "vnet0").success());
    host.assert_no_network();
    assert_same(&before, &foreign(&host));
}

#[test]
fn the_last_guest_takes_nobody_elses_rules() {
    for scripts in BOTH {
        let host = host();
        let _tap = host.tap("vnet0");
        host.ok("iptables -t nat -A PREROUTING -p tcp --dport 8080 -j DNAT --to 10.0.0.1:80");
        host.ok("iptables -t nat -A POSTROUTING -s 10.7.0.0/16 -j MASQUERADE");
        let before = foreign(&host);
        assert!(scripts.run(&host, "natup", "vnet0").success());
        assert!(scripts.run(&host, "natdown", "vnet0").success());
        let diff = before.diff(&foreign(&host));
        assert_eq!(diff.is_empty(), scripts == Scripts::Kvmnet, "{scripts:?}: {diff}");
    }
}

#[test]
fn br01_is_not_br0() {
    for scripts in BOTH {
        let host = host();
        let _tap = host.tap("vnet0");
        host.ok("ip link add br01 type bridge && ip link set br01 up");
        let before = foreign(&host);
        let output = scripts.run(&host, "natup", "vnet0");
        assert_eq!(output.success(), scripts == Scripts::Kvmnet, "{scripts:?}: {output:?}");
        if scripts == Scripts::Kvmnet {
            assert_same(&before, &foreign(&host));
            assert_eq!(host.ports("br0"), ["vnet0"]);
        }
    }
}

#[test]
fn guests_that_start_at_once_make_one_network() {
    const GUESTS: usize = 8;
    for scripts in BOTH {
        let host = host();
        // The old scripts' race is there without this; this makes sure that it is lost.
        host.write_program(
            "/run/slow/iptables-save",
            "#!/bin/sh\n/usr/sbin/iptables-save \"$@\"; sleep 0.5\n",
        );
        let taps: Vec<_> = (0..GUESTS).map(|n| host.tap(&format!("vnet{n}"))).collect();
        let slow = format!("PATH=/run/slow:$PATH exec {} $0", scripts.path("natup"));
        let runs: Vec<_> = taps
            .iter()
            .map(|tap| host.spawn(host.command("sh").args(["-c", &slow, tap.name()])))
            .collect();
        let outputs = runs.into_iter().map(|run| run.output(LIMIT));
        let succeeded = outputs.filter(Output::success).count();
        let rules = host.count_rules("masquerade");
        match scripts {
            Scripts::Old => assert!(rules > 1, "{rules} rules, {succeeded} attached"),
            Scripts::Kvmnet => {
                // One for TCP, one for UDP, one for all else.
                assert_eq!((succeeded, rules), (GUESTS, 3));
                assert_eq!(host.ports("br0").len(), GUESTS);
            }
        }
    }
}

/// Debian's stock script: the bridge that holds a default route, the one of the lowest metric.
#[test]
fn debians_stock_script_takes_the_same_bridge() {
    const STOCK: &str = "/etc/qemu-ifup";
    for scripts in BOTH {
        // Not ours, but the one that qemu-system-common has put there.
        let host = Host::new();
        let text = host.ok(&format!("cat {STOCK}"));
        assert!(text.contains("default"), "{STOCK} is not Debian's: {text}");
        // The lowest of all leads over a NIC, which is no bridge: it doesn't count.
        host.ok("
            ip route add default via 10.0.0.1 metric 5
            for bridge in lan wan; do ip link add $bridge type bridge; ip link set $bridge up; done
            ip addr add 10.2.0.2/24 dev lan && ip addr add 10.3.0.2/24 dev wan
            ip route replace default via 10.2.0.1 metric 20
            ip route add default via 10.3.0.1 metric 10
        ");
        let _tap = host.tap("vnet0");
        let output = scripts.run(&host, "ifup", "vnet0");
        assert!(output.success(), "{scripts:?}: {output:?}");
        assert_eq!(host.ports("wan"), ["vnet0"], "{scripts:?}");
    }
    // Where there is no bridge it says so and lets the guest start without a network. We don't.
    let host = Host::new();
    let _tap = host.tap("vnet0");
    assert!(host.run(&[STOCK, "vnet0"]).success());
    assert!(!Scripts::Kvmnet.run(&host, "ifup", "vnet0").success());
}
