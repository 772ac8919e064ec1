//! The firewall of each mode.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

use crate::model::{Chain, Hook, Match, NatNetwork, Protocol, Rule, Table, Verdict};

/// The table of a NAT network: outward everything, masqueraded; inward answers and what the
/// administrator's own port forwards (DNAT) sent here, nothing else.
///
/// Guests of one bridge are let through first: with `br_netfilter` on, as Docker has it, their
/// frames pass the forward hook too.
#[must_use]
pub fn nat_table(network: &NatNetwork) -> Table {
    let output = Match::Output(network.bridge.clone());
    let inward = |condition: Option<Match>, verdict| Rule {
        matches: std::iter::once(output.clone()).chain(condition).collect(),
        verdict,
    };
    let between_guests = Rule {
        matches: vec![Match::Input(network.bridge.clone()), output.clone()],
        verdict: Verdict::Accept,
    };
    Table {
        id: network.table(),
        chains: vec![
            Chain {
                hook: Hook::Forward,
                rules: vec![
                    between_guests,
                    inward(Some(Match::Answering), Verdict::Accept),
                    inward(Some(Match::DestinationTranslated), Verdict::Accept),
                    inward(None, Verdict::Drop),
                ],
            },
            Chain { hook: Hook::Postrouting, rules: masquerade(network.address.trunc()) },
        ],
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
