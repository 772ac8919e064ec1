//! Why a run changes nothing: the object, the cause and the remedy, in one line.

use ipnet::Ipv4Net;
use thiserror::Error;

use crate::config::default_name;
use crate::model::{InterfaceName, Link, LinkKind, Mode, NetworkName, Route};

/// A run that was refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No interface has the tap's name.
    #[error(
        "{0}: there is no such interface; QEMU makes the tap before it runs its script: \
         compare ifname= of -netdev tap"
    )]
    NoSuchInterface(InterfaceName),
    /// The name is an alternative name (`ip link property add … altname`).
    #[error("{name}: is an alternative name of {real}; give the interface's own name")]
    AlternativeName {
        /// The name that was given.
        name: InterfaceName,
        /// The interface's name.
        real: String,
    },
    /// Something that is no tap.
    #[error(
        "{name}: is not a tap but {kind}; give the name of a tap, as -netdev tap,ifname= makes it"
    )]
    NotATap {
        /// The name that was given.
        name: InterfaceName,
        /// What it is.
        kind: String,
    },
    /// A port of another bridge.
    #[error("{tap}: is a port of {master} already; release it first: {release}")]
    PortOfAnother {
        /// The tap.
        tap: InterfaceName,
        /// What it is a port of.
        master: String,
        /// The command that releases it.
        release: String,
    },
    /// The bridge's name is taken by something else.
    #[error("{name}: is not a bridge but {kind}; rename it, so that a bridge can have this name")]
    NotABridge {
        /// The bridge's name.
        name: InterfaceName,
        /// What it is.
        kind: String,
    },
    /// No bridge by that name, and no other to take.
    #[error(
        "{bridge}: there is no such bridge, and no default route leads over a bridge; make one: \
         ip link add {bridge} type bridge && ip link set {bridge} up"
    )]
    NoBridge {
        /// The bridge's name.
        bridge: InterfaceName,
    },
    /// No bridge by the name that the network's file gives.
    #[error(
        "{bridge}: there is no such bridge; make one: ip link add {bridge} type bridge && \
         ip link set {bridge} up"
    )]
    NoSuchBridge {
        /// The bridge's name.
        bridge: InterfaceName,
    },
    /// The bridge was built for another network.
    #[error(
        "{bridge}: belongs to kvmnet's network {other}, not to {network}; give network {network} \
         another: bridge = \"NAME\" in /etc/kvmnet/{network}.toml"
    )]
    BridgeOfAnother {
        /// The bridge.
        bridge: InterfaceName,
        /// The network that was asked for.
        network: NetworkName,
        /// The network whose bridge it is.
        other: NetworkName,
    },
    /// A bridge of the administrator's where a network is to be built: its guests must never land on
    /// the LAN.
    #[error(
        "{bridge}: is not kvmnet's and carries {}; {}, or give network {network} another: \
         bridge = \"NAME\" in /etc/kvmnet/{network}.toml",
        list(addresses),
        way_onto_the_bridge(network)
    )]
    ForeignBridge {
        /// The bridge.
        bridge: InterfaceName,
        /// Its IPv4 addresses.
        addresses: Vec<Ipv4Net>,
        /// The network that was asked for.
        network: NetworkName,
    },
    /// A bridge that has the network's address, but isn't one of taps alone.
    #[error(
        "{bridge}: is not kvmnet's and has the port {port}, which is no tap: a guest of network \
         {network} would land on that network; {}, or give network {network} another: \
         bridge = \"NAME\" in /etc/kvmnet/{network}.toml",
        way_onto_the_bridge(network)
    )]
    LeadsElsewhere {
        /// The bridge.
        bridge: InterfaceName,
        /// The port.
        port: String,
        /// The network that was asked for.
        network: NetworkName,
    },
    /// The network runs on a bridge of another name: that was renamed, or the file has changed.
    #[error(
        "{network}: runs on the bridge {found}, not on {bridge}; rename it: ip link set {found} \
         name {bridge}, or stop the guests of network {network} first"
    )]
    RunsElsewhere {
        /// The network.
        network: NetworkName,
        /// The name that its bridge should have.
        bridge: InterfaceName,
        /// The name that it has.
        found: String,
    },
    /// The network runs with another address: its file has changed.
    #[error(
        "{bridge}: carries {}, but the address of network {network} is {address}; stop the guests \
         of network {network} first, or take the other away: ip address flush dev {bridge}",
        list(addresses)
    )]
    HasAnotherAddress {
        /// The bridge.
        bridge: InterfaceName,
        /// Its IPv4 addresses.
        addresses: Vec<Ipv4Net>,
        /// The network.
        network: NetworkName,
        /// The address that it should have.
        address: Ipv4Net,
    },
    /// The host uses addresses of the subnet elsewhere.
    #[error(
        "{subnet}: network {network} needs this subnet, but the host has a route to {}{}; \
         choose another: address = \"ADDRESS/LENGTH\" in \
         /etc/kvmnet/{network}.toml",
        route.destination,
        over(route)
    )]
    SubnetInUse {
        /// The network's subnet.
        subnet: Ipv4Net,
        /// The network.
        network: NetworkName,
        /// The first route in the way.
        route: Route,
    },
    /// The bridge of an isolated network has an address, by which guests would reach the host.
    #[error(
        "{bridge}: carries {}, but the bridge of an isolated network has no address; take it away: \
         ip address flush dev {bridge}, or stop the guests of network {network} first",
        list(addresses)
    )]
    CarriesAddress {
        /// The bridge.
        bridge: InterfaceName,
        /// Its IPv4 addresses.
        addresses: Vec<Ipv4Net>,
        /// The network.
        network: NetworkName,
    },
    /// A network is to be pinned, but its bridge's alias is the administrator's.
    #[error(
        "{bridge}: has the alias {alias:?}, which leaves no room for kvmnet's mark; \
         take the alias away: ip link set {bridge} alias \"\""
    )]
    AliasInTheWay {
        /// The bridge.
        bridge: InterfaceName,
        /// Its alias.
        alias: String,
    },
    /// The network runs as isolated: its file has changed, and another mode would let its guests out.
    #[error(
        "{bridge}: network {network} runs on it as isolated, but its file says {mode}; stop the \
         guests of network {network} first, then start them anew"
    )]
    RunsAsIsolated {
        /// The bridge.
        bridge: InterfaceName,
        /// The network.
        network: NetworkName,
        /// The mode that it should have.
        mode: Mode,
    },
    /// The host doesn't forward, and kvmnet may not change that.
    #[error(
        "{network}: the host doesn't forward IPv4, and forwarding = \"never\" forbids turning it \
         on; do so yourself: sysctl -w net.ipv4.ip_forward=1"
    )]
    ForwardingIsOff {
        /// The network.
        network: NetworkName,
    },
    /// The tap is a port of a bridge that isn't kvmnet's, and its release isn't natdown's to make.
    #[error(
        "{tap}: is a port of {master}, which is not kvmnet's; release it with kvmnet-ifdown {tap}"
    )]
    PortOfForeign {
        /// The tap.
        tap: InterfaceName,
        /// What it is a port of.
        master: String,
    },
    /// The tap's master is a bond, a VRF or the like.
    #[error("{tap}: its master {master} is not a bridge; release it first: {release}")]
    MasterNotABridge {
        /// The tap.
        tap: InterfaceName,
        /// What it is a port of.
        master: String,
        /// The command that releases it.
        release: String,
    },
}

/// The command by which a tap gets off what it is a port of. The kernel lets nobody but Open vSwitch take a
/// port from a datapath.
pub(super) fn release_from(master: Option<&Link>, tap: &InterfaceName) -> String {
    match master.map(|master| &master.kind) {
        Some(LinkKind::Other(kind)) if kind == "openvswitch" => format!("ovs-vsctl del-port {tap}"),
        _ => format!("ip link set {tap} nomaster"),
    }
}

/// Left to itself kvmnet-ifup takes the bridge where kvmnet-natup builds the default network. Of a
/// network that was chosen either program makes the same, and so it is for its file to say.
fn way_onto_the_bridge(network: &NetworkName) -> String {
    if *network == default_name() {
        "use kvmnet-ifup for a guest on this bridge".to_owned()
    } else {
        format!("for a guest on this bridge write mode = \"bridged\" in /etc/kvmnet/{network}.toml")
    }
}

fn list(addresses: &[Ipv4Net]) -> String {
    if addresses.is_empty() {
        return "no IPv4 address".to_owned();
    }
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

fn over(route: &Route) -> String {
    match &route.interface {
        Some(interface) => format!(" over {interface}"),
        None => String::new(),
    }
}
