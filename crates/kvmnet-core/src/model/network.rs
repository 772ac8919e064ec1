//! What the administrator wants: the networks a tap can belong to.

use std::fmt;

use ipnet::Ipv4Net;

use super::{InterfaceName, NetworkName, TableId, ZoneName};

/// A network a tap can belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// kvmnet builds and removes it.
    Managed(ManagedNetwork),
    /// The administrator's own bridge.
    Bridged(BridgedNetwork),
}

impl Network {
    /// The bridge's name.
    #[must_use]
    pub fn bridge(&self) -> &InterfaceName {
        match self {
            Self::Managed(managed) => &managed.bridge,
            Self::Bridged(bridged) => &bridged.bridge,
        }
    }

    /// The subnet, where kvmnet gives the host an address in it.
    #[must_use]
    pub fn subnet(&self) -> Option<Ipv4Net> {
        match self {
            Self::Managed(managed) => managed.mode.address().map(|address| address.trunc()),
            Self::Bridged(_) => None,
        }
    }
}

/// A network that kvmnet builds with its first guest and removes with its last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedNetwork {
    /// The network's name, which its bridge carries as a mark.
    pub name: NetworkName,
    /// The bridge's name.
    pub bridge: InterfaceName,
    /// What its guests can reach, and how.
    pub mode: Mode,
    /// MTU of bridge and taps, in bytes; the kernel's own default where none is given.
    pub mtu: Option<u32>,
    /// Who makes the rules.
    pub firewall: Firewall,
    /// How far forwarding may be turned on.
    pub forwarding: Forwarding,
    /// The zone of firewalld's that its file names, if it does.
    pub zone: Option<ZoneName>,
}

impl ManagedNetwork {
    /// A network with nothing but name, bridge and mode chosen.
    #[must_use]
    pub fn new(name: NetworkName, bridge: InterfaceName, mode: Mode) -> Self {
        Self {
            name,
            bridge,
            mode,
            mtu: None,
            firewall: Firewall::default(),
            forwarding: Forwarding::default(),
            zone: None,
        }
    }

    /// The zone of firewalld's that its bridge is to be in, if any: where the rules are the
    /// administrator's, so are the zones, unless the file names one.
    #[must_use]
    pub fn wanted_zone(&self) -> Option<ZoneName> {
        match (&self.zone, self.firewall, self.mode) {
            (Some(zone), ..) => Some(zone.clone()),
            (None, Firewall::None, _) => None,
            (None, _, Mode::Routed(_)) => Some(ZoneName::of_routed()),
            (None, _, Mode::Nat(_) | Mode::Isolated) => Some(ZoneName::of_closed()),
        }
    }

    /// What holds this network's rules: an nftables table, or chains of iptables.
    #[must_use]
    pub fn table(&self) -> TableId {
        let family = match self.mode {
            _ if self.firewall == Firewall::Iptables => return TableId::in_iptables(&self.name),
            Mode::Nat(_) | Mode::Routed(_) => libc::NFPROTO_IPV4,
            Mode::Isolated => libc::NFPROTO_NETDEV,
        };
        TableId::of_network(family as u8, &self.name)
    }
}

/// What guests of a network that kvmnet builds can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Everything, with the host's address in place of theirs. The host's address on the bridge,
    /// with the length of the subnet's prefix.
    Nat(Ipv4Net),
    /// Everything, with their own addresses.
    Routed(Ipv4Net),
    /// Each other.
    Isolated,
}

impl Mode {
    /// The host's address on the bridge, where it has one.
    #[must_use]
    pub fn address(self) -> Option<Ipv4Net> {
        match self {
            Self::Nat(address) | Self::Routed(address) => Some(address),
            Self::Isolated => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat(_) => "nat",
            Self::Routed(_) => "routed",
            Self::Isolated => "isolated",
        })
    }
}

/// Who makes a network's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Firewall {
    /// kvmnet, in nftables tables of its own, or in iptables where the kernel has no nf_tables.
    #[default]
    Auto,
    /// kvmnet, in nftables tables of its own.
    Nftables,
    /// kvmnet, in chains of its own in the tables of iptables.
    Iptables,
    /// The administrator.
    None,
}

/// How far kvmnet may turn on the forwarding of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forwarding {
    /// For the whole host: `net.ipv4.ip_forward`.
    #[default]
    Global,
    /// On the bridge and on the interfaces that default routes lead over.
    Interfaces,
    /// Not at all: the start is refused where it is off.
    Never,
}

/// A bridge that is the administrator's, used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgedNetwork {
    /// The bridge's name.
    pub bridge: InterfaceName,
    /// Where no interface has that name: whether the bridge that holds a default route is taken, as
    /// Debian's stock `/etc/qemu-ifup` does.
    pub or_default_route: bool,
    /// The zone of firewalld's that its file names, if it does; without that the bridge stays where
    /// the administrator has it.
    pub zone: Option<ZoneName>,
}
