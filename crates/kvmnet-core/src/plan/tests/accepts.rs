//! Accept rules in another tool's forward filter.

use super::{assert_plan, name, network_name, nothing_there, own_bridge, port_of, text};
use crate::config;
use crate::model::{
    AcceptOwner, BridgeView, BridgedNetwork, BridgedView, FilterView, Firewall, ForwardingView,
    FoundAccept, Link, ManagedNetwork, ManagedView, Mode, ReleaseView, Rule, RuleId, RulePlace,
    Step, TableState, TapView, Variant, ZoneView,
};
use crate::plan::{
    AttachPlan, Note, Purpose, Refusal, ReleaseScope, attach_bridged, attach_managed, release,
    sweep,
};

const IPV4: u8 = libc::NFPROTO_IPV4 as u8;
const IPV6: u8 = libc::NFPROTO_IPV6 as u8;

fn filter(family: u8, chain: &str, drops: bool) -> FilterView {
    let chain = chain.to_owned();
    let variant = Variant::Nft;
    FilterView { variant, family, chain, drops, has_own_chains: false, accepts: vec![] }
}

/// The default network whole, behind a FORWARD that drops.
fn behind(filters: Vec<FilterView>) -> ManagedView {
    ManagedView {
        tap: port_of(&own_bridge()),
        bridge: Some(own_bridge()),
        addresses: vec!["192.168.100.1/24".parse().unwrap()],
        free_index: 0,
        table: TableState::AsWanted,
        forwarding: ForwardingView { global: true, interfaces_off: vec![] },
        filters,
        uplinks: vec![name("eno1")],
        ..nothing_there()
    }
}

fn plan(view: &ManagedView, network: &ManagedNetwork) -> Result<AttachPlan, Refusal> {
    attach_managed(view, Purpose::Guest(&name("vnet0")), network)
}

fn network(mode: Mode) -> ManagedNetwork {
    ManagedNetwork::new(config::default_name(), name("br0"), mode)
}

fn nat() -> ManagedNetwork {
    config::default_nat()
}

const OUT: &str = "insert iifname \"br0\" oifname \"eno1\" ip saddr 192.168.100.0/24 accept";
const ANSWERS: &str = "insert iifname != \"br0\" oifname \"br0\" ip daddr 192.168.100.0/24 ct state \
                       established,related accept";
const TRANSLATED: &str = "insert iifname != \"br0\" oifname \"br0\" ip daddr 192.168.100.0/24 ct \
                          status dnat accept";
const BETWEEN: &str = "insert iifname \"br0\" oifname \"br0\" accept";

/// What the step's rules become when the kernel has them.
fn applied(step: &Step, first: u64) -> Vec<FoundAccept> {
    let Step::Accepts(change) = step else { panic!("{step}") };
    let found = |(n, (owner, rule)): (usize, &(AcceptOwner, Rule))| FoundAccept {
        at: RulePlace { chain: change.chain.clone(), id: RuleId::Handle(first + n as u64) },
        owner: owner.clone(),
        rule: Some(rule.clone()),
    };
    change.insert.iter().enumerate().map(found).collect()
}

#[test]
fn nothing_is_added_where_everything_passes() {
    let open = vec![filter(IPV4, "FORWARD", false), filter(IPV6, "FORWARD", false)];
    assert_plan(plan(&behind(open), &nat()), &[]);
    assert_plan(plan(&behind(vec![]), &nat()), &[]);
}

#[test]
fn guests_get_out_over_the_uplinks_alone_and_answers_and_port_forwards_in() {
    let mut view = behind(vec![filter(IPV4, "DOCKER-USER", true), filter(IPV6, "FORWARD", true)]);
    let wanted = format!("in ip filter DOCKER-USER: {OUT}; {ANSWERS}; {TRANSLATED}");
    assert_plan(plan(&view, &nat()), &[&wanted]);
    view.uplinks.push(name("wg0"));
    let other = OUT.replace("eno1", "wg0");
    let wanted = format!("in ip filter DOCKER-USER: {OUT}; {other}; {ANSWERS}; {TRANSLATED}");
    assert_plan(plan(&view, &nat()), &[&wanted]);
    // Not where the rules are the administrator's.
    let hands_off = ManagedNetwork { firewall: Firewall::None, ..nat() };
    assert_plan(plan(&view, &hands_off), &[]);
}

#[test]
fn without_an_uplink_the_log_says_so() {
    let mut view = behind(vec![filter(IPV4, "FORWARD", true)]);
    assert!(!plan(&view, &nat()).unwrap().notes.contains(&Note::NoUplink));
    view.uplinks.clear();
    assert!(plan(&view, &nat()).unwrap().notes.contains(&Note::NoUplink));
    let hands_off = ManagedNetwork { firewall: Firewall::None, ..nat() };
    assert!(!plan(&view, &hands_off).unwrap().notes.contains(&Note::NoUplink));
    view.filters[0].drops = false;
    assert!(!plan(&view, &nat()).unwrap().notes.contains(&Note::NoUplink));
}

#[test]
fn frames_between_guests_only_where_they_are_filtered() {
    let mut view = behind(vec![filter(IPV4, "FORWARD", true), filter(IPV6, "FORWARD", true)]);
    view.bridge_netfilter = true;
    let wanted = format!("in ip filter FORWARD: {OUT}; {ANSWERS}; {TRANSLATED}; {BETWEEN}");
    assert_plan(plan(&view, &nat()), &[&wanted, &format!("in ip6 filter FORWARD: {BETWEEN}")]);
}

#[test]
fn a_routed_network_is_open_from_the_uplinks_and_an_isolated_one_to_nobody() {
    let address = "192.168.100.1/24".parse().unwrap();
    let mut view = behind(vec![filter(IPV4, "FORWARD", true)]);
    let inward = "insert iifname \"eno1\" oifname \"br0\" ip daddr 192.168.100.0/24 accept";
    let wanted = format!("in ip filter FORWARD: {OUT}; {inward}");
    assert_plan(plan(&view, &network(Mode::Routed(address))), &[&wanted]);

    view.addresses.clear();
    view.bridge.as_mut().unwrap().noarp = true;
    assert_plan(plan(&view, &network(Mode::Isolated)), &[]);
    view.bridge_netfilter = true;
    let between = format!("in ip filter FORWARD: {BETWEEN}");
    assert_plan(plan(&view, &network(Mode::Isolated)), &[&between]);
}

/// A packet has to get past both.
#[test]
fn each_variant_of_iptables_has_them() {
    let legacy = FilterView { variant: Variant::Legacy, ..filter(IPV4, "DOCKER-USER", true) };
    let mut view = behind(vec![filter(IPV4, "FORWARD", true), legacy]);
    let nft = format!("in ip filter FORWARD: {OUT}; {ANSWERS}; {TRANSLATED}");
    let legacy = nft.replace("ip filter FORWARD", "iptables-legacy's ip filter DOCKER-USER");
    assert_plan(plan(&view, &nat()), &[&nft, &legacy]);
    let of_legacy = applied(&plan(&view, &nat()).unwrap().steps[1], 1);
    // Where its rules are in iptables, but for the one where chains of its own have them.
    view.bridge.as_mut().unwrap().alias.push_str(":iptables");
    let iptables = ManagedNetwork { firewall: Firewall::Iptables, ..nat() };
    view.filters[0].has_own_chains = true;
    assert_plan(plan(&view, &iptables), &[&legacy]);
    view.filters.iter_mut().for_each(|filter| filter.has_own_chains = !filter.has_own_chains);
    assert_plan(plan(&view, &iptables), &[&nft]);
    // What the network had there before it went to iptables goes.
    view.filters[1].accepts = of_legacy;
    let gone = "in iptables-legacy's ip filter DOCKER-USER: delete 3 rules of kvmnet's";
    assert_plan(plan(&view, &iptables), &[&nft, gone]);
}

#[test]
fn a_new_network_has_them_before_its_first_guest() {
    let view = ManagedView {
        filters: vec![filter(IPV4, "FORWARD", true)],
        uplinks: vec![name("eno1")],
        ..nothing_there()
    };
    let steps = text(&plan(&view, &nat()).unwrap().steps);
    let at = |what: &str| steps.find(what).unwrap_or_else(|| panic!("{what} isn't in {steps}"));
    assert!(at("make table") < at(OUT) && at(OUT) < at("make vnet0 a port"), "{steps}");
}

#[test]
fn what_is_there_stays_and_what_is_wrong_is_put_right() {
    let mut view = behind(vec![filter(IPV4, "FORWARD", true)]);
    let steps = plan(&view, &nat()).unwrap().steps;
    let rules = applied(&steps[0], 10);
    view.filters[0].accepts = rules.clone();
    assert_plan(plan(&view, &nat()), &[]);
    // Also where it isn't needed any more.
    view.filters[0].drops = false;
    let uplinks = std::mem::take(&mut view.uplinks);
    assert_plan(plan(&view, &nat()), &[]);
    view.filters[0].drops = true;
    view.uplinks = uplinks;

    // One is missing, one was edited, one is there twice.
    view.filters[0].accepts.remove(0);
    assert_plan(plan(&view, &nat()), &[&format!("in ip filter FORWARD: {OUT}")]);
    view.filters[0].accepts = rules.clone();
    view.filters[0].accepts[0].rule = None;
    let wanted = format!("in ip filter FORWARD: {OUT}; delete a rule of kvmnet's");
    assert_plan(plan(&view, &nat()), &[&wanted]);
    view.filters[0].accepts = rules.iter().chain(&rules).cloned().collect();
    assert_plan(plan(&view, &nat()), &["in ip filter FORWARD: delete 3 rules of kvmnet's"]);

    // Docker has come meanwhile.
    view.filters[0].accepts = rules;
    view.filters[0].chain = "DOCKER-USER".to_owned();
    let wanted = format!(
        "in ip filter DOCKER-USER: {OUT}; {ANSWERS}; {TRANSLATED}; delete 3 rules of kvmnet's"
    );
    assert_plan(plan(&view, &nat()), &[&wanted]);
    // Another network's are none of our business.
    let other = AcceptOwner::Network(network_name("lab"));
    view.filters[0].accepts.iter_mut().for_each(|found| found.owner = other.clone());
    let wanted = format!("in ip filter DOCKER-USER: {OUT}; {ANSWERS}; {TRANSLATED}");
    assert_plan(plan(&view, &nat()), &[&wanted]);
}

/// The administrator's bridge, and two taps on it.
fn lan(accepts: Vec<FoundAccept>) -> ReleaseView {
    let bridge = Link::test_bridge("br1", 5);
    let port = |name: &str, index| {
        let mut port = Link::test_tap(name, index);
        port.master = Some(5);
        port
    };
    ReleaseView {
        tap: Some(port("vnet0", 9)),
        bridges: vec![BridgeView {
            link: bridge,
            ports: vec![port("vnet0", 9), port("vnet1", 10)],
            addresses: vec![],
            zone: ZoneView::Absent,
        }],
        tables: vec![],
        filters: vec![FilterView { accepts, ..filter(IPV4, "FORWARD", true) }],
        guest: vec![],
    }
}

#[test]
fn guests_of_the_administrators_bridge() {
    let mut bridge = Link::test_bridge("br1", 5);
    bridge.mtu = 1500;
    let mut tap = Link::test_tap("vnet0", 9);
    tap.up = false;
    let mut view = BridgedView {
        tap: TapView { link: Some(tap), master: None },
        named: Some(bridge),
        filters: vec![filter(IPV4, "FORWARD", true), filter(IPV6, "FORWARD", false)],
        default_route: None,
        zone: ZoneView::Absent,
    };
    let network = BridgedNetwork { bridge: name("br1"), or_default_route: false, zone: None };
    let steps = attach_bridged(&view, &name("vnet0"), &network, &[]).unwrap().steps;
    let between = BETWEEN.replace("br0", "br1");
    assert_eq!(steps[0].to_string(), format!("in ip filter FORWARD: {between}"));
    assert!(steps[1].to_string().contains("make vnet0 a port of br1"));

    let accepts = applied(&steps[0], 3);
    view.filters[0].accepts = accepts.clone();
    let steps = attach_bridged(&view, &name("vnet0"), &network, &[]).unwrap().steps;
    assert_eq!(steps.len(), 1, "they are there already");

    // They go with the last tap; other ports are no guests.
    let mut view = lan(accepts);
    let down = |view: &ReleaseView| {
        text(&release(view, &name("vnet0"), ReleaseScope::AnyBridge, &[]).unwrap().steps)
    };
    assert_eq!(down(&view), "take vnet0 out of its bridge, down\n");
    view.bridges[0].ports[1].kind = crate::model::LinkKind::Other(String::new());
    let both =
        "take vnet0 out of its bridge, down\nin ip filter FORWARD: delete a rule of kvmnet's\n";
    assert_eq!(down(&view), both);
    // A VM was killed, and the bridge perhaps removed since.
    view.bridges.clear();
    view.tap = None;
    assert_eq!(text(&sweep(&view, &[]).steps), "in ip filter FORWARD: delete a rule of kvmnet's\n");
}

#[test]
fn they_go_with_the_network() {
    let view = behind(vec![filter(IPV4, "FORWARD", true)]);
    let accepts = applied(&plan(&view, &nat()).unwrap().steps[0], 3);
    let mut view = lan(accepts);
    let known = [config::default_name()];
    assert_eq!(
        text(&sweep(&view, &known).steps),
        "in ip filter FORWARD: delete 3 rules of kvmnet's\n"
    );
    let mut bridge = own_bridge();
    bridge.index = 5;
    view.bridges[0].link = bridge;
    assert!(sweep(&view, &known).steps.is_empty(), "its guests are there");
}
