//! What holds without any configuration.

use std::ffi::OsStr;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::model::{BridgedNetwork, InterfaceName, ManagedNetwork, Mode, NetworkName};

const BRIDGE: &str = "br0";
const NETWORK: &str = "default";
const ADDRESS: (Ipv4Addr, u8) = (Ipv4Addr::new(192, 168, 100, 1), 24);

fn bridge() -> InterfaceName {
    InterfaceName::parse(OsStr::new(BRIDGE)).expect("the default is valid")
}

/// The name of the network that natup attaches to: `default`.
#[must_use]
pub fn default_name() -> NetworkName {
    NetworkName::parse(NETWORK).expect("the default is valid")
}

/// The network that natup attaches to: `default`, NAT for 192.168.100.0/24 on `br0`.
#[must_use]
pub fn default_nat() -> ManagedNetwork {
    let address = Ipv4Net::new_assert(ADDRESS.0, ADDRESS.1);
    ManagedNetwork::new(default_name(), bridge(), Mode::Nat(address))
}

/// What ifup attaches to: `br0`, or else the bridge that holds a default route.
#[must_use]
pub fn default_bridged() -> BridgedNetwork {
    BridgedNetwork { bridge: bridge(), or_default_route: true, zone: None }
}
