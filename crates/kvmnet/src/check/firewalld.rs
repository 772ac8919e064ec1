//! firewalld: guests whose bridge is in no zone that lets them through, and isn't put into one.

use kvmnet_core::model::{Network, ZoneName, ZoneView};
use kvmnet_core::plan;

use super::Finding;
use crate::gather::{Described, Gathered};
use crate::kernel::Whole;

/// Looks at the zone of each network's bridge. What only a reload of kvmnet's is missing for is found
/// with the networks that are up.
pub fn find(kernel: &mut Whole, seen: &Gathered) -> Vec<Finding> {
    let mut chains = seen.host.dropping_chains.iter().flatten();
    if !chains.any(|chain| chain.table.is_firewalld()) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for described in &seen.networks {
        let bridge = described.network.bridge();
        let (wanted, is_filtered) = match &described.network {
            Network::Managed(managed) => (managed.wanted_zone(), true),
            Network::Bridged(bridged) => {
                (bridged.zone.clone(), seen.host.bridge_netfilter == Some(true))
            }
        };
        if wanted.is_none() && !is_filtered {
            continue;
        }
        match kernel.zone_of(bridge.as_str(), wanted.as_ref()) {
            // It is the same for all.
            ZoneView::Silent { why } => {
                return vec![Finding::Warning(format!(
                    "firewalld does not let guests through: {why}"
                ))];
            }
            view => findings.extend(judge(described, wanted.as_ref(), &view, seen)),
        }
    }
    findings
}

fn judge(
    described: &Described,
    wanted: Option<&ZoneName>,
    view: &ZoneView,
    seen: &Gathered,
) -> Option<Finding> {
    let (network, bridge) = (&described.name, described.network.bridge());
    let is_bridged = matches!(described.network, Network::Bridged(_));
    let ZoneView::Answered { current, is_known, .. } = view else {
        return None;
    };
    let why = match (wanted, current) {
        (Some(zone), _) if !is_known => plan::unknown_zone(zone),
        (Some(zone), _) if is_bridged && current.as_deref() != Some(zone.as_str()) => {
            return seen.host.has_guests(bridge).then(|| {
                Finding::Warning(format!(
                    "network {network}: {bridge} is not in firewalld's zone {zone}, which the \
                     network's file names; kvmnet reload puts it there"
                ))
            });
        }
        (None, None) if is_bridged => format!(
            "{bridge} is in no zone of its; put it into one that forwards from port to port, as \
             public does: firewall-cmd --permanent --zone=public --add-interface={bridge}; \
             firewall-cmd --reload"
        ),
        (None, None) => format!(
            "{bridge} is in no zone of its, and the network's file names none; zone = \"kvmnet\" \
             there, or firewall-cmd --permanent --zone=ZONE --add-interface={bridge}"
        ),
        _ => return None,
    };
    Some(Finding::Warning(format!(
        "network {network}: firewalld does not let its guests through: {why}"
    )))
}
