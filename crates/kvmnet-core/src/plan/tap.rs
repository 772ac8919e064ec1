//! What a tap must be, and how it becomes a port.

use super::Refusal;
use super::refusal::release_from;

use crate::model::{ALL_GROUPS, InterfaceName, Link, LinkChange, LinkKind, Mac, TapView};

/// The bridge a tap is to become a port of.
pub(super) struct Target<'a> {
    pub index: u32,
    pub name: &'a str,
    pub mtu: u32,
    /// Whether it is kvmnet's own.
    pub own: bool,
}

impl<'a> Target<'a> {
    pub fn of(bridge: &'a Link) -> Self {
        Self { index: bridge.index, name: &bridge.name, mtu: bridge.mtu, own: false }
    }
}

/// Checks that `link` is what it was called, and a tap.
pub(super) fn require_tap<'a>(link: &'a Link, name: &InterfaceName) -> Result<&'a Link, Refusal> {
    if link.name != name.as_str() {
        return Err(Refusal::AlternativeName { name: name.clone(), real: link.name.clone() });
    }
    match link.kind {
        LinkKind::Tap { .. } => Ok(link),
        _ => Err(Refusal::NotATap { name: name.clone(), kind: link.describe_kind() }),
    }
}

/// Checks that the tap can become a port of some bridge.
pub(super) fn attachable<'a>(view: &'a TapView, name: &InterfaceName) -> Result<&'a Link, Refusal> {
    match &view.link {
        Some(link) => require_tap(link, name),
        None => Err(Refusal::NoSuchInterface(name.clone())),
    }
}

/// The change that makes the tap a port of `target`; none where it is one already and up.
pub(super) fn attach(
    tap: &Link,
    view: &TapView,
    name: &InterfaceName,
    target: &Target<'_>,
) -> Result<Option<LinkChange>, Refusal> {
    let forward_groups = target.own && tap.forwarded_groups != ALL_GROUPS;
    match tap.master {
        Some(master) if master != target.index => {
            return Err(Refusal::PortOfAnother {
                tap: name.clone(),
                master: view
                    .master
                    .as_ref()
                    .map_or_else(|| format!("index {master}"), |master| master.name.clone()),
                release: release_from(view.master.as_ref(), name),
            });
        }
        Some(_) if tap.up && !forward_groups => return Ok(None),
        _ => {}
    }
    // A lower address would become a foreign bridge's own, and a smaller MTU its MTU, as soon as
    // the tap is a port: both have to be set no later than that.
    // One tap in 64 has a high address by chance, which udev replaces like any other that nobody has set.
    // libvirt sets a high one, and then has the tap up.
    let own_mac = Mac::of_tap(name);
    let keeps_mac = tap.mac.is_some_and(|mac| mac == own_mac || (mac.is_high() && tap.up));
    Ok(Some(LinkChange::AttachTap {
        index: tap.index,
        tap: name.clone(),
        master: target.index,
        bridge: target.name.to_owned(),
        mac: (!keeps_mac).then_some(own_mac),
        mtu: (tap.mtu != target.mtu).then_some(target.mtu),
        no_inet6_address: tap.inet6.is_some_and(|inet6| inet6.generates_address && !inet6.disabled),
        forward_groups,
        was_up: tap.up,
    }))
}
