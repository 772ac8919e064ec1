use super::{assert_plan, assert_refused, fresh_tap, name, port_of};
use crate::config;
use crate::model::{BridgedView, Link, LinkKind, ZoneView};
use crate::plan::{AttachPlan, Note, Refusal, attach_bridged};

fn view(named: Option<Link>, default_route: Option<Link>) -> BridgedView {
    BridgedView { tap: fresh_tap(), named, filters: vec![], default_route, zone: ZoneView::Absent }
}

fn plan(view: &BridgedView) -> Result<AttachPlan, Refusal> {
    attach_bridged(view, &name("vnet0"), &config::default_bridged(), &[config::default_name()])
}

#[test]
fn the_tap_fits_itself_to_the_bridge() {
    let mut bridge = Link::test_bridge("br0", 5);
    bridge.mtu = 9000;
    assert_plan(
        plan(&view(Some(bridge), None)),
        &["let vnet0 have no IPv6 address; make vnet0 a port of br0, \
           address fe:8d:10:39:9d:e4, MTU 9000, up"],
    );
}

#[test]
fn a_second_run_does_nothing() {
    let bridge = Link::test_bridge("br0", 5);
    let mut view = view(Some(bridge.clone()), None);
    view.tap = port_of(&bridge);
    let planned = plan(&view).unwrap();
    assert!(planned.steps.is_empty() && planned.was_done);
    // Only half attached: it goes on.
    view.tap.link.as_mut().unwrap().up = false;
    let planned = plan(&view).unwrap();
    assert!(planned.steps.len() == 1 && planned.was_done);
}

#[test]
fn without_br0_the_bridge_of_the_default_route_is_taken() {
    let planned = plan(&view(None, Some(Link::test_bridge("lan", 6)))).unwrap();
    assert_eq!(planned.bridge, "lan");
}

#[test]
fn a_bridge_that_is_down_stays_down_and_is_named() {
    let mut bridge = Link::test_bridge("br0", 5);
    bridge.up = false;
    assert_eq!(plan(&view(Some(bridge), None)).unwrap().notes, [Note::BridgeIsDown]);
}

#[test]
fn a_network_of_kvmnets_is_told_from_the_administrators_bridge() {
    let planned = plan(&view(Some(super::own_bridge()), None)).unwrap();
    assert_eq!(planned.notes, [Note::OwnBridge(super::network_name("default"))]);
}

#[test]
fn refusals() {
    assert_refused(
        plan(&view(None, None)),
        "br0: there is no such bridge, and no default route leads over a bridge; make one: \
         ip link add br0 type bridge && ip link set br0 up",
    );
    assert_refused(
        plan(&view(Some(Link::test("br0", 5, LinkKind::Other(String::new()))), None)),
        "br0: is not a bridge but a plain network device; rename it, so that a bridge can have \
         this name",
    );
    let mut elsewhere = view(Some(Link::test_bridge("br0", 5)), None);
    elsewhere.tap = port_of(&Link::test_bridge("br1", 6));
    assert_refused(
        plan(&elsewhere),
        "vnet0: is a port of br1 already; release it first: ip link set vnet0 nomaster",
    );
    let mut tun = view(Some(Link::test_bridge("br0", 5)), None);
    tun.tap.link.as_mut().unwrap().kind = LinkKind::Tun;
    assert_refused(
        plan(&tun),
        "vnet0: is not a tap but a tun, which carries IP and no Ethernet; give the name of a tap, \
         as -netdev tap,ifname= makes it",
    );
}
