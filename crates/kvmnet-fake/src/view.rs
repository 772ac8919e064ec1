//! What a look at the fake host shows, as far as one at the kernel does.

use kvmnet_core::model::{
    AcceptOwner, BridgeView, BridgedNetwork, BridgedView, Forwarding, ForwardingView,
    InterfaceName, Link, LinkKind, ManagedNetwork, ManagedView, NetworkName, ReleaseView, Table,
    TableId, TableState, TapView, ZoneView, owner_of, runs_as_isolated,
};

use crate::host::{FakeHost, TableContent};

impl FakeHost {
    fn tap_view(&self, tap: &InterfaceName) -> TapView {
        let link = self.link(tap.as_str()).cloned();
        let master = link
            .as_ref()
            .and_then(|link| link.master)
            .and_then(|master| self.links.get(&master))
            .cloned();
        TapView { link, master }
    }

    pub(crate) fn bridged_view(
        &self,
        tap: &InterfaceName,
        network: &BridgedNetwork,
    ) -> BridgedView {
        let named = self.link(network.bridge.as_str()).cloned();
        let default_route = self
            .default_route
            .filter(|_| network.or_default_route && named.is_none())
            .and_then(|index| self.links.get(&index))
            .filter(|link| matches!(link.kind, LinkKind::Bridge { .. }))
            .cloned();
        let filters = if self.bridge_netfilter { self.filters.clone() } else { Vec::new() };
        let bridge = named.as_ref().or(default_route.as_ref()).filter(|_| network.zone.is_some());
        let zone = bridge.map(|bridge| self.zone_view(&bridge.name)).unwrap_or_default();
        BridgedView { tap: self.tap_view(tap), named, filters, default_route, zone }
    }

    pub(crate) fn managed_view(
        &self,
        tap: Option<&InterfaceName>,
        network: &ManagedNetwork,
        table: Option<&Table>,
    ) -> ManagedView {
        let bridge = self.link(network.bridge.as_str()).cloned();
        let addresses = bridge
            .as_ref()
            .and_then(|bridge| self.addresses.get(&bridge.index))
            .cloned()
            .unwrap_or_default();
        let missing = network.mode.address().filter(|address| !addresses.contains(address));
        let conflict = missing.and_then(|address| {
            let subnet = address.trunc();
            self.routes.iter().find(|route| subnet.contains(&route.destination)).cloned()
        });
        let free_index = match bridge {
            Some(_) => 0,
            None => (1_000_000..).find(|index| !self.links.contains_key(index)).unwrap_or(0),
        };
        let state = table.map_or(TableState::AsWanted, |table| self.table_state(table));
        let others = TableId::all_of_network(&network.name);
        let other_tables: Vec<TableId> = others
            .into_iter()
            .filter(|id| table.is_none_or(|table| table.id != *id) && self.tables.contains_key(id))
            .collect();
        let known = std::slice::from_ref(&network.name);
        let looked_into = bridge.as_ref().filter(|bridge| {
            owner_of(bridge, known).is_none()
                || runs_as_isolated(network, bridge, &addresses, state, &other_tables)
        });
        let ports = looked_into.map(|bridge| self.ports(bridge.index).cloned().collect());
        // What the kernel isn't asked for of somebody else's bridge.
        let is_foreign = bridge.as_ref().is_some_and(|bridge| owner_of(bridge, known).is_none());
        let filters = if is_foreign { Vec::new() } else { self.filters.clone() };
        let is_dropped = filters.iter().any(|filter| filter.drops);
        let namesake = self.links.values().find(|link| {
            bridge.is_none()
                && owner_of(link, known).is_some_and(|mark| mark.network == network.name)
        });
        ManagedView {
            zone: match network.wanted_zone() {
                Some(_) if !is_foreign => self.zone_view(network.bridge.as_str()),
                _ => ZoneView::Absent,
            },
            namesake: namesake.map(|link| link.name.clone()),
            ports: ports.unwrap_or_default(),
            tap: tap.map(|tap| self.tap_view(tap)).unwrap_or_default(),
            bridge,
            addresses,
            conflict,
            free_index,
            table: state,
            other_tables,
            forwarding: self.forwarding_view(network),
            filters,
            uplinks: self.uplink().filter(|_| is_dropped).into_iter().collect(),
            bridge_netfilter: is_dropped && self.bridge_netfilter,
        }
    }

    fn table_state(&self, wanted: &Table) -> TableState {
        match self.tables.get(&wanted.id) {
            None => TableState::Absent,
            Some(TableContent::Rules(found)) if found == wanted => TableState::AsWanted,
            Some(_) => TableState::Different,
        }
    }

    fn zone_view(&self, interface: &str) -> ZoneView {
        self.zones.as_ref().map_or(ZoneView::Absent, |zones| ZoneView::Answered {
            current: zones.get(interface).cloned(),
            permanent: false,
            is_known: true,
        })
    }

    fn uplink(&self) -> Option<InterfaceName> {
        let uplink = self.default_route.and_then(|index| self.links.get(&index));
        uplink.and_then(|link| InterfaceName::parse(link.name.as_ref()).ok())
    }

    fn forwarding_view(&self, network: &ManagedNetwork) -> ForwardingView {
        let mut interfaces_off = Vec::new();
        if !self.ip_forward && network.forwarding == Forwarding::Interfaces {
            interfaces_off.push(network.bridge.clone());
            interfaces_off.extend(self.uplink());
            interfaces_off.retain(|name| !self.forwarding.contains(name));
        }
        ForwardingView { global: self.ip_forward, interfaces_off }
    }

    /// The kernel's list is broken off where a tap leaves and another guest's stays.
    fn counted_ports(&self, bridge: u32, leaving: Option<&Link>) -> Vec<Link> {
        let mut ports: Vec<Link> = self.ports(bridge).cloned().collect();
        if let Some(leaving) = leaving {
            let stays = |port: &Link| port.is_guest_besides(Some(leaving.index));
            let enough = ports.iter().position(stays).map_or(ports.len(), |at| at + 1);
            ports.truncate(enough);
        }
        ports
    }

    pub(crate) fn release_view(
        &self,
        tap: Option<&InterfaceName>,
        known: &[NetworkName],
    ) -> ReleaseView {
        let tap = tap.and_then(|tap| self.link(tap.as_str())).cloned();
        let master = tap.as_ref().and_then(|tap| tap.master);
        let accepts = || self.filters.iter().flat_map(|filter| &filter.accepts);
        let is_spoken_of = |link: &Link| {
            accepts().any(|found| {
                matches!(&found.owner, AcceptOwner::Bridge(name) if name.as_str() == link.name)
            })
        };
        let of_interest = self.links.values().filter(|link| {
            Some(link.index) == master || owner_of(link, known).is_some() || is_spoken_of(link)
        });
        let bridges = of_interest
            .map(|link| BridgeView {
                ports: match owner_of(link, known) {
                    None if !is_spoken_of(link) => Vec::new(),
                    _ => self.counted_ports(link.index, tap.as_ref()),
                },
                addresses: match owner_of(link, known) {
                    Some(_) if self.connected.is_empty() => Vec::new(),
                    None if Some(link.index) != master => Vec::new(),
                    _ => self.addresses.get(&link.index).cloned().unwrap_or_default(),
                },
                zone: match owner_of(link, known) {
                    Some(_) => self.zone_view(&link.name),
                    None => ZoneView::Absent,
                },
                link: link.clone(),
            })
            .collect();
        let tables = self.tables.keys().filter(|table| table.is_reserved()).cloned().collect();
        let guest = tap.as_ref().and_then(|tap| self.learnt.get(&tap.index));
        let guest = guest.filter(|_| !self.connected.is_empty()).cloned().unwrap_or_default();
        ReleaseView { tap, bridges, tables, filters: self.filters.clone(), guest }
    }
}
