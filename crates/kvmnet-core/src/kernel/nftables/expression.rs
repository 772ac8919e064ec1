//! Expressions: the instructions of nf_tables' virtual machine, written and read.
//!
//! A rule is compared by what the kernel holds, so that nothing that somebody changed goes unseen;
//! attributes that a newer kernel adds are passed over.

use super::message::{NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM, Payload, be32, nested};
use crate::kernel::attributes::{Attributes, read_be32, read_string, without_nul};

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

/// Writes a rule's expressions as an attribute list.
pub(super) fn encode(expressions: &[Expression], list: &mut Payload) {
    for expression in expressions {
        list.nest(nested(NFTA_LIST_ELEM), |element| {
            element.put(NFTA_EXPR_NAME, expression.name());
            element.nest(nested(NFTA_EXPR_DATA), |data| expression.encode(data));
        });
    }
}

/// Reads back a rule's expressions. One that makes no sense is none that kvmnet writes.
pub(super) fn decode(list: Attributes<'_>) -> impl Iterator<Item = Expression> {
    list.into_iter()
        .map(|(_, element)| Attributes::behind(0, element).unwrap_or_default())
        .map(Expression::decode)
}

/// Adds bytes for a register, or to be compared with one.
fn put_value(attributes: &mut Payload, kind: u16, value: &[u8]) {
    attributes.nest(nested(kind), |data| {
        data.put(NFTA_DATA_VALUE, value);
    });
}

fn put_verdict(attributes: &mut Payload, code: i32, chain: Option<&str>) {
    attributes.put(NFTA_IMMEDIATE_DREG, be32(REGISTER_VERDICT));
    attributes.nest(nested(NFTA_IMMEDIATE_DATA), |data| {
        data.nest(nested(NFTA_DATA_VERDICT), |verdict| {
            verdict.put(NFTA_VERDICT_CODE, code.to_be_bytes());
            verdict.put_any(NFTA_VERDICT_CHAIN, chain);
        });
    });
}

impl Expression {
    /// What the kernel calls it.
    fn name(&self) -> &str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Conntrack { .. } => "ct",
            Self::Payload { .. } => "payload",
            Self::Mask(_) => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Load { .. } | Self::Verdict(_) | Self::Jump { .. } => "immediate",
            Self::Masquerade { .. } => "masq",
            Self::Match { .. } => "match",
            Self::Target(_) => "target",
            Self::Counter => "counter",
            Self::Unknown(name) => name,
        }
    }

    fn encode(&self, data: &mut Payload) {
        match self {
            Self::Meta { key } => {
                data.put(NFTA_META_DREG, be32(REGISTER_1)).put(NFTA_META_KEY, be32(*key));
            }
            Self::Conntrack { key } => {
                data.put(NFTA_CT_DREG, be32(REGISTER_1)).put(NFTA_CT_KEY, be32(*key));
            }
            Self::Payload { base, offset, length } => {
                data.put(NFTA_PAYLOAD_DREG, be32(REGISTER_1));
                data.put(NFTA_PAYLOAD_BASE, be32(*base));
                data.put(NFTA_PAYLOAD_OFFSET, be32(*offset));
                data.put(NFTA_PAYLOAD_LEN, be32(*length));
            }
            Self::Mask(mask) => {
                data.put(NFTA_BITWISE_SREG, be32(REGISTER_1));
                data.put(NFTA_BITWISE_DREG, be32(REGISTER_1));
                data.put(NFTA_BITWISE_LEN, be32(mask.len() as u32));
                put_value(data, NFTA_BITWISE_MASK, mask);
                put_value(data, NFTA_BITWISE_XOR, &vec![0; mask.len()]);
            }
            Self::Compare { operation, value } => {
                data.put(NFTA_CMP_SREG, be32(REGISTER_1)).put(NFTA_CMP_OP, be32(*operation));
                put_value(data, NFTA_CMP_DATA, value);
            }
            Self::Load { register, value } => {
                data.put(NFTA_IMMEDIATE_DREG, be32(*register));
                put_value(data, NFTA_IMMEDIATE_DATA, value);
            }
            Self::Verdict(code) => put_verdict(data, *code, None),
            Self::Jump { code, chain } => put_verdict(data, *code, Some(chain)),
            Self::Masquerade { flags, ports } => {
                data.put_any(NFTA_MASQ_FLAGS, (*flags != 0).then(|| be32(*flags)));
                if *ports {
                    data.put(NFTA_MASQ_REG_PROTO_MIN, be32(REGISTER_1));
                    data.put(NFTA_MASQ_REG_PROTO_MAX, be32(REGISTER_2));
                }
            }
            Self::Match { name, revision, info } => {
                data.put(NFTA_MATCH_NAME, name.as_str());
                data.put(NFTA_MATCH_REV, be32(*revision));
                data.put(NFTA_MATCH_INFO, info.as_slice());
            }
            Self::Target(name) => {
                data.put(NFTA_TARGET_NAME, name.as_str());
            }
            Self::Counter | Self::Unknown(_) => {}
        }
    }

    fn decode(element: Attributes<'_>) -> Self {
        let name = element.find(NFTA_EXPR_NAME).unwrap_or_default();
        let data = element.nested(NFTA_EXPR_DATA).ok();
        let known = data.and_then(|data| Self::decode_named(without_nul(name), data));
        known.unwrap_or_else(|| Self::Unknown(read_string(name)))
    }

    /// `None` where it isn't of a form that kvmnet writes.
    fn decode_named(name: &[u8], data: Attributes<'_>) -> Option<Self> {
        let number = |kind| data.find(kind).and_then(read_be32);
        let value = |kind| data.nested(kind).ok()?.find(NFTA_DATA_VALUE).map(<[u8]>::to_vec);
        let in_register_1 = |kind| (number(kind)? == REGISTER_1).then_some(());
        match name {
            b"meta" => {
                in_register_1(NFTA_META_DREG)?;
                Some(Self::Meta { key: number(NFTA_META_KEY)? })
            }
            b"ct" => {
                in_register_1(NFTA_CT_DREG)?;
                Some(Self::Conntrack { key: number(NFTA_CT_KEY)? })
            }
            b"payload" => {
                in_register_1(NFTA_PAYLOAD_DREG)?;
                Some(Self::Payload {
                    base: number(NFTA_PAYLOAD_BASE)?,
                    offset: number(NFTA_PAYLOAD_OFFSET)?,
                    length: number(NFTA_PAYLOAD_LEN)?,
                })
            }
            b"bitwise" => {
                in_register_1(NFTA_BITWISE_SREG)?;
                in_register_1(NFTA_BITWISE_DREG)?;
                // Operation 0 is mask and xor; kernels before 5.6 know no other.
                let masks = number(NFTA_BITWISE_OP).unwrap_or(0) == 0;
                let flips = value(NFTA_BITWISE_XOR)?.iter().any(|&byte| byte != 0);
                (masks && !flips).then_some(())?;
                Some(Self::Mask(value(NFTA_BITWISE_MASK)?))
            }
            b"cmp" => {
                in_register_1(NFTA_CMP_SREG)?;
                Some(Self::Compare {
                    operation: number(NFTA_CMP_OP)?,
                    value: value(NFTA_CMP_DATA)?,
                })
            }
            b"immediate" => match number(NFTA_IMMEDIATE_DREG)? {
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
            b"masq" => {
                let registers = (number(NFTA_MASQ_REG_PROTO_MIN), number(NFTA_MASQ_REG_PROTO_MAX));
                let ports = match registers {
                    (None, None) => false,
                    (Some(REGISTER_1), Some(REGISTER_2)) => true,
                    _ => return None,
                };
                Some(Self::Masquerade { flags: number(NFTA_MASQ_FLAGS).unwrap_or(0), ports })
            }
            b"match" => Some(Self::Match {
                name: data.find(NFTA_MATCH_NAME).map(read_string)?,
                revision: number(NFTA_MATCH_REV)?,
                info: data.find(NFTA_MATCH_INFO)?.to_vec(),
            }),
            b"target" => data.find(NFTA_TARGET_NAME).map(read_string).map(Self::Target),
            b"counter" => Some(Self::Counter),
            _ => None,
        }
    }
}
