//! Accept rules for the guests, where the host's own firewall lets through only what it names, as
//! Docker and ufw make it. As narrow as can be: guests get no way to what else the host forwards to,
//! such as container ports that aren't published; inward comes only what answers, and what the
//! administrator's own port forwards (DNAT) send.

use super::Note;
use crate::model::{
    AcceptOwner, AcceptsChange, FilterView, Firewall, FoundAccept, InterfaceName, ManagedNetwork,
    Match, Mode, Rule, RulePlace, Step, Verdict,
};

/// What the rules depend on beside the network itself.
pub(super) struct Surroundings<'a> {
    /// The interfaces of the default routes.
    pub uplinks: &'a [InterfaceName],
    /// Whether frames from port to port go through the forward filter, too.
    pub bridge_netfilter: bool,
}

/// The rules that a network's guests need in the forward filter of this family.
pub(super) fn of_network(
    network: &ManagedNetwork,
    family: u8,
    surroundings: &Surroundings<'_>,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    let bridge = &network.bridge;
    if network.firewall == Firewall::None || is_wildcard(bridge) {
        return rules;
    }
    let is_ipv4 = i32::from(family) == libc::NFPROTO_IPV4;
    if let Some(address) = network.mode.address().filter(|_| is_ipv4) {
        let subnet = address.trunc();
        let is_uplink = |uplink: &&InterfaceName| *uplink != bridge && !is_wildcard(uplink);
        for uplink in surroundings.uplinks.iter().filter(is_uplink) {
            let (source, destination) = (Match::Source(subnet), Match::Destination(subnet));
            rules.push(accept(vec![
                Match::Input(bridge.clone()),
                Match::Output(uplink.clone()),
                source,
            ]));
            if matches!(network.mode, Mode::Routed(_)) {
                rules.push(accept(vec![
                    Match::Input(uplink.clone()),
                    Match::Output(bridge.clone()),
                    destination,
                ]));
            }
        }
        // Not for a routed network: connection tracking would cost every packet, and what answers
        // comes by the uplinks.
        let connections = match network.mode {
            Mode::Nat(_) => &[Match::Answering, Match::DestinationTranslated][..],
            Mode::Routed(_) | Mode::Isolated => &[],
        };
        rules.extend(connections.iter().map(|connection| {
            accept(vec![
                Match::InputOther(bridge.clone()),
                Match::Output(bridge.clone()),
                Match::Destination(subnet),
                connection.clone(),
            ])
        }));
    }
    rules.extend(surroundings.bridge_netfilter.then(|| between_guests(bridge)));
    rules
}

/// The rule that guests on one bridge need, where frames from port to port are filtered.
pub(super) fn between_guests(bridge: &InterfaceName) -> Rule {
    accept(vec![Match::Input(bridge.clone()), Match::Output(bridge.clone())])
}

/// To iptables a `+` at a name's end stands for any ending; no rule speaks of such an interface.
pub(super) fn is_wildcard(name: &InterfaceName) -> bool {
    name.as_str().ends_with('+')
}

fn accept(matches: Vec<Match>) -> Rule {
    Rule { matches, verdict: Verdict::Accept }
}

/// What is missing of `owner`'s rules in each filter, and which are no longer wanted. Where the
/// filter lets through everything nothing is added, and what is there stays as long as it is right.
pub(super) fn change(
    filters: &[FilterView],
    owner: &AcceptOwner,
    wanted: impl Fn(u8) -> Vec<Rule>,
) -> Vec<Step> {
    let steps = filters.iter().filter_map(|filter| {
        let mut missing = wanted(filter.family);
        let mut delete = Vec::new();
        for found in filter.accepts.iter().filter(|found| found.owner == *owner) {
            let at = missing.iter().position(|rule| {
                found.at.chain == filter.chain && found.rule.as_ref() == Some(rule)
            });
            match at {
                Some(at) => drop(missing.remove(at)),
                // What it takes wasn't looked at: all that can be read stays.
                None if !filter.drops && found.rule.is_some() => {}
                None => delete.push(found.at.clone()),
            }
        }
        if !filter.drops {
            missing.clear();
        }
        let insert: Vec<_> = missing.into_iter().map(|rule| (owner.clone(), rule)).collect();
        step(filter, insert, delete)
    });
    steps.collect()
}

/// What the log should tell of such steps.
pub(super) fn notes(steps: &[Step]) -> Vec<Note> {
    let notes = steps.iter().filter_map(|step| match step {
        Step::Accepts(change) if !change.insert.is_empty() => {
            Some(Note::Accepts { family: change.family, chain: change.chain.clone() })
        }
        _ => None,
    });
    notes.collect()
}

/// Takes out every rule of ours that `goes` says.
pub(super) fn withdraw(filters: &[FilterView], goes: impl Fn(&AcceptOwner) -> bool) -> Vec<Step> {
    let steps = filters.iter().filter_map(|filter| {
        let delete = filter.accepts.iter().filter(|found| goes(&found.owner));
        step(filter, Vec::new(), delete.map(|found: &FoundAccept| found.at.clone()).collect())
    });
    steps.collect()
}

fn step(
    filter: &FilterView,
    insert: Vec<(AcceptOwner, Rule)>,
    delete: Vec<RulePlace>,
) -> Option<Step> {
    let is_something = !insert.is_empty() || !delete.is_empty();
    is_something.then(|| {
        let chain = filter.chain.clone();
        Step::Accepts(AcceptsChange { family: filter.family, chain, insert, delete })
    })
}
