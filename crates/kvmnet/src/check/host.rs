//! The host as a network meets it that is yet to be built: bridges that are somebody else's,
//! routes, forwarding, firewalls.

use ipnet::Ipv4Net;
use kvmnet_core::Chain;
use kvmnet_core::model::{
    Firewall, ForwardChain, InterfaceName, LinkKind, ManagedNetwork, Network, owner_of,
};
use kvmnet_core::ops;
use kvmnet_core::plan::{Purpose, Refusal};

use super::{Finding, firewalld};
use crate::error::Error;
use crate::gather::Gathered;
use crate::kernel::{self, Whole};

/// Looks at each network, and at the host as a whole.
///
/// # Errors
/// [`Error::Look`] where the kernel doesn't answer.
pub fn find(seen: &Gathered) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let mut kernel = kernel::open()?;
    for described in &seen.networks {
        match &described.network {
            Network::Managed(managed) => {
                findings.extend(refusal(&mut kernel, managed, described.file.is_some(), seen)?);
                findings.extend(covering_route(managed, seen));
            }
            Network::Bridged(bridged) => {
                let name = bridged.bridge.clone();
                let refusal = match seen.host.link(&name) {
                    None => Some(Refusal::NoSuchBridge { bridge: name }),
                    Some(link) if matches!(link.kind, LinkKind::Bridge { .. }) => None,
                    Some(link) => Some(Refusal::NotABridge { name, kind: link.describe_kind() }),
                };
                findings.extend(refusal.map(|refusal| {
                    Finding::Mistake(format!("network {}: {refusal}", described.name))
                }));
            }
        }
    }
    findings.extend(firewalld::find(&mut kernel, seen));
    findings.extend(firewalls(seen));
    findings.extend(left_to_the_administrator(seen));
    Ok(findings)
}

/// What a guest's start would be refused for, in the same words. Perhaps nobody wants the network
/// that is built in: a host with an administrator's `br0` has no use for it.
fn refusal(
    kernel: &mut Whole,
    network: &ManagedNetwork,
    is_described: bool,
    seen: &Gathered,
) -> Result<Option<Finding>, Error> {
    match ops::plan_up(kernel, Purpose::Repair, network) {
        Ok(_) => Ok(None),
        Err(kvmnet_core::Error::Refused(Refusal::ForeignBridge { addresses, .. }))
            if network.mode.address().is_some_and(|address| addresses == [address])
                && has_taps_alone(&network.bridge, seen) =>
        {
            Ok(Some(Finding::Warning(format!(
                "network {}: {} is not kvmnet's but carries exactly {}: guests join it as it is, \
                 without rules of kvmnet's, and kvmnet up is refused",
                network.name, network.bridge, addresses[0]
            ))))
        }
        Err(kvmnet_core::Error::Refused(refusal)) => Ok(Some(if is_described {
            Finding::Mistake(format!("network {}: {refusal}", network.name))
        } else {
            Finding::Warning(format!("network {}, which is built in: {refusal}", network.name))
        })),
        // A kernel without nf_tables, say: that is this network's trouble, and others have theirs.
        Err(error) => {
            Ok(Some(Finding::Mistake(format!("network {}: {}", network.name, Chain(&error)))))
        }
    }
}

/// Any other port leads to some other network, and a guest's start is refused.
fn has_taps_alone(bridge: &InterfaceName, seen: &Gathered) -> bool {
    let ports = seen.host.link(bridge).map(|bridge| seen.host.ports_of(bridge)).unwrap_or_default();
    ports.iter().all(|port| port.is_tap())
}

/// A route that is wider than the subnet: what it leads to is out of reach where it overlaps.
fn covering_route(network: &ManagedNetwork, seen: &Gathered) -> Option<Finding> {
    let subnet = network.mode.address()?.trunc();
    let covers = |destination: &Ipv4Net| {
        destination.prefix_len() > 0 && *destination != subnet && destination.contains(&subnet)
    };
    let host = &seen.host;
    let route = host.routes.iter().filter(|route| covers(&route.destination)).find(|route| {
        let link = host.links.iter().find(|link| Some(link.index) == route.interface);
        let known = std::slice::from_ref(&network.name);
        link.is_none_or(|link| owner_of(link, known).is_none())
    })?;
    let over = route
        .interface
        .and_then(|index| host.name_of(index))
        .map_or_else(String::new, |name| format!(" over {name}"));
    Some(Finding::Warning(format!(
        "network {}: the route to {}{over} covers its subnet {subnet}; what that route leads to \
         there is out of reach while the network is up",
        network.name, route.destination
    )))
}

/// Firewalls that let through only what they name, and that kvmnet adds nothing to.
fn firewalls(seen: &Gathered) -> Vec<Finding> {
    let mut findings = Vec::new();
    for found in others(seen) {
        let (ForwardChain { table, chain, .. }, why) = (found, why(found));
        let frames = match seen.host.bridge_netfilter {
            Some(true) => ", and frames from guest to guest (br_netfilter is on)",
            _ => "",
        };
        findings.push(Finding::Warning(format!(
            "nftables chain {table} {chain}: lets through only what it names, {why}{frames}; where it \
             cuts guests off, name them there: iifname BRIDGE accept, and oifname BRIDGE ct state \
             established,related accept"
        )));
    }
    findings.extend(seen.host.legacy_unread.iter().map(|why| {
        Finding::Warning(format!(
            "iptables-legacy: its filter table is in use, and guests are cut off where it forwards only \
             what it names, since kvmnet {why}"
        ))
    }));
    findings
}

/// What will cut off the guests of a network whose rules are the administrator's.
fn left_to_the_administrator(seen: &Gathered) -> Vec<Finding> {
    let chains: Vec<&ForwardChain> = seen.host.dropping_chains.iter().flatten().collect();
    let hands_off = seen.networks.iter().filter(|described| {
        matches!(&described.network, Network::Managed(network) if network.firewall == Firewall::None)
    });
    let own = |chain: &&&ForwardChain| chain.is_iptables();
    hands_off
        .flat_map(|described| {
            chains.iter().filter(own).map(|found| {
                let ForwardChain { table, chain, .. } = found;
                let (firewall, why) = (found.variant.firewall(), why(found));
                Finding::Warning(format!(
                    "network {}: {firewall} chain {table} {chain} lets through only what it names, \
                     {why}, and firewall = \"none\" keeps kvmnet from naming the guests",
                    described.name
                ))
            })
        })
        .collect()
}

/// What of it drops.
fn why(chain: &ForwardChain) -> &'static str {
    if chain.by_policy { "by its policy" } else { "by its last rule" }
}

/// Not iptables' own, where kvmnet adds what the guests need; nor firewalld's, which has zones.
fn others(seen: &Gathered) -> impl Iterator<Item = &ForwardChain> {
    let chains = seen.host.dropping_chains.iter().flatten();
    chains.filter(|chain| {
        !chain.is_iptables() && !chain.table.is_firewalld() && !chain.table.is_reserved()
    })
}
