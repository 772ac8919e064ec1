//! The real kernel.

use std::io;

use ipnet::Ipv4Net;
use neli::consts::rtnl::RtTable;
use neli::consts::socket::NlFamily;
use nix::errno::Errno;

use super::link::{self, Which};
use super::release::chains_of;
use super::route;
use super::rules_view::RulesView;
use super::socket::Socket;
use super::{Kernel, KernelError, address, conntrack, link_change, netconf, nftables, sysctl};
use crate::lock::{Lock, LockError, Namespace};
use crate::model::{
    BridgedNetwork, BridgedView, Firewall, Forwarding, ForwardingView, InterfaceName, Link,
    LinkKind, Mac, ManagedNetwork, ManagedView, Mode, NetworkName, ReleaseView, Route, Step,
    Sysctl, Table, TapView, ZoneView, owner_of, runs_as_isolated,
};

/// Where kvmnet's interface indexes begin: far above what the kernel counts up to by itself.
const FIRST_INDEX: u32 = 1_000_000;
const INDEXES: u32 = 1_000_000;

/// The network namespace that the process is in.
///
/// Fields are dropped in order: closing the netfilter socket waits for what was deleted from
/// nf_tables, and so comes last, when the bridge's deletion has waited already.
pub struct System {
    namespace: Namespace,
    pub(super) route: Socket,
    pub(super) netfilter: Option<Socket>,
    /// Whether firewalld's rules were met, which is told over D-Bus.
    pub(super) met_firewalld: bool,
    /// Whether tables of iptables-legacy were met that can't be read, or have chains of kvmnet's, which
    /// are its programs' to deal with.
    pub(super) met_legacy: bool,
    /// Whether both are left as they are, or to another.
    pub(super) leaves_others: bool,
    /// Whether any connection is tracked, once that was asked.
    pub(super) tracks_connections: Option<bool>,
}

impl System {
    /// Opens the network namespace that the process is in.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel has no rtnetlink to offer, or doesn't tell the namespace.
    pub fn open() -> Result<Self, KernelError> {
        let (route, namespace) = Socket::open_in_namespace(NlFamily::Route)
            .map_err(|error| KernelError::system("open a rtnetlink socket", error))?;
        let namespace = namespace.map_err(|error| {
            let what =
                "tell this network namespace from others, which before Linux 5.14 takes /proc";
            KernelError::system(what, error)
        })?;
        Ok(Self {
            namespace,
            route,
            netfilter: None,
            met_firewalld: false,
            met_legacy: false,
            leaves_others: false,
            tracks_connections: None,
        })
    }

    /// As [`System::open`], for a run that leaves firewalls as they are, or to another, which are told
    /// other than by netlink.
    ///
    /// # Errors
    /// As [`System::open`].
    pub fn open_for_netlink_alone() -> Result<Self, KernelError> {
        Ok(Self { leaves_others: true, ..Self::open()? })
    }

    /// The network namespace.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// The link with that index, where one is given.
    fn link_at(&mut self, index: Option<u32>) -> Result<Option<Link>, KernelError> {
        match index {
            Some(index) => link::one(&mut self.route, Which::Index(index)),
            None => Ok(None),
        }
    }

    fn tap_view(&mut self, link: Option<Link>) -> Result<TapView, KernelError> {
        let master = self.link_at(link.as_ref().and_then(|link| link.master))?;
        Ok(TapView { link, master })
    }

    fn default_route_bridge(&mut self) -> Result<Option<Link>, KernelError> {
        for index in route::default_interfaces(&mut self.route)? {
            let found = link::one(&mut self.route, Which::Index(index))?;
            let bridge = found.filter(|link| matches!(link.kind, LinkKind::Bridge { .. }));
            if bridge.is_some() {
                return Ok(bridge);
            }
        }
        Ok(None)
    }

    /// The widest route of any table, host addresses among them (table local), that lies in the
    /// subnet and doesn't lead over the bridge itself.
    fn conflict(
        &mut self,
        subnet: Ipv4Net,
        bridge: Option<u32>,
    ) -> Result<Option<Route>, KernelError> {
        let found = route::list(&mut self.route, RtTable::Unspec, |route| {
            subnet.contains(&route.destination)
                && (route.interface.is_none() || route.interface != bridge)
        })?;
        let Some(route) = found.into_iter().min_by_key(|route| route.destination.prefix_len())
        else {
            return Ok(None);
        };
        let link = self.link_at(route.interface)?;
        Ok(Some(Route { destination: route.destination, interface: link.map(|link| link.name) }))
    }

    /// A bridge of the network's, whatever its name.
    fn namesake(&mut self, network: &NetworkName) -> Result<Option<String>, KernelError> {
        let known = std::slice::from_ref(network);
        let bridges = link::all_of_kind(&mut self.route, "bridge")?;
        let found = bridges
            .into_iter()
            .find(|link| owner_of(link, known).is_some_and(|mark| mark.network == *network));
        Ok(found.map(|link| link.name))
    }

    /// The same index at every build of a network, unless somebody has it.
    fn free_index(&mut self, network: &ManagedNetwork) -> Result<u32, KernelError> {
        let hash = Mac::of_bridge(&network.name).0;
        let start = u32::from_be_bytes([0, hash[3], hash[4], hash[5]]) % INDEXES;
        for offset in 0..INDEXES {
            let index = FIRST_INDEX + (start + offset) % INDEXES;
            if link::one(&mut self.route, Which::Index(index))?.is_none() {
                return Ok(index);
            }
        }
        let error = io::Error::from(Errno::ENOSPC);
        Err(KernelError::system("find a free interface index", error))
    }

    /// The interfaces of the default routes, the preferred one first.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    pub fn uplinks(&mut self) -> Result<Vec<InterfaceName>, KernelError> {
        let mut names = Vec::new();
        for index in route::default_interfaces(&mut self.route)? {
            let link = link::one(&mut self.route, Which::Index(index))?;
            let name = link.and_then(|link| InterfaceName::parse(link.name.as_ref()).ok());
            names.extend(name.filter(|name| !names.contains(name)));
        }
        Ok(names)
    }

    /// Interface by interface only where that is how the network wants it.
    fn forwarding(
        &mut self,
        network: &ManagedNetwork,
        bridge: Option<&Link>,
    ) -> Result<ForwardingView, KernelError> {
        if network.mode == Mode::Isolated {
            return Ok(ForwardingView::default());
        }
        let global = netconf::forwards_ipv4(&mut self.route)?;
        let mut interfaces_off = Vec::new();
        if !global && network.forwarding == Forwarding::Interfaces {
            let mut names = vec![network.bridge.clone()];
            names.extend(self.uplinks()?.into_iter().filter(|name| *name != network.bridge));
            for interface in names {
                let sysctl = Sysctl::ForwardInterface { interface: interface.clone() };
                // A bridge that is yet to be made takes the default, whatever that is.
                let is_new = interface == network.bridge && bridge.is_none();
                if !interfaces_off.contains(&interface) && (is_new || !sysctl::is_on(&sysctl)?) {
                    interfaces_off.push(interface);
                }
            }
        }
        Ok(ForwardingView { global, interfaces_off })
    }

    /// What is known of a bridge's zone without asking for it, by the tables that were looked at.
    pub(super) fn zone_view(&self, matters: bool) -> ZoneView {
        if matters && self.met_firewalld { ZoneView::Unasked } else { ZoneView::Absent }
    }
}

/// It takes another program.
fn unable(step: &Step) -> KernelError {
    KernelError::Refused { what: step.to_string(), errno: Errno::EOPNOTSUPP, message: None }
}

impl Kernel for System {
    type Lock = Lock;
    const HAS_IPTABLES: bool = false;

    fn leaves_something(&self) -> bool {
        (self.met_firewalld || self.met_legacy) && !self.leaves_others
    }

    fn lock(&mut self) -> Result<Lock, LockError> {
        Lock::acquire(self.namespace)
    }

    fn bridged_view(
        &mut self,
        tap: &InterfaceName,
        network: &BridgedNetwork,
    ) -> Result<BridgedView, KernelError> {
        let which = [Which::Name(tap.as_str()), Which::Name(network.bridge.as_str())];
        let [tap, named] = link::lookup(&mut self.route, which)?;
        let default_route = match &named {
            None if network.or_default_route => self.default_route_bridge()?,
            _ => None,
        };
        // Only frames that come to iptables can be dropped by it.
        let bridge = named.as_ref().or(default_route.as_ref());
        let is_filtered = sysctl::filters_frames(bridge)?;
        let has_zone = network.zone.is_some();
        let mut filters = if is_filtered || has_zone { self.filters()? } else { Vec::new() };
        if !is_filtered {
            filters.clear();
        }
        let zone = self.zone_view(has_zone);
        Ok(BridgedView { tap: self.tap_view(tap)?, named, filters, default_route, zone })
    }

    fn managed_view(
        &mut self,
        tap: Option<&InterfaceName>,
        network: &ManagedNetwork,
        table: Option<&Table>,
    ) -> Result<ManagedView, KernelError> {
        let wants_tap = tap.is_some();
        let bridge_name = Which::Name(network.bridge.as_str());
        let [tap, bridge] = match tap {
            Some(tap) => link::lookup(&mut self.route, [Which::Name(tap.as_str()), bridge_name])?,
            None => [None, link::one(&mut self.route, bridge_name)?],
        };
        let addresses = match &bridge {
            Some(bridge) => address::of_link(&mut self.route, bridge)?,
            None => Vec::new(),
        };
        let missing = network.mode.address().filter(|address| !addresses.contains(address));
        let conflict = match missing {
            Some(address) => {
                let bridge = bridge.as_ref().map(|bridge| bridge.index);
                self.conflict(address.trunc(), bridge)?
            }
            None => None,
        };
        let (free_index, namesake) = match bridge {
            Some(_) => (0, None),
            None => (self.free_index(network)?, self.namesake(&network.name)?),
        };
        let known = std::slice::from_ref(&network.name);
        let is_foreign = bridge.as_ref().is_some_and(|bridge| owner_of(bridge, known).is_none());
        let tap = self.tap_view(tap)?;
        // Where no rules are added, it doesn't matter whether the kernel knows any.
        let rules = if is_foreign || (wants_tap && tap.link.is_none()) {
            RulesView::none()
        } else {
            self.rules_view(network, table)?
        };
        let RulesView { table, mut other_tables, filters } = rules;
        if network.firewall != Firewall::Iptables {
            other_tables.extend(bridge.as_ref().and_then(|bridge| chains_of(bridge, known)));
        }
        let is_dropped = filters.iter().any(|filter| filter.drops);
        let ports = match &bridge {
            Some(bridge)
                if is_foreign
                    || runs_as_isolated(network, bridge, &addresses, table, &other_tables) =>
            {
                link::ports_of(&mut self.route, bridge)?
            }
            _ => Vec::new(),
        };
        Ok(ManagedView {
            tap,
            addresses,
            namesake,
            ports,
            conflict,
            free_index,
            table,
            other_tables,
            forwarding: self.forwarding(network, bridge.as_ref())?,
            uplinks: if is_dropped { self.uplinks()? } else { Vec::new() },
            bridge_netfilter: is_dropped && sysctl::filters_frames(bridge.as_ref())?,
            zone: self.zone_view(network.wanted_zone().is_some()),
            filters,
            bridge,
        })
    }

    fn release_view(
        &mut self,
        tap: Option<&InterfaceName>,
        known: &[NetworkName],
    ) -> Result<ReleaseView, KernelError> {
        self.release_view_with(tap, known, Vec::new())
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::Links(changes) => {
                let mut batch = self.route.batch();
                for change in changes {
                    link_change::push(&mut batch, change);
                }
                self.route.request(batch)
            }
            _ if step.is_of_iptables() => Err(unable(step)),
            Step::InstallTable { table, replace } => {
                nftables::install_table(self.netfilter()?, table, *replace)
            }
            Step::Accepts(change) => nftables::change_accepts(self.netfilter()?, change),
            Step::Zone(_) => Err(unable(step)),
            Step::DeleteTable(table) => nftables::delete_table(self.netfilter()?, table),
            Step::ForgetConnections(subnets) if self.tracks_connections()? => {
                conntrack::forget(self.netfilter()?, subnets)
            }
            Step::ForgetConnections(_) => Ok(()),
            Step::Sysctl(sysctl) => sysctl::write(sysctl),
        }
    }
}
