//! The helpers on the real kernel, with taps that the test holds as QEMU would.

use kvmnet_core::{config, plan};
use kvmnet_tests::{Foreign, Host, assert_same};

/// All there is, our own objects included: two runs that do the same leave the same.
fn everything(host: &Host) -> Foreign {
    host.foreign()
}

/// All but what kvmnet builds, and the tap that comes and goes.
fn foreign(host: &Host) -> Foreign {
    host.foreign()
        .without_link("br0")
        .without_link("vnet0")
        .without_link("vnet1")
        .without_table("kvmnet-default")
        .without_forwarding()
}

#[track_caller]
fn ok(host: &Host, helper: &str, tap: &str) {
    let output = host.helper(helper, &[tap]);
    assert_eq!((output.code, output.stderr.as_str(), output.stdout.as_str()), (0, "", ""));
}

/// What the administrator has: rules of all makes, a bridge with a name like ours, its own routes.
fn furnish(host: &Host) {
    host.ok("
        ip link add br01 type bridge && ip addr add 10.1.0.1/24 dev br01 && ip link set br01 up
        iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE
        iptables -A FORWARD -i br01 -j ACCEPT
        nft add table inet site
        nft add chain inet site input '{ type filter hook input priority 0; }'
        nft add rule inet site input tcp dport 22 counter accept
        ip route add 192.168.0.0/16 via 10.0.0.1
    ");
}

#[test]
fn the_network_is_built_by_the_first_and_removed_by_the_last() {
    let host = Host::new();
    furnish(&host);
    let (tap0, tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    let before = foreign(&host);

    ok(&host, "natup", "vnet0");
    assert_eq!(host.ports("br0"), ["vnet0"]);
    assert_eq!(host.addresses("br0"), ["192.168.100.1/24"]);
    assert_eq!(host.sysctl("net/ipv4/ip_forward"), "1");
    assert_eq!(host.sysctl("net/ipv6/conf/br0/disable_ipv6"), "1");
    let bridge = host.link("br0").unwrap();
    assert_eq!(bridge["address"], "02:6b:76:20:c5:fe");
    assert_eq!(bridge["ifalias"], "kvmnet:default:forwarding");
    let data = &bridge["linkinfo"]["info_data"];
    assert_eq!((&data["stp_state"], &data["forward_delay"]), (&0.into(), &0.into()));
    assert_same(&before, &foreign(&host));

    ok(&host, "natup", "vnet1");
    assert_eq!(host.ports("br0"), ["vnet0", "vnet1"]);
    assert_same(&before, &foreign(&host));

    ok(&host, "natdown", "vnet0");
    assert_eq!(host.ports("br0"), ["vnet1"]);
    assert!(host.nft("ip", "kvmnet-default").is_some());
    // The downscript runs before QEMU closes the tap.
    assert!(host.link("vnet0").is_some());
    assert_same(&before, &foreign(&host));

    ok(&host, "natdown", "vnet1");
    assert!(host.link("br0").is_none() && host.nft("ip", "kvmnet-default").is_none());
    assert_same(&before, &foreign(&host));
    drop((tap0, tap1));
}

/// The golden text of the rules is what nft prints of the real ones.
#[test]
fn nft_shows_the_wanted_rules() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    ok(&host, "natup", "vnet0");
    let wanted = plan::table_of(&config::default_nat()).unwrap().to_string();
    assert_eq!(host.nft("ip", "kvmnet-default"), Some(wanted));
}

#[test]
fn twice_is_once() {
    let host = Host::new();
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    ok(&host, "natup", "vnet0");
    ok(&host, "natup", "vnet1");
    let handles = host.ok("nft -a list table ip kvmnet-default");
    let once = everything(&host);
    ok(&host, "natup", "vnet0");
    assert_same(&once, &everything(&host));
    // The same rules, not equal ones made anew.
    assert_eq!(host.ok("nft -a list table ip kvmnet-default"), handles);
    for tap in ["vnet0", "vnet1"] {
        ok(&host, "natdown", tap);
        let once = everything(&host);
        ok(&host, "natdown", tap);
        assert_same(&once, &everything(&host));
    }
    host.ok("ip link add br0 type bridge && ip link set br0 up");
    for helper in ["ifup", "ifdown"] {
        ok(&host, helper, "vnet0");
        let once = everything(&host);
        ok(&host, helper, "vnet0");
        assert_same(&once, &everything(&host));
    }
}

#[test]
fn natup_puts_back_whatever_is_missing() {
    let host = Host::new();
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    ok(&host, "natup", "vnet0");
    ok(&host, "natup", "vnet1");
    let whole = everything(&host);
    for damage in [
        "nft delete table ip kvmnet-default",
        "nft flush table ip kvmnet-default",
        "nft flush ruleset",
        "nft flush chain ip kvmnet-default forward",
        "nft insert rule ip kvmnet-default forward accept",
        "nft add chain ip kvmnet-default other",
        "nft 'chain ip kvmnet-default forward { policy drop; }'",
        "nft -a list chain ip kvmnet-default postrouting | sed -n 's/.*masquerade # handle /delete \
         rule ip kvmnet-default postrouting handle /p' | nft -f -",
        "nft add table ip kvmnet-default '{ flags dormant; }'",
        // A saved ruleset that was edited, and brought back.
        "nft list table ip kvmnet-default | sed s/192.168.100/192.168.77/ >/tmp/rules && \
         nft delete table ip kvmnet-default && nft -f /tmp/rules",
        "ip link set br0 down",
        "ip link set br0 alias ''",
        "ip link set br0 address 02:00:00:00:00:01",
        "ip link set br0 type bridge stp_state 1",
        "ip link set br0 type bridge forward_delay 1500",
        "ip addr flush dev br0",
        "ip link set vnet0 nomaster",
        "ip link set vnet0 down",
        "echo 0 >/proc/sys/net/ipv4/ip_forward",
        "echo 0 >/proc/sys/net/ipv6/conf/br0/disable_ipv6",
        // All of it at once.
        "ip link set br0 down; ip link set br0 alias ''; ip addr flush dev br0; nft flush ruleset",
    ] {
        host.ok(damage);
        let damaged = everything(&host);
        assert!(!whole.diff(&damaged).is_empty(), "no damage: {damage}");
        let output = host.helper("natup", &["vnet0"]);
        assert!(output.success(), "{damage}: {output:?}");
        let diff = whole.diff(&everything(&host));
        assert!(diff.is_empty(), "not repaired: {damage}\n{diff}");
    }
    assert!(host.syslog().iter().any(|line| line.contains("repaired network default")));
}

/// A ruleset that a service saved with our table in it comes back at boot, without a bridge.
#[test]
fn a_table_without_a_bridge_does_no_harm() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    let before = foreign(&host);
    ok(&host, "natup", "vnet0");
    host.ok("nft list ruleset >/tmp/rules");
    ok(&host, "natdown", "vnet0");
    host.ok("nft -f /tmp/rules");
    ok(&host, "natup", "vnet0");
    let wanted = plan::table_of(&config::default_nat()).unwrap().to_string();
    assert_eq!(host.nft("ip", "kvmnet-default"), Some(wanted));
    ok(&host, "natdown", "vnet0");
    host.ok("nft -f /tmp/rules");
    // Nobody uses it: any down clears it away.
    ok(&host, "natdown", "vnet9");
    assert!(host.nft("ip", "kvmnet-default").is_none());
    assert_same(&before, &foreign(&host));
}

#[test]
fn names_reserved_for_kvmnet_in_other_families_are_left_alone() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.ok("nft add table inet kvmnet-default && nft add table ip 'kvmnet-Office'");
    ok(&host, "natup", "vnet0");
    ok(&host, "natdown", "vnet0");
    assert_eq!(host.nft_tables(), ["inet kvmnet-default", "ip kvmnet-Office"]);
}

#[test]
fn the_old_scripts_bridge_is_used_and_stays() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    // With an old guest on it: its carrier is there before.
    host.ok("
        ip link add br0 type bridge && ip addr add 192.168.100.1/24 dev br0
        ip link set br0 address 52:54:00:00:00:07 up
    ");
    let _old = host.tap("old0");
    host.ok("ip link set old0 master br0 up");
    let before = host.foreign();
    ok(&host, "natup", "vnet0");
    assert_eq!(host.ports("br0"), ["old0", "vnet0"]);
    assert!(host.nft_tables().is_empty());
    assert!(host.syslog()[0].contains("br0 is not kvmnet's but carries exactly 192.168.100.1/24"));
    ok(&host, "natdown", "vnet0");
    assert_eq!(host.ports("br0"), ["old0"]);
    let tapless = |state: Foreign| state.without_link("vnet0");
    assert_same(&tapless(before), &tapless(host.foreign()));
}

#[test]
fn the_administrators_bridge_keeps_mac_mtu_and_addresses() {
    let host = Host::new();
    // The uplink has the lowest address and a large MTU, and the bridge follows it in both.
    host.ok("
        ip link add br0 type bridge && ip link set eno1 address 02:00:00:00:00:42 mtu 9000
        ip link set eno1 master br0 && ip link set br0 up
        ip addr flush dev eno1 && ip addr add 10.0.0.11/24 dev br0
        ip route add default via 10.0.0.1
    ");
    let (tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    let tapless = || host.foreign().without_link("vnet0").without_link("vnet1");
    let before = tapless();
    assert_eq!(host.link("br0").unwrap()["mtu"], 9000);
    for tap in ["vnet0", "vnet1"] {
        ok(&host, "ifup", tap);
        assert_eq!(host.link(tap).unwrap()["mtu"], 9000);
        assert_same(&before, &tapless());
    }
    assert_eq!(host.ports("br0"), ["eno1", "vnet0", "vnet1"]);
    let addresses = host.ok("ip -6 addr show dev vnet0");
    assert_eq!(addresses, "", "the tap has an IPv6 address of its own");
    ok(&host, "ifdown", "vnet1");
    drop(tap0);
    assert_eq!(host.ports("br0"), ["eno1"]);
    ok(&host, "ifdown", "vnet0");
    assert_same(&before, &tapless());
}

#[test]
fn ifup_takes_the_bridge_of_the_best_default_route() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.ok("
        for bridge in lan wan; do ip link add $bridge type bridge; ip link set $bridge up; done
        ip addr add 10.2.0.2/24 dev lan && ip addr add 10.3.0.2/24 dev wan
        ip link add nic type veth peer name other && ip link set nic up
        ip addr add 10.4.0.2/24 dev nic
        ip route add default via 10.4.0.1 metric 1
        ip route add default via 10.2.0.1 metric 20
        ip route add default via 10.3.0.1 metric 10
    ");
    ok(&host, "ifup", "vnet0");
    assert_eq!(host.ports("wan"), ["vnet0"]);
    ok(&host, "ifdown", "vnet0");
    assert!(host.ports("wan").is_empty());
}

/// A VM that was killed leaves the bridge without ports. It isn't what ifup looks for.
#[test]
fn ifup_clears_away_what_a_killed_vm_left() {
    let host = Host::new();
    let before = foreign(&host);
    let killed = host.tap("vnet1");
    ok(&host, "natup", "vnet1");
    drop(killed);
    let _tap = host.tap("vnet0");
    let output = host.helper("ifup", &["vnet0"]);
    assert!(output.stderr.contains("there is no such bridge"), "{output:?}");
    assert!(host.link("br0").is_none() && host.nft_tables().is_empty());
    assert_same(&before, &foreign(&host));
    // While somebody uses the network it is a bridge as good as any.
    let _other = host.tap("vnet1");
    ok(&host, "natup", "vnet1");
    ok(&host, "ifup", "vnet0");
    assert_eq!(host.ports("br0"), ["vnet0", "vnet1"]);
    ok(&host, "natdown", "vnet1");
    ok(&host, "ifdown", "vnet0");
    assert!(host.link("br0").is_none() && host.nft_tables().is_empty());
}

#[test]
fn whoever_runs_next_clears_away_what_a_killed_vm_left() {
    let host = Host::new();
    let before = foreign(&host);
    for next in ["natdown", "ifdown"] {
        let killed = host.tap("vnet0");
        ok(&host, "natup", "vnet0");
        drop(killed);
        assert!(host.link("br0").is_some() && host.ports("br0").is_empty());
        ok(&host, next, "vnet9");
        assert!(host.link("br0").is_none() && host.nft_tables().is_empty());
        assert_same(&before, &foreign(&host));
    }
}

#[test]
fn ports_that_keep_a_network_and_ports_that_do_not() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    ok(&host, "natup", "vnet0");
    // A persistent tap that nobody holds open doesn't, a port of the administrator's does.
    host.persistent_tap("tap7");
    host.ok("ip link add veth0 type veth peer name veth1 && ip link set veth0 master br0");
    host.ok("ip link set tap7 master br0 up");
    ok(&host, "natdown", "vnet0");
    assert_eq!(host.ports("br0"), ["tap7", "veth0"]);
    host.ok("ip link del veth0");
    ok(&host, "natdown", "vnet0");
    assert!(host.link("br0").is_none());
    assert!(host.link("tap7").unwrap()["master"].is_null());
}

#[test]
fn a_pinned_network_stays() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    ok(&host, "natup", "vnet0");
    host.ok("ip link set br0 alias kvmnet:default:pinned");
    ok(&host, "natdown", "vnet0");
    assert!(host.link("br0").is_some() && host.nft("ip", "kvmnet-default").is_some());
}

/// A tap in the way of its own index: the bridge takes another.
#[test]
fn somebody_has_the_index() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    ok(&host, "natup", "vnet0");
    let index = host.link("br0").unwrap()["ifindex"].as_u64().unwrap();
    ok(&host, "natdown", "vnet0");
    host.ok(&format!("ip link add other index {index} type bridge"));
    let other = host.link("other");
    ok(&host, "natup", "vnet0");
    assert_eq!(host.link("br0").unwrap()["ifindex"], index + 1);
    assert_eq!(host.link("other").unwrap()["ifalias"], other.unwrap()["ifalias"]);
}

#[test]
fn the_log_says_what_was_done_and_where_to_look() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    ok(&host, "natup", "vnet0");
    ok(&host, "natup", "vnet0");
    ok(&host, "natdown", "vnet0");
    ok(&host, "natdown", "vnet0");
    let said: Vec<String> = host
        .syslog()
        .iter()
        .map(|line| line.split_once("]: ").map_or("", |(_, text)| text).to_owned())
        .collect();
    assert_eq!(
        said,
        [
            "vnet0: attached to br0; built nat network default, its rules: \
             nft list table ip kvmnet-default; turned on net.ipv4.ip_forward",
            "vnet0: attached to br0",
            "vnet0: released from br0; took down network default, which nobody used",
            "vnet0: was no bridge port any more",
        ]
    );
    let output = host.sh("KVMNET_LOG=debug /usr/libexec/kvmnet-natup vnet0");
    assert!(output.stderr.contains("DEBUG: make table ip kvmnet-default\n"), "{output:?}");
}

/// Somebody names the bridge for people. It is no less ours, and nobody loses the rules.
#[test]
fn an_alias_of_the_administrators_changes_nothing() {
    let host = Host::bare();
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    ok(&host, "natup", "vnet0");
    host.ok("ip link set br0 alias 'VM net'");
    ok(&host, "natup", "vnet1");
    assert_eq!(host.link("br0").unwrap()["ifalias"], "VM net");
    ok(&host, "natdown", "vnet0");
    assert!(host.nft("ip", "kvmnet-default").is_some());
    ok(&host, "natdown", "vnet1");
    assert!(host.link("br0").is_none() && host.nft_tables().is_empty());
}

/// The tap of libvirt's `<interface type='ethernet'>` is up, and has an address, before the script
/// runs.
#[test]
fn a_tap_that_is_up_loses_its_ipv6_address() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.ok("ip link set vnet0 up");
    let address = "ip -6 -o addr show dev vnet0 scope link | grep -v tentative";
    host.ok(&format!("for n in $(seq 50); do {address} && exit; sleep 0.1; done; exit 1"));
    ok(&host, "natup", "vnet0");
    assert_eq!(host.ok("ip -6 -o addr show dev vnet0"), "");
    assert_eq!(host.ports("br0"), ["vnet0"]);
}

/// The address isn't everything: this bridge is the LAN.
#[test]
fn a_bridge_with_the_networks_address_and_a_nic_is_not_the_old_scripts() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    host.ok("
        ip link add br0 type bridge && ip addr add 192.168.100.1/24 dev br0 && ip link set br0 up
        ip link set eno1 master br0
    ");
    let output = host.helper("natup", &["vnet0"]);
    assert!(output.stderr.contains("br0: is not kvmnet's and has the port eno1, which is no tap"));
    assert_eq!(host.ports("br0"), ["eno1"]);
}

#[test]
fn a_bridge_that_was_renamed_is_named() {
    let host = Host::bare();
    let (_tap0, _tap1) = (host.tap("vnet0"), host.tap("vnet1"));
    ok(&host, "natup", "vnet0");
    host.ok("ip link set br0 down && ip link set br0 name natx && ip link set natx up");
    let output = host.helper("natup", &["vnet1"]);
    assert_eq!(
        output.stderr,
        "kvmnet-natup: default: runs on the bridge natx, not on br0; rename it: ip link set natx \
         name br0, or stop the guests of network default first\n"
    );
    // Its last guest takes it down by whatever name.
    ok(&host, "natdown", "vnet0");
    assert!(host.link("natx").is_none() && host.nft_tables().is_empty());
}

/// A network namespace that never had a route has no routing table either.
#[test]
fn a_host_that_never_had_a_route() {
    let host = Host::bare();
    let script = "ip tuntap add vnet0 mode tap && /usr/libexec/kvmnet-ifup vnet0";
    let output = host.sh(&format!("unshare --net sh -c '{script}'"));
    assert!(output.stderr.contains("br0: there is no such bridge, and no default route"));
    let script = "ip tuntap add vnet0 mode tap && /usr/libexec/kvmnet-natup vnet0";
    let output = host.sh(&format!("unshare --net sh -c '{script}'"));
    assert!(output.success(), "{output:?}");
}

/// What the kernel says of such a bridge is longer than the page that a socket gets for its first answer, and what
/// doesn't fit there ends the list as if it were whole.
#[test]
fn a_bridge_with_many_names_hides_no_network_that_nobody_uses() {
    let host = Host::new();
    host.ok("
        ip link add br1 type bridge
        for n in $(seq 40); do
            ip link property add dev br1 altname $(printf 'a-name-of-the-bridge-%0100d' $n)
        done
    ");
    let before = foreign(&host);
    let tap = host.tap("vnet0");
    ok(&host, "natup", "vnet0");
    drop(tap);
    ok(&host, "natdown", "vnet9");
    host.assert_no_network();
    assert_same(&before, &foreign(&host));
}

/// The same of a guest that no answer has room for beside another: that it isn't in a list proves nothing.
#[test]
fn a_guest_with_many_names_keeps_its_network() {
    let host = Host::new();
    let taps = (host.tap("vnet0"), host.tap("vnet1"));
    ok(&host, "natup", "vnet0");
    ok(&host, "natup", "vnet1");
    host.ok("
        for n in $(seq 480); do
            ip link property add dev vnet0 altname $(printf 'a-name-of-the-guest-%0100d' $n)
        done
    ");
    ok(&host, "natdown", "vnet1");
    assert_eq!(host.ports("br0"), ["vnet0"]);
    ok(&host, "natup", "vnet1");
    drop(taps.1);
    ok(&host, "natdown", "vnet0");
    host.assert_no_network();
}
