//! A network namespace as plain data, and what each step does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use kvmnet_core::model::{
    ALL_GROUPS, AcceptsChange, BRIDGE_GROUP, FilterView, FoundAccept, Inet6, InterfaceName, Link,
    LinkChange, LinkKind, Mac, Route, RuleId, RulePlace, Step, Sysctl, Table, TableId, Variant,
    ZoneChange, ZoneChangeKind,
};
use nix::errno::Errno;

/// What a table holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TableContent {
    /// What kvmnet put there.
    Rules(Table),
    /// Anything else.
    Other(&'static str),
}

/// The state of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FakeHost {
    /// Links by their index.
    pub links: BTreeMap<u32, Link>,
    /// IPv4 addresses by the index of their link.
    pub addresses: BTreeMap<u32, Vec<Ipv4Net>>,
    /// Routes that don't come from an address of a bridge.
    pub routes: Vec<Route>,
    /// The index of the link that the default route leads over.
    pub default_route: Option<u32>,
    /// nftables tables.
    pub tables: BTreeMap<TableId, TableContent>,
    /// `net.ipv4.ip_forward`.
    pub ip_forward: bool,
    /// The interfaces that forward by a setting of their own.
    pub forwarding: BTreeSet<InterfaceName>,
    /// The forward filters of iptables, of either variant, with the rules of kvmnet's in them.
    pub filters: Vec<FilterView>,
    /// Whether frames from port to port are filtered, too.
    pub bridge_netfilter: bool,
    /// What firewalld knows, where it runs: the zone of each interface that is in one.
    pub zones: Option<BTreeMap<String, String>>,
    /// Who has connections that are tracked.
    pub connected: BTreeSet<Ipv4Addr>,
    /// What is known of who is behind a port, by its index.
    pub learnt: BTreeMap<u32, Vec<Ipv4Addr>>,
}

impl FakeHost {
    /// Adds a link as `kind` has it; of its bridge and its state nothing is set.
    pub fn add_link(&mut self, name: &str, index: u32, kind: LinkKind) -> &mut Link {
        self.links.entry(index).or_insert_with(|| Link {
            index,
            name: name.to_owned(),
            kind,
            master: None,
            up: true,
            forwarded_groups: 0,
            filters_frames: false,
            noarp: false,
            group: 0,
            carrier: true,
            mtu: 1500,
            mac: Some(Mac([0x52, 0x54, 0, 0, 0, index as u8])),
            alias: String::new(),
            inet6: Some(Inet6 { disabled: false, generates_address: true }),
        })
    }

    /// Adds a tap as QEMU makes it.
    pub fn add_tap(&mut self, name: &InterfaceName, index: u32) {
        let tap = self.add_link(name.as_str(), index, LinkKind::Tap { persistent: false });
        tap.up = false;
    }

    /// A program closes its tap: the kernel takes it away.
    pub fn remove_link(&mut self, index: u32) {
        self.links.remove(&index);
        self.addresses.remove(&index);
        self.learnt.remove(&index);
        for link in self.links.values_mut() {
            if link.master == Some(index) {
                link.master = None;
                link.forwarded_groups = 0;
            }
        }
    }

    /// `nft flush ruleset`, which knows nothing of x_tables.
    pub fn flush_ruleset(&mut self) {
        self.tables.clear();
        self.filters.retain(|filter| filter.variant == Variant::Legacy);
    }

    /// `iptables -F`, of either variant: the chains' policies stay.
    pub fn flush_iptables(&mut self) {
        self.filters.iter_mut().for_each(|filter| filter.accepts.clear());
    }

    /// `firewall-cmd --reload`: what isn't permanent is forgotten.
    pub fn reload_firewalld(&mut self) {
        if let Some(zones) = &mut self.zones {
            zones.clear();
        }
    }

    /// The link of that name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// The ports of a bridge, by index.
    pub fn ports(&self, bridge: u32) -> impl Iterator<Item = &Link> {
        self.links.values().filter(move |link| link.master == Some(bridge))
    }

    fn change_zone(&mut self, change: &ZoneChange) -> Result<(), Errno> {
        let zones = self.zones.as_mut().ok_or(Errno::ENOENT)?;
        match &change.kind {
            ZoneChangeKind::Enter(zone) => {
                zones.insert(change.bridge.clone(), zone.to_string());
            }
            ZoneChangeKind::Leave(zone) => {
                if zones.get(&change.bridge) == Some(zone) {
                    zones.remove(&change.bridge);
                }
            }
        }
        Ok(())
    }

    /// Carries out a step as the kernel does: of rtnetlink messages each, whatever became of those
    /// before it; of an nf_tables batch all or nothing.
    ///
    /// # Errors
    /// The kernel's error number, of several the first.
    pub fn apply(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::Links(changes) => {
                let results: Vec<_> = changes.iter().map(|change| self.change(change)).collect();
                results.into_iter().collect()
            }
            Step::InstallTable { table, replace } => {
                if !replace && self.tables.contains_key(&table.id) {
                    return Err(Errno::EEXIST);
                }
                self.tables.insert(table.id.clone(), TableContent::Rules(table.clone()));
                Ok(())
            }
            Step::Accepts(change) => self.change_accepts(change),
            Step::Zone(change) => self.change_zone(change),
            Step::DeleteTable(table) => {
                self.tables.remove(table);
                Ok(())
            }
            Step::ForgetConnections(subnets) => {
                self.connected.retain(|one| !subnets.iter().any(|subnet| subnet.contains(one)));
                Ok(())
            }
            Step::Sysctl(Sysctl::ForwardIpv4) => {
                self.ip_forward = true;
                Ok(())
            }
            Step::Sysctl(Sysctl::ForwardInterface { interface }) => {
                self.forwarding.insert(interface.clone());
                Ok(())
            }
            Step::Sysctl(Sysctl::DisableIpv6 { interface }) => {
                let link = self.links.values_mut().find(|link| link.name == interface.as_str());
                if let Some(inet6) = link.and_then(|link| link.inet6.as_mut()) {
                    inet6.disabled = true;
                }
                Ok(())
            }
        }
    }

    fn change_accepts(&mut self, change: &AcceptsChange) -> Result<(), Errno> {
        let is_it = |filter: &&mut FilterView| {
            (filter.variant, filter.family) == (change.variant, change.family)
        };
        let found = self.filters.iter_mut().find(is_it);
        let accepts = &mut found.ok_or(Errno::ENOENT)?.accepts;
        let is_there = |place: &RulePlace| accepts.iter().any(|found| found.at == *place);
        if !change.delete.iter().all(is_there) {
            return Err(Errno::ENOENT);
        }
        let handles = accepts.iter().map(|found| match found.at.id {
            RuleId::Handle(handle) => handle,
            RuleId::Offset(_) | RuleId::Text(_) => 0,
        });
        let used = handles.max().unwrap_or(0);
        accepts.retain(|found| !change.delete.contains(&found.at));
        for (handle, (owner, rule)) in (used + 1..).zip(change.insert.iter().rev()) {
            let id = match change.variant {
                Variant::Nft => RuleId::Handle(handle),
                Variant::Legacy => RuleId::Text(format!("{owner}: {rule}")),
            };
            let at = RulePlace { chain: change.chain.clone(), id };
            let rule = Some(rule.clone());
            accepts.insert(0, FoundAccept { at, owner: owner.clone(), rule });
        }
        Ok(())
    }

    fn change(&mut self, change: &LinkChange) -> Result<(), Errno> {
        match change {
            LinkChange::CreateBridge { name, index, mac, mark, mtu, noarp } => {
                let created = self.create_bridge(name, *index, *mac).map(|bridge| {
                    bridge.mtu = mtu.unwrap_or(bridge.mtu);
                    bridge.noarp = *noarp;
                });
                // The second message of the same send goes by the index alone.
                let marked = self.existing(*index).map(|link| link.alias = mark.to_string());
                created.and(marked)
            }
            LinkChange::RepairBridge { index, repair, .. } => {
                let link = self.existing(*index)?;
                link.mac = repair.mac.or(link.mac);
                link.mtu = repair.mtu.unwrap_or(link.mtu);
                if let Some(mark) = &repair.mark {
                    link.alias = mark.to_string();
                }
                if repair.forward_at_once {
                    link.kind = LinkKind::Bridge { stp: false, forward_delay: 0 };
                }
                if repair.group {
                    link.group = BRIDGE_GROUP;
                }
                link.noarp = repair.noarp.unwrap_or(link.noarp);
                link.up |= repair.up;
                Ok(())
            }
            LinkChange::AddAddress { index, address, .. } => {
                self.existing(*index)?;
                let addresses = self.addresses.entry(*index).or_default();
                if !addresses.contains(address) {
                    addresses.push(*address);
                }
                Ok(())
            }
            LinkChange::AttachTap {
                index,
                master,
                mac,
                mtu,
                no_inet6_address,
                forward_groups,
                ..
            } => {
                let master_exists = self.links.contains_key(master);
                let link = self.existing(*index)?;
                link.mac = mac.or(link.mac);
                link.mtu = mtu.unwrap_or(link.mtu);
                if !master_exists {
                    return Err(Errno::EINVAL);
                }
                link.master = Some(*master);
                if let (true, Some(inet6)) = (*no_inet6_address, link.inet6.as_mut()) {
                    inet6.generates_address = false;
                }
                if *forward_groups {
                    link.forwarded_groups = ALL_GROUPS;
                }
                link.up = true;
                Ok(())
            }
            LinkChange::ReleaseTap { index, .. } => {
                if let Ok(link) = self.existing(*index) {
                    link.master = None;
                    link.forwarded_groups = 0;
                    link.up = false;
                }
                Ok(())
            }
            LinkChange::DeleteBridge { index, .. } => {
                self.remove_link(*index);
                Ok(())
            }
        }
    }

    fn existing(&mut self, index: u32) -> Result<&mut Link, Errno> {
        self.links.get_mut(&index).ok_or(Errno::ENODEV)
    }

    fn create_bridge(
        &mut self,
        name: &InterfaceName,
        index: u32,
        mac: Mac,
    ) -> Result<&mut Link, Errno> {
        if self.link(name.as_str()).is_some() {
            return Err(Errno::EEXIST);
        }
        if self.links.contains_key(&index) {
            return Err(Errno::EBUSY);
        }
        let kind = LinkKind::Bridge { stp: false, forward_delay: 0 };
        let bridge = self.add_link(name.as_str(), index, kind);
        bridge.mac = Some(mac);
        bridge.group = BRIDGE_GROUP;
        bridge.carrier = false;
        Ok(bridge)
    }
}
