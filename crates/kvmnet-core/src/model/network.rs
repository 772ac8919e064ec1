//! What the administrator wants: the networks a tap can belong to.

use ipnet::Ipv4Net;

use super::{InterfaceName, NetworkName, TableId};

/// A network a tap can belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// kvmnet builds and removes it.
    Nat(NatNetwork),
    /// The administrator's own bridge.
    Bridged(BridgedNetwork),
}

/// A network that kvmnet builds with its first guest and removes with its last: a bridge with the
/// host's address, forwarding, and masquerade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatNetwork {
    /// The network's name, which its bridge carries as a mark.
    pub name: NetworkName,
    /// The bridge's name.
    pub bridge: InterfaceName,
    /// The host's address on the bridge, with the length of the subnet's prefix.
    pub address: Ipv4Net,
}

impl NatNetwork {
    /// The nftables table that holds this network's rules.
    #[must_use]
    pub fn table(&self) -> TableId {
        TableId::of_network(&self.name)
    }
}

/// A bridge that is the administrator's, used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgedNetwork {
    /// The bridge's name.
    pub bridge: InterfaceName,
    /// Where no interface has that name: whether the bridge that holds a default route is taken, as
    /// Debian's stock `/etc/qemu-ifup` does.
    pub or_default_route: bool,
}
