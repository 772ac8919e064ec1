use ipnet::Ipv4Net;

use super::{
    assert_plan, assert_refused, fresh_tap, name, network_name, nothing_there, own_bridge, port_of,
};
use crate::model::{
    BRIDGE_GROUP, Firewall, Forwarding, ForwardingView, Link, LinkKind, Mac, ManagedNetwork,
    ManagedView, Mark, Mode, TableId, TableState,
};
use crate::plan::{AttachPlan, Purpose, Refusal, attach_managed, table_of};

fn address() -> Ipv4Net {
    "10.77.0.1/20".parse().unwrap()
}

fn network(mode: Mode) -> ManagedNetwork {
    ManagedNetwork::new(network_name("lab"), name("br-lab"), mode)
}

/// The network whole, and `vnet0` on it.
fn all_there(network: &ManagedNetwork) -> ManagedView {
    let mut bridge = own_bridge();
    bridge.name = "br-lab".to_owned();
    bridge.mac = Some(Mac::of_bridge(&network.name));
    bridge.alias = Mark::of(&network.name).to_string();
    bridge.noarp = network.mode == Mode::Isolated;
    bridge.mtu = network.mtu.unwrap_or(1500);
    ManagedView {
        tap: port_of(&bridge),
        bridge: Some(bridge),
        addresses: network.mode.address().into_iter().collect(),
        free_index: 0,
        table: TableState::AsWanted,
        forwarding: ForwardingView { global: true, interfaces_off: vec![] },
        ..nothing_there()
    }
}

fn plan(view: &ManagedView, network: &ManagedNetwork) -> Result<AttachPlan, Refusal> {
    attach_managed(view, Purpose::Guest(&name("vnet0")), network)
}

const BRIDGE: &str = "make bridge br-lab (index 1000007, address 02:6b:76:c1:eb:b4, alias \
                      kvmnet:lab:forwarding, no STP, no forward delay) and set it up";
const PORT: &str = "let vnet0 have no IPv6 address; make vnet0 a port of br-lab, address \
                    fe:8d:10:39:9d:e4, no frame past the bridge, up";

#[test]
fn a_routed_network_is_built() {
    assert_plan(
        plan(&nothing_there(), &network(Mode::Routed(address()))),
        &[
            "make table ip kvmnet-lab",
            BRIDGE,
            "set disable_ipv6 of br-lab to 1",
            &format!("give br-lab the address 10.77.0.1/20; {PORT}"),
            "set net.ipv4.ip_forward to 1",
        ],
    );
}

/// Its rules hang on the bridge, and so come behind it, but before the first guest.
#[test]
fn an_isolated_network_is_built() {
    let mut network = network(Mode::Isolated);
    network.mtu = Some(9000);
    assert_plan(
        plan(&nothing_there(), &network),
        &[
            "make bridge br-lab (index 1000007, address 02:6b:76:c1:eb:b4, alias kvmnet:lab, \
             MTU 9000, no ARP, no STP, no forward delay) and set it up",
            "set disable_ipv6 of br-lab to 1",
            "make table netdev kvmnet-lab",
            "let vnet0 have no IPv6 address; make vnet0 a port of br-lab, address \
             fe:8d:10:39:9d:e4, MTU 9000, no frame past the bridge, up",
        ],
    );
}

#[test]
fn a_second_run_does_nothing_in_any_mode() {
    for mode in [Mode::Nat(address()), Mode::Routed(address()), Mode::Isolated] {
        let network = network(mode);
        assert_plan(plan(&all_there(&network), &network), &[]);
    }
}

#[test]
fn what_is_missing_of_a_mode_is_put_back() {
    let mut isolated = network(Mode::Isolated);
    isolated.mtu = Some(9000);
    for (damage, repair) in [
        ((|bridge| bridge.noarp = false) as fn(&mut Link), "no ARP"),
        (|bridge| bridge.group = 0, "kvmnet's interface group"),
        (|bridge| bridge.mtu = 1500, "MTU 9000"),
    ] {
        let mut view = all_there(&isolated);
        view.bridge.as_mut().map(damage).unwrap();
        assert_plan(plan(&view, &isolated), &[&format!("repair bridge br-lab: {repair}")]);
    }
    let mut view = all_there(&isolated);
    view.table = TableState::Different;
    assert_plan(plan(&view, &isolated), &["replace table netdev kvmnet-lab"]);
    assert_eq!(view.bridge.unwrap().group, BRIDGE_GROUP);
}

#[test]
fn the_host_keeps_no_way_to_an_isolated_network() {
    let network = network(Mode::Isolated);
    let mut view = all_there(&network);
    view.addresses = vec![address()];
    assert_refused(
        plan(&view, &network),
        "br-lab: carries 10.77.0.1/20, but the bridge of an isolated network has no address; take \
         it away: ip address flush dev br-lab, or stop the guests of network lab first",
    );
}

/// What `network` looks like while it runs as isolated still, with another guest on it.
fn runs_as_isolated(network: &ManagedNetwork) -> ManagedView {
    let isolated = ManagedNetwork { mode: Mode::Isolated, ..network.clone() };
    let mut view = all_there(&isolated);
    view.table = TableState::Absent;
    view.other_tables = vec![isolated.table()];
    let bridge = view.bridge.as_ref().unwrap();
    let mut guest = port_of(bridge).link.unwrap();
    (guest.name, guest.index) = ("vnet1".to_owned(), 21);
    view.ports = vec![view.tap.link.clone().unwrap(), guest];
    view
}

/// Guests who were started behind closed doors stay there, whatever the file says by now.
#[test]
fn an_isolated_network_is_not_opened_while_guests_are_on_it() {
    for mode in [Mode::Nat(address()), Mode::Routed(address())] {
        let network = network(mode);
        let wanted = format!(
            "br-lab: network lab runs on it as isolated, but its file says {mode}; stop the guests \
             of network lab first, then start them anew"
        );
        let whole = runs_as_isolated(&network);
        // Each sign alone: somebody has flushed the ruleset, or turned ARP on, or given an address.
        let mut flushed = whole.clone();
        flushed.other_tables.clear();
        let mut with_arp = whole.clone();
        with_arp.bridge.as_mut().unwrap().noarp = false;
        with_arp.addresses = vec![address()];
        for view in [whole, flushed, with_arp] {
            assert_refused(plan(&view, &network), &wanted);
            assert_refused(attach_managed(&view, Purpose::Pinned, &network), &wanted);
        }
    }
}

#[test]
fn without_other_guests_an_isolated_network_takes_on_another_mode() {
    let network = network(Mode::Nat(address()));
    let converted = [
        "delete table netdev kvmnet-lab",
        "make table ip kvmnet-lab",
        "repair bridge br-lab: ARP",
        "give br-lab the address 10.77.0.1/20",
    ];
    // The tap itself, and one that nobody holds open, are no guests.
    let mut view = runs_as_isolated(&network);
    view.ports[1].kind = LinkKind::Tap { persistent: true };
    assert!(plan(&view, &network).is_err());
    view.ports[1].carrier = false;
    assert_plan(plan(&view, &network), &converted);
    view.ports.clear();
    assert_plan(plan(&view, &network), &converted);
    // What has an address was not isolated, with ARP or without.
    let mut view = all_there(&network);
    view.bridge.as_mut().unwrap().noarp = true;
    view.ports = runs_as_isolated(&network).ports;
    assert_plan(plan(&view, &network), &["repair bridge br-lab: ARP"]);
    // A saved ruleset brought a stray table back, beside the network's own.
    view.bridge.as_mut().unwrap().noarp = false;
    view.other_tables = runs_as_isolated(&network).other_tables;
    assert_plan(plan(&view, &network), &["delete table netdev kvmnet-lab"]);
}

/// Whatever program says it: a network with a file is put on the bridge by its file.
#[test]
fn the_administrators_bridge_is_not_built_on() {
    for mode in [Mode::Nat(address()), Mode::Routed(address())] {
        let network = network(mode);
        let mut view = all_there(&network);
        let bridge = Link::test_bridge("br-lab", 5);
        (view.tap, view.bridge) = (fresh_tap(), Some(bridge));
        view.ports = vec![Link::test("eno1", 2, LinkKind::Other(String::new()))];
        let remedy = "for a guest on this bridge write mode = \"bridged\" in \
                      /etc/kvmnet/lab.toml, or give network lab another: bridge = \"NAME\" in \
                      /etc/kvmnet/lab.toml";
        let wanted = format!(
            "br-lab: is not kvmnet's and has the port eno1, which is no tap: a guest of network \
             lab would land on that network; {remedy}"
        );
        assert_refused(plan(&view, &network), &wanted);
        view.addresses = vec!["10.0.0.11/24".parse().unwrap()];
        let wanted = format!("br-lab: is not kvmnet's and carries 10.0.0.11/24; {remedy}");
        assert_refused(plan(&view, &network), &wanted);
    }
}

#[test]
fn tables_of_another_mode_go() {
    let routed = network(Mode::Routed(address()));
    let mut view = all_there(&routed);
    view.other_tables = vec![TableId::of_network(libc::NFPROTO_NETDEV as u8, &routed.name)];
    assert_plan(plan(&view, &routed), &["delete table netdev kvmnet-lab"]);
}

#[test]
fn rules_can_be_the_administrators() {
    let mut network = network(Mode::Nat(address()));
    network.firewall = Firewall::None;
    assert_eq!(table_of(&network), None);
    let mut view = all_there(&network);
    assert_plan(plan(&view, &network), &[]);
    view.other_tables = vec![network.table()];
    assert_plan(plan(&view, &network), &["delete table ip kvmnet-lab"]);
}

/// In iptables: the mark before the rules, and as long as there are any; all else behind them.
#[test]
fn rules_in_iptables() {
    let mut network = network(Mode::Nat(address()));
    let nftables = network.table();
    network.firewall = Firewall::Iptables;
    let mut view = all_there(&network);
    let bridge = view.bridge.take();
    view.tap = super::fresh_tap();
    view.addresses.clear();
    view.table = TableState::Absent;
    view.free_index = 1_000_009;
    let built = plan(&view, &network).unwrap();
    let steps = super::text(&built.steps);
    let lines: Vec<&str> = steps.lines().collect();
    assert!(lines[0].starts_with("make bridge br-lab") && lines[0].contains("kvmnet:lab:iptables"));
    assert_eq!(lines[1], "set disable_ipv6 of br-lab to 1");
    assert_eq!(lines[2], "make the chains KVMNET-lab-* of iptables");
    assert!(lines[3].starts_with("give br-lab the address"), "{steps}");

    // The file says iptables by now, and nftables again.
    let mut view = all_there(&network);
    view.bridge = bridge;
    view.table = TableState::Absent;
    view.other_tables = vec![nftables];
    assert_plan(
        plan(&view, &network),
        &[
            "repair bridge br-lab: alias kvmnet:lab:iptables",
            "delete table ip kvmnet-lab",
            "make the chains KVMNET-lab-* of iptables",
        ],
    );
    view.bridge.as_mut().unwrap().alias = "kvmnet:lab:iptables".to_owned();
    view.other_tables = vec![network.table()];
    network.firewall = Firewall::Auto;
    assert_plan(
        plan(&view, &network),
        &[
            "delete the chains KVMNET-lab-* of iptables",
            "make table ip kvmnet-lab",
            "repair bridge br-lab: alias kvmnet:lab",
        ],
    );
    // Only the alias says where its rules are.
    network.firewall = Firewall::Iptables;
    view.bridge.as_mut().unwrap().alias = "VM net".to_owned();
    assert_refused(
        plan(&view, &network),
        "br-lab: has the alias \"VM net\", which leaves no room for kvmnet's mark; take the alias \
         away: ip link set br-lab alias \"\"",
    );
}

#[test]
fn forwarding_is_turned_on_as_far_as_it_may() {
    let mut network = network(Mode::Routed(address()));
    let mut view = all_there(&network);
    view.forwarding =
        ForwardingView { global: false, interfaces_off: vec![name("br-lab"), name("eno1")] };
    let marked = "repair bridge br-lab: alias kvmnet:lab:forwarding";
    assert_plan(plan(&view, &network), &[marked, "set net.ipv4.ip_forward to 1"]);
    network.forwarding = Forwarding::Interfaces;
    assert_plan(
        plan(&view, &network),
        &["set forwarding of br-lab to 1", "set forwarding of eno1 to 1"],
    );
    network.forwarding = Forwarding::Never;
    assert_refused(
        plan(&view, &network),
        "lab: the host doesn't forward IPv4, and forwarding = \"never\" forbids turning it on; do \
         so yourself: sysctl -w net.ipv4.ip_forward=1",
    );
    view.forwarding.global = true;
    assert_plan(plan(&view, &network), &[]);
}

/// What `nft list table` shows.
#[test]
fn the_rules_of_routed_and_isolated_networks() {
    let routed = r#"table ip kvmnet-lab {
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "br-lab" oifname "br-lab" accept
		iifgroup 27510 oifname "br-lab" drop
	}
}
"#;
    let isolated = r#"table netdev kvmnet-lab {
	chain ingress {
		type filter hook ingress device "br-lab" priority filter; policy drop;
	}
}
"#;
    let text = |mode| table_of(&network(mode)).unwrap().to_string();
    assert_eq!(text(Mode::Routed(address())), routed);
    assert_eq!(text(Mode::Isolated), isolated);
}
