//! The zone of firewalld's that a bridge is in. An administrator's choice stays, unless the network's
//! file makes another.

use super::Note;
use super::accepts::is_wildcard;
use crate::model::{
    BridgeView, InterfaceName, ManagedNetwork, Mark, Step, ZoneChange, ZoneChangeKind, ZoneName,
    ZoneView,
};

/// What becomes of a bridge's zone.
#[derive(Debug, Default)]
pub(super) struct ZonePlan {
    /// What is to be done.
    pub step: Option<Step>,
    /// What the log should tell.
    pub note: Option<Note>,
    /// Whether the bridge's mark has to say that the zone is kvmnet's doing.
    pub marks: bool,
}

/// Plans the zone of a network's bridge, which carries this mark.
pub(super) fn of_network(view: &ZoneView, network: &ManagedNetwork, mark: &Mark) -> ZonePlan {
    let Some(wanted) = network.wanted_zone() else {
        return ZonePlan::default();
    };
    // A choice that isn't kvmnet's stays where the file makes none.
    let stays = |current: &str| network.zone.is_none() && !is_ours(view, current, mark);
    let plan = enter(view, network.bridge.as_str(), &wanted, stays);
    let is_there = matches!(view, ZoneView::Answered { current: Some(current), permanent: false, .. }
        if current == wanted.as_str());
    ZonePlan { marks: !wanted.is_packaged() && (is_there || plan.step.is_some()), ..plan }
}

/// Plans to put a bridge into a zone, unless it is in one that `stays`.
pub(super) fn enter(
    view: &ZoneView,
    bridge: &str,
    wanted: &ZoneName,
    stays: impl FnOnce(&str) -> bool,
) -> ZonePlan {
    let not = |why| ZonePlan { note: Some(Note::NotInZone { why }), ..ZonePlan::default() };
    match view {
        ZoneView::Absent | ZoneView::Unasked => ZonePlan::default(),
        ZoneView::Silent { why } => not(why.clone()),
        ZoneView::Answered { current: Some(current), .. }
            if current == wanted.as_str() || stays(current) =>
        {
            ZonePlan::default()
        }
        ZoneView::Answered { is_known: false, .. } => not(unknown(wanted)),
        // To firewalld such a name stands for others, too.
        ZoneView::Answered { .. } if has_wildcard(bridge) => not(format!(
            "the name {bridge} would stand for any that begins so; give the bridge another"
        )),
        ZoneView::Answered { .. } => {
            let kind = ZoneChangeKind::Enter(wanted.clone());
            ZonePlan {
                step: Some(Step::Zone(ZoneChange { bridge: bridge.to_owned(), kind })),
                note: Some(Note::InZone { zone: wanted.clone() }),
                marks: false,
            }
        }
    }
}

/// Plans to take a bridge that goes out of its zone: firewalld would keep the name.
pub(super) fn leave(bridge: &BridgeView, mark: &Mark) -> Option<Step> {
    let ZoneView::Answered { current: Some(current), .. } = &bridge.zone else {
        return None;
    };
    is_ours(&bridge.zone, current, mark).then(|| {
        let kind = ZoneChangeKind::Leave(current.clone());
        Step::Zone(ZoneChange { bridge: bridge.link.name.clone(), kind })
    })
}

/// Why a bridge can't be put into this zone, and what to do.
#[must_use]
pub fn unknown(zone: &ZoneName) -> String {
    if zone.is_packaged() {
        return format!(
            "it does not know the zone {zone}, which is installed with kvmnet in /usr/lib/firewalld; \
             have it look there: firewall-cmd --reload"
        );
    }
    format!(
        "it does not know the zone {zone}, which the network's file names; make it: firewall-cmd \
         --permanent --new-zone={zone}; firewall-cmd --reload"
    )
}

/// Whether it is kvmnet's doing that the bridge is in that zone.
fn is_ours(view: &ZoneView, current: &str, mark: &Mark) -> bool {
    let is_permanent = matches!(view, ZoneView::Answered { permanent: true, .. });
    let is_packaged = ZoneName::parse(current).is_some_and(|zone| zone.is_packaged());
    !is_permanent && (mark.zone || is_packaged)
}

fn has_wildcard(bridge: &str) -> bool {
    InterfaceName::parse(bridge.as_ref()).is_ok_and(|name| is_wildcard(&name))
}
