//! Looking at the whole host, for `kvmnet status` and `kvmnet check`.

use neli::consts::rtnl::RtTable;
use nix::errno::Errno;

use super::link;
use super::nftables::FoundTable;
use super::rules_view::LEGACY_FILTERS;
use super::socket::Socket;
use super::{KernelError, System, address, netconf, nftables, route, sysctl};
use crate::model::{
    ForwardChain, HostForwarding, HostRoute, HostView, InterfaceName, Link, LinkKind, RulesState,
    Sysctl, Table, TableId, TableState,
};

impl System {
    /// Looks at the whole host.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer. What it doesn't let this process see is no
    /// error.
    pub fn host_view(&mut self) -> Result<HostView, KernelError> {
        let links = link::all(&mut self.route)?;
        let routes = route::list(&mut self.route, RtTable::Unspec, |_| true)?;
        let uplinks = route::default_interfaces(&mut self.route)?;
        let tables = permitted(self.tables())?;
        let (dropping_chains, filters) = match &tables {
            Some(tables) => (
                Some(self.dropping_chains(tables)?),
                Some(self.filters_of(tables, LEGACY_FILTERS)?),
            ),
            None => (None, None),
        };
        let name_of = |index: &u32| links.iter().find(|link| link.index == *index);
        Ok(HostView {
            addresses: address::all(&mut self.route)?,
            routes: routes
                .into_iter()
                .map(|route| HostRoute {
                    destination: route.destination,
                    interface: route.interface,
                })
                .collect(),
            uplinks: uplinks.iter().filter_map(name_of).map(|link| link.name.clone()).collect(),
            tables: tables.map(|tables| {
                tables.into_iter().map(|table| table.id).filter(TableId::is_reserved).collect()
            }),
            dropping_chains,
            filters,
            legacy_unread: None,
            forwarding: forwarding(&mut self.route, &links)?,
            bridge_netfilter: sysctl::bridge_netfilter()?,
            links,
        })
    }

    /// Whether frames that go from port to port of this bridge come to iptables, IPv4 or IPv6; none:
    /// of one that is yet to be made.
    ///
    /// # Errors
    /// [`KernelError`] where the settings can't be read.
    pub fn filters_frames(&self, bridge: Option<&Link>) -> Result<bool, KernelError> {
        sysctl::filters_frames(bridge)
    }

    /// A host without nf_tables has none.
    fn dropping_chains(&mut self, tables: &[FoundTable]) -> Result<Vec<ForwardChain>, KernelError> {
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        nftables::dropping_chains(self.netfilter()?)
    }

    /// Compares the table of a network that is up with what it should be; none: it should have
    /// none of kvmnet's.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    pub fn rules_state(&mut self, wanted: Option<&Table>) -> Result<RulesState, KernelError> {
        let Some(table) = wanted else {
            return Ok(RulesState::NotOurs);
        };
        let state = self
            .tables()
            .and_then(|tables| nftables::table_state(self.netfilter()?, table, &tables));
        match permitted(state) {
            Err(KernelError::NoNftables) => Ok(RulesState::Missing),
            Err(error) => Err(error),
            Ok(None) => Ok(RulesState::Unknown),
            Ok(Some(TableState::Absent)) => Ok(RulesState::Missing),
            Ok(Some(TableState::AsWanted)) => Ok(RulesState::InPlace),
            Ok(Some(TableState::Different)) => Ok(RulesState::Changed),
        }
    }
}

/// None where the kernel doesn't let this process look.
fn permitted<T>(answer: Result<T, KernelError>) -> Result<Option<T>, KernelError> {
    match answer {
        Err(error) if matches!(error.errno(), Some(Errno::EPERM | Errno::EACCES)) => Ok(None),
        answer => answer.map(Some),
    }
}

fn forwarding(socket: &mut Socket, links: &[Link]) -> Result<HostForwarding, KernelError> {
    let global = netconf::forwards_ipv4(socket)?;
    let mut bridges = Vec::new();
    for link in links.iter().filter(|link| matches!(link.kind, LinkKind::Bridge { .. })) {
        let interface = InterfaceName::parse(link.name.as_ref()).ok();
        // One that has just gone, or is named like a directory, forwards nothing that matters.
        let is_on = interface.is_some_and(|interface| {
            sysctl::is_on(&Sysctl::ForwardInterface { interface }).unwrap_or(false)
        });
        bridges.extend(is_on.then(|| link.name.clone()));
    }
    Ok(HostForwarding { global, bridges })
}
