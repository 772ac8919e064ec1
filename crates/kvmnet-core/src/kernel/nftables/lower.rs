//! Rules as expressions, in the forms that `nft` itself writes, so that it prints them as people
//! know them.

use ipnet::Ipv4Net;

use super::expression::{Expression, REGISTER_1, REGISTER_2};
use crate::model::{Hook, InterfaceName, Match, Policy, Rule, Verdict};

// enum nft_cmp_ops
pub(super) const EQUAL: u32 = 0;
pub(super) const NOT_EQUAL: u32 = 1;
// enum nft_meta_keys
pub(super) const NFT_META_IIFNAME: u32 = 6;
pub(super) const NFT_META_OIFNAME: u32 = 7;
const NFT_META_L4PROTO: u32 = 16;
const NFT_META_IIFGROUP: u32 = 21;
// enum nft_ct_keys
const NFT_CT_STATE: u32 = 0;
const NFT_CT_STATUS: u32 = 2;
/// `NF_CT_STATE_BIT` of established and related (`linux/netfilter/nf_conntrack_common.h`).
const ESTABLISHED_OR_RELATED: u32 = (1 << 1) | (1 << 2);
/// `IPS_DST_NAT` of the same header.
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
pub(super) const NETWORK_HEADER: u32 = 1;
/// Offsets in the IPv4 header, in bytes (RFC 791).
pub(super) const IPV4_SOURCE: u32 = 12;
pub(super) const IPV4_DESTINATION: u32 = 16;
/// The hook of the netdev family that sees what comes in (`linux/netfilter.h`).
const NF_NETDEV_INGRESS: u32 = 0;
/// `NFT_RETURN`.
const NFT_RETURN: i32 = -5;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`.
const PORTS_SPECIFIED: u32 = 1 << 1;
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;

/// What a base chain is to the kernel.
pub(super) struct BaseChain<'a> {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `NF_INET_*` or `NF_NETDEV_*` (`linux/netfilter.h`).
    pub hook: u32,
    /// The interface that a chain of the netdev family hangs on.
    pub device: Option<&'a str>,
    /// `NF_IP_PRI_*` (`linux/netfilter_ipv4.h`).
    pub priority: i32,
}

pub(super) fn base_chain(hook: &Hook) -> BaseChain<'_> {
    match hook {
        Hook::Forward => BaseChain {
            kind: "filter",
            hook: libc::NF_INET_FORWARD as u32,
            device: None,
            priority: libc::NF_IP_PRI_FILTER,
        },
        Hook::Postrouting => BaseChain {
            kind: "nat",
            hook: libc::NF_INET_POST_ROUTING as u32,
            device: None,
            priority: libc::NF_IP_PRI_NAT_SRC,
        },
        Hook::Ingress { device } => BaseChain {
            kind: "filter",
            hook: NF_NETDEV_INGRESS,
            device: Some(device.as_str()),
            priority: libc::NF_IP_PRI_FILTER,
        },
    }
}

/// The verdict of a policy, as `NFTA_CHAIN_POLICY` has it.
pub(super) fn policy(policy: Policy) -> u32 {
    match policy {
        Policy::Accept => libc::NF_ACCEPT as u32,
        Policy::Drop => libc::NF_DROP as u32,
    }
}

pub(super) fn rule(rule: &Rule) -> Vec<Expression> {
    let mut expressions = Vec::new();
    for condition in &rule.matches {
        expressions.extend(matching(condition));
    }
    match rule.verdict {
        Verdict::Accept => expressions.push(Expression::Verdict(libc::NF_ACCEPT)),
        Verdict::Drop => expressions.push(Expression::Verdict(libc::NF_DROP)),
        Verdict::Return => expressions.push(Expression::Verdict(NFT_RETURN)),
        Verdict::Masquerade { unprivileged_ports: false } => {
            expressions.push(Expression::Masquerade { flags: 0, ports: false });
        }
        Verdict::Masquerade { unprivileged_ports: true } => {
            let load = |register, port: u16| Expression::Load {
                register,
                value: port.to_be_bytes().to_vec(),
            };
            expressions.push(load(REGISTER_1, FIRST_UNPRIVILEGED_PORT));
            expressions.push(load(REGISTER_2, u16::MAX));
            expressions.push(Expression::Masquerade { flags: PORTS_SPECIFIED, ports: true });
        }
    }
    expressions
}

fn matching(condition: &Match) -> Vec<Expression> {
    match condition {
        Match::Input(name) => interface(NFT_META_IIFNAME, EQUAL, name),
        Match::InputOther(name) => interface(NFT_META_IIFNAME, NOT_EQUAL, name),
        Match::InputGroup(group) => vec![
            Expression::Meta { key: NFT_META_IIFGROUP },
            compare(EQUAL, group.to_ne_bytes().to_vec()),
        ],
        Match::Output(name) => interface(NFT_META_OIFNAME, EQUAL, name),
        Match::Protocol(protocol) => vec![
            Expression::Meta { key: NFT_META_L4PROTO },
            compare(EQUAL, vec![protocol.number()]),
        ],
        Match::Source(prefix) => address(IPV4_SOURCE, *prefix, EQUAL),
        Match::Destination(prefix) => address(IPV4_DESTINATION, *prefix, EQUAL),
        Match::DestinationOutside(prefix) => address(IPV4_DESTINATION, *prefix, NOT_EQUAL),
        Match::Answering => connection(NFT_CT_STATE, ESTABLISHED_OR_RELATED),
        Match::DestinationTranslated => connection(NFT_CT_STATUS, DESTINATION_TRANSLATED),
    }
}

pub(super) fn compare(operation: u32, value: Vec<u8>) -> Expression {
    Expression::Compare { operation, value }
}

/// The kernel compares whole names: 16 bytes, NULs behind the name.
fn interface(key: u32, operation: u32, name: &InterfaceName) -> Vec<Expression> {
    let mut value = name.as_str().as_bytes().to_vec();
    value.resize(libc::IFNAMSIZ, 0);
    vec![Expression::Meta { key }, compare(operation, value)]
}

/// Any of these bits (in the machine's own byte order, as the kernel keeps them).
fn connection(key: u32, bits: u32) -> Vec<Expression> {
    vec![
        Expression::Conntrack { key },
        Expression::Mask(bits.to_ne_bytes().to_vec()),
        compare(NOT_EQUAL, vec![0; 4]),
    ]
}

/// Whole bytes of the address where the prefix ends between two, else the address under a mask.
pub(super) fn address(offset: u32, prefix: Ipv4Net, operation: u32) -> Vec<Expression> {
    let network = prefix.network().octets();
    let length = usize::from(prefix.prefix_len()).div_ceil(8);
    let load =
        |length: usize| Expression::Payload { base: NETWORK_HEADER, offset, length: length as u32 };
    if prefix.prefix_len() % 8 == 0 && length > 0 {
        vec![load(length), compare(operation, network[..length].to_vec())]
    } else {
        vec![
            load(network.len()),
            Expression::Mask(prefix.netmask().octets().to_vec()),
            compare(operation, network.to_vec()),
        ]
    }
}
