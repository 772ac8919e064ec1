use super::{assert_plan, assert_refused, name, nothing_there, own_bridge, port_of};
use crate::config;
use crate::model::{
    ForwardingView, Link, LinkKind, Mac, ManagedView, NetworkName, Route, TableState,
};
use crate::plan::{AttachPlan, Note, Purpose, Refusal, attach_managed, table_of};

/// A host where the network is whole.
fn all_there() -> ManagedView {
    ManagedView {
        bridge: Some(own_bridge()),
        addresses: vec![address()],
        free_index: 0,
        table: TableState::AsWanted,
        forwarding: ForwardingView { global: true, interfaces_off: vec![] },
        ..nothing_there()
    }
}

fn address() -> ipnet::Ipv4Net {
    config::default_nat().mode.address().unwrap()
}

fn network() -> NetworkName {
    config::default_name()
}

fn plan(view: &ManagedView) -> Result<AttachPlan, Refusal> {
    attach_managed(view, Purpose::Guest(&name("vnet0")), &config::default_nat())
}

#[test]
fn the_first_guest_builds_the_network() {
    let plan = plan(&nothing_there());
    let default = config::default_nat();
    let built =
        Note::Built { network: network(), mode: default.mode, table: Some(default.table()) };
    let turned_on = Note::TurnedOnForwarding { everywhere: true };
    assert_eq!(plan.as_ref().unwrap().notes, [built, turned_on]);
    assert_plan(
        plan,
        &[
            "make table ip kvmnet-default",
            "make bridge br0 (index 1000007, address 02:6b:76:20:c5:fe, alias kvmnet:default:forwarding, \
             no STP, no forward delay) and set it up",
            "set disable_ipv6 of br0 to 1",
            "give br0 the address 192.168.100.1/24; let vnet0 have no IPv6 address; \
             make vnet0 a port of br0, address fe:8d:10:39:9d:e4, no frame past the bridge, up",
            "set net.ipv4.ip_forward to 1",
        ],
    );
}

#[test]
fn the_next_guest_only_attaches() {
    assert_plan(
        plan(&all_there()),
        &[
            "let vnet0 have no IPv6 address; make vnet0 a port of br0, address fe:8d:10:39:9d:e4, no frame past the bridge, up",
        ],
    );
}

#[test]
fn a_second_run_does_nothing() {
    let mut view = all_there();
    view.tap = port_of(&own_bridge());
    let plan = plan(&view).unwrap();
    assert!(plan.steps.is_empty() && plan.notes.is_empty() && plan.was_done, "{plan:?}");
}

#[test]
fn what_is_missing_is_put_back_and_nothing_else() {
    let mut view = all_there();
    view.tap = port_of(&own_bridge());

    view.forwarding.global = false;
    let marked = "repair bridge br0: alias kvmnet:default:forwarding";
    assert_plan(plan(&view), &[marked, "set net.ipv4.ip_forward to 1"]);
    view.forwarding.global = true;

    view.table = TableState::Absent;
    assert_plan(plan(&view), &["make table ip kvmnet-default"]);
    view.table = TableState::Different;
    assert_plan(plan(&view), &["replace table ip kvmnet-default"]);
    view.table = TableState::AsWanted;

    view.addresses.clear();
    assert_plan(plan(&view), &["give br0 the address 192.168.100.1/24"]);
    view.addresses = vec!["192.168.100.1/16".parse().unwrap(), address()];
    assert_plan(plan(&view), &[]);

    for (damage, repair) in [
        ((|bridge| bridge.alias.clear()) as fn(&mut Link), "alias kvmnet:default"),
        (|bridge| bridge.up = false, "up"),
        (|bridge| bridge.mac = Some(Mac([2, 0, 0, 0, 0, 1])), "address 02:6b:76:20:c5:fe"),
        (
            |bridge| bridge.kind = LinkKind::Bridge { stp: true, forward_delay: 0 },
            "no STP, no forward delay",
        ),
        (
            |bridge| bridge.kind = LinkKind::Bridge { stp: false, forward_delay: 1500 },
            "no STP, no forward delay",
        ),
    ] {
        let mut damaged = view.clone();
        damaged.bridge.as_mut().map(damage).unwrap();
        let plan = plan(&damaged);
        assert_eq!(plan.as_ref().unwrap().notes, [Note::Repaired { network: network() }]);
        assert_plan(plan, &[&format!("repair bridge br0: {repair}")]);
    }

    view.bridge.as_mut().unwrap().inet6.as_mut().unwrap().disabled = false;
    assert_plan(plan(&view), &["set disable_ipv6 of br0 to 1"]);
}

#[test]
fn a_pinned_network_stays_pinned() {
    let mut view = all_there();
    let bridge = view.bridge.as_mut().unwrap();
    bridge.alias.push_str(":pinned");
    bridge.up = false;
    view.tap = port_of(&own_bridge());
    assert_plan(plan(&view), &["repair bridge br0: up"]);
}

#[test]
fn the_tap_takes_the_bridges_mtu() {
    let mut view = all_there();
    view.bridge.as_mut().unwrap().mtu = 9000;
    view.tap.link.as_mut().unwrap().inet6 = None;
    assert_plan(
        plan(&view),
        &[
            "make vnet0 a port of br0, address fe:8d:10:39:9d:e4, MTU 9000, no frame past the bridge, up",
        ],
    );
}

/// libvirt's own: up with carrier and a high address before the script runs.
#[test]
fn a_high_address_is_kept() {
    let mut view = all_there();
    let tap = view.tap.link.as_mut().unwrap();
    tap.mac = Some(Mac([0xfe, 0x54, 0, 1, 2, 3]));
    tap.up = true;
    tap.inet6 = None;
    assert_plan(plan(&view), &["make vnet0 a port of br0, no frame past the bridge, up"]);
}

/// As one in 64 of those that the kernel makes up is; udev would take it for what it is, nobody's choice.
#[test]
fn an_address_that_is_high_by_chance_is_replaced() {
    let mut view = all_there();
    let tap = view.tap.link.as_mut().unwrap();
    tap.mac = Some(Mac([0xfe, 0xf2, 0, 1, 2, 3]));
    tap.inet6 = None;
    assert_plan(
        plan(&view),
        &["make vnet0 a port of br0, address fe:8d:10:39:9d:e4, no frame past the bridge, up"],
    );
    // What a run that failed has left is as it should be.
    let own = Mac::of_tap(&name("vnet0"));
    view.tap.link.as_mut().unwrap().mac = Some(own);
    assert_plan(plan(&view), &["make vnet0 a port of br0, no frame past the bridge, up"]);
}

#[test]
fn the_old_scripts_bridge_is_used_without_rules() {
    let mut view = all_there();
    view.bridge = Some(Link::test_bridge("br0", 5));
    view.table = TableState::Absent;
    view.forwarding.global = false;
    let plan = plan(&view);
    assert_eq!(plan.as_ref().unwrap().notes, [Note::ForeignBridge { address: address() }]);
    assert_plan(
        plan,
        &[
            "let vnet0 have no IPv6 address; make vnet0 a port of br0, address fe:8d:10:39:9d:e4, up",
        ],
    );
}

/// It has that address, but it is the LAN.
#[test]
fn a_bridge_with_other_ports_than_taps_is_not_the_old_scripts() {
    let mut view = all_there();
    view.bridge = Some(Link::test_bridge("br0", 5));
    view.ports = vec![Link::test_tap("vnet7", 8)];
    assert!(plan(&view).is_ok());
    view.ports.push(Link::test("eno1", 2, LinkKind::Other(String::new())));
    assert_refused(
        plan(&view),
        "br0: is not kvmnet's and has the port eno1, which is no tap: a guest of network \
         default would land on that network; use kvmnet-ifup for a guest on this bridge, or give \
         network default another: bridge = \"NAME\" in /etc/kvmnet/default.toml",
    );
}

#[test]
fn words_of_the_administrators_in_the_alias_stay() {
    let mut view = all_there();
    view.tap = port_of(&own_bridge());
    view.bridge.as_mut().unwrap().alias = "VM net".to_owned();
    assert_plan(plan(&view), &[]);
}

#[test]
fn a_network_that_runs_on_another_bridge_is_not_built_again() {
    let mut view = nothing_there();
    view.namesake = Some("natx".to_owned());
    assert_refused(
        plan(&view),
        "default: runs on the bridge natx, not on br0; rename it: ip link set natx name br0, or \
         stop the guests of network default first",
    );
}

#[test]
fn a_network_that_runs_with_another_address_keeps_it() {
    let mut view = all_there();
    view.addresses = vec!["192.168.7.1/24".parse().unwrap()];
    assert_refused(
        plan(&view),
        "br0: carries 192.168.7.1/24, but the address of network default is 192.168.100.1/24; \
         stop the guests of network default first, or take the other away: ip address flush dev br0",
    );
}

#[test]
fn refusals() {
    let mut view = nothing_there();
    view.tap.link = None;
    assert_refused(
        plan(&view),
        "vnet0: there is no such interface; QEMU makes the tap before it runs its script: \
         compare ifname= of -netdev tap",
    );

    let mut view = nothing_there();
    view.tap.link.as_mut().unwrap().name = "tap7".to_owned();
    assert_refused(
        plan(&view),
        "vnet0: is an alternative name of tap7; give the interface's own name",
    );

    let mut view = nothing_there();
    view.tap.link.as_mut().unwrap().kind = LinkKind::Other("veth".to_owned());
    assert_refused(
        plan(&view),
        "vnet0: is not a tap but of kind veth; give the name of a tap, as -netdev tap,ifname= \
         makes it",
    );

    let mut view = all_there();
    view.tap = port_of(&Link::test_bridge("br1", 5));
    assert_refused(
        plan(&view),
        "vnet0: is a port of br1 already; release it first: ip link set vnet0 nomaster",
    );
    view.tap.master.as_mut().unwrap().kind = LinkKind::Other("openvswitch".to_owned());
    assert_refused(
        plan(&view),
        "vnet0: is a port of br1 already; release it first: ovs-vsctl del-port vnet0",
    );
    // It can't be a port of a bridge that is yet to be made either.
    view.bridge = None;
    assert!(matches!(plan(&view), Err(Refusal::PortOfAnother { .. })));

    let mut view = all_there();
    view.bridge.as_mut().unwrap().kind = LinkKind::Other("dummy".to_owned());
    assert_refused(
        plan(&view),
        "br0: is not a bridge but of kind dummy; rename it, so that a bridge can have this name",
    );

    let mut view = all_there();
    view.bridge.as_mut().unwrap().name = "lan".to_owned();
    assert_refused(
        plan(&view),
        "br0: is an alternative name of lan; give the interface's own name",
    );

    let mut view = all_there();
    view.bridge.as_mut().unwrap().alias = "kvmnet:lab".to_owned();
    assert_refused(
        plan(&view),
        "br0: belongs to kvmnet's network lab, not to default; give network default another: \
         bridge = \"NAME\" in /etc/kvmnet/default.toml",
    );
}

#[test]
fn a_guest_meant_for_nat_never_lands_on_the_lan() {
    let mut view = all_there();
    view.bridge = Some(Link::test_bridge("br0", 5));
    view.addresses = vec!["10.0.0.11/24".parse().unwrap()];
    assert_refused(
        plan(&view),
        "br0: is not kvmnet's and carries 10.0.0.11/24; use kvmnet-ifup for a guest on this \
         bridge, or give network default another: bridge = \"NAME\" in /etc/kvmnet/default.toml",
    );
    view.addresses.push(address());
    assert!(matches!(plan(&view), Err(Refusal::ForeignBridge { .. })));
    view.addresses.clear();
    assert_refused(
        plan(&view),
        "br0: is not kvmnet's and carries no IPv4 address; use kvmnet-ifup for a guest on this \
         bridge, or give network default another: bridge = \"NAME\" in /etc/kvmnet/default.toml",
    );
    view.addresses = vec!["192.168.100.1/16".parse().unwrap()];
    assert!(matches!(plan(&view), Err(Refusal::ForeignBridge { .. })));
}

#[test]
fn a_subnet_in_use_elsewhere_is_left_alone() {
    let mut view = nothing_there();
    view.conflict = Some(Route {
        destination: "192.168.100.0/25".parse().unwrap(),
        interface: Some("eno1".to_owned()),
    });
    let wanted = "192.168.100.0/24: network default needs this subnet, but the host has a route \
                  to 192.168.100.0/25 over eno1; choose another: address = \"ADDRESS/LENGTH\" in \
                  /etc/kvmnet/default.toml";
    assert_refused(plan(&view), wanted);
    // Also where only the address of an existing bridge is missing.
    let mut view = ManagedView { conflict: view.conflict, ..all_there() };
    assert_plan(plan(&view).map(|plan| AttachPlan { steps: vec![], ..plan }), &[]);
    view.addresses.clear();
    assert_refused(plan(&view), wanted);
}

/// What `nft list table` shows. A test on the real kernel compares it with what nft prints.
#[test]
fn the_rules_of_a_nat_network() {
    let wanted = r#"table ip kvmnet-default {
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "br0" oifname "br0" accept
		oifname "br0" ct state established,related accept
		oifname "br0" ct status dnat accept
		oifname "br0" drop
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 192.168.100.0/24 ip daddr 224.0.0.0/24 return
		ip saddr 192.168.100.0/24 ip daddr 255.255.255.255 return
		meta l4proto tcp ip saddr 192.168.100.0/24 ip daddr != 192.168.100.0/24 masquerade to :1024-65535
		meta l4proto udp ip saddr 192.168.100.0/24 ip daddr != 192.168.100.0/24 masquerade to :1024-65535
		ip saddr 192.168.100.0/24 ip daddr != 192.168.100.0/24 masquerade
	}
}
"#;
    assert_eq!(table_of(&config::default_nat()).unwrap().to_string(), wanted);
}
