//! natup: what is missing of a NAT network, and the tap as its port.

use super::bridged::require_bridge;
use super::tap::{Target, attach, attachable};
use super::{AttachPlan, Note, Refusal, nat_table};
use crate::model::{
    InterfaceName, Link, LinkChange, LinkKind, Mac, Mark, NatNetwork, NatView, Step, Sysctl,
    TableState, owner_of,
};

/// MTU of a bridge that is about to be made, in bytes: the kernel's default for Ethernet.
const NEW_BRIDGE_MTU: u32 = 1500;

/// Plans to build or repair `network` and to make `tap` its port.
///
/// The order: rules before there is anything to let through, IPv6 off before the first guest can
/// speak, and forwarding, the one thing that outlives the network, when all else has succeeded.
///
/// # Errors
/// [`Refusal`] where the tap isn't fit for it, the bridge is somebody else's, or the host uses the
/// subnet elsewhere.
pub fn attach_nat(
    view: &NatView,
    tap: &InterfaceName,
    network: &NatNetwork,
) -> Result<AttachPlan, Refusal> {
    let link = attachable(&view.tap, tap)?;
    match &view.bridge {
        None => build(view, link, tap, network),
        Some(bridge) => {
            let bridge = require_bridge(bridge, &network.bridge)?;
            match owner_of(bridge, std::slice::from_ref(&network.name)) {
                Some(mark) if mark.network == network.name => {
                    repair(view, link, tap, network, bridge, &mark)
                }
                Some(mark) => Err(Refusal::BridgeOfAnother {
                    bridge: network.bridge.clone(),
                    network: network.name.clone(),
                    other: mark.network,
                }),
                None => use_foreign(view, link, tap, network, bridge),
            }
        }
    }
}

fn build(
    view: &NatView,
    link: &Link,
    tap: &InterfaceName,
    network: &NatNetwork,
) -> Result<AttachPlan, Refusal> {
    refuse_conflict(view, network)?;
    let target =
        Target { index: view.free_index, name: network.bridge.as_str(), mtu: NEW_BRIDGE_MTU };
    let port = attach(link, &view.tap, tap, &target)?;
    let mut steps: Vec<Step> = install_table(view, network).into_iter().collect();
    steps.push(Step::Links(vec![LinkChange::CreateBridge {
        name: network.bridge.clone(),
        index: view.free_index,
        mac: Mac::of_bridge(&network.name),
        mark: Mark::of(&network.name),
    }]));
    steps.push(disable_ipv6(network));
    let changes = std::iter::once(add_address(view.free_index, network)).chain(port);
    steps.push(Step::Links(changes.collect()));
    steps.extend(forward(view));
    Ok(AttachPlan {
        steps,
        bridge: network.bridge.to_string(),
        was_port: false,
        notes: vec![Note::Built],
    })
}

fn repair(
    view: &NatView,
    link: &Link,
    tap: &InterfaceName,
    network: &NatNetwork,
    bridge: &Link,
    mark: &Mark,
) -> Result<AttachPlan, Refusal> {
    let has_address = view.addresses.contains(&network.address);
    if !has_address {
        refuse_conflict(view, network)?;
    }
    let port = attach(link, &view.tap, tap, &Target::of(bridge))?;

    let mut steps: Vec<Step> = install_table(view, network).into_iter().collect();
    steps.extend(repair_bridge(bridge, mark).map(|change| Step::Links(vec![change])));
    if bridge.inet6.is_some_and(|inet6| !inet6.disabled) {
        steps.push(disable_ipv6(network));
    }
    let address = (!has_address).then(|| add_address(bridge.index, network));
    let repaired = !steps.is_empty() || address.is_some() || !view.ip_forward;
    let changes: Vec<LinkChange> = address.into_iter().chain(port).collect();
    if !changes.is_empty() {
        steps.push(Step::Links(changes));
    }
    steps.extend(forward(view));
    Ok(AttachPlan {
        steps,
        bridge: bridge.name.clone(),
        was_port: link.master == Some(bridge.index),
        notes: repaired.then_some(Note::Repaired).into_iter().collect(),
    })
}

/// The old scripts' own `br0`: it has exactly the network's address, and its rules are theirs.
fn use_foreign(
    view: &NatView,
    link: &Link,
    tap: &InterfaceName,
    network: &NatNetwork,
    bridge: &Link,
) -> Result<AttachPlan, Refusal> {
    if view.addresses != [network.address] {
        return Err(Refusal::ForeignBridge {
            bridge: network.bridge.clone(),
            addresses: view.addresses.clone(),
            network: network.name.clone(),
        });
    }
    let port = attach(link, &view.tap, tap, &Target::of(bridge))?;
    let mut notes = vec![Note::ForeignBridge];
    notes.extend((!bridge.up).then_some(Note::BridgeIsDown));
    Ok(AttachPlan {
        steps: port.map(|change| Step::Links(vec![change])).into_iter().collect(),
        bridge: bridge.name.clone(),
        was_port: link.master == Some(bridge.index),
        notes,
    })
}

fn refuse_conflict(view: &NatView, network: &NatNetwork) -> Result<(), Refusal> {
    match &view.conflict {
        None => Ok(()),
        Some(route) => Err(Refusal::SubnetInUse {
            subnet: network.address.trunc(),
            network: network.name.clone(),
            route: route.clone(),
        }),
    }
}

fn install_table(view: &NatView, network: &NatNetwork) -> Option<Step> {
    (view.table != TableState::AsWanted).then(|| Step::InstallTable {
        table: nat_table(network),
        replace: view.table == TableState::Different,
    })
}

fn repair_bridge(bridge: &Link, mark: &Mark) -> Option<LinkChange> {
    let mac = Mac::of_bridge(&mark.network);
    let wrong_mac = bridge.mac != Some(mac);
    let unmarked = bridge.alias.is_empty();
    let delays = !matches!(bridge.kind, LinkKind::Bridge { stp: false, forward_delay: 0 });
    (wrong_mac || unmarked || delays || !bridge.up).then(|| LinkChange::RepairBridge {
        index: bridge.index,
        name: bridge.name.clone(),
        mac: wrong_mac.then_some(mac),
        mark: unmarked.then(|| mark.clone()),
        forwarding: delays,
        up: !bridge.up,
    })
}

fn add_address(index: u32, network: &NatNetwork) -> LinkChange {
    LinkChange::AddAddress { index, bridge: network.bridge.to_string(), address: network.address }
}

fn disable_ipv6(network: &NatNetwork) -> Step {
    Step::Sysctl(Sysctl::DisableIpv6 { interface: network.bridge.clone() })
}

fn forward(view: &NatView) -> Option<Step> {
    (!view.ip_forward).then_some(Step::Sysctl(Sysctl::ForwardIpv4))
}
