//! `kvmnet up`, `down` and `gc`: networks that stay for an administrator's sake, and their end.

use super::{
    assert_plan, assert_refused, name, network_name, nothing_there, own_bridge, port_of, text,
};
use crate::config;
use crate::model::{
    BridgeView, ForwardingView, InterfaceName, Link, LinkKind, ManagedView, ReleaseView, TableId,
    TableState, ZoneView,
};
use crate::plan::{
    AttachPlan, Note, Purpose, Refusal, ReleaseScope, TakeDownPlan, attach_managed, release, sweep,
    take_down,
};

const DELETE_TABLE: &str = "delete table ip kvmnet-default";
const DELETE_BRIDGE: &str = "delete bridge br0";
const PIN: &str = "repair bridge br0: alias kvmnet:default:pinned";
const UNPIN: &str = "repair bridge br0: alias kvmnet:default";

fn up(view: &ManagedView) -> Result<AttachPlan, Refusal> {
    attach_managed(view, Purpose::Pinned, &config::default_nat())
}

fn repair(view: &ManagedView) -> Result<AttachPlan, Refusal> {
    attach_managed(view, Purpose::Repair, &config::default_nat())
}

/// The network as a guest's start has built it.
fn all_there() -> ManagedView {
    ManagedView {
        bridge: Some(own_bridge()),
        addresses: vec!["192.168.100.1/24".parse().unwrap()],
        table: TableState::AsWanted,
        forwarding: ForwardingView { global: true, interfaces_off: vec![] },
        ..nothing_there()
    }
}

/// The network with these ports.
fn running(alias: &str, ports: &[&str]) -> ReleaseView {
    let mut link = own_bridge();
    link.alias = alias.to_owned();
    let port = |(n, name): (usize, &&str)| {
        let mut port = Link::test_tap(name, 9 + n as u32);
        port.master = Some(link.index);
        port
    };
    let ports = ports.iter().enumerate().map(port).collect();
    let table = TableId::of_network(libc::NFPROTO_IPV4 as u8, &network_name("default"));
    ReleaseView {
        tap: None,
        bridges: vec![BridgeView { link, ports, addresses: vec![], zone: ZoneView::Absent }],
        tables: vec![table],
        filters: vec![],
        guest: vec![],
    }
}

fn down(view: &ReleaseView) -> TakeDownPlan {
    take_down(view, &config::default_name(), &[config::default_name()])
}

fn tap() -> InterfaceName {
    name("vnet0")
}

#[track_caller]
fn assert_steps(plan: &TakeDownPlan, wanted: &[&str]) {
    assert_eq!(text(&plan.steps).lines().collect::<Vec<_>>(), wanted);
}

#[test]
fn up_builds_what_a_guests_start_builds_and_marks_it_to_stay() {
    let plan = up(&nothing_there()).unwrap();
    let tap = tap();
    let view = ManagedView { tap: port_of(&own_bridge()), ..nothing_there() };
    let mut view_of_guest = view.clone();
    view_of_guest.tap.link.as_mut().unwrap().master = None;
    view_of_guest.tap.master = None;
    let guests =
        attach_managed(&view_of_guest, Purpose::Guest(&tap), &config::default_nat()).unwrap();
    let (mut ours, theirs) = (text(&plan.steps), text(&guests.steps));
    assert!(ours.contains("alias kvmnet:default:pinned:forwarding,"), "{ours}");
    ours = ours.replace(":pinned", "");
    for line in ours.lines() {
        assert!(theirs.contains(line), "a guest's start doesn't: {line}\n{theirs}");
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
    assert!(!plan.was_done);
}

#[test]
fn up_pins_a_network_that_runs_and_changes_nothing_the_second_time() {
    let mut view = all_there();
    let plan = up(&view).unwrap();
    assert!(!plan.was_done && plan.notes.is_empty(), "a pin is no repair: {plan:?}");
    assert_plan(Ok(plan), &[PIN]);
    view.bridge.as_mut().unwrap().alias = "kvmnet:default:pinned".to_owned();
    let plan = up(&view).unwrap();
    assert!(plan.was_done && plan.steps.is_empty(), "{plan:?}");
    // Its rules are gone: that is a repair.
    view.table = TableState::Absent;
    let plan = up(&view).unwrap();
    assert_eq!(plan.notes, [Note::Repaired { network: config::default_name() }]);
    assert_plan(Ok(plan), &["make table ip kvmnet-default"]);
}

#[test]
fn up_is_refused_where_the_alias_is_the_administrators() {
    let mut view = all_there();
    view.bridge.as_mut().unwrap().alias = "VM net".to_owned();
    let wanted = "br0: has the alias \"VM net\", which leaves no room for kvmnet's mark; \
                  take the alias away: ip link set br0 alias \"\"";
    assert_refused(up(&view), wanted);
    // A guest needs no such mark.
    assert_plan(repair(&view), &[]);
}

#[test]
fn up_takes_no_foreign_bridge() {
    let mut view = all_there();
    let bridge = view.bridge.as_mut().unwrap();
    (bridge.alias, bridge.mac) = (String::new(), None);
    assert!(matches!(up(&view), Err(Refusal::ForeignBridge { .. })));
}

#[test]
fn a_repair_pins_nothing() {
    let mut view = all_there();
    assert_plan(repair(&view), &[]);
    view.forwarding.global = false;
    let steps =
        ["repair bridge br0: alias kvmnet:default:forwarding", "set net.ipv4.ip_forward to 1"];
    assert_plan(repair(&view), &steps);
    let view = ManagedView { forwarding: view.forwarding, ..nothing_there() };
    let made = text(&repair(&view).unwrap().steps);
    assert!(made.contains("alias kvmnet:default:forwarding,"), "{made}");
}

#[test]
fn down_takes_a_pinned_network_down() {
    for alias in ["kvmnet:default:pinned", "kvmnet:default", "kvmnet:default:pinned:forwarding"] {
        let plan = down(&running(alias, &[]));
        assert_steps(&plan, &[DELETE_TABLE, DELETE_BRIDGE]);
        assert_eq!(plan.taken_down, [config::default_name()]);
        assert_eq!(plan.in_use, None);
    }
}

#[test]
fn down_leaves_a_network_in_use_to_its_last_guest() {
    let plan = down(&running("kvmnet:default:pinned", &["vnet0", "vnet1"]));
    assert_steps(&plan, &[UNPIN]);
    let in_use = plan.in_use.unwrap();
    assert_eq!((in_use.bridge.as_str(), in_use.unpinned), ("br0", true));
    assert_eq!(in_use.ports, ["vnet0", "vnet1"]);
    // What is known of it otherwise stays.
    let plan = down(&running("kvmnet:default:pinned:forwarding", &["vnet0"]));
    assert_steps(&plan, &["repair bridge br0: alias kvmnet:default:forwarding"]);
    let plan = down(&running("kvmnet:default", &["vnet0"]));
    assert_steps(&plan, &[]);
    assert!(!plan.in_use.unwrap().unpinned);
}

/// A persistent tap that no program holds open doesn't count, here as anywhere.
#[test]
fn down_counts_no_idle_tap() {
    let mut view = running("kvmnet:default:pinned", &["vnet0"]);
    let port = &mut view.bridges[0].ports[0];
    (port.kind, port.carrier) = (LinkKind::Tap { persistent: true }, false);
    assert_steps(&down(&view), &[DELETE_TABLE, DELETE_BRIDGE]);
}

#[test]
fn down_of_a_network_that_is_not_up_changes_nothing() {
    let view =
        ReleaseView { tap: None, bridges: vec![], tables: vec![], filters: vec![], guest: vec![] };
    let plan = down(&view);
    assert!(plan.steps.is_empty() && plan.taken_down.is_empty() && plan.in_use.is_none());
}

#[test]
fn only_down_ends_a_pin() {
    let known = [config::default_name()];
    let pinned = running("kvmnet:default:pinned", &[]);
    assert_steps(&sweep(&pinned, &known), &[]);
    assert_steps(&take_down(&pinned, &network_name("lab"), &known), &[]);
    let scope = ReleaseScope::OursOr(&[]);
    let released = release(&pinned, &tap(), scope, &known).unwrap();
    assert!(released.steps.is_empty(), "{released:?}");
    let unpinned = running("kvmnet:default", &[]);
    assert_steps(&sweep(&unpinned, &known), &[DELETE_TABLE, DELETE_BRIDGE]);
    let plan = take_down(&unpinned, &network_name("lab"), &known);
    assert_steps(&plan, &[DELETE_TABLE, DELETE_BRIDGE]);
}
