//! firewalld's zones: a bridge joins one with its network, leaves it with that, and stays where an
//! administrator has it.

use super::{assert_plan, fresh_tap, name, nothing_there, own_bridge, port_of, text};
use crate::config;
use crate::model::{
    BridgeView, BridgedNetwork, BridgedView, Firewall, ForwardingView, Link, ManagedNetwork,
    ManagedView, Mark, Mode, ReleaseView, TableState, ZoneName, ZoneView,
};
use crate::plan::{AttachPlan, Note, Purpose, attach_bridged, attach_managed, sweep};

const ENTER: &str = "put br0 into firewalld's zone kvmnet";

fn answered(current: Option<&str>) -> ZoneView {
    let current = current.map(ToOwned::to_owned);
    ZoneView::Answered { current, permanent: false, is_known: true }
}

fn permanently(current: &str) -> ZoneView {
    ZoneView::Answered { current: Some(current.to_owned()), permanent: true, is_known: true }
}

fn with_zone(zone: &str) -> ManagedNetwork {
    ManagedNetwork { zone: ZoneName::parse(zone), ..config::default_nat() }
}

/// The network as a guest's start has built it, but for the zone.
fn all_there(alias: &str, zone: ZoneView) -> ManagedView {
    let bridge = Link { alias: alias.to_owned(), ..own_bridge() };
    ManagedView {
        tap: port_of(&bridge),
        bridge: Some(bridge),
        addresses: vec!["192.168.100.1/24".parse().unwrap()],
        table: TableState::AsWanted,
        forwarding: ForwardingView { global: true, interfaces_off: vec![] },
        zone,
        ..nothing_there()
    }
}

#[track_caller]
fn plan(view: &ManagedView, network: &ManagedNetwork) -> AttachPlan {
    attach_managed(view, Purpose::Guest(&name("vnet0")), network).unwrap()
}

/// What an unmarked bridge that is all there comes to.
#[track_caller]
fn steps(zone: ZoneView, network: &ManagedNetwork) -> String {
    text(&plan(&all_there("kvmnet:default", zone), network).steps)
}

#[test]
fn a_new_bridge_joins_before_its_first_port() {
    let view = ManagedView {
        forwarding: ForwardingView { global: true, interfaces_off: vec![] },
        zone: answered(None),
        ..nothing_there()
    };
    let plan = plan(&view, &config::default_nat());
    let zone = ZoneName::parse("kvmnet").unwrap();
    assert!(plan.notes.contains(&Note::InZone { zone }));
    assert_plan(
        Ok(plan),
        &[
            "make table ip kvmnet-default",
            "make bridge br0 (index 1000007, address 02:6b:76:20:c5:fe, alias kvmnet:default, no STP, no forward delay) and set it up",
            "set disable_ipv6 of br0 to 1",
            ENTER,
            "give br0 the address 192.168.100.1/24; let vnet0 have no IPv6 address; make vnet0 a port of br0, address fe:8d:10:39:9d:e4, no frame past the bridge, up",
        ],
    );
}

#[test]
fn what_a_reload_took_comes_back_and_is_no_damage() {
    let plan = plan(&all_there("kvmnet:default", answered(None)), &config::default_nat());
    let zone = ZoneName::parse("kvmnet").unwrap();
    assert_eq!(plan.notes, [Note::InZone { zone }]);
    assert_plan(Ok(plan), &[ENTER]);
    assert_eq!(steps(answered(Some("kvmnet")), &config::default_nat()), "");
}

#[test]
fn each_mode_has_its_zone() {
    let address = "10.77.0.1/24".parse().unwrap();
    for (mode, zone) in [
        (Mode::Nat(address), "kvmnet"),
        (Mode::Isolated, "kvmnet"),
        (Mode::Routed(address), "kvmnet-routed"),
    ] {
        let network = ManagedNetwork { mode, ..config::default_nat() };
        assert_eq!(network.wanted_zone(), ZoneName::parse(zone));
        let hands_off = ManagedNetwork { firewall: Firewall::None, ..network.clone() };
        assert_eq!(hands_off.wanted_zone(), None);
        let zone = ZoneName::parse("mine");
        let named = ManagedNetwork { zone: zone.clone(), ..hands_off };
        assert_eq!(named.wanted_zone(), zone);
    }
}

#[test]
fn an_administrators_choice_stays_unless_the_file_makes_another() {
    let silent = config::default_nat();
    assert_eq!(steps(permanently("trusted"), &silent), "");
    assert_eq!(steps(answered(Some("trusted")), &silent), "");
    assert_eq!(steps(permanently("kvmnet-routed"), &silent), "");
    // The network was routed until now.
    assert_eq!(steps(answered(Some("kvmnet-routed")), &silent), format!("{ENTER}\n"));
    for view in [permanently("trusted"), answered(Some("trusted"))] {
        let steps = steps(view, &with_zone("mine"));
        assert!(steps.ends_with("put br0 into firewalld's zone mine\n"), "{steps}");
    }
}

#[test]
fn the_mark_says_of_a_zone_in_the_file_whose_doing_it_is() {
    let mine = with_zone("mine");
    let mark = "repair bridge br0: alias kvmnet:default:zone\n";
    let enter = "put br0 into firewalld's zone mine\n";
    assert_eq!(steps(answered(None), &mine), format!("{mark}{enter}"));
    assert_eq!(steps(answered(Some("mine")), &mine), mark);
    assert_eq!(steps(permanently("mine"), &mine), "");
    let marked = all_there("kvmnet:default:zone", answered(Some("mine")));
    assert_eq!(text(&plan(&marked, &mine).steps), "");
    // The file names none any more.
    assert_eq!(text(&plan(&marked, &config::default_nat()).steps), format!("{ENTER}\n"));
}

#[test]
fn what_firewalld_will_not_do_is_told_and_stops_nobody() {
    let unknown = ZoneView::Answered { current: None, permanent: false, is_known: false };
    let silent = ZoneView::Silent { why: "it is asleep".to_owned() };
    for (view, network, why) in [
        (&silent, config::default_nat(), "it is asleep"),
        (&unknown, config::default_nat(), "firewall-cmd --reload"),
        (&unknown, with_zone("mine"), "--new-zone=mine"),
    ] {
        let plan = plan(&all_there("kvmnet:default", view.clone()), &network);
        assert!(plan.steps.is_empty());
        let [Note::NotInZone { why: found }] = &plan.notes[..] else {
            panic!("{:?}", plan.notes);
        };
        assert!(found.contains(why), "{found}");
    }
    for view in [ZoneView::Absent, ZoneView::Unasked] {
        let plan = plan(&all_there("kvmnet:default", view), &with_zone("mine"));
        assert!(plan.steps.is_empty() && plan.notes.is_empty(), "{plan:?}");
    }
    let hands_off = ManagedNetwork { firewall: Firewall::None, ..config::default_nat() };
    let plan = plan(&all_there("kvmnet:default", silent), &hands_off);
    assert!(plan.steps.is_empty() && plan.notes.is_empty(), "{plan:?}");
}

/// What is left of the network when nobody uses it.
fn left(alias: &str, zone: ZoneView) -> String {
    let link = Link { alias: alias.to_owned(), ..own_bridge() };
    let bridge = BridgeView { link, ports: vec![], addresses: vec![], zone };
    let view = ReleaseView {
        tap: None,
        bridges: vec![bridge],
        tables: vec![],
        filters: vec![],
        guest: vec![],
    };
    text(&sweep(&view, &[config::default_name()]).steps)
}

#[test]
fn the_bridge_leaves_its_zone_before_it_goes_where_that_is_kvmnets_doing() {
    let delete = "delete bridge br0\n";
    let leave = |zone| format!("take br0 out of firewalld's zone {zone}\n{delete}");
    let marked = Mark { zone: true, ..Mark::of(&config::default_name()) }.to_string();
    let unmarked = "kvmnet:default";
    assert_eq!(left(unmarked, answered(Some("kvmnet"))), leave("kvmnet"));
    assert_eq!(left(&marked, answered(Some("mine"))), leave("mine"));
    for (alias, zone) in [
        (unmarked, answered(Some("trusted"))),
        (unmarked, permanently("kvmnet")),
        (&marked, permanently("mine")),
        (&marked, answered(None)),
        (&marked, ZoneView::Silent { why: String::new() }),
        (unmarked, ZoneView::Absent),
    ] {
        assert_eq!(left(alias, zone), delete);
    }
}

#[test]
fn an_administrators_bridge_joins_only_by_its_file() {
    let bridge = Link::test_bridge("br1", 5);
    let view = |zone| BridgedView {
        tap: fresh_tap(),
        named: Some(bridge.clone()),
        filters: vec![],
        default_route: None,
        zone,
    };
    let network = |zone| BridgedNetwork { bridge: name("br1"), or_default_route: false, zone };
    let steps = |zone: Option<&str>, view: &BridgedView| {
        let network = network(zone.and_then(ZoneName::parse));
        text(&attach_bridged(view, &name("vnet0"), &network, &[]).unwrap().steps)
    };
    let enter = "put br1 into firewalld's zone mine\n";
    assert!(steps(Some("mine"), &view(permanently("public"))).starts_with(enter));
    assert!(!steps(None, &view(answered(None))).contains("zone"));
    assert!(!steps(Some("mine"), &view(answered(Some("mine")))).contains("zone"));
}
