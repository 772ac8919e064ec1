//! ifdown and natdown: a tap leaves its bridge, and networks that nobody uses any more go.

use super::Refusal;
use super::tap::require_tap;
use crate::model::{
    BridgeView, InterfaceName, Link, LinkChange, LinkKind, Network, NetworkName, ReleaseView, Step,
    TableId, owner_of,
};

/// Which bridges a tap may be released from.
#[derive(Debug, Clone, Copy)]
pub enum ReleaseScope<'a> {
    /// From any.
    AnyBridge,
    /// From kvmnet's, and from one that isn't kvmnet's but is what natup attaches to for one of these
    /// networks: what the one attached, the other releases.
    OursOr(&'a [Network]),
}

/// What releasing a tap comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleasePlan {
    /// The steps, in order. One that fails doesn't stop those behind it.
    pub steps: Vec<Step>,
    /// The bridge that the tap leaves.
    pub released_from: Option<String>,
    /// The networks that go.
    pub taken_down: Vec<NetworkName>,
}

/// Plans to release `tap` and to take down every network that nobody uses then.
///
/// A tap that is gone, or no port any more, is released: the kernel takes a tap away with its
/// program.
///
/// # Errors
/// [`Refusal`] where the name isn't a tap's or its master isn't in `scope`.
pub fn release(
    view: &ReleaseView,
    tap: &InterfaceName,
    scope: ReleaseScope<'_>,
    known: &[NetworkName],
) -> Result<ReleasePlan, Refusal> {
    let mut steps = Vec::new();
    let mut released_from = None;
    let mut leaving = None;
    if let Some(link) = &view.tap {
        let link = require_tap(link, tap)?;
        if let Some(master) = link.master {
            let bridge = require_releasable(view, tap, master, scope, known)?;
            steps.push(Step::Links(vec![LinkChange::ReleaseTap {
                index: link.index,
                tap: tap.clone(),
            }]));
            released_from = Some(bridge.link.name.clone());
            leaving = Some(link.index);
        }
    }
    let (teardown, taken_down) = take_down_unused(view, leaving, known);
    steps.extend(teardown);
    Ok(ReleasePlan { steps, released_from, taken_down })
}

/// Plans to take down every network that nobody uses.
#[must_use]
pub fn sweep(view: &ReleaseView, known: &[NetworkName]) -> ReleasePlan {
    let (steps, taken_down) = take_down_unused(view, None, known);
    ReleasePlan { steps, released_from: None, taken_down }
}

fn require_releasable<'a>(
    view: &'a ReleaseView,
    tap: &InterfaceName,
    master: u32,
    scope: ReleaseScope<'_>,
    known: &[NetworkName],
) -> Result<&'a BridgeView, Refusal> {
    let bridge = view
        .bridges
        .iter()
        .find(|bridge| bridge.link.index == master)
        .filter(|bridge| matches!(bridge.link.kind, LinkKind::Bridge { .. }))
        .ok_or_else(|| Refusal::MasterNotABridge {
            tap: tap.clone(),
            master: name_of(view, master),
        })?;
    let releasable = match scope {
        ReleaseScope::AnyBridge => true,
        ReleaseScope::OursOr(networks) => {
            owner_of(&bridge.link, known).is_some()
                || networks.iter().any(|network| stands_in_for(bridge, network))
        }
    };
    if releasable {
        Ok(bridge)
    } else {
        Err(Refusal::PortOfForeign { tap: tap.clone(), master: bridge.link.name.clone() })
    }
}

/// Whether natup would attach to this bridge, though it isn't kvmnet's.
fn stands_in_for(bridge: &BridgeView, network: &Network) -> bool {
    let has_name = bridge.link.name == network.bridge().as_str();
    match network {
        Network::Managed(managed) => {
            let address = managed.mode.address();
            has_name && address.is_some() && bridge.addresses == address.as_slice()
        }
        Network::Bridged(bridged) => has_name || bridged.or_default_route,
    }
}

fn name_of(view: &ReleaseView, index: u32) -> String {
    view.bridges
        .iter()
        .find(|bridge| bridge.link.index == index)
        .map_or_else(|| format!("index {index}"), |bridge| bridge.link.name.clone())
}

/// The rules go first and the bridge last: while the bridge is there, whatever is left of the
/// network can still be found by its mark.
fn take_down_unused(
    view: &ReleaseView,
    leaving: Option<u32>,
    known: &[NetworkName],
) -> (Vec<Step>, Vec<NetworkName>) {
    let mut kept = Vec::new();
    let mut unused: Vec<(NetworkName, &Link)> = Vec::new();
    for bridge in &view.bridges {
        let Some(mark) = owner_of(&bridge.link, known) else {
            continue;
        };
        if mark.pinned || in_use(bridge, leaving) {
            kept.push(mark.network);
        } else {
            unused.push((mark.network, &bridge.link));
        }
    }
    let stale_tables = view.tables.iter().filter(|table| {
        table.network().is_some_and(|network| !kept.contains(&network) && is_of(table, &network))
    });
    let mut steps: Vec<Step> = stale_tables.cloned().map(Step::DeleteTable).collect();
    // One send each: the kernel takes some 40 ms for each deletion.
    steps.extend(unused.iter().map(|(_, link)| {
        Step::Links(vec![LinkChange::DeleteBridge { index: link.index, name: link.name.clone() }])
    }));
    (steps, unused.into_iter().map(|(network, _)| network).collect())
}

fn in_use(bridge: &BridgeView, leaving: Option<u32>) -> bool {
    bridge.ports.iter().any(|port| Some(port.index) != leaving && port.keeps_alive())
}

/// The name is reserved in the families that kvmnet uses; in another it is somebody else's.
fn is_of(table: &TableId, network: &NetworkName) -> bool {
    TableId::all_of_network(network).contains(table)
}
