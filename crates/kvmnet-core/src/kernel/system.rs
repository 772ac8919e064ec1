//! The real kernel.

use std::io;

use neli::consts::rtnl::RtTable;
use neli::consts::socket::NlFamily;
use nix::errno::Errno;

use super::link::{self, Which};
use super::route;
use super::socket::Socket;
use super::{Kernel, KernelError, address, link_change, nftables, sysctl};
use crate::lock::{Lock, LockError};
use crate::model::{
    BridgeView, BridgedNetwork, BridgedView, InterfaceName, Link, LinkKind, Mac, NatNetwork,
    NatView, NetworkName, ReleaseView, Route, Step, Table, TableId, TableState, TapView, owner_of,
};

/// Where kvmnet's interface indexes begin: far above what the kernel counts up to by itself.
const FIRST_INDEX: u32 = 1_000_000;
const INDEXES: u32 = 1_000_000;

/// The network namespace that the process is in.
///
/// Fields are dropped in order: closing the netfilter socket waits for what was deleted from
/// nf_tables, and so comes last, when the bridge's deletion has waited already.
pub struct System {
    route: Socket,
    netfilter: Option<Socket>,
}

impl System {
    /// Opens the network namespace that the process is in.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel has no rtnetlink to offer.
    pub fn open() -> Result<Self, KernelError> {
        let route = Socket::open(NlFamily::Route)
            .map_err(|error| KernelError::system("open a rtnetlink socket", error))?;
        Ok(Self { route, netfilter: None })
    }

    fn netfilter(&mut self) -> Result<&mut Socket, KernelError> {
        match &mut self.netfilter {
            Some(socket) => Ok(socket),
            empty => {
                let socket = Socket::open(NlFamily::Netfilter).map_err(|error| {
                    match error.raw_os_error().map(Errno::from_raw) {
                        Some(Errno::EPROTONOSUPPORT) => KernelError::NoNftables,
                        _ => KernelError::system("open a netfilter socket", error),
                    }
                })?;
                Ok(empty.insert(socket))
            }
        }
    }

    fn tap_view(&mut self, link: Option<Link>) -> Result<TapView, KernelError> {
        let master = match link.as_ref().and_then(|link| link.master) {
            Some(index) => {
                let [master] = link::lookup(&mut self.route, [Which::Index(index)])?;
                master.map(|master| master.name)
            }
            None => None,
        };
        Ok(TapView { link, master })
    }

    fn default_route_bridge(&mut self) -> Result<Option<Link>, KernelError> {
        for index in route::default_interfaces(&mut self.route)? {
            let [found] = link::lookup(&mut self.route, [Which::Index(index)])?;
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
        network: &NatNetwork,
        bridge: Option<u32>,
    ) -> Result<Option<Route>, KernelError> {
        let subnet = network.address.trunc();
        let found = route::list(&mut self.route, RtTable::Unspec, |route| {
            subnet.contains(&route.destination)
                && (route.interface.is_none() || route.interface != bridge)
        })?;
        let Some(route) = found.into_iter().min_by_key(|route| route.destination.prefix_len())
        else {
            return Ok(None);
        };
        let interface = match route.interface {
            Some(index) => {
                let [link] = link::lookup(&mut self.route, [Which::Index(index)])?;
                link.map(|link| link.name)
            }
            None => None,
        };
        Ok(Some(Route { destination: route.destination, interface }))
    }

    /// The same index at every build of a network, unless somebody has it.
    fn free_index(&mut self, network: &NatNetwork) -> Result<u32, KernelError> {
        let hash = Mac::of_bridge(&network.name).0;
        let start = u32::from_be_bytes([0, hash[3], hash[4], hash[5]]) % INDEXES;
        for offset in 0..INDEXES {
            let index = FIRST_INDEX + (start + offset) % INDEXES;
            let [taken] = link::lookup(&mut self.route, [Which::Index(index)])?;
            if taken.is_none() {
                return Ok(index);
            }
        }
        let error = io::Error::from(Errno::ENOSPC);
        Err(KernelError::system("find a free interface index", error))
    }

    fn table_state(&mut self, table: &Table) -> Result<TableState, KernelError> {
        let socket = self.netfilter()?;
        nftables::table_state(socket, table).map_err(without_nftables)
    }

    /// A host without nf_tables has no tables.
    fn reserved_tables(&mut self) -> Result<Vec<TableId>, KernelError> {
        let tables = self
            .netfilter()
            .and_then(|socket| nftables::reserved_tables(socket).map_err(without_nftables));
        match tables {
            Err(KernelError::NoNftables) => Ok(Vec::new()),
            tables => tables,
        }
    }

    /// The ports of these bridges. The kernel goes through all links for every question, so that
    /// more than one bridge is best asked for at once.
    fn ports(&mut self, bridges: &[Link]) -> Result<Vec<Link>, KernelError> {
        match bridges {
            [] => Ok(Vec::new()),
            [bridge] => link::ports_of(&mut self.route, bridge),
            _ => link::all(&mut self.route),
        }
    }

    /// The bridge that the tap is a port of, and every bridge of ours, with their ports.
    fn bridges(
        &mut self,
        master: Option<u32>,
        known: &[NetworkName],
    ) -> Result<Vec<BridgeView>, KernelError> {
        let mut bridges = link::all_of_kind(&mut self.route, "bridge")?;
        bridges.retain(|bridge| Some(bridge.index) == master || owner_of(bridge, known).is_some());
        let found = |index| bridges.iter().any(|bridge| bridge.index == index);
        if let Some(index) = master.filter(|&index| !found(index)) {
            // Not a bridge: a bond or a VRF, say.
            let [link] = link::lookup(&mut self.route, [Which::Index(index)])?;
            bridges.extend(link);
        }
        let mut ports = self.ports(&bridges)?;
        let mut views = Vec::new();
        for link in bridges {
            let (its_own, others) =
                ports.into_iter().partition(|port| port.master == Some(link.index));
            ports = others;
            let addresses = match owner_of(&link, known) {
                Some(_) => Vec::new(),
                None => address::of_link(&mut self.route, &link)?,
            };
            views.push(BridgeView { link, ports: its_own, addresses });
        }
        Ok(views)
    }
}

/// What the kernel says to nf_tables messages when it has none.
fn without_nftables(error: KernelError) -> KernelError {
    match error.errno() {
        Some(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT) => KernelError::NoNftables,
        _ => error,
    }
}

impl Kernel for System {
    type Lock = Lock;

    fn lock(&mut self) -> Result<Lock, LockError> {
        Lock::acquire()
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
        Ok(BridgedView { tap: self.tap_view(tap)?, named, default_route })
    }

    fn nat_view(
        &mut self,
        tap: &InterfaceName,
        network: &NatNetwork,
        table: &Table,
    ) -> Result<NatView, KernelError> {
        let which = [Which::Name(tap.as_str()), Which::Name(network.bridge.as_str())];
        let [tap, bridge] = link::lookup(&mut self.route, which)?;
        let addresses = match &bridge {
            Some(bridge) => address::of_link(&mut self.route, bridge)?,
            None => Vec::new(),
        };
        let conflict = if addresses.contains(&network.address) {
            None
        } else {
            self.conflict(network, bridge.as_ref().map(|bridge| bridge.index))?
        };
        let free_index = match bridge {
            Some(_) => 0,
            None => self.free_index(network)?,
        };
        Ok(NatView {
            tap: self.tap_view(tap)?,
            bridge,
            addresses,
            conflict,
            free_index,
            table: self.table_state(table)?,
            ip_forward: sysctl::forwards_ipv4()?,
        })
    }

    fn release_view(
        &mut self,
        tap: Option<&InterfaceName>,
        known: &[NetworkName],
    ) -> Result<ReleaseView, KernelError> {
        let tap = match tap {
            Some(tap) => {
                let [link] = link::lookup(&mut self.route, [Which::Name(tap.as_str())])?;
                link
            }
            None => None,
        };
        let master = tap.as_ref().and_then(|link| link.master);
        Ok(ReleaseView {
            bridges: self.bridges(master, known)?,
            tables: self.reserved_tables()?,
            tap,
        })
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::Links(changes) => {
                let mut batch = self.route.batch();
                for change in changes {
                    link_change::push(&mut batch, change);
                }
                self.route.request(batch, |_, _| {})
            }
            Step::InstallTable { table, replace } => {
                nftables::install_table(self.netfilter()?, table, *replace)
            }
            Step::DeleteTable(table) => nftables::delete_table(self.netfilter()?, table),
            Step::Sysctl(sysctl) => sysctl::write(sysctl),
        }
    }
}
