//! Links that the tests' own kernel may not have, and hosts do: VLANs, bonds, datapaths of Open vSwitch.
//! ifup makes the tap a port of the administrator's bridge, and nothing else is changed.

use kvmnet_tests::{Guest, GuestSpec, Host};

use crate::{boot, helper, hold, quiet};

/// All but the tap's own.
fn rest(guest: &mut Guest) -> String {
    guest.ok("look | grep -v vnet0")
}

/// A frame of the tap's is on a wire of the machine outside.
#[track_caller]
fn is_seen(guest: &mut Guest, wire: &str, filter: &str) {
    let tcpdump = format!("timeout 30 tcpdump -Z root -n -e -c1 -i {wire} '{filter}' 2>/dev/null");
    let seen = guest.sh(&format!("ip netns exec outside {tcpdump}"));
    assert!(seen.stdout.contains("Request who-has 10.0.0.99"), "nothing at {wire}: {seen:?}");
}

/// Attached and released, twice each; the frames get out, and whatever else there is stays as it was.
#[track_caller]
fn comes_and_goes(guest: &mut Guest, wire: &str, filter: &str) {
    let before = rest(guest);
    for _ in 0..2 {
        quiet(guest, "ifup", "vnet0");
        assert_eq!(rest(guest), before);
    }
    assert!(guest.ok("ip -o link show vnet0").contains(" master br0 "));
    is_seen(guest, wire, filter);
    for _ in 0..2 {
        quiet(guest, "ifdown", "vnet0");
        assert_eq!(rest(guest), before);
    }
    assert!(!guest.ok("ip -o link show vnet0").contains(" master "));
}

#[test]
fn vlans_bonds_and_a_bridge_that_filters_vlans() {
    let host = Host::bare();
    let mut guest = boot(&host, GuestSpec::on_kernel("links", "6.12"));
    let guest = &mut guest;
    hold(guest, "vnet0");

    // A VLAN's end is the bridge's port.
    guest.ok("ip link add link eth0 name eth0.100 type vlan id 100
         ip link add br0 type bridge forward_delay 0
         ip link set eth0.100 master br0 up && ip link set br0 up");
    comes_and_goes(guest, "lan0", "vlan 100 and arp");
    guest.ok("ip link del br0 && ip link del eth0.100");

    // The bridge keeps VLANs apart; which of them the tap is in is the administrator's to say.
    guest.ok("ip link add br0 type bridge forward_delay 0 vlan_filtering 1
         ip link set eth0 master br0 && ip link set br0 up
         bridge vlan add dev eth0 vid 100 && bridge vlan add dev br0 vid 200 self");
    comes_and_goes(guest, "lan0", "arp");
    quiet(guest, "ifup", "vnet0");
    let vlans = |guest: &mut Guest| guest.ok("bridge -compressvlans vlan show dev vnet0 | sed 1d");
    // What the kernel gives every new port.
    assert_eq!(
        vlans(guest).split_whitespace().collect::<Vec<_>>(),
        ["vnet0", "1", "PVID", "Egress", "Untagged"]
    );
    guest.ok("bridge vlan add dev vnet0 vid 100 pvid untagged && bridge vlan del dev vnet0 vid 1");
    let (chosen, others) = (vlans(guest), rest(guest));
    is_seen(guest, "lan0", "vlan 100 and arp");
    quiet(guest, "ifup", "vnet0");
    assert_eq!((vlans(guest), rest(guest)), (chosen, others));
    quiet(guest, "ifdown", "vnet0");
    assert_eq!(vlans(guest), "");
    guest.ok("ip link del br0");

    // Two cards that stand in for each other.
    guest.ok(
        "ip link add eth1 address 52:54:00:00:00:02 type veth peer name lan1 netns outside && ip -n outside link set lan1 up
         ip link add bond0 type bond mode active-backup miimon 100
         for card in eth0 eth1; do ip link set $card down && ip link set $card master bond0; done
         ip link add br0 type bridge forward_delay 0
         ip link set bond0 master br0 up && ip link set br0 up
         until grep -q 'Active Slave: eth' /proc/net/bonding/bond0; do sleep 0.1; done",
    );
    comes_and_goes(guest, "any", "arp");
    // A tap in a bond is the administrator's, too.
    guest.ok(
        "ip link add bond1 type bond && ip link set vnet0 down && ip link set vnet0 master bond1",
    );
    let all = guest.ok("look");
    let remedy = "release it first: ip link set vnet0 nomaster\n";
    let (taken, other) = (
        format!("vnet0: is a port of bond1 already; {remedy}"),
        format!("vnet0: its master bond1 is not a bridge; {remedy}"),
    );
    assert_eq!(helper(guest, "ifup", "vnet0"), (1, format!("kvmnet-ifup: {taken}")));
    assert_eq!(helper(guest, "ifdown", "vnet0"), (1, format!("kvmnet-ifdown: {other}")));
    assert_eq!(guest.ok("look"), all);
}

/// As another program's: kvmnet doesn't take it, and says with what it can be had.
#[test]
fn a_port_of_open_vswitch_is_not_stolen() {
    let host = Host::bare();
    let mut guest = boot(&host, GuestSpec::on_kernel("open-vswitch", "6.12"));
    let guest = &mut guest;
    guest.ok("modprobe openvswitch");
    hold(guest, "vnet0");
    guest.ok("datapath ovs0 vnet0 && ip link set vnet0 up && ip link set ovs0 up");
    assert!(guest.ok("ip -d link show vnet0").contains("openvswitch_slave"));
    let all = guest.ok("look");
    let remedy = "release it first: ovs-vsctl del-port vnet0\n";
    let taken = format!("vnet0: is a port of ovs0 already; {remedy}");
    let other = format!("vnet0: its master ovs0 is not a bridge; {remedy}");
    assert_eq!(helper(guest, "natup", "vnet0"), (1, format!("kvmnet-natup: {taken}")));
    for down in ["natdown", "ifdown"] {
        assert_eq!(helper(guest, down, "vnet0"), (1, format!("kvmnet-{down}: {other}")));
    }
    assert_eq!(guest.ok("look"), all);
    // Nor where there is a bridge for it.
    guest.ok("ip link add br0 type bridge && ip link set br0 up");
    let all = guest.ok("look");
    assert_eq!(helper(guest, "ifup", "vnet0"), (1, format!("kvmnet-ifup: {taken}")));
    assert_eq!(guest.ok("kvmnet gc"), "nothing to take down: every network is in use or pinned\n");
    assert_eq!(guest.ok("look"), all);
    // What the message leaves out because it doesn't help.
    guest.ok("! ip link set vnet0 nomaster 2>/dev/null");

    // The datapath itself has the name of the bridge.
    guest.ok("ip link del br0 && printf 'mode = \"bridged\"\\nbridge = \"ovs0\"\\n' >/etc/kvmnet/lan.toml");
    hold(guest, "vnet1");
    let output = guest.sh("KVMNET_NETWORK=lan /usr/libexec/kvmnet-ifup vnet1 2>&1");
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.stdout.contains("ovs0: is not a bridge but of kind openvswitch"), "{output:?}");
}
