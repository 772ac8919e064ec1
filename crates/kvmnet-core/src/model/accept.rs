//! Accept rules in the chains of another tool's firewall. Where that lets through only what it
//! names, no rule of a table of our own helps; its makers want such rules in a chain of theirs.

use std::fmt;

use super::{InterfaceName, NetworkName, Rule};

/// The table of iptables that forwards, or doesn't.
pub const FILTER: &str = "filter";
/// Its chain that all that is forwarded comes by.
pub const FORWARD: &str = "FORWARD";
/// Made by Docker for rules of others, and left alone by it from then on.
pub const DOCKER_USER: &str = "DOCKER-USER";

const NETWORK: &str = "kvmnet-";
const BRIDGE: &str = "kvmnet bridge ";

/// For whose sake a rule is there; the rule's comment says so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AcceptOwner {
    /// A network of kvmnet's. The comment is that of its table's name: `kvmnet-NAME`.
    Network(NetworkName),
    /// Guests on an administrator's bridge: `kvmnet bridge NAME`.
    Bridge(InterfaceName),
}

impl AcceptOwner {
    /// Reads a rule's comment; `None` where it is somebody else's.
    #[must_use]
    pub fn parse(comment: &str) -> Option<Self> {
        if let Some(name) = comment.strip_prefix(BRIDGE) {
            return InterfaceName::parse(name.as_ref()).ok().map(Self::Bridge);
        }
        NetworkName::parse(comment.strip_prefix(NETWORK)?).map(Self::Network)
    }
}

impl fmt::Display for AcceptOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => write!(f, "{NETWORK}{name}"),
            Self::Bridge(name) => write!(f, "{BRIDGE}{name}"),
        }
    }
}

/// Which interface of the kernel a variant of iptables works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// nf_tables.
    Nft,
    /// The older one, x_tables, of which nf_tables shows nothing.
    Legacy,
}

impl Variant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    /// The firewall whose commands show what is there.
    #[must_use]
    pub fn firewall(self) -> &'static str {
        match self {
            Self::Nft => "nftables",
            Self::Legacy => "iptables-legacy",
        }
    }

    /// The program that lists rules of this variant and family.
    #[must_use]
    pub fn program(self, family: u8) -> &'static str {
        match (self, i32::from(family) == libc::NFPROTO_IPV4) {
            (Self::Nft, true) => "iptables",
            (Self::Nft, false) => "ip6tables",
            (Self::Legacy, true) => "iptables-legacy",
            (Self::Legacy, false) => "ip6tables-legacy",
        }
    }
}

/// The forward filter that iptables programs work on: table `filter` of one family.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FilterView {
    /// Where it is. A packet has to get past those of both.
    pub variant: Variant,
    /// The address family (`NFPROTO_IPV4` or `NFPROTO_IPV6`).
    pub family: u8,
    /// The chain that accept rules belong in: `DOCKER-USER`, which Docker leaves alone, where it
    /// is, else `FORWARD`.
    pub chain: String,
    /// Whether it lets through only what its rules name: the policy is drop, or the last rule
    /// drops or rejects all that is left.
    pub drops: bool,
    /// Whether this is where a network of firewall iptables has chains of its own, with what its
    /// guests need.
    pub has_own_chains: bool,
    /// The rules of ours in either chain.
    pub accepts: Vec<FoundAccept>,
}

/// A rule of ours in another tool's chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FoundAccept {
    /// Where it is.
    pub at: RulePlace,
    /// For whose sake.
    pub owner: AcceptOwner,
    /// What it says; none where it isn't of a form that kvmnet writes.
    pub rule: Option<Rule>,
}

/// Where a rule is, in a table `filter`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RulePlace {
    /// The chain.
    pub chain: String,
    /// Which of the chain's rules it is.
    pub id: RuleId,
}

/// What tells a rule from the others of its chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RuleId {
    /// The kernel's number for it (`NFTA_RULE_HANDLE`).
    Handle(u64),
    /// x_tables has no numbers that stay. Where it is in the table, in bytes, as that was when it was
    /// looked at: enough to compare, not to delete.
    Offset(usize),
    /// Enough for that: what it says, as it is printed behind the chain's name.
    Text(String),
}

/// A change to our rules in the table `filter` of one family, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AcceptsChange {
    /// Where the table is.
    pub variant: Variant,
    /// The address family.
    pub family: u8,
    /// The chain at whose head the new rules go.
    pub chain: String,
    /// The new rules, and for whose sake each is there.
    pub insert: Vec<(AcceptOwner, Rule)>,
    /// The rules of ours that go.
    pub delete: Vec<RulePlace>,
}

impl fmt::Display for AcceptsChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = if i32::from(self.family) == libc::NFPROTO_IPV4 { "ip" } else { "ip6" };
        let whose = match self.variant {
            Variant::Nft => "",
            Variant::Legacy => "iptables-legacy's ",
        };
        write!(f, "in {whose}{table} filter {}:", self.chain)?;
        let mut separator = "";
        for (_, rule) in &self.insert {
            write!(f, "{separator} insert {rule}")?;
            separator = ";";
        }
        match self.delete.len() {
            0 => Ok(()),
            1 => write!(f, "{separator} delete a rule of kvmnet's"),
            n => write!(f, "{separator} delete {n} rules of kvmnet's"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_read_as_they_were_written() {
        for text in ["kvmnet-default", "kvmnet-lab-2", "kvmnet bridge br1"] {
            assert_eq!(AcceptOwner::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "kvmnet", "kvmnet-", "kvmnet-LAB", "kvmnet bridge ", "kvmnet bridge a/b"] {
            assert_eq!(AcceptOwner::parse(text), None, "{text}");
        }
    }
}
