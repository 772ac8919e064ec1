//! Three runs over two networks, and whatever somebody may do behind our back in between; and that the
//! explorer finds the mistakes that a program like this is prone to.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use ipnet::Ipv4Net;
use kvmnet_core::model::{
    LinkKind, Mac, ManagedNetwork, Mark, Mode, Network, NetworkName, TableId, owner_of,
};
use kvmnet_fake::{
    Actor, Bounds, Bug, Explorer, FakeHost, Moment, Outcome, TableContent, Verb, run,
};
use kvmnet_tests::{Tally, amount};

use super::{actor_on, clean, default, isolated, name};

/// Beyond all that the scene itself makes.
const STRANGERS_INDEX: u32 = 500;
const FLUSHED: &str = "ruleset flushed";
const STRANGERS_BRIDGE: &str = "a stranger's bridge has the name";

fn routed() -> Network {
    let dmz = NetworkName::parse("dmz").unwrap();
    let address: Ipv4Net = "192.168.160.1/24".parse().unwrap();
    Network::Managed(ManagedNetwork::new(dmz, name("br-dmz"), Mode::Routed(address)))
}

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

fn managed(network: &Network) -> &ManagedNetwork {
    let Network::Managed(managed) = network else { panic!("{network:?}") };
    managed
}

/// All that can happen to a host where these networks are.
fn happenings(networks: &[Network]) -> impl Fn(&FakeHost) -> Vec<(&'static str, FakeHost)> {
    let networks = networks.to_vec();
    move |host: &FakeHost| {
        let mut found = Vec::new();
        let mut add = |what: &'static str, change: &dyn Fn(&mut FakeHost)| {
            let mut after = host.clone();
            change(&mut after);
            if after != *host {
                found.push((what, after));
            }
        };
        add(FLUSHED, &FakeHost::flush_ruleset);
        add("forwarding off", &|host| host.ip_forward = false);
        for network in &networks {
            let tables = TableId::all_of_network(&managed(network).name);
            let is_its = |id: &&TableId| tables.contains(id);
            if let Some(table) = host.tables.keys().find(is_its) {
                let other = TableContent::Other("emptied by hand");
                add("table emptied", &|host| {
                    host.tables.insert(table.clone(), other.clone());
                });
            } else {
                let other = TableContent::Other("restored from a file");
                add("table restored", &|host| {
                    host.tables.insert(tables[0].clone(), other.clone());
                });
            }
            let Some(bridge) = host.link(network.bridge().as_str()) else { continue };
            let at = bridge.index;
            if at == STRANGERS_INDEX {
                continue;
            }
            add("bridge deleted", &|host| host.remove_link(at));
            add("bridge down", &|host| host.links.get_mut(&at).unwrap().up = false);
            add("bridge's MAC changed", &|host| {
                host.links.get_mut(&at).unwrap().mac = Some(Mac([0x52, 0x54, 0, 1, 2, 3]));
            });
            add("alias cleared", &|host| host.links.get_mut(&at).unwrap().alias.clear());
            add("address removed", &|host| {
                host.addresses.remove(&at);
            });
            add("index taken by a stranger", &|host| {
                host.remove_link(at);
                host.add_link("stranger", at, LinkKind::Other("veth".to_owned()));
            });
            add(STRANGERS_BRIDGE, &|host| {
                host.remove_link(at);
                add_strangers_bridge(host, network.bridge().as_str());
            });
            for port in host.ports(at) {
                let tap = port.index;
                add("port taken out", &|host| host.links.get_mut(&tap).unwrap().master = None);
            }
        }
        for tap in ["a", "b", "c"] {
            let Some(link) = host.link(tap) else { continue };
            let at = link.index;
            add("tap vanishes", &|host| host.remove_link(at));
            add("tap renamed", &|host| {
                host.links.get_mut(&at).unwrap().name = format!("{tap}-renamed");
            });
            add("tap made anew", &|host| {
                host.remove_link(at);
                host.add_tap(&name(tap), at + 100);
            });
        }
        found
    }
}

/// Without an address, so that nothing but the missing signs tells it from one of kvmnet's.
fn add_strangers_bridge(host: &mut FakeHost, name: &str) {
    let kind = LinkKind::Bridge { stp: true, forward_delay: 1500 };
    host.add_link(name, STRANGERS_INDEX, kind);
}

/// What there is of a network: its bridge without what passes, its addresses, its rules.
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
    format!("{bridge:?}\n{tables:?}")
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
    match (bridge, table) {
        (None, None) => Ok(()),
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

struct Scene {
    name: &'static str,
    networks: [Network; 2],
    /// Who is on which of the two before.
    before: &'static [(&'static str, usize)],
    runs: [(Verb, &'static str, usize); 3],
}

fn scenes() -> Vec<Scene> {
    let scene = |name, second: Network, before, runs| Scene {
        name,
        networks: [default(), second],
        before,
        runs,
    };
    vec![
        scene(
            "first guests of two networks",
            routed(),
            &[],
            [(Verb::Natup, "a", 0), (Verb::Natup, "b", 1), (Verb::Natup, "c", 0)],
        ),
        scene(
            "last guests of two networks, and a new one",
            isolated(),
            &[("a", 0), ("b", 1)],
            [(Verb::Natdown, "a", 0), (Verb::Natdown, "b", 1), (Verb::Natup, "c", 0)],
        ),
        scene(
            "gc and reload beside a guest that comes",
            routed(),
            &[("b", 1)],
            [(Verb::Gc, "gone", 0), (Verb::Reload, "gone", 1), (Verb::Natup, "a", 0)],
        ),
        scene(
            "up, down and a guest that leaves",
            isolated(),
            &[("a", 0), ("b", 1)],
            [(Verb::Up, "gone", 1), (Verb::Down, "gone", 1), (Verb::Natdown, "a", 0)],
        ),
    ]
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
    let mut host = clean();
    let by = |verb, tap, network: usize| {
        run_of(&scene.networks, &scene.networks[network], verb, tap, bug)
    };
    for &(tap, network) in scene.before {
        run(&mut host, &by(Verb::Natup, tap, network)).0.expect("nothing is in its way");
    }
    let actors = scene.runs.map(|(verb, tap, network)| by(verb, tap, network));
    let happenings = happenings(&scene.networks);
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
        // Two events take the first scene alone a quarter of an hour.
        let twice = Bounds { events: 2, ..once };
        let bounds = if number == 0 { once } else { amount(once, twice) };
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
