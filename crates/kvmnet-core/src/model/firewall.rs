//! Firewall rules as values: what a rule means, not how a backend writes it. `Display` is the text
//! that `nft list table` shows.

use std::fmt;

use ipnet::Ipv4Net;

use super::{InterfaceName, NetworkName};

/// Every table of ours begins so, and every table that begins so is ours: the names are reserved.
pub(crate) const TABLE_PREFIX: &str = "kvmnet-";

/// The table that firewalld has its rules in, of family inet.
const FIREWALLD: &str = "firewalld";
/// How the names of a network's chains in the tables of iptables begin; reserved, too.
pub const CHAIN_PREFIX: &str = "KVMNET-";
/// The family of what is no nftables table but chains in the tables of iptables (`NFPROTO_UNSPEC`).
const IPTABLES: u8 = 0;

/// An nftables table's family and name; or a network's chains in the tables of iptables, which are
/// one thing like a table: compared, made and deleted as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// The address family (`NFPROTO_*`, `linux/netfilter.h`).
    pub family: u8,
    /// The name.
    pub name: String,
}

impl TableId {
    /// The table of a network, such as `ip kvmnet-NAME`.
    #[must_use]
    pub fn of_network(family: u8, network: &NetworkName) -> Self {
        Self { family, name: format!("{TABLE_PREFIX}{network}") }
    }

    /// A network's chains in the tables of iptables.
    #[must_use]
    pub fn in_iptables(network: &NetworkName) -> Self {
        Self::of_network(IPTABLES, network)
    }

    /// Whether these are chains in the tables of iptables.
    #[must_use]
    pub fn is_in_iptables(&self) -> bool {
        self.family == IPTABLES
    }

    /// The tables that a network may have, by its mode and its firewall.
    #[must_use]
    pub fn all_of_network(network: &NetworkName) -> [Self; 3] {
        [libc::NFPROTO_IPV4, libc::NFPROTO_NETDEV, i32::from(IPTABLES)]
            .map(|family| Self::of_network(family as u8, network))
    }

    /// The command that shows it; of chains in iptables those that matter most: of mode `nat`, say.
    #[must_use]
    pub fn command(&self, is_nat: bool) -> String {
        match self.network().filter(|_| self.is_in_iptables()) {
            Some(network) if is_nat => format!("iptables -t nat -S {CHAIN_PREFIX}{network}-POST"),
            Some(network) => format!("iptables -S {CHAIN_PREFIX}{network}-FWD"),
            None => format!("nft list table {self}"),
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.network().filter(|_| self.is_in_iptables()) {
            Some(network) => format!("the chains {CHAIN_PREFIX}{network}-* of iptables"),
            None => format!("table {self}"),
        }
    }

    /// Whether it is firewalld's.
    #[must_use]
    pub fn is_firewalld(&self) -> bool {
        self.name == FIREWALLD
    }

    /// Whether the table's name is one of those reserved for kvmnet.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.name.starts_with(TABLE_PREFIX)
    }

    /// The network that the table's name speaks of.
    #[must_use]
    pub fn network(&self) -> Option<NetworkName> {
        NetworkName::parse(self.name.strip_prefix(TABLE_PREFIX)?)
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match i32::from(self.family) {
            libc::NFPROTO_IPV4 => "ip",
            libc::NFPROTO_IPV6 => "ip6",
            libc::NFPROTO_INET => "inet",
            libc::NFPROTO_ARP => "arp",
            libc::NFPROTO_BRIDGE => "bridge",
            libc::NFPROTO_NETDEV => "netdev",
            _ => "unknown",
        };
        write!(f, "{family} {}", self.name)
    }
}

/// A table: one network's whole firewall, made in one transaction and deleted in one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Table {
    /// Family and name.
    pub id: TableId,
    /// Its base chains.
    pub chains: Vec<Chain>,
}

/// A base chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chain {
    /// Where the kernel calls it; also names it.
    pub hook: Hook,
    /// What becomes of what no rule speaks of.
    pub policy: Policy,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// What a base chain does with what no rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// It goes on.
    Accept,
    /// It goes no further.
    Drop,
}

/// Where a base chain hangs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Hook {
    /// `type filter hook forward priority filter`.
    Forward,
    /// `type nat hook postrouting priority srcnat`.
    Postrouting,
    /// `type filter hook ingress device "…" priority filter`, of the netdev family.
    Ingress {
        /// The interface whose frames it sees, before any protocol does.
        device: InterfaceName,
    },
}

impl Hook {
    /// The chain's name.
    #[must_use]
    pub fn chain_name(&self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Postrouting => "postrouting",
            Self::Ingress { .. } => "ingress",
        }
    }
}

/// What a packet must be, and what becomes of it then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// All must hold.
    pub matches: Vec<Match>,
    /// What is done.
    pub verdict: Verdict,
}

/// A property of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Match {
    /// It came in by this interface.
    Input(InterfaceName),
    /// It came in by any other interface than this.
    InputOther(InterfaceName),
    /// It came in by an interface of this group.
    InputGroup(u32),
    /// It leaves by this interface.
    Output(InterfaceName),
    /// Its transport protocol.
    Protocol(Protocol),
    /// Its source lies in the prefix.
    Source(Ipv4Net),
    /// Its destination lies in the prefix.
    Destination(Ipv4Net),
    /// Its destination lies outside the prefix.
    DestinationOutside(Ipv4Net),
    /// It belongs to a connection that has seen both directions, or is related to one.
    Answering,
    /// Somebody's rule has given its connection another destination.
    DestinationTranslated,
}

/// A transport protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The number in the IP header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => libc::IPPROTO_TCP as u8,
            Self::Udp => libc::IPPROTO_UDP as u8,
        }
    }
}

/// What is done with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on, as far as this chain is concerned.
    Accept,
    /// It goes no further.
    Drop,
    /// The chain's remaining rules don't apply to it.
    Return,
    /// Its source becomes the address of the interface it leaves by.
    Masquerade {
        /// Whether its source port becomes one from 1024 up: a guest must not speak from a port
        /// that others trust to be root's on this host.
        unprivileged_ports: bool,
    },
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {{", self.id)?;
        for (n, chain) in self.chains.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            let (kind, device, priority) = match &chain.hook {
                Hook::Forward => ("filter", String::new(), "filter"),
                Hook::Postrouting => ("nat", String::new(), "srcnat"),
                Hook::Ingress { device } => ("filter", format!(" device \"{device}\""), "filter"),
            };
            let policy = match chain.policy {
                Policy::Accept => "accept",
                Policy::Drop => "drop",
            };
            let name = chain.hook.chain_name();
            writeln!(f, "\tchain {name} {{")?;
            writeln!(
                f,
                "\t\ttype {kind} hook {name}{device} priority {priority}; policy {policy};"
            )?;
            for rule in &chain.rules {
                writeln!(f, "\t\t{rule}")?;
            }
            writeln!(f, "\t}}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        self.verdict.fmt(f)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(name) => write!(f, "iifname \"{name}\""),
            Self::InputOther(name) => write!(f, "iifname != \"{name}\""),
            Self::InputGroup(group) => write!(f, "iifgroup {group}"),
            Self::Output(name) => write!(f, "oifname \"{name}\""),
            Self::Protocol(Protocol::Tcp) => f.write_str("meta l4proto tcp"),
            Self::Protocol(Protocol::Udp) => f.write_str("meta l4proto udp"),
            Self::Source(prefix) => write!(f, "ip saddr {}", bare(prefix)),
            Self::Destination(prefix) => write!(f, "ip daddr {}", bare(prefix)),
            Self::DestinationOutside(prefix) => write!(f, "ip daddr != {}", bare(prefix)),
            Self::Answering => f.write_str("ct state established,related"),
            Self::DestinationTranslated => f.write_str("ct status dnat"),
        }
    }
}

/// nft prints a single address without its prefix length.
fn bare(prefix: &Ipv4Net) -> String {
    match prefix.prefix_len() {
        32 => prefix.addr().to_string(),
        _ => prefix.trunc().to_string(),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Return => "return",
            Self::Masquerade { unprivileged_ports: true } => "masquerade to :1024-65535",
            Self::Masquerade { unprivileged_ports: false } => "masquerade",
        })
    }
}
