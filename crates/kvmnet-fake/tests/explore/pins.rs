//! `kvmnet up`, `down`, `gc` and `reload` among guests that come and go.

use kvmnet_core::config;
use kvmnet_core::model::Mark;
use kvmnet_fake::{Explorer, FakeHost, Moment, Outcome, Verb, run};

use crate::{
    FULL, THREE, actor, attached, clean, default, essence, foreign_is_untouched, report, with,
};

fn pinned(attached: &[&str]) -> FakeHost {
    let mut host = with(&default(), attached);
    run(&mut host, &actor(Verb::Up, "gone")).0.unwrap();
    host
}

fn is_pinned(host: &FakeHost) -> bool {
    let bridge = host.link("br0").and_then(|bridge| Mark::parse(&bridge.alias));
    bridge.is_some_and(|mark| mark.pinned)
}

/// One more `up`: the network is whole and pinned, and no guest's end takes it down; one more
/// `down` after that does.
fn one_more_up_pins_and_one_more_down_ends_it(moment: &Moment<'_>) {
    let mut host = moment.host.clone();
    let (up, down) = (actor(Verb::Up, "gone"), actor(Verb::Down, "gone"));
    let (result, _) = run(&mut host, &up);
    assert!(result.is_ok(), "up fails: {result:?}\nafter:\n{}", moment.history());
    assert!(is_pinned(&host) && host.ip_forward, "after:\n{}", moment.history());
    assert_eq!(run(&mut host, &up).1, 0, "a second up does something\n{}", moment.history());
    let mut whole = clean();
    if moment.flushed {
        whole.flush_ruleset();
    }
    for tap in attached(&host, &default()) {
        run(&mut whole, &actor(Verb::Natup, tap)).0.unwrap();
    }
    run(&mut whole, &up).0.unwrap();
    whole.links.retain(|index, _| host.links.contains_key(index) || *index >= 1_000_000);
    assert_eq!(essence(&host), essence(&whole), "up doesn't repair\n{}", moment.history());

    let guests: Vec<String> =
        attached(&host, &default()).iter().map(|&tap| tap.to_owned()).collect();
    for tap in &guests {
        run(&mut host, &actor(Verb::Natdown, tap)).0.unwrap();
    }
    run(&mut host, &actor(Verb::Gc, "gone")).0.unwrap();
    assert!(is_pinned(&host), "a guest's end ends a pin\n{}", moment.history());
    run(&mut host, &down).0.unwrap();
    assert!(host.link("br0").is_none(), "down leaves it\n{}", moment.history());
    assert!(!host.tables.keys().any(|table| table.is_reserved()), "{}", moment.history());
}

/// One more `down`: nothing pins it any more, and it is there only for guests.
fn one_more_down_unpins(moment: &Moment<'_>) {
    let mut host = moment.host.clone();
    let (result, _) = run(&mut host, &actor(Verb::Down, "gone"));
    assert!(result.is_ok(), "down fails: {result:?}\nafter:\n{}", moment.history());
    assert!(!is_pinned(&host), "after:\n{}", moment.history());
    let has_guests = !attached(&host, &default()).is_empty();
    assert_eq!(host.link("br0").is_some(), has_guests, "after:\n{}", moment.history());
}

/// What `reload` leaves: guests and pins as they were, and nothing built.
fn one_more_reload_only_repairs(moment: &Moment<'_>) {
    let mut host = moment.host.clone();
    let was_there = host.link("br0").is_some();
    let was_pinned = is_pinned(&host);
    let guests = attached(&host, &default()).len();
    let reload = actor(Verb::Reload, "gone");
    let (result, _) = run(&mut host, &reload);
    assert!(result.is_ok(), "reload fails: {result:?}\nafter:\n{}", moment.history());
    assert_eq!(host.link("br0").is_some(), was_there, "after:\n{}", moment.history());
    assert_eq!(is_pinned(&host), was_pinned, "after:\n{}", moment.history());
    assert_eq!(attached(&host, &default()).len(), guests, "after:\n{}", moment.history());
    let table = config::default_nat().table();
    assert!(!was_there || host.tables.contains_key(&table), "after:\n{}", moment.history());
    assert_eq!(run(&mut host, &reload).1, 0, "a second reload does something");
}

/// A run that says it failed has pinned nothing, unless its way back failed too.
fn a_failed_up_pins_nothing(moment: &Moment<'_>, verbs: &[Verb]) {
    let is_alone = verbs.iter().filter(|verb| **verb == Verb::Up).count() == 1;
    let failed = verbs
        .iter()
        .zip(&moment.outcomes)
        .any(|(verb, outcome)| *verb == Verb::Up && *outcome == Outcome::Failed);
    if failed && is_alone && moment.disturbances.errors < 2 {
        assert!(!is_pinned(moment.host), "after:\n{}", moment.history());
    }
}

#[track_caller]
fn explore(before: &FakeHost, runs: &[(Verb, &str)]) {
    let actors: Vec<_> = runs.iter().map(|(verb, tap)| actor(*verb, tap)).collect();
    let verbs: Vec<Verb> = runs.iter().map(|(verb, _)| *verb).collect();
    let bounds = if runs.len() > 2 { THREE } else { FULL };
    let was_pinned = is_pinned(before);
    let statistics = Explorer::explore(before, &actors, bounds, |moment| {
        foreign_is_untouched(moment);
        one_more_up_pins_and_one_more_down_ends_it(moment);
        one_more_down_unpins(moment);
        one_more_reload_only_repairs(moment);
        if !was_pinned {
            a_failed_up_pins_nothing(moment, &verbs);
        }
    });
    report(&actors, statistics);
    assert!(statistics.states > 20, "nothing was explored: {statistics:?}");
}

#[test]
fn up_while_the_first_guest_comes() {
    explore(&clean(), &[(Verb::Up, "gone"), (Verb::Natup, "a")]);
}

#[test]
fn up_while_the_last_guest_leaves() {
    explore(&with(&default(), &["a"]), &[(Verb::Up, "gone"), (Verb::Natdown, "a")]);
}

#[test]
fn down_while_a_guest_comes() {
    explore(&pinned(&[]), &[(Verb::Down, "gone"), (Verb::Natup, "a")]);
}

#[test]
fn down_while_the_last_guest_leaves() {
    explore(&pinned(&["a"]), &[(Verb::Down, "gone"), (Verb::Natdown, "a")]);
}

#[test]
fn up_and_down_and_gc_at_once() {
    explore(&clean(), &[(Verb::Up, "gone"), (Verb::Down, "gone"), (Verb::Gc, "gone")]);
}

#[test]
fn reload_and_gc_while_the_last_guest_leaves() {
    let host = with(&default(), &["a"]);
    explore(&host, &[(Verb::Reload, "gone"), (Verb::Gc, "gone"), (Verb::Natdown, "a")]);
}

#[test]
fn reload_while_a_guest_comes() {
    explore(&pinned(&["a"]), &[(Verb::Reload, "gone"), (Verb::Natup, "b")]);
}
