//! Making and deleting tables, each in one transaction.

use neli::consts::nl::NlmF;
use nix::errno::Errno;

use super::expression;
use super::lower::{self, base_chain};
use super::message::{
    Message, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWTABLE,
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE,
    NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE,
    NFTA_TABLE_NAME, attribute, be32, begin, end, kind, nested,
};
use crate::kernel::KernelError;
use crate::kernel::socket::{Batch, Socket};
use crate::model::{Chain, Table, TableId};

/// Makes a table. With `replace`, the one that is there goes in the same transaction.
pub(in crate::kernel) fn install_table(
    socket: &mut Socket,
    table: &Table,
    replace: bool,
) -> Result<(), KernelError> {
    let what = format!("make nftables table {}", table.id);
    let mut batch = socket.batch();
    begin(&mut batch, &what);
    if replace {
        // Deleting one that has just gone would fail, so it is made first if need be.
        new_table(&mut batch, &table.id, NlmF::CREATE, &what);
        delete(&mut batch, &table.id, NlmF::empty(), &what);
    }
    new_table(&mut batch, &table.id, NlmF::CREATE | NlmF::EXCL, &what);
    for chain in &table.chains {
        new_chain(&mut batch, &table.id, chain, &what);
    }
    let rules: Vec<_> = table
        .chains
        .iter()
        .flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)))
        .collect();
    for (n, (chain, rule)) in rules.iter().enumerate() {
        let expressions = expression::encode(&lower::rule(rule));
        let message = Message::new(
            table.id.family,
            vec![
                attribute(NFTA_RULE_TABLE, table.id.name.as_str()),
                attribute(NFTA_RULE_CHAIN, chain.hook.chain_name()),
                nested(NFTA_RULE_EXPRESSIONS, expressions),
            ],
        );
        let flags = NlmF::CREATE | NlmF::APPEND;
        // One acknowledgement tells that the whole was carried out.
        if n + 1 == rules.len() {
            batch.change(kind(NFT_MSG_NEWRULE), flags, message, what.as_str());
        } else {
            batch.part(kind(NFT_MSG_NEWRULE), flags, message, what.as_str());
        }
    }
    end(&mut batch, &what);
    socket.request(batch, |_, _| {})
}

/// Deletes a table with all it holds; one that is gone is deleted.
pub(in crate::kernel) fn delete_table(
    socket: &mut Socket,
    table: &TableId,
) -> Result<(), KernelError> {
    let what = format!("delete nftables table {table}");
    let mut batch = socket.batch();
    begin(&mut batch, &what);
    delete(&mut batch, table, NlmF::ACK, &what);
    batch.tolerate(&[Errno::ENOENT]);
    end(&mut batch, &what);
    socket.request(batch, |_, _| {})
}

fn new_table(batch: &mut Batch, table: &TableId, flags: NlmF, what: &str) {
    let message = Message::new(table.family, vec![attribute(NFTA_TABLE_NAME, table.name.as_str())]);
    batch.part(kind(NFT_MSG_NEWTABLE), flags, message, what);
}

fn delete(batch: &mut Batch, table: &TableId, flags: NlmF, what: &str) {
    let message = Message::new(table.family, vec![attribute(NFTA_TABLE_NAME, table.name.as_str())]);
    if flags.contains(NlmF::ACK) {
        batch.change(kind(NFT_MSG_DELTABLE), NlmF::empty(), message, what);
    } else {
        batch.part(kind(NFT_MSG_DELTABLE), NlmF::empty(), message, what);
    }
}

fn new_chain(batch: &mut Batch, table: &TableId, chain: &Chain, what: &str) {
    let base = base_chain(chain.hook);
    let hook =
        vec![be32(NFTA_HOOK_HOOKNUM, base.hook), be32(NFTA_HOOK_PRIORITY, base.priority as u32)];
    let message = Message::new(
        table.family,
        vec![
            attribute(NFTA_CHAIN_TABLE, table.name.as_str()),
            attribute(NFTA_CHAIN_NAME, chain.hook.chain_name()),
            nested(NFTA_CHAIN_HOOK, hook),
            be32(NFTA_CHAIN_POLICY, libc::NF_ACCEPT as u32),
            attribute(NFTA_CHAIN_TYPE, base.kind),
        ],
    );
    batch.part(kind(NFT_MSG_NEWCHAIN), NlmF::CREATE, message, what);
}
