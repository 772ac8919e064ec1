//! ifdown and natdown: a tap leaves its bridge, and networks that nobody uses any more go.

use ipnet::Ipv4Net;

use super::refusal::release_from;
use super::tap::require_tap;
use super::{Refusal, accepts, zone};
use crate::model::{
    AcceptOwner, BridgeRepair, BridgeView, InterfaceName, Link, LinkChange, LinkKind, Mark,
    Network, NetworkName, ReleaseView, Step, TableId, owner_of,
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
            // Only now that the guest can't begin any more.
            steps.extend(
                forget_guest(view, bridge).filter(|_| owner_of(&bridge.link, known).is_some()),
            );
            released_from = Some(bridge.link.name.clone());
            leaving = Some(link.index);
        }
    }
    let swept = take_down_unused(view, leaving, None, known);
    steps.extend(swept.steps);
    Ok(ReleasePlan { steps, released_from, taken_down: swept.taken_down })
}

/// Plans to take down every network that nobody uses.
#[must_use]
pub fn sweep(view: &ReleaseView, known: &[NetworkName]) -> TakeDownPlan {
    take_down_unused(view, None, None, known)
}

/// What taking a network down comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeDownPlan {
    /// The steps, in order. One that fails doesn't stop those behind it.
    pub steps: Vec<Step>,
    /// The networks that go: this one, and those that nobody uses.
    pub taken_down: Vec<NetworkName>,
    /// Who uses the network that was asked for, which therefore stays.
    pub in_use: Option<InUse>,
}

/// Why a network stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse {
    /// Its bridge.
    pub bridge: String,
    /// The ports that keep it alive.
    pub ports: Vec<String>,
    /// Whether it was pinned, which it is no more.
    pub unpinned: bool,
}

/// Plans to end what an administrator's `up` began: the network goes, at once where nobody uses
/// it, else with its last guest. Other networks that nobody uses go, too.
#[must_use]
pub fn take_down(view: &ReleaseView, network: &NetworkName, known: &[NetworkName]) -> TakeDownPlan {
    take_down_unused(view, None, Some(network), known)
}

fn require_releasable<'a>(
    view: &'a ReleaseView,
    tap: &InterfaceName,
    master: u32,
    scope: ReleaseScope<'_>,
    known: &[NetworkName],
) -> Result<&'a BridgeView, Refusal> {
    let found = view.bridges.iter().find(|bridge| bridge.link.index == master);
    let bridge = found
        .filter(|bridge| matches!(bridge.link.kind, LinkKind::Bridge { .. }))
        .ok_or_else(|| Refusal::MasterNotABridge {
            tap: tap.clone(),
            master: name_of(view, master),
            release: release_from(found.map(|bridge| &bridge.link), tap),
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
    unpin: Option<&NetworkName>,
    known: &[NetworkName],
) -> TakeDownPlan {
    let mut kept = Vec::new();
    let mut unused: Vec<(NetworkName, &Link)> = Vec::new();
    let mut left = Vec::new();
    let mut forgotten = Vec::new();
    let mut unpinning = None;
    let mut in_use = None;
    for bridge in &view.bridges {
        let Some(mark) = owner_of(&bridge.link, known) else {
            continue;
        };
        let is_asked_for = unpin == Some(&mark.network);
        let mut ports: Vec<String> = bridge.users(leaving).map(|port| port.name.clone()).collect();
        ports.sort_unstable();
        if ports.is_empty() && (is_asked_for || !mark.pinned) {
            left.extend(zone::leave(bridge, &mark));
            forgotten.extend(forget_network(bridge));
            unused.push((mark.network, &bridge.link));
            continue;
        }
        if is_asked_for {
            unpinning = mark.pinned.then(|| without_pin(&bridge.link, &mark));
            in_use = Some(InUse { bridge: bridge.link.name.clone(), ports, unpinned: mark.pinned });
        }
        kept.push(mark.network);
    }
    let stale_tables = view.tables.iter().filter(|table| {
        table.network().is_some_and(|network| !kept.contains(&network) && is_of(table, &network))
    });
    // Other firewalls' doors are shut first.
    let mut steps = accepts::withdraw(&view.filters, |owner| match owner {
        AcceptOwner::Network(network) => !kept.contains(network),
        AcceptOwner::Bridge(name) => !has_guests(view, name, leaving),
    });
    steps.extend(left);
    steps.extend(stale_tables.cloned().map(Step::DeleteTable));
    steps.extend(unpinning);
    // Behind the rules, so that none is translated anew, and before the bridge, which tells of them.
    steps.extend(forgotten);
    // One send each: the kernel takes some 40 ms for each deletion.
    steps.extend(unused.iter().map(|(_, link)| {
        Step::Links(vec![LinkChange::DeleteBridge { index: link.index, name: link.name.clone() }])
    }));
    let taken_down = unused.into_iter().map(|(network, _)| network).collect();
    TakeDownPlan { steps, taken_down, in_use }
}

/// Whether a bridge of the administrator's is there, with a tap on it that stays.
fn has_guests(view: &ReleaseView, bridge: &InterfaceName, leaving: Option<u32>) -> bool {
    let bridge = view.bridges.iter().find(|found| found.link.name == bridge.as_str());
    bridge.is_some_and(|bridge| bridge.ports.iter().any(|port| port.is_guest_besides(leaving)))
}

fn without_pin(bridge: &Link, mark: &Mark) -> Step {
    let mark = Mark { pinned: false, ..mark.clone() };
    Step::Links(vec![LinkChange::RepairBridge {
        index: bridge.index,
        name: bridge.name.clone(),
        repair: BridgeRepair { mark: Some(mark), ..BridgeRepair::default() },
    }])
}

/// What is to be forgotten of a network that goes: its first address is the one that kvmnet gave it,
/// and any other the administrator's.
fn forget_network(bridge: &BridgeView) -> Option<Step> {
    let address = bridge.addresses.first()?;
    Some(Step::ForgetConnections(vec![address.trunc()]))
}

/// What is to be forgotten of a guest that goes, where its network stays.
fn forget_guest(view: &ReleaseView, bridge: &BridgeView) -> Option<Step> {
    let subnet = bridge.addresses.first()?;
    let its_own = view.guest.iter().filter(|address| subnet.contains(*address));
    let addresses: Vec<Ipv4Net> = its_own.map(|&address| Ipv4Net::from(address)).collect();
    (!addresses.is_empty()).then_some(Step::ForgetConnections(addresses))
}

/// The name is reserved in the families that kvmnet uses; in another it is somebody else's.
fn is_of(table: &TableId, network: &NetworkName) -> bool {
    TableId::all_of_network(network).contains(table)
}
