//! What one run looks at before it decides: a snapshot for each verb.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{FilterView, Firewall, InterfaceName, Link, ManagedNetwork, Mode, TableId, ZoneView};

/// A tap and what it is a port of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TapView {
    /// The interface that the given name led to.
    pub link: Option<Link>,
    /// Its master, where it has one.
    pub master: Option<Link>,
}

/// A route of the host that lies in a network's subnet, host addresses included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where it leads to.
    pub destination: Ipv4Net,
    /// Over which interface, where it names one.
    pub interface: Option<String>,
}

/// How a network's nftables table compares with the one it should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableState {
    /// There is none.
    Absent,
    /// Chains and rules are exactly the wanted ones.
    AsWanted,
    /// There is one by that name with other content.
    Different,
}

/// What attaching to the administrator's bridge looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BridgedView {
    /// The tap.
    pub tap: TapView,
    /// The interface by the bridge's name.
    pub named: Option<Link>,
    /// What filters frames that go from port to port; looked at only where br_netfilter has them
    /// filtered.
    pub filters: Vec<FilterView>,
    /// The bridge that holds the default route of lowest metric among those over bridges; looked
    /// for only where it is wanted and `named` is none.
    pub default_route: Option<Link>,
    /// Its zone; asked for only where the network names one.
    pub zone: ZoneView,
}

/// What forwards IPv4.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ForwardingView {
    /// `net.ipv4.ip_forward`.
    pub global: bool,
    /// Of the interfaces that matter, those that don't forward; looked at only where forwarding is
    /// to be turned on interface by interface.
    pub interfaces_off: Vec<InterfaceName>,
}

/// What building a network, and attaching to it, looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ManagedView {
    /// The tap, where one is to be attached.
    pub tap: TapView,
    /// The interface by the bridge's name.
    pub bridge: Option<Link>,
    /// A bridge of this network by another name; looked for only where there is none by the right
    /// one.
    pub namesake: Option<String>,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
    /// Its ports; read only where it isn't kvmnet's, or [`runs_as_isolated`] and the network is to
    /// have another mode.
    pub ports: Vec<Link>,
    /// A route equal to the subnet or inside it that doesn't lead over the bridge, the widest where
    /// there are several; looked for only where the bridge hasn't got the network's address yet.
    pub conflict: Option<Route>,
    /// An interface index that nobody has; looked for only where there is no bridge.
    pub free_index: u32,
    /// The network's nftables table; `AsWanted` where it should have none.
    pub table: TableState,
    /// Tables of the network that it should not have: it had another mode, or its rules became the
    /// administrator's.
    pub other_tables: Vec<TableId>,
    /// What forwards.
    pub forwarding: ForwardingView,
    /// What filters forwarded packets, of the firewalls that leave room for rules of ours.
    pub filters: Vec<FilterView>,
    /// The interfaces of the main table's default routes; looked for only where a filter drops.
    pub uplinks: Vec<InterfaceName>,
    /// Whether frames from port to port are filtered, too; looked at only where a filter drops.
    pub bridge_netfilter: bool,
    /// The bridge's zone, whether there is a bridge or not.
    pub zone: ZoneView,
}

/// Whether a bridge of ours shows that it runs as isolated, where `network` is to have another mode:
/// by the table that is an isolated network's in place of its own (one beside that is a stray), or
/// by having neither ARP nor an address.
#[must_use]
pub fn runs_as_isolated(
    network: &ManagedNetwork,
    bridge: &Link,
    addresses: &[Ipv4Net],
    table: TableState,
    other_tables: &[TableId],
) -> bool {
    let isolated =
        ManagedNetwork { mode: Mode::Isolated, firewall: Firewall::Nftables, ..network.clone() };
    network.mode != Mode::Isolated
        && (table == TableState::Absent && other_tables.contains(&isolated.table())
            || bridge.noarp && addresses.is_empty())
}

/// A bridge with its ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BridgeView {
    /// The bridge.
    pub link: Link,
    /// Its ports; read where it is kvmnet's, or rules of ours in another firewall speak of it. Where a
    /// tap is to be released, no more of them than show that another guest's stays.
    pub ports: Vec<Link>,
    /// Its IPv4 addresses; read where it isn't kvmnet's and the tap leaves it, and, where connections
    /// are tracked, of one of kvmnet's that the tap leaves or nobody uses.
    pub addresses: Vec<Ipv4Net>,
    /// Its zone; asked for only of a bridge of kvmnet's.
    pub zone: ZoneView,
}

impl BridgeView {
    /// The ports, but for the one that leaves, that keep a network alive: of those that were read.
    pub fn users(&self, leaving: Option<u32>) -> impl Iterator<Item = &Link> {
        self.ports.iter().filter(move |port| Some(port.index) != leaving && port.keeps_alive())
    }
}

/// What releasing a tap, and clearing away what nobody uses, looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReleaseView {
    /// The interface that the tap's name led to, where a tap is to be released.
    pub tap: Option<Link>,
    /// The bridge it is a port of, every bridge of kvmnet's, and those that rules of ours in
    /// another firewall speak of.
    pub bridges: Vec<BridgeView>,
    /// Every nftables table with a name that kvmnet reserves.
    pub tables: Vec<TableId>,
    /// The filters that may hold rules of ours.
    pub filters: Vec<FilterView>,
    /// The IPv4 addresses of the guest behind the tap, as the bridge and the host have learnt them;
    /// looked for only where connections are tracked and the network stays.
    pub guest: Vec<Ipv4Addr>,
}
