//! Golden texts: what each situation leads to, step by step. No root, no kernel.

mod accepts;
mod attach_bridged;
mod attach_nat;
mod modes;
mod pinned;
mod release;
mod zones;

use std::fmt::Write;

use super::{AttachPlan, Refusal};
use crate::model::{
    ForwardingView, InterfaceName, Link, LinkKind, ManagedView, Mark, NetworkName, Step,
    TableState, TapView, ZoneView,
};

fn name(text: &str) -> InterfaceName {
    InterfaceName::parse(text.as_ref()).unwrap()
}

fn network_name(text: &str) -> NetworkName {
    NetworkName::parse(text).unwrap()
}

/// A tap as QEMU has just made it.
fn fresh_tap() -> TapView {
    TapView { link: Some(Link::test_tap("vnet0", 9)), master: None }
}

/// A host where nothing is built.
fn nothing_there() -> ManagedView {
    ManagedView {
        tap: fresh_tap(),
        bridge: None,
        namesake: None,
        addresses: Vec::new(),
        ports: Vec::new(),
        conflict: None,
        free_index: 1_000_007,
        table: TableState::Absent,
        other_tables: Vec::new(),
        filters: vec![],
        uplinks: vec![],
        bridge_netfilter: false,
        zone: ZoneView::Absent,
        forwarding: ForwardingView::default(),
    }
}

/// A tap that is a port already.
fn port_of(bridge: &Link) -> TapView {
    let mut view = fresh_tap();
    if let Some(link) = &mut view.link {
        link.master = Some(bridge.index);
        link.forwarded_groups = crate::model::ALL_GROUPS;
        link.up = true;
    }
    view.master = Some(bridge.clone());
    view
}

/// The bridge of network `default` as kvmnet makes it.
fn own_bridge() -> Link {
    let network = network_name("default");
    let mut bridge = Link::test_bridge("br0", 1_000_007);
    bridge.kind = LinkKind::Bridge { stp: false, forward_delay: 0 };
    bridge.mac = Some(crate::model::Mac::of_bridge(&network));
    bridge.group = crate::model::BRIDGE_GROUP;
    bridge.alias = Mark::of(&network).to_string();
    if let Some(inet6) = &mut bridge.inet6 {
        inet6.disabled = true;
    }
    bridge
}

fn text(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        writeln!(text, "{step}").unwrap();
    }
    text
}

#[track_caller]
fn assert_plan(plan: Result<AttachPlan, Refusal>, wanted: &[&str]) {
    let plan = plan.unwrap();
    assert_eq!(text(&plan.steps).lines().collect::<Vec<_>>(), wanted);
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(plan: Result<T, Refusal>, wanted: &str) {
    assert_eq!(plan.unwrap_err().to_string(), wanted);
}
