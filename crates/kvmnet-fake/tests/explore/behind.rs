//! Three runs over two networks, and whatever somebody may do behind our back in between; and that the
//! explorer finds the mistakes that a program like this is prone to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use kvmnet_core::model::{
    AcceptOwner, FilterView, ManagedNetwork, Mark, Network, NetworkName, TableId, owner_of,
};
use kvmnet_fake::{Actor, Bounds, Bug, Explorer, FakeHost, Moment, Outcome, Verb, run};
use kvmnet_tests::{Tally, amount};

use super::happenings::{
    self, DELETIONS, FLUSHED, STRANGERS_BRIDGE, STRANGERS_INDEX, add_strangers_bridge,
};
use super::scenes::{Scene, scenes};
use super::{actor_on, clean};

/// A run on a host with files of both networks.
fn run_of(
    networks: &[Network],
    network: &Network,
    verb: Verb,
    tap: &str,
    bug: Option<Bug>,
) -> Actor {
    let others = networks.iter().map(|one| managed(one).name.clone()).collect();
    Actor { others, bug, ..actor_on(network, verb, tap) }
}

pub fn managed(network: &Network) -> &ManagedNetwork {
    let Network::Managed(managed) = network else { panic!("{network:?}") };
    managed
}

/// What there is of a network: its bridge without what passes, its addresses, its rules, those in the filters of
/// others, and its zone.
fn state(host: &FakeHost, network: &Network) -> String {
    let managed = managed(network);
    let bridge = host.link(network.bridge().as_str()).map(|bridge| {
        let mark = Mark::parse(&bridge.alias);
        let mark = mark.map(|mark| Mark { forwarding: false, pinned: false, ..mark });
        let addresses = host.addresses.get(&bridge.index);
        (mark, bridge.mac, bridge.up, bridge.group, bridge.noarp, &bridge.kind, addresses)
    });
    let tables: Vec<_> = TableId::all_of_network(&managed.name)
        .into_iter()
        .filter_map(|id| host.tables.get(&id).map(|content| (id, content)))
        .collect();
    let zone = host.zones.as_ref().and_then(|zones| zones.get(network.bridge().as_str()));
    let accepts: Vec<_> = host.filters.iter().map(|filter| accepts(filter, network)).collect();
    format!("{bridge:?}\n{tables:?}\n{zone:?}\n{accepts:?}")
}

/// A network's rules in somebody else's filter; their order means nothing.
fn accepts(filter: &FilterView, network: &Network) -> BTreeSet<String> {
    let owner = AcceptOwner::Network(managed(network).name.clone());
    let its = filter.accepts.iter().filter(|found| found.owner == owner);
    its.map(|found| format!("{:?}", found.rule)).collect()
}

fn ports(host: &FakeHost, network: &Network) -> BTreeSet<String> {
    let bridge = host.link(network.bridge().as_str());
    let ports = bridge.into_iter().flat_map(|bridge| host.ports(bridge.index));
    ports.map(|port| port.name.clone()).collect()
}

fn is_strangers(host: &FakeHost, network: &Network) -> bool {
    let bridge = host.link(network.bridge().as_str());
    bridge.is_some_and(|bridge| bridge.index == STRANGERS_INDEX)
}

/// What isn't kvmnet's, by what it is now.
fn strangers(host: &FakeHost) -> String {
    let is_foreign = |index: &u32| {
        let name = host.links.get(index).map(|link| link.name.as_str());
        let is_known = name.is_some_and(|name| ["stranger", "eno1", "br01"].contains(&name));
        *index == STRANGERS_INDEX || is_known
    };
    let links: Vec<_> = host.links.iter().filter(|(index, _)| is_foreign(index)).collect();
    let addresses: Vec<_> = host.addresses.iter().filter(|(index, _)| is_foreign(index)).collect();
    let tables: Vec<_> = host.tables.iter().filter(|(id, _)| !id.is_reserved()).collect();
    format!("{links:?}\n{addresses:?}\n{tables:?}")
}

/// Nothing of what isn't kvmnet's is touched while the runs act, either: it is what it was, or what happened
/// to it from outside. But for two things that no message to the kernel can rule out: a name, by which sysctls
/// go, or an index, by which links do, that a stranger takes between a run's look and its change.
fn foreign_is_untouched(moment: &Moment<'_>, networks: &[Network]) -> Result<(), String> {
    let mut wanted = clean();
    if moment.happened.contains(&FLUSHED) {
        wanted.flush_ruleset();
    }
    let theirs = moment.happened.contains(&STRANGERS_BRIDGE);
    let names = networks.iter().map(|network| network.bridge().as_str());
    let candidates: Vec<FakeHost> = if theirs {
        let with = |name: &str| {
            let mut host = wanted.clone();
            add_strangers_bridge(&mut host, name);
            host
        };
        names.map(with).collect()
    } else {
        vec![wanted]
    };
    let mut found = moment.host.clone();
    found.links.retain(|_, link| link.name != "stranger");
    if let Some(bridge) = found.links.get_mut(&STRANGERS_INDEX) {
        bridge.inet6 = candidates[0].links[&STRANGERS_INDEX].inet6;
    }
    if candidates.iter().any(|wanted| strangers(wanted) == strangers(&found)) {
        return Ok(());
    }
    Err(format!("what isn't kvmnet's has changed: {}", strangers(&found)))
}

/// Whether neither alias nor MAC address say any more that the bridge is kvmnet's: then it isn't.
fn has_lost_its_signs(host: &FakeHost, network: &Network) -> bool {
    let known = [managed(network).name.clone()];
    let bridge = host.link(network.bridge().as_str());
    bridge.is_some_and(|bridge| owner_of(bridge, &known).is_none())
}

/// One more ordinary natup makes the network whole, whatever has happened to it, and keeps whoever is on
/// it; or it refuses for the sake of a bridge that isn't kvmnet's, and changes nothing.
fn natup_repairs(
    moment: &Moment<'_>,
    networks: &[Network],
    network: &Network,
    bug: Option<Bug>,
) -> Result<(), String> {
    let mut host = moment.host.clone();
    let before = ports(&host, network);
    let probe = run_of(networks, network, Verb::Natup, "probe", bug);
    let result = run(&mut host, &probe).0;
    if strangers(&host) != strangers(moment.host) {
        return Err("natup changes what isn't kvmnet's".to_owned());
    }
    if is_strangers(&host, network) {
        let changed = host != *moment.host;
        let fine = result.is_err() && !changed;
        return if fine { Ok(()) } else { Err(format!("on a stranger's bridge: {result:?}")) };
    }
    if has_lost_its_signs(moment.host, network) {
        // Used, like the old scripts' own, where it has exactly the network's address.
        let bridge = |host: &FakeHost| host.link(network.bridge().as_str()).cloned();
        let fine = bridge(&host) == bridge(moment.host) && (result.is_ok() || host == *moment.host);
        return if fine { Ok(()) } else { Err(format!("on a bridge without signs: {result:?}")) };
    }
    if let Err(error) = result {
        return Err(format!("natup fails: {error}"));
    }
    let mut undisturbed = clean();
    undisturbed.zones = host.zones.as_ref().map(|_| BTreeMap::new());
    undisturbed.filters = host.filters.clone();
    undisturbed.flush_iptables();
    (undisturbed.bridge_netfilter, undisturbed.default_route) =
        (host.bridge_netfilter, host.default_route);
    run(&mut undisturbed, &actor_on(network, Verb::Natup, "probe"))
        .0
        .expect("nothing is in its way");
    let (found, wanted) = (state(&host, network), state(&undisturbed, network));
    if found != wanted {
        return Err(format!("natup doesn't repair:\n{found}\nand should be\n{wanted}"));
    }
    let found = ports(&host, network);
    let is_forwarded = host.ip_forward || network.subnet().is_none();
    if !found.contains("probe") || !found.is_superset(&before) || !is_forwarded {
        return Err(format!(
            "natup leaves {found:?} of {before:?}, forwarding: {}",
            host.ip_forward
        ));
    }
    match run(&mut host, &probe) {
        (Ok(_), 0) => Ok(()),
        again => Err(format!("a second run does something: {again:?}")),
    }
}

/// Ordinary natdowns of all who are on it, or of one that isn't, leave nothing.
fn natdown_cleans(
    moment: &Moment<'_>,
    networks: &[Network],
    bug: Option<Bug>,
) -> Result<(), String> {
    let mut host = moment.host.clone();
    for network in networks {
        // What an administrator has pinned an administrator takes down.
        let bridge = host.link(network.bridge().as_str());
        if bridge.is_some_and(|bridge| bridge.alias.contains(":pinned")) {
            let down = run_of(networks, network, Verb::Down, "gone", bug);
            run(&mut host, &down).0.map_err(|error| format!("down fails: {error}"))?;
        }
        let mut leaving = ports(&host, network);
        if is_strangers(&host, network) || leaving.is_empty() {
            leaving = BTreeSet::from(["gone".to_owned()]);
        }
        // Of a bridge that has lost its signs natdown says that it is somebody else's, and ifdown releases.
        let is_lost = has_lost_its_signs(&host, network) && !is_strangers(&host, network);
        let verb = if is_lost { Verb::Ifdown } else { Verb::Natdown };
        for tap in leaving {
            let down = run_of(networks, network, verb, &tap, bug);
            if let Err(error) = run(&mut host, &down).0 {
                return Err(format!("{verb:?} {tap} fails: {error}"));
            }
        }
    }
    if strangers(&host) != strangers(moment.host) {
        return Err("natdown changes what isn't kvmnet's".to_owned());
    }
    let known: Vec<NetworkName> = networks.iter().map(|one| managed(one).name.clone()).collect();
    let bridge = host.links.values().find(|link| owner_of(link, &known).is_some());
    let table = host.tables.keys().find(|table| table.is_reserved());
    let accept = host.filters.iter().flat_map(|filter| &filter.accepts).next();
    // firewalld goes by the name, which stays in the zone where somebody else has deleted the bridge.
    let is_left = moment.happened.iter().any(|what| DELETIONS.contains(what));
    let zone = host.zones.iter().flatten().next().filter(|_| !is_left);
    match (bridge, table, accept, zone) {
        (None, None, None, None) => Ok(()),
        left => Err(format!("natdown leaves {left:?}")),
    }
}

/// Whoever was told that it is attached, and was left in peace, is.
fn success_is_true(moment: &Moment<'_>, actors: &[Actor]) -> Result<(), String> {
    if !moment.quiet() || moment.disturbances.events + moment.disturbances.crashes > 0 {
        return Ok(());
    }
    for (actor, outcome) in actors.iter().zip(&moment.outcomes) {
        let last = actors.iter().filter(|other| other.tap == actor.tap).count() == 1;
        let is_port = ports(moment.host, &actor.network).contains(actor.tap.as_str());
        if last && *outcome == Outcome::Succeeded && actor.verb == Verb::Natup && !is_port {
            return Err(format!("{} was attached, and is no port", actor.tap));
        }
    }
    Ok(())
}

/// Whether a moment of a scene is as promised, where the program has that mistake.
type Judge = fn(&Moment<'_>, &Scene, Option<Bug>) -> Result<(), String>;

fn all_is_well(moment: &Moment<'_>, scene: &Scene, bug: Option<Bug>) -> Result<(), String> {
    nothing_foreign_is_touched(moment, scene, bug)?;
    for network in &scene.networks {
        natup_repairs(moment, &scene.networks, network, bug)?;
    }
    natdown_cleans(moment, &scene.networks, bug)
}

fn nothing_foreign_is_touched(
    moment: &Moment<'_>,
    scene: &Scene,
    _: Option<Bug>,
) -> Result<(), String> {
    foreign_is_untouched(moment, &scene.networks)
}

/// The first thing that isn't as promised, with how it came about.
fn violation(
    scene: &Scene,
    bounds: Bounds,
    bug: Option<Bug>,
    judge: Judge,
    tally: &mut Tally,
) -> Option<String> {
    let mut host = (scene.host)();
    let by = |verb, tap, network: usize| {
        let network = scene.networks.get(network).or(scene.changed.as_ref());
        run_of(&scene.networks, network.expect("the scene has it"), verb, tap, bug)
    };
    for &(tap, network) in scene.before {
        run(&mut host, &by(Verb::Natup, tap, network)).0.expect("nothing is in its way");
    }
    let actors = scene.runs.map(|(verb, tap, network)| by(verb, tap, network));
    let happenings = happenings::all(&scene.networks);
    let mut found = None;
    let statistics = Explorer::explore_until(&host, &actors, bounds, Some(&happenings), |moment| {
        let judged = judge(moment, scene, bug).and_then(|()| success_is_true(moment, &actors));
        match judged {
            Ok(()) => {
                tally.converged();
                ControlFlow::Continue(())
            }
            Err(error) => {
                found = Some(format!("{}: {error}\nafter:\n{}", scene.name, moment.history()));
                ControlFlow::Break(())
            }
        }
    });
    tally.remark(format!(
        "{}: {} states, {} ways between them, up to {} long",
        scene.name, statistics.states, statistics.transitions, statistics.depth
    ));
    found
}

/// Whatever happens, and whenever.
#[test]
fn behind_our_back() {
    let mut tally = Tally::new("every interleaving of three runs over two networks");
    let once = Bounds { crashes: 1, errors: 1, events: 1 };
    for (number, scene) in scenes().into_iter().enumerate() {
        // Two events take the first scene alone a quarter of an hour, and the last one longer.
        let twice = Bounds { events: 2, ..once };
        let is_beside_filters = !(scene.host)().filters.is_empty();
        let bounds = match number {
            0 => once,
            _ if is_beside_filters => amount(Bounds { errors: 0, ..once }, once),
            _ => amount(once, twice),
        };
        if let Some(found) = violation(&scene, bounds, None, all_is_well, &mut tally) {
            tally.leaked(found);
        }
    }
    tally.finish();
}

/// The same invariants, and a program with a mistake: each is found.
#[test]
fn mistakes_are_found() {
    let bounds = Bounds { crashes: 1, errors: 0, events: 1 };
    let mut mistakes: Vec<(Bug, Judge)> =
        [Bug::MarkByName, Bug::SkippedRecheck, Bug::UnlockBeforeApply, Bug::Counter]
            .map(|bug| (bug, all_is_well as Judge))
            .into();
    // It is noticed while the runs act, too, and not by the next one alone.
    mistakes.push((Bug::MarkByName, nothing_foreign_is_touched));
    for (bug, judge) in mistakes {
        let mut tally = Tally::new("(not of interest)");
        let found = scenes()
            .iter()
            .find_map(|scene| violation(scene, bounds, Some(bug), judge, &mut tally));
        let found = found.unwrap_or_else(|| panic!("{bug:?} isn't found"));
        println!("{bug:?}: after {} states: {found}\n", tally.tried());
    }
}
