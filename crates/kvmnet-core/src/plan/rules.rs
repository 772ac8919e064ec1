//! The firewall of each mode.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

use crate::model::{
    BRIDGE_GROUP, Chain, Firewall, Hook, InterfaceName, ManagedNetwork, Match, Mode, Policy,
    Protocol, Rule, Table, Verdict,
};

/// The table that a network should have, or its chains in iptables; none where its rules are the administrator's.
#[must_use]
pub fn table_of(network: &ManagedNetwork) -> Option<Table> {
    if network.firewall == Firewall::None {
        return None;
    }
    let chains = match network.mode {
        Mode::Nat(address) => nat(&network.bridge, address.trunc()),
        Mode::Routed(_) => routed(&network.bridge),
        Mode::Isolated => isolated(&network.bridge),
    };
    Some(Table { id: network.table(), chains })
}

/// Outward everything, masqueraded; inward answers and what the administrator's own port forwards
/// (DNAT) sent here, nothing else.
fn nat(bridge: &InterfaceName, subnet: Ipv4Net) -> Vec<Chain> {
    let inward = |condition: Option<Match>, verdict| Rule {
        matches: std::iter::once(Match::Output(bridge.clone())).chain(condition).collect(),
        verdict,
    };
    vec![
        Chain {
            hook: Hook::Forward,
            policy: Policy::Accept,
            rules: vec![
                between_guests(bridge),
                inward(Some(Match::Answering), Verdict::Accept),
                inward(Some(Match::DestinationTranslated), Verdict::Accept),
                inward(None, Verdict::Drop),
            ],
        },
        Chain { hook: Hook::Postrouting, policy: Policy::Accept, rules: masquerade(subnet) },
    ]
}

/// Everything both ways, but for the guests of kvmnet's other networks. No connection tracking:
/// it would cost every packet.
fn routed(bridge: &InterfaceName) -> Vec<Chain> {
    let from_other_networks = Rule {
        matches: vec![Match::InputGroup(BRIDGE_GROUP), Match::Output(bridge.clone())],
        verdict: Verdict::Drop,
    };
    vec![Chain {
        hook: Hook::Forward,
        policy: Policy::Accept,
        rules: vec![between_guests(bridge), from_other_networks],
    }]
}

/// No frame of a guest's reaches any protocol of the host: it is dropped where the bridge would
/// hand it up. What goes from guest to guest never comes that way.
fn isolated(bridge: &InterfaceName) -> Vec<Chain> {
    let hook = Hook::Ingress { device: bridge.clone() };
    vec![Chain { hook, policy: Policy::Drop, rules: vec![] }]
}

/// With `br_netfilter` on, as Docker has it, frames from guest to guest pass the forward hook too.
fn between_guests(bridge: &InterfaceName) -> Rule {
    Rule {
        matches: vec![Match::Input(bridge.clone()), Match::Output(bridge.clone())],
        verdict: Verdict::Accept,
    }
}

/// Masquerade toward everything but the subnet itself. Link-local multicast (224.0.0.0/24) and the
/// limited broadcast address never leave a link, so they keep their source.
fn masquerade(subnet: Ipv4Net) -> Vec<Rule> {
    let link_local_multicast = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 24);
    let broadcast = Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32);
    let keep_source = |destination| Rule {
        matches: vec![Match::Source(subnet), Match::Destination(destination)],
        verdict: Verdict::Return,
    };
    let translate = |protocol: Option<Protocol>| Rule {
        matches: protocol
            .map(Match::Protocol)
            .into_iter()
            .chain([Match::Source(subnet), Match::DestinationOutside(subnet)])
            .collect(),
        verdict: Verdict::Masquerade { unprivileged_ports: protocol.is_some() },
    };
    vec![
        keep_source(link_local_multicast),
        keep_source(broadcast),
        translate(Some(Protocol::Tcp)),
        translate(Some(Protocol::Udp)),
        translate(None),
    ]
}
