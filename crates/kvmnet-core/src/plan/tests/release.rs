use super::{assert_refused, name, network_name, own_bridge, text};
use crate::config;
use crate::model::{
    BridgeView, BridgedNetwork, Link, LinkKind, Network, ReleaseView, TableId, ZoneView,
};
use crate::plan::{Refusal, ReleasePlan, ReleaseScope, release};

fn port(name: &str, index: u32, bridge: &Link) -> Link {
    let mut link = Link::test_tap(name, index);
    link.master = Some(bridge.index);
    link.up = true;
    link
}

fn table() -> TableId {
    TableId::of_network(libc::NFPROTO_IPV4 as u8, &network_name("default"))
}

/// `vnet0` and these other ports on the network's bridge.
fn on_own_bridge(others: Vec<Link>) -> ReleaseView {
    let bridge = own_bridge();
    let tap = port("vnet0", 9, &bridge);
    let ports = std::iter::once(tap.clone()).chain(others).collect();
    ReleaseView {
        tap: Some(tap),
        bridges: vec![BridgeView {
            link: bridge,
            ports,
            addresses: vec![],
            zone: ZoneView::Absent,
        }],
        tables: vec![table()],
        filters: vec![],
        guest: vec![],
    }
}

/// `vnet0` on a bridge that isn't kvmnet's.
fn on_foreign_bridge(bridge: &str, address: &str) -> ReleaseView {
    let bridge = Link::test_bridge(bridge, 5);
    let tap = port("vnet0", 9, &bridge);
    let addresses = vec![address.parse().unwrap()];
    ReleaseView {
        tap: Some(tap.clone()),
        bridges: vec![BridgeView {
            link: bridge,
            ports: vec![tap],
            addresses,
            zone: ZoneView::Absent,
        }],
        tables: vec![],
        filters: vec![],
        guest: vec![],
    }
}

fn natdown(view: &ReleaseView) -> Result<ReleasePlan, Refusal> {
    natdown_knowing(view, &[Network::Managed(config::default_nat())])
}

fn natdown_knowing(view: &ReleaseView, networks: &[Network]) -> Result<ReleasePlan, Refusal> {
    release(view, &name("vnet0"), ReleaseScope::OursOr(networks), &[config::default_name()])
}

fn ifdown(view: &ReleaseView) -> Result<ReleasePlan, Refusal> {
    release(view, &name("vnet0"), ReleaseScope::AnyBridge, &[config::default_name()])
}

#[track_caller]
fn assert_steps(plan: &ReleasePlan, wanted: &[&str]) {
    assert_eq!(text(&plan.steps).lines().collect::<Vec<_>>(), wanted);
}

const RELEASE: &str = "take vnet0 out of its bridge, down";
const DELETE_TABLE: &str = "delete table ip kvmnet-default";
const DELETE_BRIDGE: &str = "delete bridge br0";

#[test]
fn the_last_one_out_takes_the_network_down() {
    for plan in [natdown(&on_own_bridge(vec![])), ifdown(&on_own_bridge(vec![]))] {
        let plan = plan.unwrap();
        assert_steps(&plan, &[RELEASE, DELETE_TABLE, DELETE_BRIDGE]);
        assert_eq!(plan.taken_down, [network_name("default")]);
        assert_eq!(plan.released_from.as_deref(), Some("br0"));
    }
}

#[test]
fn any_other_port_keeps_the_network() {
    let bridge = own_bridge();
    let mut nic = port("eno2", 20, &bridge);
    nic.kind = LinkKind::Other(String::new());
    nic.carrier = false;
    for other in [port("vnet1", 21, &bridge), nic] {
        assert_steps(&natdown(&on_own_bridge(vec![other])).unwrap(), &[RELEASE]);
    }
}

#[test]
fn a_persistent_tap_keeps_it_only_while_somebody_holds_it() {
    let mut other = port("tap7", 21, &own_bridge());
    other.kind = LinkKind::Tap { persistent: true };
    assert_steps(&natdown(&on_own_bridge(vec![other.clone()])).unwrap(), &[RELEASE]);
    other.carrier = false;
    let plan = natdown(&on_own_bridge(vec![other])).unwrap();
    assert_steps(&plan, &[RELEASE, DELETE_TABLE, DELETE_BRIDGE]);
}

/// Behind the rules, before the bridge; and only what kvmnet's own address says, which is the first.
#[test]
fn connections_are_forgotten_with_the_network() {
    let mut view = on_own_bridge(vec![]);
    view.bridges[0].addresses =
        ["192.168.100.1/24", "10.0.0.1/8"].map(|address| address.parse().unwrap()).to_vec();
    let forget = "forget the connections of 192.168.100.0/24";
    assert_steps(&natdown(&view).unwrap(), &[RELEASE, DELETE_TABLE, forget, DELETE_BRIDGE]);
    view.bridges[0].link.alias.push_str(":pinned");
    assert_steps(&natdown(&view).unwrap(), &[RELEASE]);
    // Of the administrator's own bridge nothing is.
    let view = on_foreign_bridge("br0", "192.168.100.1/24");
    assert_steps(&natdown(&view).unwrap(), &[RELEASE]);
}

#[test]
fn a_guests_connections_are_forgotten_with_its_tap() {
    let addresses = ["192.168.100.10", "10.1.1.1", "192.168.100.11"];
    let forget = "forget the connections of 192.168.100.10, 192.168.100.11";
    for pinned in [false, true] {
        let others = if pinned { vec![] } else { vec![port("vnet1", 21, &own_bridge())] };
        let mut view = on_own_bridge(others);
        view.bridges[0].link.alias.push_str(if pinned { ":pinned" } else { "" });
        view.bridges[0].addresses = vec!["192.168.100.1/24".parse().unwrap()];
        view.guest = addresses.map(|address| address.parse().unwrap()).to_vec();
        assert_steps(&natdown(&view).unwrap(), &[RELEASE, forget]);
        // Whatever is behind it, an administrator's bridge is none of kvmnet's.
        view.bridges[0].link.alias = "LAN".to_owned();
        view.bridges[0].link.mac = None;
        view.tables.clear();
        assert_steps(&natdown(&view).unwrap(), &[RELEASE]);
    }
}

#[test]
fn a_pinned_network_stays() {
    let mut view = on_own_bridge(vec![]);
    view.bridges[0].link.alias.push_str(":pinned");
    assert_steps(&natdown(&view).unwrap(), &[RELEASE]);
}

#[test]
fn a_tap_that_is_gone_or_free_is_released_and_leftovers_go_all_the_same() {
    let mut view = on_own_bridge(vec![]);
    view.bridges[0].ports.clear();
    view.tap.as_mut().unwrap().master = None;
    let plan = natdown(&view).unwrap();
    assert_steps(&plan, &[DELETE_TABLE, DELETE_BRIDGE]);
    assert_eq!(plan.released_from, None);
    view.tap = None;
    assert_steps(&natdown(&view).unwrap(), &[DELETE_TABLE, DELETE_BRIDGE]);
}

#[test]
fn a_bridge_without_its_mark_is_known_by_its_address() {
    for alias in ["", "VM net"] {
        let mut view = on_own_bridge(vec![]);
        view.bridges[0].link.alias = alias.to_owned();
        let plan = natdown(&view).unwrap();
        assert_steps(&plan, &[RELEASE, DELETE_TABLE, DELETE_BRIDGE]);
        // Nor does it lose its rules while somebody uses it.
        let mut view = on_own_bridge(vec![port("vnet1", 21, &own_bridge())]);
        view.bridges[0].link.alias = alias.to_owned();
        assert_steps(&natdown(&view).unwrap(), &[RELEASE]);
    }
}

#[test]
fn tables_without_a_bridge_go_and_others_names_stay() {
    let other = |family, name: &str| TableId { family, name: name.to_owned() };
    let view = ReleaseView {
        tap: None,
        bridges: vec![],
        tables: vec![table(), other(2, "kvmnet-Not a network"), other(1, "kvmnet-default")],
        filters: vec![],
        guest: vec![],
    };
    assert_steps(&natdown(&view).unwrap(), &[DELETE_TABLE]);
}

#[test]
fn two_networks_are_told_apart() {
    let mut view = on_own_bridge(vec![]);
    let mut lab = Link::test_bridge("lab", 6);
    lab.alias = "kvmnet:lab".to_owned();
    let guest = port("vnet5", 30, &lab);
    view.bridges.push(BridgeView {
        link: lab,
        ports: vec![guest],
        addresses: vec![],
        zone: ZoneView::Absent,
    });
    view.tables.push(TableId::of_network(libc::NFPROTO_IPV4 as u8, &network_name("lab")));
    assert_steps(&natdown(&view).unwrap(), &[RELEASE, DELETE_TABLE, DELETE_BRIDGE]);
    view.bridges[1].ports.clear();
    assert_steps(
        &natdown(&view).unwrap(),
        &[RELEASE, DELETE_TABLE, "delete table ip kvmnet-lab", DELETE_BRIDGE, "delete bridge lab"],
    );
}

#[test]
fn ifdown_releases_from_any_bridge_and_natdown_from_its_own() {
    let lan = on_foreign_bridge("br0", "10.0.0.11/24");
    assert_steps(&ifdown(&lan).unwrap(), &[RELEASE]);
    let wanted =
        "vnet0: is a port of br0, which is not kvmnet's; release it with kvmnet-ifdown vnet0";
    assert_refused(natdown(&lan), wanted);
    // What natup attached to, natdown releases.
    assert_steps(&natdown(&on_foreign_bridge("br0", "192.168.100.1/24")).unwrap(), &[RELEASE]);
    assert!(natdown(&on_foreign_bridge("br1", "192.168.100.1/24")).is_err());
}

/// The network of any file: natdown isn't told which one natup was asked for.
#[test]
fn natdown_releases_from_the_bridge_of_any_network() {
    let bridged = |bridge: &str| {
        Network::Bridged(BridgedNetwork {
            bridge: name(bridge),
            or_default_route: false,
            zone: None,
        })
    };
    let networks = [Network::Managed(config::default_nat()), bridged("br1"), bridged("office")];
    for bridge in ["br1", "office"] {
        let view = on_foreign_bridge(bridge, "10.0.0.11/24");
        assert_steps(&natdown_knowing(&view, &networks).unwrap(), &[RELEASE]);
    }
    for (bridge, address) in [("br0", "10.0.0.11/24"), ("br2", "192.168.100.1/24")] {
        let refused = natdown_knowing(&on_foreign_bridge(bridge, address), &networks);
        assert!(matches!(refused, Err(Refusal::PortOfForeign { .. })), "{refused:?}");
    }
    // From its own it needs none.
    let plan = natdown_knowing(&on_own_bridge(vec![]), &[]).unwrap();
    assert_steps(&plan, &[RELEASE, DELETE_TABLE, DELETE_BRIDGE]);
    assert!(natdown_knowing(&on_foreign_bridge("br1", "10.0.0.11/24"), &[]).is_err());
}

#[test]
fn refusals() {
    let mut view = on_own_bridge(vec![]);
    view.tap.as_mut().unwrap().kind = LinkKind::Other(String::new());
    let wanted = "vnet0: is not a tap but a plain network device; give the name of a tap, as \
                  -netdev tap,ifname= makes it";
    assert_refused(natdown(&view), wanted);
    assert_refused(ifdown(&view), wanted);

    let mut view = on_foreign_bridge("bond0", "10.0.0.11/24");
    view.bridges[0].link.kind = LinkKind::Other("bond".to_owned());
    let wanted = "vnet0: its master bond0 is not a bridge; release it first: ip link set vnet0 \
                  nomaster";
    assert_refused(ifdown(&view), wanted);
    view.bridges[0].link.kind = LinkKind::Other("openvswitch".to_owned());
    let wanted =
        "vnet0: its master bond0 is not a bridge; release it first: ovs-vsctl del-port vnet0";
    assert_refused(ifdown(&view), wanted);
    view.bridges.clear();
    let wanted = "vnet0: its master index 5 is not a bridge; release it first: ip link set vnet0 \
                  nomaster";
    assert_refused(natdown(&view), wanted);
}
