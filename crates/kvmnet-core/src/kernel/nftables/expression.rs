//! Expressions: the instructions of nf_tables' virtual machine, written and read.
//!
//! A rule is compared by what the kernel holds, so that nothing that somebody changed goes unseen;
//! attributes that a newer kernel adds are passed over.

use neli::genl::Nlattr;
use neli::types::Buffer;

use super::message::{NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM, attribute, be32, nested};
use crate::kernel::attributes::{Attributes, read_be32, read_string};

/// `NFT_REG_1`; the kernel numbers its 16-byte registers 1 to 4.
pub(super) const REGISTER_1: u32 = 1;
pub(super) const REGISTER_2: u32 = 2;
const REGISTER_VERDICT: u32 = 0;

// enum nft_meta_attributes, nft_ct_attributes, …: the first attribute is the destination or source
// register nearly everywhere, but not its number.
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_BITWISE_OP: u16 = 6;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_MATCH_NAME: u16 = 1;
const NFTA_TARGET_NAME: u16 = 1;
const NFTA_MATCH_REV: u16 = 2;
const NFTA_MATCH_INFO: u16 = 3;
const NFTA_MASQ_FLAGS: u16 = 1;
const NFTA_MASQ_REG_PROTO_MIN: u16 = 2;
const NFTA_MASQ_REG_PROTO_MAX: u16 = 3;

/// One instruction. Registers are `REGISTER_1` where none is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads a property of the packet (`enum nft_meta_keys`).
    Meta { key: u32 },
    /// Loads a property of its connection (`enum nft_ct_keys`).
    Conntrack { key: u32 },
    /// Loads bytes of a header (`enum nft_payload_bases`), offset and length in bytes.
    Payload { base: u32, offset: u32, length: u32 },
    /// Keeps the bits of the mask.
    Mask(Vec<u8>),
    /// Goes on only where the register compares so (`enum nft_cmp_ops`).
    Compare { operation: u32, value: Vec<u8> },
    /// Puts a value into a register.
    Load { register: u32, value: Vec<u8> },
    /// Ends the rule (`NF_DROP`, `NF_ACCEPT`, `enum nft_verdicts`).
    Verdict(i32),
    /// Goes on in another chain (`NFT_JUMP`, `NFT_GOTO`).
    Jump { code: i32, chain: String },
    /// Masquerades, to the ports in registers 1 and 2 where there are some.
    Masquerade { flags: u32, ports: bool },
    /// A match of iptables' own (`xt_*`), as iptables-nft writes it for what it has no words for.
    Match { name: String, revision: u32, info: Vec<u8> },
    /// A target of iptables' own, by its name.
    Target(String),
    /// Counts packets; how many is nobody's business here.
    Counter,
    /// Anything that kvmnet never writes.
    Unknown(String),
}

/// A rule's expressions as an attribute list.
pub(super) fn encode(expressions: &[Expression]) -> Vec<Nlattr<u16, Buffer>> {
    expressions.iter().map(Expression::encode).collect()
}

/// Reads back a rule's expressions. One that makes no sense is none that kvmnet writes.
pub(super) fn decode(list: Attributes<'_>) -> Vec<Expression> {
    list.into_iter()
        .map(|(_, element)| Attributes::behind(0, element).unwrap_or_default())
        .map(Expression::decode)
        .collect()
}

fn verdict(code: i32, chain: Option<&str>) -> Vec<Nlattr<u16, Buffer>> {
    let code = attribute(NFTA_VERDICT_CODE, code.to_be_bytes());
    let chain = chain.map(|chain| attribute(NFTA_VERDICT_CHAIN, chain));
    let verdict = nested(NFTA_DATA_VERDICT, std::iter::once(code).chain(chain).collect());
    vec![be32(NFTA_IMMEDIATE_DREG, REGISTER_VERDICT), nested(NFTA_IMMEDIATE_DATA, vec![verdict])]
}

impl Expression {
    fn encode(&self) -> Nlattr<u16, Buffer> {
        let data = |value: &[u8]| attribute(NFTA_DATA_VALUE, value);
        let (name, attributes) = match self {
            Self::Meta { key } => {
                ("meta", vec![be32(NFTA_META_DREG, REGISTER_1), be32(NFTA_META_KEY, *key)])
            }
            Self::Conntrack { key } => {
                ("ct", vec![be32(NFTA_CT_DREG, REGISTER_1), be32(NFTA_CT_KEY, *key)])
            }
            Self::Payload { base, offset, length } => (
                "payload",
                vec![
                    be32(NFTA_PAYLOAD_DREG, REGISTER_1),
                    be32(NFTA_PAYLOAD_BASE, *base),
                    be32(NFTA_PAYLOAD_OFFSET, *offset),
                    be32(NFTA_PAYLOAD_LEN, *length),
                ],
            ),
            Self::Mask(mask) => (
                "bitwise",
                vec![
                    be32(NFTA_BITWISE_SREG, REGISTER_1),
                    be32(NFTA_BITWISE_DREG, REGISTER_1),
                    be32(NFTA_BITWISE_LEN, mask.len() as u32),
                    nested(NFTA_BITWISE_MASK, vec![data(mask)]),
                    nested(NFTA_BITWISE_XOR, vec![data(&vec![0; mask.len()])]),
                ],
            ),
            Self::Compare { operation, value } => (
                "cmp",
                vec![
                    be32(NFTA_CMP_SREG, REGISTER_1),
                    be32(NFTA_CMP_OP, *operation),
                    nested(NFTA_CMP_DATA, vec![data(value)]),
                ],
            ),
            Self::Load { register, value } => (
                "immediate",
                vec![
                    be32(NFTA_IMMEDIATE_DREG, *register),
                    nested(NFTA_IMMEDIATE_DATA, vec![data(value)]),
                ],
            ),
            Self::Verdict(code) => ("immediate", verdict(*code, None)),
            Self::Jump { code, chain } => ("immediate", verdict(*code, Some(chain))),
            Self::Masquerade { flags, ports } => {
                let mut attributes = Vec::new();
                if *flags != 0 {
                    attributes.push(be32(NFTA_MASQ_FLAGS, *flags));
                }
                if *ports {
                    attributes.push(be32(NFTA_MASQ_REG_PROTO_MIN, REGISTER_1));
                    attributes.push(be32(NFTA_MASQ_REG_PROTO_MAX, REGISTER_2));
                }
                ("masq", attributes)
            }
            Self::Match { name, revision, info } => (
                "match",
                vec![
                    attribute(NFTA_MATCH_NAME, name.as_str()),
                    be32(NFTA_MATCH_REV, *revision),
                    attribute(NFTA_MATCH_INFO, info.as_slice()),
                ],
            ),
            Self::Target(name) => ("target", vec![attribute(NFTA_TARGET_NAME, name.as_str())]),
            Self::Counter => ("counter", Vec::new()),
            Self::Unknown(name) => (name.as_str(), Vec::new()),
        };
        nested(
            NFTA_LIST_ELEM,
            vec![attribute(NFTA_EXPR_NAME, name), nested(NFTA_EXPR_DATA, attributes)],
        )
    }

    fn decode(element: Attributes<'_>) -> Self {
        let name = element.find(NFTA_EXPR_NAME).map(read_string).unwrap_or_default();
        let data = element.nested(NFTA_EXPR_DATA).ok();
        data.and_then(|data| Self::decode_named(&name, data)).unwrap_or(Self::Unknown(name))
    }

    /// `None` where it isn't of a form that kvmnet writes.
    fn decode_named(name: &str, data: Attributes<'_>) -> Option<Self> {
        let number = |kind| data.find(kind).and_then(read_be32);
        let value = |kind| data.nested(kind).ok()?.find(NFTA_DATA_VALUE).map(<[u8]>::to_vec);
        let in_register_1 = |kind| (number(kind)? == REGISTER_1).then_some(());
        match name {
            "meta" => {
                in_register_1(NFTA_META_DREG)?;
                Some(Self::Meta { key: number(NFTA_META_KEY)? })
            }
            "ct" => {
                in_register_1(NFTA_CT_DREG)?;
                Some(Self::Conntrack { key: number(NFTA_CT_KEY)? })
            }
            "payload" => {
                in_register_1(NFTA_PAYLOAD_DREG)?;
                Some(Self::Payload {
                    base: number(NFTA_PAYLOAD_BASE)?,
                    offset: number(NFTA_PAYLOAD_OFFSET)?,
                    length: number(NFTA_PAYLOAD_LEN)?,
                })
            }
            "bitwise" => {
                in_register_1(NFTA_BITWISE_SREG)?;
                in_register_1(NFTA_BITWISE_DREG)?;
                // Operation 0 is mask and xor; kernels before 5.6 know no other.
                let masks = number(NFTA_BITWISE_OP).unwrap_or(0) == 0;
                let flips = value(NFTA_BITWISE_XOR)?.iter().any(|&byte| byte != 0);
                (masks && !flips).then_some(())?;
                Some(Self::Mask(value(NFTA_BITWISE_MASK)?))
            }
            "cmp" => {
                in_register_1(NFTA_CMP_SREG)?;
                Some(Self::Compare {
                    operation: number(NFTA_CMP_OP)?,
                    value: value(NFTA_CMP_DATA)?,
                })
            }
            "immediate" => match number(NFTA_IMMEDIATE_DREG)? {
                REGISTER_VERDICT => {
                    let verdict = data.nested(NFTA_IMMEDIATE_DATA).ok()?;
                    let verdict = verdict.nested(NFTA_DATA_VERDICT).ok()?;
                    let code = verdict.find(NFTA_VERDICT_CODE).and_then(read_be32)? as i32;
                    Some(match verdict.find(NFTA_VERDICT_CHAIN).map(read_string) {
                        Some(chain) => Self::Jump { code, chain },
                        None => Self::Verdict(code),
                    })
                }
                register => Some(Self::Load { register, value: value(NFTA_IMMEDIATE_DATA)? }),
            },
            "masq" => {
                let registers = (number(NFTA_MASQ_REG_PROTO_MIN), number(NFTA_MASQ_REG_PROTO_MAX));
                let ports = match registers {
                    (None, None) => false,
                    (Some(REGISTER_1), Some(REGISTER_2)) => true,
                    _ => return None,
                };
                Some(Self::Masquerade { flags: number(NFTA_MASQ_FLAGS).unwrap_or(0), ports })
            }
            "match" => Some(Self::Match {
                name: data.find(NFTA_MATCH_NAME).map(read_string)?,
                revision: number(NFTA_MATCH_REV)?,
                info: data.find(NFTA_MATCH_INFO)?.to_vec(),
            }),
            "target" => data.find(NFTA_TARGET_NAME).map(read_string).map(Self::Target),
            "counter" => Some(Self::Counter),
            _ => None,
        }
    }
}
