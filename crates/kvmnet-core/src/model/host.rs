//! The whole host at a glance, for whoever wants to see rather than to change.

use ipnet::Ipv4Net;

use super::{
    FILTER, FORWARD, FilterView, InterfaceName, Link, Mark, NetworkName, TableId, Variant, owner_of,
};

/// What an administrator's look at the host sees. It is taken without the lock, so runs that are
/// under way show as far as they have come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostView {
    /// All interfaces.
    pub links: Vec<Link>,
    /// All IPv4 addresses, with the index of the interface that carries each.
    pub addresses: Vec<(u32, Ipv4Net)>,
    /// All IPv4 routes, host addresses among them (table local).
    pub routes: Vec<HostRoute>,
    /// The interfaces of the main table's default routes, that of the lowest metric first.
    pub uplinks: Vec<String>,
    /// The nftables tables with names that kvmnet reserves; none where the kernel doesn't let this
    /// process look.
    pub tables: Option<Vec<TableId>>,
    /// What filters forwarded packets and lets through only what it names; none where the kernel
    /// doesn't let this process look.
    pub dropping_chains: Option<Vec<ForwardChain>>,
    /// The filters that may hold rules of kvmnet's; none where the kernel doesn't let this process
    /// look.
    pub filters: Option<Vec<FilterView>>,
    /// Why the filter of iptables-legacy, which is in use, could not be looked at.
    pub legacy_unread: Option<String>,
    /// What forwards IPv4.
    pub forwarding: HostForwarding,
    /// Whether IPv4 frames that a bridge passes on go through the host's iptables and nftables
    /// (`net.bridge.bridge-nf-call-iptables`); none where br_netfilter isn't loaded.
    pub bridge_netfilter: Option<bool>,
}

/// What forwards IPv4.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostForwarding {
    /// `net.ipv4.ip_forward`.
    pub global: bool,
    /// The bridges that forward (`net.ipv4.conf.*.forwarding`).
    pub bridges: Vec<String>,
}

/// A base chain that filters forwarded packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardChain {
    /// Where its table is.
    pub variant: Variant,
    /// Its table.
    pub table: TableId,
    /// Its name.
    pub chain: String,
    /// Whether it is its policy that drops; else its last rule drops or rejects all that is left.
    pub by_policy: bool,
}

impl ForwardChain {
    /// Whether it is iptables' own `FORWARD`, of either variant, where kvmnet adds its rules by itself.
    #[must_use]
    pub fn is_iptables(&self) -> bool {
        let is_ip =
            [libc::NFPROTO_IPV4, libc::NFPROTO_IPV6].contains(&i32::from(self.table.family));
        is_ip && self.table.name == FILTER && self.chain == FORWARD
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// Where it leads to.
    pub destination: Ipv4Net,
    /// The index of the interface that it leads over, where it names one.
    pub interface: Option<u32>,
}

/// How a network's rules compare with what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulesState {
    /// Exactly as they should be.
    InPlace,
    /// There are none.
    Missing,
    /// There are others.
    Changed,
    /// The kernel doesn't let this process look.
    Unknown,
    /// kvmnet makes none for this network.
    NotOurs,
}

impl HostView {
    /// The interface of that name.
    #[must_use]
    pub fn link(&self, name: &InterfaceName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name.as_str())
    }

    /// The name of the interface with that index.
    #[must_use]
    pub fn name_of(&self, index: u32) -> Option<&str> {
        self.links.iter().find(|link| link.index == index).map(|link| link.name.as_str())
    }

    /// The IPv4 addresses of an interface.
    #[must_use]
    pub fn addresses_of(&self, link: &Link) -> Vec<Ipv4Net> {
        let its_own = self.addresses.iter().filter(|(index, _)| *index == link.index);
        its_own.map(|(_, address)| *address).collect()
    }

    /// The ports of a bridge, in the order of their names.
    #[must_use]
    pub fn ports_of(&self, bridge: &Link) -> Vec<&Link> {
        let is_port = |link: &&Link| link.master == Some(bridge.index);
        let mut ports: Vec<&Link> = self.links.iter().filter(is_port).collect();
        ports.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        ports
    }

    /// Whether a bridge of that name has guests: taps that some program holds.
    #[must_use]
    pub fn has_guests(&self, bridge: &InterfaceName) -> bool {
        let ports = self.link(bridge).map(|bridge| self.ports_of(bridge)).unwrap_or_default();
        ports.iter().any(|port| port.is_guest_besides(None))
    }

    /// kvmnet's bridges, and whose each is.
    pub fn own_bridges(&self, known: &[NetworkName]) -> impl Iterator<Item = (&Link, Mark)> {
        self.links.iter().filter_map(|link| Some((link, owner_of(link, known)?)))
    }
}
