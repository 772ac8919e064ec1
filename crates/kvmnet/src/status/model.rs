//! What `kvmnet status --json` prints. `docs/status.schema.json` describes it; within a version,
//! members are only added.

use ipnet::Ipv4Net;
use serde::Serialize;

/// The version of this form.
pub const VERSION: u32 = 1;

/// The whole.
#[derive(Debug, Serialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The host.
    pub host: HostStatus,
    /// Its networks, in the order of their names; then bridges with taps that no network names.
    pub networks: Vec<NetworkStatus>,
}

/// The host.
#[derive(Debug, Serialize)]
pub struct HostStatus {
    /// Whether it forwards IPv4 everywhere, `net.ipv4.ip_forward`.
    pub ipv4_forwarding: bool,
    /// The networks, of those that are up, that kvmnet turned it on for.
    pub ipv4_forwarding_turned_on_for: Vec<String>,
    /// The interfaces of the default routes, the preferred one first.
    pub uplinks: Vec<String>,
    /// What filters forwarded packets and lets through only what it names; none where the kernel
    /// doesn't let this user look.
    pub dropping_chains: Option<Vec<ChainStatus>>,
    /// Whether frames between guests go through iptables; none where br_netfilter isn't loaded.
    pub bridge_netfilter: Option<bool>,
}

/// A chain of another firewall that lets through only what it names.
#[derive(Debug, Serialize)]
pub struct ChainStatus {
    /// `nftables`, iptables-nft's own chains among it, or `iptables-legacy`.
    pub firewall: &'static str,
    /// Family, table and name, as nft has them.
    pub chain: String,
    /// Those that kvmnet's rules in it, or in a chain that it calls, let through: networks by
    /// their names, and an administrator's bridges as `bridge NAME`.
    pub opened_for: Vec<String>,
}

/// A network.
#[derive(Debug, Serialize)]
pub struct NetworkStatus {
    /// Its name; none of a bridge with taps that no network names.
    pub name: Option<String>,
    /// `nat`, `routed`, `isolated` or `bridged`; none where the network is up and its file gone.
    pub mode: Option<&'static str>,
    /// Its file; none of what is built in.
    pub file: Option<String>,
    /// Whether it is there, and why.
    pub state: State,
    /// The host's address in it, as it is described.
    pub address: Option<Ipv4Net>,
    /// Its bridge.
    pub bridge: BridgeStatus,
    /// Its rules.
    pub rules: RulesStatus,
    /// Forwarding for its guests; none where none is needed.
    pub forwarding: Option<ForwardingStatus>,
    /// Its bridge's ports, in the order of their names.
    pub ports: Vec<PortStatus>,
}

/// Whether a network is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It isn't.
    Down,
    /// It is, as long as somebody uses it.
    Up,
    /// It is until `kvmnet down`.
    Pinned,
    /// It is, and nobody uses it: `kvmnet gc` takes it down.
    Unused,
}

/// A bridge.
#[derive(Debug, Serialize)]
pub struct BridgeStatus {
    /// Its name.
    pub name: String,
    /// Whether kvmnet made it; none where it isn't there.
    pub managed: Option<bool>,
    /// Its index; none where it isn't there.
    pub ifindex: Option<u32>,
    /// Its MAC address.
    pub mac: Option<String>,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// Whether it is administratively up.
    pub up: bool,
    /// The IPv4 addresses that it carries.
    pub addresses: Vec<Ipv4Net>,
}

/// A network's rules.
#[derive(Debug, Serialize)]
pub struct RulesStatus {
    /// `nftables`, `iptables`, or `none` where kvmnet makes no rules.
    pub backend: &'static str,
    /// How they compare with what they should be.
    pub state: RulesWord,
    /// The command that shows them.
    pub command: Option<String>,
}

/// How rules compare with what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RulesWord {
    /// The network isn't up, or kvmnet makes none for it.
    None,
    /// Exactly as they should be.
    InPlace,
    /// There are none.
    Missing,
    /// There are others.
    Changed,
    /// The kernel doesn't let this user look.
    Unknown,
}

/// Forwarding of a network's packets.
#[derive(Debug, Serialize)]
pub struct ForwardingStatus {
    /// How far kvmnet may turn it on: `global`, `interfaces` or `never`.
    pub policy: &'static str,
    /// Whether the host forwards what comes from the guests.
    pub on: bool,
}

/// A bridge port.
#[derive(Debug, Serialize)]
pub struct PortStatus {
    /// Its name.
    pub name: String,
    /// `tap`, `veth` and so on; `nic` for what is no virtual device.
    pub kind: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it has a carrier: of a tap, some program holds it open.
    pub carrier: bool,
    /// The programs that hold it open, as far as this user may see them.
    pub holders: Vec<HolderStatus>,
}

/// A program that holds a tap open.
#[derive(Debug, Serialize)]
pub struct HolderStatus {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub program: String,
    /// The VM's name, where QEMU was given one.
    pub vm: Option<String>,
}
