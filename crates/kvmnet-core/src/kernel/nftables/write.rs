//! Making and deleting tables, each in one transaction.

use neli::consts::nl::NlmF;
use nix::errno::Errno;

use super::expression;
use super::lower::{self, base_chain};
use super::message::{
    NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWTABLE, NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_HOOK_DEV,
    NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE,
    Payload, be32, begin, end, kind, message, named, nested,
};
use crate::kernel::KernelError;
use crate::kernel::socket::Socket;
use crate::model::{Chain, Rule, Table, TableId};

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
        batch.part(kind(NFT_MSG_NEWTABLE), NlmF::CREATE, named(&table.id), what.as_str());
        batch.part(kind(NFT_MSG_DELTABLE), NlmF::empty(), named(&table.id), what.as_str());
    }
    let exclusive = NlmF::CREATE | NlmF::EXCL;
    batch.part(kind(NFT_MSG_NEWTABLE), exclusive, named(&table.id), what.as_str());
    let chains = table.chains.iter().map(|chain| new_chain(&table.id, chain));
    let rules = table
        .chains
        .iter()
        .flat_map(|chain| chain.rules.iter().map(|rule| new_rule(&table.id, chain, rule)));
    let objects: Vec<Object> = chains.chain(rules).collect();
    let last = objects.len().saturating_sub(1);
    for (n, Object { kind, flags, message }) in objects.into_iter().enumerate() {
        // The acknowledgement of the last tells that the whole was carried out.
        if n == last {
            batch.change(kind, flags, message, what.as_str());
        } else {
            batch.part(kind, flags, message, what.as_str());
        }
    }
    end(&mut batch, &what);
    socket.request(batch)
}

/// Deletes a table with all it holds; one that is gone is deleted.
pub(in crate::kernel) fn delete_table(
    socket: &mut Socket,
    table: &TableId,
) -> Result<(), KernelError> {
    let what = format!("delete nftables table {table}");
    let mut batch = socket.batch();
    begin(&mut batch, &what);
    batch.change(kind(NFT_MSG_DELTABLE), NlmF::empty(), named(table), what.as_str());
    batch.tolerate(&[Errno::ENOENT]);
    end(&mut batch, &what);
    socket.request(batch)
}

/// A message that makes a chain or a rule.
struct Object {
    kind: u16,
    flags: NlmF,
    message: Payload,
}

fn new_chain(table: &TableId, chain: &Chain) -> Object {
    let base = base_chain(&chain.hook);
    let mut message = message(table.family);
    message.put(NFTA_CHAIN_TABLE, table.name.as_str());
    message.put(NFTA_CHAIN_NAME, chain.hook.chain_name());
    message.nest(nested(NFTA_CHAIN_HOOK), |hook| {
        hook.put(NFTA_HOOK_HOOKNUM, be32(base.hook));
        hook.put(NFTA_HOOK_PRIORITY, be32(base.priority as u32));
        hook.put_any(NFTA_HOOK_DEV, base.device);
    });
    message.put(NFTA_CHAIN_POLICY, be32(lower::policy(chain.policy)));
    message.put(NFTA_CHAIN_TYPE, base.kind);
    Object { kind: kind(NFT_MSG_NEWCHAIN), flags: NlmF::CREATE, message }
}

fn new_rule(table: &TableId, chain: &Chain, rule: &Rule) -> Object {
    let mut message = message(table.family);
    message.put(NFTA_RULE_TABLE, table.name.as_str());
    message.put(NFTA_RULE_CHAIN, chain.hook.chain_name());
    message.nest(nested(NFTA_RULE_EXPRESSIONS), |list| {
        expression::encode(&lower::rule(rule), list);
    });
    Object { kind: kind(NFT_MSG_NEWRULE), flags: NlmF::CREATE | NlmF::APPEND, message }
}
