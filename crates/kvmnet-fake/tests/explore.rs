//! kvmnet's real operations on the fake kernel, in every interleaving, with crashes, errors and
//! events. Wherever that leads: after one more ordinary run the state is an undisturbed run's.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use ipnet::Ipv4Net;
use kvmnet_core::config;
use kvmnet_core::model::{InterfaceName, LinkKind, TableId};
use kvmnet_fake::{
    Actor, Bounds, Explorer, FakeHost, Moment, Outcome, Statistics, TableContent, Verb, run,
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
    Actor { verb, tap: name(tap) }
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

fn with(attached: &[&str]) -> FakeHost {
    let mut host = clean();
    for tap in attached {
        run(&mut host, &actor(Verb::Natup, tap)).0.unwrap();
    }
    host
}

/// The taps on the bridge of network `default`.
fn attached(host: &FakeHost) -> BTreeSet<&str> {
    let bridge = host.link(config::default_nat().bridge.as_str());
    bridge
        .into_iter()
        .flat_map(|bridge| host.ports(bridge.index))
        .map(|port| port.name.as_str())
        .collect()
}

/// What matters of a state: of a tap that is no port, only that it is there; and whether the host
/// forwards stays as it is.
fn essence(host: &FakeHost) -> FakeHost {
    let mut essence = host.clone();
    let fresh = clean();
    for (index, link) in &mut essence.links {
        if let (LinkKind::Tap { .. }, None) = (&link.kind, link.master) {
            link.clone_from(&fresh.links[index]);
        }
    }
    essence.ip_forward = false;
    essence
}

/// A host that nothing ever happened to but these attachments.
fn undisturbed(taps: &BTreeSet<&str>, moment: &Moment<'_>) -> FakeHost {
    let mut host = clean();
    if moment.flushed {
        host.flush_ruleset();
    }
    for tap in taps {
        run(&mut host, &actor(Verb::Natup, tap)).0.unwrap();
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
fn one_more_up_repairs(moment: &Moment<'_>) {
    if moment.host.link("probe").is_none() {
        return;
    }
    let mut host = moment.host.clone();
    let mut taps = attached(moment.host);
    taps.insert("probe");
    let probe = actor(Verb::Natup, "probe");
    let (result, _) = run(&mut host, &probe);
    assert!(result.is_ok(), "natup fails: {result:?}\nafter:\n{}", moment.history());
    assert!(host.ip_forward);
    assert_same(&host, &undisturbed(&taps, moment), "natup doesn't repair", moment);
    let (result, steps) = run(&mut host, &probe);
    assert!(result.is_ok() && steps == 0, "a second run does something: {result:?}, {steps}");
}

/// Ordinary natdowns of all who are on it, or of one that isn't: nothing is left.
fn one_more_down_cleans(moment: &Moment<'_>) {
    let mut host = moment.host.clone();
    let mut leaving: Vec<String> =
        attached(moment.host).iter().map(|&tap| tap.to_owned()).collect();
    if leaving.is_empty() {
        leaving.push("gone".to_owned());
    }
    for tap in leaving {
        let (result, _) = run(&mut host, &actor(Verb::Natdown, &tap));
        assert!(result.is_ok(), "natdown fails: {result:?}\nafter:\n{}", moment.history());
    }
    let wanted = undisturbed(&BTreeSet::new(), moment);
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
fn undisturbed_is_right(moment: &Moment<'_>, actors: &[Actor], before: &[&str]) {
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
        };
    }
    assert_same(moment.host, &undisturbed(&taps, moment), "the outcome is wrong", moment);
}

/// A natup that says that it failed has left its tap as it was, unless its way back failed too.
fn failure_changes_nothing(moment: &Moment<'_>, actors: &[Actor], before: &[&str]) {
    if moment.disturbances.errors > 1 {
        return;
    }
    let taps = attached(moment.host);
    for (actor, outcome) in actors.iter().zip(&moment.outcomes) {
        let tap = actor.tap.as_str();
        if *outcome == Outcome::Failed && actor.verb == Verb::Natup && !before.contains(&tap) {
            assert!(!taps.contains(tap), "{tap} stays\nafter:\n{}", moment.history());
        }
    }
}

#[track_caller]
fn explore(before: &[&str], actors: &[Actor], bounds: Bounds) {
    let statistics = Explorer::explore(&with(before), actors, bounds, |moment| {
        foreign_is_untouched(moment);
        one_more_up_repairs(moment);
        one_more_down_cleans(moment);
        failure_changes_nothing(moment, actors, before);
        undisturbed_is_right(moment, actors, before);
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
fn up_and_down_of_one_tap() {
    let actors = [actor(Verb::Natup, "a"), actor(Verb::Natdown, "a")];
    let statistics = Explorer::explore(&clean(), &actors, FULL, |moment| {
        foreign_is_untouched(moment);
        one_more_up_repairs(moment);
        one_more_down_cleans(moment);
    });
    report(&actors, statistics);
}

fn report(actors: &[Actor], statistics: Statistics) {
    let names: Vec<String> =
        actors.iter().map(|actor| format!("{:?} {}", actor.verb, actor.tap)).collect();
    println!("{}: {statistics:?}", names.join(", "));
}

#[test]
fn ifup_on_the_bridge_of_a_network_in_use() {
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
