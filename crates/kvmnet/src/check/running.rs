//! Networks that are up: what they lack, whether anybody uses them, whether they still have a file.

use kvmnet_core::model::{
    AcceptOwner, BridgedNetwork, FilterView, FoundAccept, Mark, Network, NetworkName, TableId,
};
use kvmnet_core::ops;
use kvmnet_core::plan::Purpose;

use super::Finding;
use crate::error::Error;
use crate::gather::Gathered;
use crate::kernel::{self, Whole};
use crate::reload;

/// Looks at each bridge of kvmnet's.
///
/// # Errors
/// [`Error::Look`] where the kernel doesn't answer.
pub fn find(seen: &Gathered) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let mut kernel = kernel::open()?;
    let mut up = Vec::new();
    for (bridge, mark) in seen.host.own_bridges(&seen.known) {
        let Mark { network: name, pinned, .. } = &mark;
        up.push(name.clone());
        let described = seen.networks.iter().find(|network| network.name == *name);
        match described.map(|described| &described.network) {
            Some(Network::Managed(managed)) => {
                if let Ok(plan) = ops::plan_up(&mut kernel, Purpose::Repair, managed) {
                    let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
                    let lacks = !steps.is_empty();
                    findings.extend(lacks.then(|| {
                        Finding::Mistake(format!(
                            "network {name}: is not as it should be; kvmnet reload puts it right, \
                             as does the next guest's start: {}",
                            steps.join("; ")
                        ))
                    }));
                }
            }
            Some(Network::Bridged(_)) => findings.push(Finding::Mistake(format!(
                "network {name}: is up on {}, which kvmnet made, but its file says bridged; stop \
                 its guests, or kvmnet down {name}",
                bridge.name
            ))),
            None => findings.push(Finding::Warning(format!(
                "network {name}: is up on {}, but has no file that can be read; it goes with its \
                 last guest{}",
                bridge.name,
                if *pinned { format!(", after kvmnet down {name}") } else { String::new() }
            ))),
        }
        let is_used = seen.host.ports_of(bridge).iter().any(|port| port.keeps_alive());
        if !is_used && !pinned {
            findings.push(Finding::Warning(format!(
                "network {name}: is up on {}, and nobody uses it, as after a VM was killed; kvmnet \
                 gc takes it down",
                bridge.name
            )));
        }
    }
    for table in seen.host.tables.iter().flatten() {
        let Some(network) = table.network().filter(|network| !up.contains(network)) else {
            continue;
        };
        // The name is reserved in the families that kvmnet uses; in another it is somebody else's.
        if !TableId::all_of_network(&network).contains(table) {
            continue;
        }
        findings.push(Finding::Warning(format!(
            "nftables table {table}: network {network} is not up; kvmnet gc deletes it"
        )));
    }
    findings.extend(bridges_of_others(&mut kernel, seen));
    findings.extend(accepts_for_nobody(seen, &up));
    for network in kernel.inner.networks()?.into_iter().filter(|network| !up.contains(network)) {
        findings.push(Finding::Warning(format!(
            "the chains KVMNET-{network}-* of iptables: network {network} is not up; kvmnet gc \
             deletes them"
        )));
    }
    Ok(findings)
}

/// An administrator's bridge with guests who lack what they need of the host's own firewall.
fn bridges_of_others(kernel: &mut Whole, seen: &Gathered) -> Vec<Finding> {
    let guests = reload::guests_of_bridges(&seen.host, &seen.networks, &seen.known);
    let finding = |(tap, bridge)| {
        // Its zone is told of apart.
        let network = BridgedNetwork { bridge, or_default_route: false, zone: None };
        // What would be refused is no guest's trouble any more.
        let plan = ops::plan_repair_bridged(kernel, &tap, &network, &seen.known).ok()??;
        let steps: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
        (!steps.is_empty()).then(|| {
            Finding::Mistake(format!(
                "bridge {}: its guests are cut off by the host's firewall; kvmnet reload puts it \
                 right, as does the next guest's start: {}",
                network.bridge,
                steps.join("; ")
            ))
        })
    };
    guests.into_iter().filter_map(finding).collect()
}

/// Rules in iptables that let through guests who are gone.
fn accepts_for_nobody(seen: &Gathered, up: &[NetworkName]) -> Vec<Finding> {
    let is_for_nobody = |accept: &&FoundAccept| match &accept.owner {
        AcceptOwner::Network(network) => !up.contains(network),
        AcceptOwner::Bridge(bridge) => !seen.host.has_guests(bridge),
    };
    let finding = |filter: &FilterView| {
        let count = filter.accepts.iter().filter(is_for_nobody).count();
        let program = filter.variant.program(filter.family);
        (count > 0).then(|| {
            Finding::Warning(format!(
                "{program}: {count} rules let through guests of kvmnet's who are gone; kvmnet \
                 gc deletes them"
            ))
        })
    };
    seen.host.filters.iter().flatten().filter_map(finding).collect()
}
