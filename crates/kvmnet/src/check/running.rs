//! Networks that are up: what they lack, whether anybody uses them, whether they still have a file.

use kvmnet_core::model::{Mark, Network, TableId};
use kvmnet_core::ops;
use kvmnet_core::plan::Purpose;

use super::Finding;
use crate::error::Error;
use crate::gather::Gathered;
use crate::kernel;

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
    for network in kernel.inner.networks()?.into_iter().filter(|network| !up.contains(network)) {
        findings.push(Finding::Warning(format!(
            "the chains KVMNET-{network}-* of iptables: network {network} is not up; kvmnet gc \
             deletes them"
        )));
    }
    Ok(findings)
}
