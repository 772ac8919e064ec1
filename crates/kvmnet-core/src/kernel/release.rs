//! What releasing a tap, and clearing away what nobody uses, looks at.

use std::net::Ipv4Addr;

use super::link::{self, Which};
use super::rules_view::LEGACY_TABLES;
use super::{KernelError, System, address, conntrack, neighbour};
use crate::model::{
    AcceptOwner, BridgeView, FilterView, InterfaceName, Link, NetworkName, ReleaseView, TableId,
    owner_of,
};

/// The chains in iptables that the network has by its bridge's mark.
pub(super) fn chains_of(bridge: &Link, known: &[NetworkName]) -> Option<TableId> {
    let mark = owner_of(bridge, known).filter(|mark| mark.iptables)?;
    Some(TableId::in_iptables(&mark.network))
}

impl System {
    /// [`Kernel::release_view`](super::Kernel::release_view), with filters that somebody else has
    /// looked at.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    pub fn release_view_with(
        &mut self,
        tap: Option<&InterfaceName>,
        known: &[NetworkName],
        others: Vec<FilterView>,
    ) -> Result<ReleaseView, KernelError> {
        let which = tap.map(|tap| Which::Name(tap.as_str()));
        let (tap, bridges) = link::one_and_all_of_kind(&mut self.route, which, "bridge")?;
        let tables = self.tables()?;
        let mut filters = self.filters_of(&tables, LEGACY_TABLES)?;
        filters.extend(others);
        let mut bridges = self.bridges(bridges, tap.as_ref(), &filters, known)?;
        let chains = bridges.iter().filter_map(|bridge| chains_of(&bridge.link, known));
        let tables = tables
            .into_iter()
            .map(|table| table.id)
            .filter(TableId::is_reserved)
            .chain(chains)
            .collect();
        let leaving = tap.as_ref().filter(|tap| tap.master.is_some());
        let guest = self.connected(&mut bridges, leaving, known)?;
        Ok(ReleaseView { tables, bridges, filters, tap, guest })
    }

    /// Whether any connection is tracked; a run asks once.
    pub(super) fn tracks_connections(&mut self) -> Result<bool, KernelError> {
        match self.tracks_connections {
            Some(known) => Ok(known),
            None => Ok(*self.tracks_connections.insert(conntrack::is_in_use()?)),
        }
    }

    /// Where connections are tracked: the addresses of networks that nobody uses any more, and, of
    /// one that goes on, those of the guest that leaves it.
    fn connected(
        &mut self,
        bridges: &mut [BridgeView],
        leaving: Option<&Link>,
        known: &[NetworkName],
    ) -> Result<Vec<Ipv4Addr>, KernelError> {
        let index = leaving.map(|tap| tap.index);
        let mut guest = Vec::new();
        for bridge in bridges {
            let Some(mark) = owner_of(&bridge.link, known) else { continue };
            let tap = leaving.filter(|tap| tap.master == Some(bridge.link.index));
            let is_unused = bridge.users(index).next().is_none();
            let matters = is_unused || tap.is_some();
            if !matters {
                continue;
            }
            if !self.tracks_connections()? {
                continue;
            }
            bridge.addresses = address::of_link(&mut self.route, &bridge.link)?;
            let stays = mark.pinned || !is_unused;
            if let Some(tap) = tap.filter(|_| stays && !bridge.addresses.is_empty()) {
                guest = neighbour::addresses_behind(&mut self.route, bridge.link.index, tap)?;
            }
        }
        Ok(guest)
    }

    /// Of all bridges the one that the tap is a port of, every one of ours, and those that rules of ours
    /// in another firewall speak of; of the last two with their ports.
    fn bridges(
        &mut self,
        mut bridges: Vec<Link>,
        tap: Option<&Link>,
        filters: &[FilterView],
        known: &[NetworkName],
    ) -> Result<Vec<BridgeView>, KernelError> {
        let master = tap.and_then(|tap| tap.master);
        let accepts = || filters.iter().flat_map(|filter| &filter.accepts);
        let is_spoken_of = |bridge: &Link| {
            accepts().any(|found| {
                matches!(&found.owner, AcceptOwner::Bridge(name) if name.as_str() == bridge.name)
            })
        };
        bridges.retain(|bridge| {
            Some(bridge.index) == master
                || owner_of(bridge, known).is_some()
                || is_spoken_of(bridge)
        });
        let found = |index| bridges.iter().any(|bridge| bridge.index == index);
        if let Some(index) = master.filter(|&index| !found(index)) {
            // Not a bridge: a bond or a VRF, say.
            bridges.extend(link::one(&mut self.route, Which::Index(index))?);
        }
        // Of the administrator's bridges it only matters who is on them where rules speak of them.
        let counted = |bridge: &&Link| owner_of(bridge, known).is_some() || is_spoken_of(bridge);
        let counted: Vec<&Link> = bridges.iter().filter(counted).collect();
        // Where a tap leaves, one guest that stays says all that matters.
        let mut ports = match (tap, &counted[..]) {
            (_, []) => Vec::new(),
            (Some(tap), _) => {
                let stays = |port: &Link| port.is_guest_besides(Some(tap.index));
                link::some_ports_of(&mut self.route, &counted, stays)?
            }
            (None, [bridge]) => link::ports_of(&mut self.route, bridge)?,
            (None, _) => link::all(&mut self.route)?,
        };
        let mut views = Vec::new();
        for link in bridges {
            let (its_own, others) =
                ports.into_iter().partition(|port| port.master == Some(link.index));
            ports = others;
            let addresses = match owner_of(&link, known) {
                None if Some(link.index) == master => address::of_link(&mut self.route, &link)?,
                _ => Vec::new(),
            };
            let zone = self.zone_view(owner_of(&link, known).is_some());
            views.push(BridgeView { link, ports: its_own, addresses, zone });
        }
        Ok(views)
    }
}
