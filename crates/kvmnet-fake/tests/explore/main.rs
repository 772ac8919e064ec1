//! kvmnet's real operations on the fake kernel, in every interleaving, with crashes, errors and
//! events. Wherever that leads: after one more ordinary run the state is an undisturbed run's.

#![forbid(unsafe_code)]

mod behind;
mod filters;
mod happenings;
mod pins;
mod scenes;
mod zones;

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use kvmnet_core::config;
use kvmnet_core::model::{
    BridgedNetwork, Firewall, InterfaceName, LinkKind, ManagedNetwork, Mark, Mode, Network,
    NetworkName, RuleId, TableId,
};
use kvmnet_core::ops;
use kvmnet_fake::{
    Actor, Bounds, Explorer, FakeHost, FakeKernel, Moment, Outcome, Statistics, TableContent, Verb,
    run,
};

const TAPS: [&str; 4] = ["a", "b", "c", "probe"];
const FULL: Bounds = Bounds { crashes: 3, errors: 2, events: 2 };
/// For three runs at once: fewer disturbances, and every interleaving.
const THREE: Bounds = Bounds { crashes: 2, errors: 1, events: 2 };

fn name(text: &str) -> InterfaceName {
    InterfaceName::parse(text.as_ref()).unwrap()
}

fn index(tap: &str) -> u32 {
    10 + TAPS.iter().position(|&known| known == tap).unwrap() as u32
}

fn actor(verb: Verb, tap: &str) -> Actor {
    actor_on(&default(), verb, tap)
}

fn actor_on(network: &Network, verb: Verb, tap: &str) -> Actor {
    Actor { verb, tap: name(tap), network: network.clone(), others: vec![], bug: None }
}

/// NAT on `br0`.
fn default() -> Network {
    Network::Managed(config::default_nat())
}

/// Its rules hang on its bridge.
fn isolated() -> Network {
    let lab = NetworkName::parse("lab").unwrap();
    Network::Managed(ManagedNetwork::new(lab, name("br-lab"), Mode::Isolated))
}

/// A host with things that aren't kvmnet's, and four taps that nobody has attached.
fn clean() -> FakeHost {
    let mut host = FakeHost::default();
    host.add_link("eno1", 2, LinkKind::Other(String::new()));
    let kind = LinkKind::Bridge { stp: true, forward_delay: 1500 };
    host.add_link("br01", 3, kind).alias = "office LAN".to_owned();
    host.addresses.insert(3, vec!["10.0.0.11/24".parse::<Ipv4Net>().unwrap()]);
    let nat = TableId { family: 2, name: "nat".to_owned() };
    host.tables.insert(nat, TableContent::Other("the administrator's"));
    for tap in TAPS {
        host.add_tap(&name(tap), index(tap));
    }
    host
}

fn with(network: &Network, attached: &[&str]) -> FakeHost {
    let mut host = clean();
    for tap in attached {
        run(&mut host, &actor_on(network, Verb::Natup, tap)).0.unwrap();
    }
    host
}

/// The taps on the network's bridge.
fn attached<'a>(host: &'a FakeHost, network: &Network) -> BTreeSet<&'a str> {
    let bridge = host.link(network.bridge().as_str());
    bridge
        .into_iter()
        .flat_map(|bridge| host.ports(bridge.index))
        .map(|port| port.name.as_str())
        .collect()
}

/// What matters of a state: of a tap that is no port, only that it is there; and not whether the
/// host forwards, nor whose mark says that it was turned on for it.
fn essence(host: &FakeHost) -> FakeHost {
    let mut essence = host.clone();
    let fresh = clean();
    for (index, link) in &mut essence.links {
        if let (LinkKind::Tap { .. }, None) = (&link.kind, link.master) {
            link.clone_from(&fresh.links[index]);
        }
        if let Some(mark) = Mark::parse(&link.alias) {
            link.alias = Mark { forwarding: false, ..mark }.to_string();
        }
    }
    essence.ip_forward = false;
    for filter in &mut essence.filters {
        // The kernel numbers rules as they come, and their order means nothing.
        filter.accepts.iter_mut().for_each(|found| found.at.id = RuleId::Handle(0));
        filter.accepts.sort_by_key(|found| format!("{found:?}"));
    }
    essence
}

/// A host that nothing ever happened to but these attachments.
fn undisturbed(network: &Network, taps: &BTreeSet<&str>, moment: &Moment<'_>) -> FakeHost {
    let mut host = clean();
    if moment.flushed {
        host.flush_ruleset();
    }
    for tap in taps {
        run(&mut host, &actor_on(network, Verb::Natup, tap)).0.unwrap();
    }
    host.links.retain(|index, _| moment.host.links.contains_key(index) || *index >= 1_000_000);
    essence(&host)
}

#[track_caller]
fn assert_same(found: &FakeHost, wanted: &FakeHost, what: &str, moment: &Moment<'_>) {
    let found = essence(found);
    if found != *wanted {
        let history = moment.history();
        panic!("{what}\nafter:\n{history}\nfound: {found:#?}\nwanted: {wanted:#?}");
    }
}

/// One more ordinary natup: the network is whole, with everybody who was on it.
fn one_more_up_repairs(network: &Network, moment: &Moment<'_>) {
    if moment.host.link("probe").is_none() {
        return;
    }
    let mut host = moment.host.clone();
    let mut taps = attached(moment.host, network);
    taps.insert("probe");
    let probe = actor_on(network, Verb::Natup, "probe");
    let (result, _) = run(&mut host, &probe);
    assert!(result.is_ok(), "natup fails: {result:?}\nafter:\n{}", moment.history());
    assert!(host.ip_forward || network.subnet().is_none());
    assert_same(&host, &undisturbed(network, &taps, moment), "natup doesn't repair", moment);
    let (result, steps) = run(&mut host, &probe);
    assert!(result.is_ok() && steps == 0, "a second run does something: {result:?}, {steps}");
}

/// Ordinary natdowns of all who are on it, or of one that isn't: nothing is left.
fn one_more_down_cleans(network: &Network, moment: &Moment<'_>) {
    let mut host = moment.host.clone();
    let mut leaving: Vec<String> =
        attached(moment.host, network).iter().map(|&tap| tap.to_owned()).collect();
    if leaving.is_empty() {
        leaving.push("gone".to_owned());
    }
    for tap in leaving {
        let (result, _) = run(&mut host, &actor_on(network, Verb::Natdown, &tap));
        assert!(result.is_ok(), "natdown fails: {result:?}\nafter:\n{}", moment.history());
    }
    let wanted = undisturbed(network, &BTreeSet::new(), moment);
    assert_same(&host, &wanted, "natdown doesn't clean up", moment);
}

/// What isn't kvmnet's is untouched at every moment.
fn foreign_is_untouched(moment: &Moment<'_>) {
    let before = clean();
    for link in ["eno1", "br01"] {
        assert_eq!(moment.host.link(link), before.link(link), "after:\n{}", moment.history());
    }
    assert_eq!(moment.host.addresses[&3], before.addresses[&3]);
    let is_foreign = |(id, _): &(&TableId, &TableContent)| !id.is_reserved();
    let tables = moment.host.tables.iter().filter(is_foreign);
    let kept: Vec<_> = before.tables.iter().filter(|_| !moment.flushed).collect();
    assert_eq!(tables.collect::<Vec<_>>(), kept, "after:\n{}", moment.history());
}

/// When all have ended and nothing was disturbed, the state is right without another run.
fn undisturbed_is_right(network: &Network, moment: &Moment<'_>, actors: &[Actor], before: &[&str]) {
    if !moment.quiet() || !moment.undisturbed() {
        return;
    }
    let mut taps: BTreeSet<&str> = before.iter().copied().collect();
    for (actor, outcome) in actors.iter().zip(&moment.outcomes) {
        let succeeded = *outcome == Outcome::Succeeded;
        assert!(succeeded, "{actor:?} fails\nafter:\n{}", moment.history());
        match actor.verb {
            Verb::Natup | Verb::Ifup => taps.insert(actor.tap.as_str()),
            Verb::Natdown | Verb::Ifdown => taps.remove(actor.tap.as_str()),
            Verb::Up | Verb::Down | Verb::Gc | Verb::Reload => false,
        };
    }
    assert_same(moment.host, &undisturbed(network, &taps, moment), "the outcome is wrong", moment);
}

/// A natup that says that it failed has left its tap as it was, unless its way back failed too.
fn failure_changes_nothing(
    network: &Network,
    moment: &Moment<'_>,
    actors: &[Actor],
    before: &[&str],
) {
    if moment.disturbances.errors > 1 {
        return;
    }
    let taps = attached(moment.host, network);
    for (actor, outcome) in actors.iter().zip(&moment.outcomes) {
        let tap = actor.tap.as_str();
        if *outcome == Outcome::Failed && actor.verb == Verb::Natup && !before.contains(&tap) {
            assert!(!taps.contains(tap), "{tap} stays\nafter:\n{}", moment.history());
        }
    }
}

#[track_caller]
fn explore(before: &[&str], actors: &[Actor], bounds: Bounds) {
    let network = &actors[0].network;
    let statistics = Explorer::explore(&with(network, before), actors, bounds, |moment| {
        foreign_is_untouched(moment);
        one_more_up_repairs(network, moment);
        one_more_down_cleans(network, moment);
        failure_changes_nothing(network, moment, actors, before);
        undisturbed_is_right(network, moment, actors, before);
    });
    report(actors, statistics);
    assert!(statistics.states > 20, "nothing was explored: {statistics:?}");
}

#[test]
fn two_first_guests() {
    explore(&[], &[actor(Verb::Natup, "a"), actor(Verb::Natup, "b")], FULL);
}

#[test]
fn two_last_guests() {
    explore(&["a", "b"], &[actor(Verb::Natdown, "a"), actor(Verb::Natdown, "b")], FULL);
}

#[test]
fn the_last_leaves_while_a_new_one_comes() {
    explore(&["a"], &[actor(Verb::Natdown, "a"), actor(Verb::Natup, "b")], FULL);
}

#[test]
fn first_guests_of_an_isolated_network() {
    let network = isolated();
    let actors = [actor_on(&network, Verb::Natup, "a"), actor_on(&network, Verb::Natup, "b")];
    explore(&[], &actors, FULL);
}

#[test]
fn the_last_leaves_an_isolated_network_while_a_new_one_comes() {
    let network = isolated();
    let actors = [actor_on(&network, Verb::Natdown, "a"), actor_on(&network, Verb::Natup, "b")];
    explore(&["a"], &actors, FULL);
}

/// Rules in iptables are found by the bridge's mark: whatever is killed, or goes wrong, they are never
/// there without it.
#[test]
fn rules_in_iptables_are_never_without_a_mark() {
    let firewall = Firewall::Iptables;
    let network = Network::Managed(ManagedNetwork { firewall, ..config::default_nat() });
    for (before, verbs) in [
        (&[][..], [(Verb::Natup, "a"), (Verb::Natup, "b")]),
        (&["a"], [(Verb::Natdown, "a"), (Verb::Natup, "b")]),
    ] {
        for before_network in [&network, &default()] {
            let actors = verbs.map(|(verb, tap)| actor_on(&network, verb, tap));
            let bounds = Bounds { crashes: 2, errors: 0, events: 0 };
            let mut has_rules = false;
            let host = with(before_network, before);
            let statistics = Explorer::explore(&host, &actors, bounds, |moment| {
                foreign_is_untouched(moment);
                if moment.host.tables.keys().any(TableId::is_in_iptables) {
                    has_rules = true;
                    let bridge = moment.host.link("br0");
                    let is_marked =
                        bridge.is_some_and(|bridge| bridge.alias.ends_with(":iptables"));
                    assert!(is_marked, "{bridge:?}\n{}", moment.history());
                }
            });
            report(&actors, statistics);
            assert!(has_rules);
        }
    }
}

/// The file says nat by now, and a guest is on the network from before: whoever comes, and whatever
/// is killed or flushed, nobody opens it before that guest has gone.
#[test]
fn an_isolated_network_is_not_opened_under_its_guest() {
    let before = isolated();
    let Network::Managed(mut opened) = before.clone() else { panic!("{before:?}") };
    opened.mode = config::default_nat().mode;
    let opened = Network::Managed(opened);
    let actors = [
        actor_on(&opened, Verb::Natup, "b"),
        actor_on(&opened, Verb::Natup, "c"),
        actor_on(&opened, Verb::Natdown, "a"),
    ];
    let bounds = Bounds { crashes: 2, errors: 0, events: 1 };
    let (mut refused, mut built) = (false, false);
    let statistics = Explorer::explore(&with(&before, &["a"]), &actors, bounds, |moment| {
        foreign_is_untouched(moment);
        let history = moment.history();
        let bridge = moment.host.link("br-lab");
        if let (Some(bridge), true) = (bridge, attached(moment.host, &before).contains("a")) {
            assert!(
                bridge.noarp && !moment.host.addresses.contains_key(&bridge.index),
                "{history}"
            );
            let is_ours = |table: &TableId| table.is_reserved();
            let rules: Vec<_> = moment.host.tables.keys().filter(|table| is_ours(table)).collect();
            assert!(moment.flushed || rules[0].family == 5, "{rules:?}\n{history}");
            refused |= moment.outcomes[0] == Outcome::Failed;
        }
        built |= moment.outcomes == [Outcome::Succeeded; 3];
    });
    report(&actors, statistics);
    assert!(refused && built);
}

#[test]
fn up_and_down_of_one_tap() {
    let actors = [actor(Verb::Natup, "a"), actor(Verb::Natdown, "a")];
    let statistics = Explorer::explore(&clean(), &actors, FULL, |moment| {
        foreign_is_untouched(moment);
        one_more_up_repairs(&default(), moment);
        one_more_down_cleans(&default(), moment);
    });
    report(&actors, statistics);
}

fn report(actors: &[Actor], statistics: Statistics) {
    let names: Vec<String> =
        actors.iter().map(|actor| format!("{:?} {}", actor.verb, actor.tap)).collect();
    println!("{}: {statistics:?}", names.join(", "));
}

#[test]
fn ifdown_on_the_bridge_of_a_network_in_use() {
    let actors = [actor(Verb::Ifdown, "a"), actor(Verb::Natup, "b"), actor(Verb::Natdown, "c")];
    explore(&["a", "c"], &actors, THREE);
}

#[test]
fn two_come_while_the_last_leaves() {
    let actors = [actor(Verb::Natup, "a"), actor(Verb::Natup, "b"), actor(Verb::Natdown, "c")];
    explore(&["c"], &actors, THREE);
}

#[test]
fn two_leave_while_one_comes() {
    let actors = [actor(Verb::Natdown, "a"), actor(Verb::Natdown, "b"), actor(Verb::Natup, "c")];
    explore(&["a", "b"], &actors, THREE);
}

/// Whoever looks for the administrator's bridge never finds what a killed VM has left of ours: the
/// guest lands on the bridge of the default route, or, while somebody uses the network, on that.
#[test]
fn ifup_after_a_vm_was_killed() {
    let mut host = with(&default(), &["a"]);
    host.remove_link(index("a"));
    host.default_route = Some(3);
    let actors = [actor(Verb::Ifup, "b"), actor(Verb::Natup, "c")];
    let statistics = Explorer::explore(&host, &actors, FULL, |moment| {
        foreign_is_untouched(moment);
        let master = moment.host.link("b").and_then(|tap| tap.master);
        let network = moment.host.link("br0").map(|bridge| bridge.index);
        if let (Some(master), true) = (master, moment.undisturbed()) {
            let with_others = moment.host.ports(master).count() > 1;
            let history = moment.history();
            assert!(master == 3 || (Some(master) == network && with_others), "{history}");
        }
        if moment.quiet() && moment.undisturbed() {
            assert_eq!(moment.outcomes, [Outcome::Succeeded; 2], "{}", moment.history());
        }
    });
    report(&actors, statistics);
}

/// A bridge of kvmnet's says so itself, and a tap without a bridge needs no answer: files are read for
/// nothing else, and once.
#[test]
fn natdown_asks_for_the_networks_only_where_it_needs_them() {
    let mut host = with(&default(), &["a", "b"]);
    host.links.get_mut(&index("c")).unwrap().master = Some(3);
    let known = [config::default_name()];
    let office = BridgedNetwork { bridge: name("br01"), or_default_route: false, zone: None };
    for (tap, asked) in [("a", 0), ("b", 0), ("probe", 0), ("gone", 0), ("c", 1)] {
        let mut times = 0;
        let networks = || {
            times += 1;
            vec![default(), Network::Bridged(office.clone())]
        };
        let released = ops::down(&mut FakeKernel::new(&mut host), &name(tap), networks, &known);
        assert!(released.is_ok() && times == asked, "{tap}: {released:?}, asked {times} times");
    }
    assert!(host.link("br0").is_none() && host.link("c").unwrap().master.is_none());
}

/// Taking down goes on past what fails: of three things to remove, one is left at the most.
#[test]
fn natdown_goes_on_past_what_fails() {
    let bounds = Bounds { crashes: 0, errors: 1, events: 0 };
    let actors = [actor(Verb::Natdown, "a")];
    let mut partial = 0;
    Explorer::explore(&with(&default(), &["a"]), &actors, bounds, |moment| {
        if moment.outcomes != [Outcome::Failed] || !moment.history().contains("Apply") {
            return;
        }
        partial += 1;
        let bridge = moment.host.link("br0").is_some();
        let port = moment.host.link("a").is_some_and(|tap| tap.master.is_some());
        let table = moment.host.tables.keys().any(TableId::is_reserved);
        let left = usize::from(bridge) + usize::from(port) + usize::from(table);
        assert!(left <= 1, "{left} left\n{}", moment.history());
    });
    // Each of the three not carried out, and one state for all that were, though they failed.
    assert_eq!(partial, 4);
}
