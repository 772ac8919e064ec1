//! ifup: a tap becomes a port of the administrator's bridge, and the bridge stays as it is.

use super::accepts;
use super::tap::{Target, attach, attachable};
use super::{AttachPlan, Note, Refusal};
use crate::model::{
    AcceptOwner, BridgedNetwork, BridgedView, InterfaceName, Link, LinkKind, NetworkName, Step,
    owner_of,
};

/// Plans to make `tap` a port of the administrator's bridge.
///
/// # Errors
/// [`Refusal`] where the tap or the bridge isn't fit for it.
pub fn attach_bridged(
    view: &BridgedView,
    tap: &InterfaceName,
    network: &BridgedNetwork,
    known: &[NetworkName],
) -> Result<AttachPlan, Refusal> {
    let link = attachable(&view.tap, tap)?;
    let bridge = find_bridge(view, network)?;
    let change = attach(link, &view.tap, tap, &Target::of(bridge))?;
    let owner = owner_of(bridge, known);
    // The rules of a network of kvmnet's are that network's business.
    let mut steps = if owner.is_some() { Vec::new() } else { accepts_for(view, bridge) };
    let mut notes = accepts::notes(&steps);
    steps.extend(change.map(|change| Step::Links(vec![change])));
    notes.extend(owner.map(|mark| Note::OwnBridge(mark.network)));
    notes.extend((!bridge.up).then_some(Note::BridgeIsDown));
    Ok(AttachPlan {
        steps,
        bridge: bridge.name.clone(),
        was_done: link.master == Some(bridge.index),
        notes,
    })
}

fn accepts_for(view: &BridgedView, bridge: &Link) -> Vec<Step> {
    let Ok(name) = InterfaceName::parse(bridge.name.as_ref()) else {
        return Vec::new();
    };
    if accepts::is_wildcard(&name) {
        return Vec::new();
    }
    let owner = AcceptOwner::Bridge(name.clone());
    accepts::change(&view.filters, &owner, |_| vec![accepts::between_guests(&name)])
}

fn find_bridge<'a>(view: &'a BridgedView, network: &BridgedNetwork) -> Result<&'a Link, Refusal> {
    if let Some(named) = &view.named {
        return require_bridge(named, &network.bridge);
    }
    view.default_route.as_ref().ok_or_else(|| {
        let bridge = network.bridge.clone();
        if network.or_default_route {
            Refusal::NoBridge { bridge }
        } else {
            Refusal::NoSuchBridge { bridge }
        }
    })
}

/// Checks that `link` is what it was called, and a bridge.
pub(super) fn require_bridge<'a>(
    link: &'a Link,
    name: &InterfaceName,
) -> Result<&'a Link, Refusal> {
    if link.name != name.as_str() {
        return Err(Refusal::AlternativeName { name: name.clone(), real: link.name.clone() });
    }
    match link.kind {
        LinkKind::Bridge { .. } => Ok(link),
        _ => Err(Refusal::NotABridge { name: name.clone(), kind: link.describe_kind() }),
    }
}
