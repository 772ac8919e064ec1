//! firewalld: guests whose bridge is in no zone that lets them through, and isn't put into one.

use kvmnet_core::model::{InterfaceName, Network, NetworkName, TableId, ZoneName, ZoneView};
use kvmnet_core::plan;

use super::Finding;
use crate::gather::Gathered;
use crate::kernel::Whole;

/// firewalld's table.
const TABLE: &str = "firewalld";

/// Looks at the zone of each network's bridge. What only a reload of kvmnet's is missing for is found
/// with the networks that are up.
pub fn find(kernel: &mut Whole, seen: &Gathered) -> Vec<Finding> {
    let mut chains = seen.host.dropping_chains.iter().flatten();
    if !chains.any(|chain| is_its(&chain.table)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for described in &seen.networks {
        let (bridge, wanted, is_filtered) = match &described.network {
            Network::Managed(managed) => (&managed.bridge, managed.wanted_zone(), true),
            Network::Bridged(bridged) => {
                let is_filtered = seen.host.bridge_netfilter == Some(true);
                (&bridged.bridge, bridged.zone.clone(), is_filtered)
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
            view => findings.extend(judge(&described.name, bridge, wanted.as_ref(), &view)),
        }
    }
    findings
}

/// Whether a table is its.
pub fn is_its(table: &TableId) -> bool {
    table.name == TABLE
}

fn judge(
    network: &NetworkName,
    bridge: &InterfaceName,
    wanted: Option<&ZoneName>,
    view: &ZoneView,
) -> Option<Finding> {
    let ZoneView::Answered { current, is_known, .. } = view else {
        return None;
    };
    let why = match (wanted, current) {
        (Some(zone), _) if !is_known => plan::unknown_zone(zone),
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
