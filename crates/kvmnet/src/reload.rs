//! `kvmnet reload`: what a firewall's restart, or somebody, took from networks that are up.

use std::path::Path;
use std::process::ExitCode;

use kvmnet_core::config::Files;
use kvmnet_core::kernel::System;
use kvmnet_core::model::{
    BridgedNetwork, HostView, InterfaceName, Link, LinkKind, Mac, Network, NetworkName, owner_of,
};
use kvmnet_core::{ops, process};

use crate::error::Error;
use crate::gather::{self, Described};
use crate::run::{require_capability, say, tell};

/// Puts back what is missing of every network that is up, and what the guests on an
/// administrator's bridge need of the host's firewall.
///
/// # Errors
/// [`Error::Incomplete`] where not all could be made as it should be; the others were.
pub fn run(directory: &Path) -> Result<ExitCode, Error> {
    require_capability("reload")?;
    let files = Files::list(directory);
    let known = files.known();
    let (networks, mistakes) = gather::described(files);
    process::isolate();
    let mut kernel = System::open()?;
    let mut failures: Vec<Error> = mistakes.into_iter().map(Error::from).collect();
    let mut count = 0;
    for described in &networks {
        let Network::Managed(network) = &described.network else { continue };
        match ops::repair(&mut kernel, network) {
            Ok(None) => {}
            Ok(Some(report)) => {
                count += 1;
                tell(network.name.as_str(), &report)?;
            }
            Err(error) => failures.push(error.into()),
        }
    }
    for (tap, bridge) in guests_of_bridges(&kernel.host_view()?, &networks, &known) {
        let bridged = BridgedNetwork { bridge, or_default_route: false };
        match ops::repair_bridged(&mut kernel, &tap, &bridged, &known) {
            Ok(None) => {}
            Ok(Some(report)) => {
                count += 1;
                tell(bridged.bridge.as_str(), &report)?;
            }
            Err(error) => failures.push(error.into()),
        }
    }
    if failures.is_empty() && count == 0 {
        return say("no network that is described is up");
    }
    if failures.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Error::Incomplete(failures)) }
}

/// Of each bridge that is an administrator's and has guests, one guest's tap: by that the bridge is
/// looked at once more, under the lock.
fn guests_of_bridges(
    host: &HostView,
    networks: &[Described],
    known: &[NetworkName],
) -> Vec<(InterfaceName, InterfaceName)> {
    let is_described = |bridge: &Link| {
        networks.iter().any(|described| match &described.network {
            Network::Bridged(bridged) => bridged.bridge.as_str() == bridge.name,
            Network::Managed(_) => false,
        })
    };
    let bridges = host.links.iter().filter(|link| {
        matches!(link.kind, LinkKind::Bridge { .. }) && owner_of(link, known).is_none()
    });
    let one_of_each = bridges.filter_map(|bridge| {
        let described = is_described(bridge);
        let guest = host.ports_of(bridge).into_iter().find_map(|port| {
            let name = InterfaceName::parse(port.name.as_ref()).ok()?;
            // A VPN's tap, say, is nobody's guest. That of a VM has so high an address from
            // kvmnet, from libvirt, or by chance.
            let is_guest = described || port.mac.is_some_and(Mac::is_high);
            (port.is_tap() && port.up && port.keeps_alive() && is_guest).then_some(name)
        })?;
        Some((guest, InterfaceName::parse(bridge.name.as_ref()).ok()?))
    });
    one_of_each.collect()
}
