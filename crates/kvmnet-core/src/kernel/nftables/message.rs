//! The numbers and envelopes of nf_tables messages.

use neli::consts::nl::{NlType, NlmF};

use super::super::batch::Batch;
use super::super::nfnetlink::envelope;
pub(super) use super::super::nfnetlink::{HEADER, message, nested};
pub(super) use super::super::payload::Payload;
use crate::model::TableId;

const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;

pub(super) const NFT_MSG_NEWTABLE: u16 = 0;
pub(super) const NFT_MSG_GETTABLE: u16 = 1;
pub(super) const NFT_MSG_DELTABLE: u16 = 2;
pub(super) const NFT_MSG_NEWCHAIN: u16 = 3;
pub(super) const NFT_MSG_GETCHAIN: u16 = 4;
pub(super) const NFT_MSG_NEWRULE: u16 = 6;
pub(super) const NFT_MSG_GETRULE: u16 = 7;

pub(super) const NFT_MSG_DELRULE: u16 = 8;
pub(super) const NFT_MSG_GETGEN: u16 = 16;

/// `enum nfnl_batch_attributes` (`linux/netfilter/nfnetlink.h`).
const NFNL_BATCH_GENID: u16 = 1;
pub(super) const NFTA_GEN_ID: u16 = 1;
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;
pub(super) const NFTA_TABLE_USE: u16 = 3;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_HOOK_DEV: u16 = 3;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_HANDLE: u16 = 3;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_POSITION: u16 = 6;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;
pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;

/// What every message about a table as such says: its name.
pub(super) fn named(table: &TableId) -> Payload {
    let mut named = message(table.family);
    named.put(NFTA_TABLE_NAME, table.name.as_str());
    named
}

/// A number as netfilter has it, in network byte order.
pub(super) fn be32(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

/// A message's type: the subsystem in the upper byte.
pub(super) fn kind(message: u16) -> u16 {
    (SUBSYSTEM << 8) | message
}

/// Opens a transaction.
pub(super) fn begin(batch: &mut Batch, what: &str) {
    begin_with(batch, what, None);
}

/// Opens a transaction on the ruleset as it was at this generation; where it has changed since, the
/// answer is `ERESTART`, and nothing is done.
pub(super) fn begin_at(batch: &mut Batch, what: &str, generation: u32) {
    begin_with(batch, what, Some(generation));
}

fn begin_with(batch: &mut Batch, what: &str, generation: Option<u32>) {
    let mut begin = envelope(SUBSYSTEM);
    begin.put_any(NFNL_BATCH_GENID, generation.map(be32));
    batch.part(envelope_kind(libc::NFNL_MSG_BATCH_BEGIN), NlmF::empty(), begin, what);
}

/// Commits it.
pub(super) fn end(batch: &mut Batch, what: &str) {
    let end = envelope(SUBSYSTEM);
    batch.part(envelope_kind(libc::NFNL_MSG_BATCH_END), NlmF::empty(), end, what);
}

fn envelope_kind(kind: libc::c_int) -> impl NlType {
    kind as u16
}
