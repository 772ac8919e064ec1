//! The host as a network meets it that is yet to be built: bridges that are somebody else's,
//! routes, forwarding, br_netfilter.

use ipnet::Ipv4Net;
use kvmnet_core::model::{InterfaceName, LinkKind, ManagedNetwork, Network, owner_of};
use kvmnet_core::ops;
use kvmnet_core::plan::{Purpose, Refusal};
use kvmnet_iptables::Iptables;

use super::Finding;
use crate::error::Error;
use crate::gather::Gathered;

/// Looks at each network, and at the host as a whole.
///
/// # Errors
/// [`Error::Look`] where the kernel doesn't answer.
pub fn find(seen: &Gathered) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let mut kernel = Iptables::open()?;
    for described in &seen.networks {
        match &described.network {
            Network::Managed(managed) => {
                findings.extend(refusal(&mut kernel, managed, described.file.is_some(), seen)?);
                findings.extend(covering_route(managed, seen));
                findings.extend(kernel.is_stopped_by_legacy(managed).then(|| {
                    Finding::Warning(format!(
                        "network {}: iptables-legacy is in use here, too, and its FORWARD drops what \
                         its rules don't name, its guests' packets among it; let them through there, \
                         or have no rules in it",
                        described.name
                    ))
                }));
            }
            Network::Bridged(bridged) => {
                let found = seen.host.link(&bridged.bridge);
                let problem = match found.map(|link| &link.kind) {
                    None => Some(
                        "there is no such interface; make the bridge before its guests start"
                            .to_owned(),
                    ),
                    Some(LinkKind::Bridge { .. }) => None,
                    Some(_) => {
                        found.map(|link| format!("is not a bridge but {}", link.describe_kind()))
                    }
                };
                findings.extend(problem.map(|problem| {
                    Finding::Mistake(format!(
                        "network {}: {}: {problem}",
                        described.name, bridged.bridge
                    ))
                }));
            }
        }
    }
    findings.extend(netfilter(seen));
    Ok(findings)
}

/// What a guest's start would be refused for, in the same words. Perhaps nobody wants the network
/// that is built in: a host with an administrator's `br0` has no use for it.
fn refusal(
    kernel: &mut Iptables,
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
        Err(error) => Err(error.into()),
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

fn netfilter(seen: &Gathered) -> Option<Finding> {
    if seen.host.bridge_netfilter != Some(true) {
        return None;
    }
    Some(Finding::Warning(
        "net.bridge.bridge-nf-call-iptables is 1, as Docker sets it: frames from guest to guest \
         go through the host's firewall, which can drop those of bridged networks; where nothing \
         needs it: sysctl -w net.bridge.bridge-nf-call-iptables=0"
            .to_owned(),
    ))
}
