//! A step is one transaction of the kernel, and so what a crash can fall between.

use std::fmt;

use ipnet::Ipv4Net;

use super::{AcceptsChange, InterfaceName, Mac, Mark, Table, TableId, Variant, ZoneChange};

/// One transaction: one `sendmsg` of rtnetlink messages, one nf_tables batch, or one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// rtnetlink messages in one send. An error in one doesn't stop those behind it.
    Links(Vec<LinkChange>),
    /// Makes a table with its chains and rules, all or nothing. `replace`: where there is one by
    /// that name, it goes in the same transaction. (Of iptables each of its own tables is one.)
    InstallTable {
        /// The table.
        table: Table,
        /// Whether one by that name is there now.
        replace: bool,
    },
    /// Changes rules of ours in the chains of another tool's firewall, all or nothing.
    Accepts(AcceptsChange),
    /// Changes what zone of firewalld's a bridge is in: one call over D-Bus.
    Zone(ZoneChange),
    /// Deletes a table with all it holds.
    DeleteTable(TableId),
    /// Deletes the connections of these subnets, or single addresses, that the kernel tracks: what
    /// answers them must not reach the next guest there. (The kernel does it one by one; what is left
    /// when a run is killed the next finds.)
    ForgetConnections(Vec<Ipv4Net>),
    /// Writes one sysctl.
    Sysctl(Sysctl),
}

/// A change to a link or its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// Makes a bridge, up, without STP and forward delay, and marks it.
    CreateBridge {
        /// Its name, which must be free.
        name: InterfaceName,
        /// Its index, which must be free: only by a chosen index can the mark follow in the same
        /// send without ever reaching somebody else's bridge of that name.
        index: u32,
        /// Its address.
        mac: Mac,
        /// Its mark.
        mark: Mark,
        /// Its MTU in bytes, where the kernel's default isn't wanted.
        mtu: Option<u32>,
        /// Whether it is to send and take no ARP.
        noarp: bool,
    },
    /// Puts back what a bridge of ours has lost.
    RepairBridge {
        /// The bridge's index.
        index: u32,
        /// Its name, for people.
        name: String,
        /// What to set.
        repair: BridgeRepair,
    },
    /// Gives a bridge an address.
    AddAddress {
        /// The bridge's index.
        index: u32,
        /// Its name, for people.
        bridge: String,
        /// The address, with the length of the subnet's prefix.
        address: Ipv4Net,
    },
    /// Makes a tap a port of a bridge, and sets it up.
    AttachTap {
        /// The tap's index.
        index: u32,
        /// Its name.
        tap: InterfaceName,
        /// The bridge's index.
        master: u32,
        /// Its name, for people.
        bridge: String,
        /// The address to set, where the tap's own would lower the bridge's.
        mac: Option<Mac>,
        /// The bridge's MTU, in bytes, where the tap's differs.
        mtu: Option<u32>,
        /// Whether the kernel must be told, before the tap comes up, to make no IPv6 address for it.
        no_inet6_address: bool,
        /// Whether frames to reserved group addresses are to be forwarded like any other. A bridge
        /// hands them to the host's protocols on the port itself, where no rule of the bridge's
        /// sees them.
        forward_groups: bool,
        /// Whether it is up already. It then has its IPv6 address, which it loses only by going down. One
        /// that was down can be set up though it can't become a port, and has to go down again.
        was_up: bool,
    },
    /// Takes a tap out of its bridge, and sets it down.
    ReleaseTap {
        /// The tap's index.
        index: u32,
        /// Its name, for people.
        tap: InterfaceName,
    },
    /// Deletes a bridge of ours; ports that are left become free.
    DeleteBridge {
        /// The bridge's index.
        index: u32,
        /// Its name, for people.
        name: String,
    },
}

/// What a bridge of ours has lost, or never had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BridgeRepair {
    /// The address to set, where it isn't that.
    pub mac: Option<Mac>,
    /// The mark to set, where it is another or missing.
    pub mark: Option<Mark>,
    /// The MTU to set in bytes, where it isn't that.
    pub mtu: Option<u32>,
    /// Whether STP and forward delay are to be put to nought.
    pub forward_at_once: bool,
    /// Whether it is to be put into kvmnet's interface group.
    pub group: bool,
    /// Whether ARP is to be turned off, or on again.
    pub noarp: Option<bool>,
    /// Whether it is to be set up.
    pub up: bool,
}

/// A sysctl and the value written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sysctl {
    /// `net.ipv4.ip_forward` = 1.
    ForwardIpv4,
    /// `net.ipv4.conf.INTERFACE.forwarding` = 1.
    ForwardInterface {
        /// The interface.
        interface: InterfaceName,
    },
    /// `net.ipv6.conf.BRIDGE.disable_ipv6` = 1: the host neither hears the guests' router
    /// advertisements nor forwards IPv6 for them.
    DisableIpv6 {
        /// The interface.
        interface: InterfaceName,
    },
}

impl Step {
    /// Whether it is a matter of iptables, which not every program can carry out.
    #[must_use]
    pub fn is_of_iptables(&self) -> bool {
        match self {
            Self::InstallTable { table, .. } => table.id.is_in_iptables(),
            Self::DeleteTable(id) => id.is_in_iptables(),
            Self::Accepts(change) => change.variant == Variant::Legacy,
            _ => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Links(changes) => {
                for (n, change) in changes.iter().enumerate() {
                    let separator = if n == 0 { "" } else { "; " };
                    write!(f, "{separator}{change}")?;
                }
                Ok(())
            }
            Self::InstallTable { table, replace } => {
                let verb = if *replace { "replace" } else { "make" };
                write!(f, "{verb} {}", table.id.describe())
            }
            Self::Accepts(change) => change.fmt(f),
            Self::Zone(change) => change.fmt(f),
            Self::DeleteTable(table) => write!(f, "delete {}", table.describe()),
            Self::ForgetConnections(subnets) => {
                let subnets: Vec<String> = subnets.iter().map(describe).collect();
                write!(f, "forget the connections of {}", subnets.join(", "))
            }
            Self::Sysctl(sysctl) => sysctl.fmt(f),
        }
    }
}

fn describe(subnet: &Ipv4Net) -> String {
    match subnet.prefix_len() {
        32 => subnet.addr().to_string(),
        _ => subnet.to_string(),
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateBridge { name, index, mac, mark, mtu, noarp } => {
                write!(f, "make bridge {name} (index {index}, address {mac}, alias {mark}")?;
                if let Some(mtu) = mtu {
                    write!(f, ", MTU {mtu}")?;
                }
                if *noarp {
                    f.write_str(", no ARP")?;
                }
                f.write_str(", no STP, no forward delay) and set it up")
            }
            Self::RepairBridge { name, repair, .. } => write!(f, "repair bridge {name}:{repair}"),
            Self::AddAddress { bridge, address, .. } => {
                write!(f, "give {bridge} the address {address}")
            }
            Self::AttachTap { tap, bridge, mac, mtu, no_inet6_address, forward_groups, .. } => {
                if *no_inet6_address {
                    write!(f, "let {tap} have no IPv6 address; ")?;
                }
                write!(f, "make {tap} a port of {bridge}")?;
                if let Some(mac) = mac {
                    write!(f, ", address {mac}")?;
                }
                if let Some(mtu) = mtu {
                    write!(f, ", MTU {mtu}")?;
                }
                if *forward_groups {
                    f.write_str(", no frame past the bridge")?;
                }
                f.write_str(", up")
            }
            Self::ReleaseTap { tap, .. } => write!(f, "take {tap} out of its bridge, down"),
            Self::DeleteBridge { name, .. } => write!(f, "delete bridge {name}"),
        }
    }
}

impl fmt::Display for BridgeRepair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mac) = self.mac {
            write!(f, " address {mac}")?;
        }
        if let Some(mark) = &self.mark {
            write!(f, " alias {mark}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " MTU {mtu}")?;
        }
        for (wanted, text) in [
            (self.forward_at_once, " no STP, no forward delay"),
            (self.group, " kvmnet's interface group"),
            (self.noarp == Some(true), " no ARP"),
            (self.noarp == Some(false), " ARP"),
            (self.up, " up"),
        ] {
            f.write_str(if wanted { text } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForwardIpv4 => f.write_str("set net.ipv4.ip_forward to 1"),
            Self::ForwardInterface { interface } => {
                write!(f, "set forwarding of {interface} to 1")
            }
            Self::DisableIpv6 { interface } => {
                write!(f, "set disable_ipv6 of {interface} to 1")
            }
        }
    }
}
