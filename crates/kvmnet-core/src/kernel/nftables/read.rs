//! Looking at tables: which there are, and whether one is as it should be.

use nix::errno::Errno;

use super::expression::{self, Expression};
use super::lower::{self, base_chain};
use super::message::{
    HEADER, Message, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETTABLE, NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_HOOK_DEV,
    NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE,
    NFTA_TABLE_FLAGS, NFTA_TABLE_NAME, NFTA_TABLE_USE, attribute, kind, named,
};
use crate::kernel::KernelError;
use crate::kernel::attributes::{Attributes, read_be32, read_string};
use crate::kernel::socket::{Batch, Socket};
use crate::model::{Chain, Table, TableId, TableState};

/// Compares the kernel's table of this name with `wanted`, chain by chain and rule by rule, and says
/// which of `others` are there.
///
/// One send: the others and the table (which says how many objects it holds), each wanted chain, and
/// the rules. The kernel goes through this table alone, however many rules others have.
pub(in crate::kernel) fn table_state(
    socket: &mut Socket,
    wanted: Option<&Table>,
    others: &[TableId],
) -> Result<(TableState, Vec<TableId>), KernelError> {
    let mut found = look(socket, wanted, others)?;
    let others = std::mem::take(&mut found.others);
    Ok((wanted.map_or(TableState::AsWanted, |wanted| found.compare(wanted)), others))
}

/// What was found of a table.
#[derive(Default)]
struct Found {
    exists: bool,
    /// `NFT_TABLE_F_DORMANT` and its like: a table that does nothing, or is somebody's.
    flags: u32,
    objects: u32,
    /// Of the tables that should not be there, those that are.
    others: Vec<TableId>,
    /// Of the wanted chains, those that are there as wanted.
    good_chains: usize,
    rules: Vec<(String, Vec<Expression>)>,
}

impl Found {
    fn compare(self, wanted: &Table) -> TableState {
        if !self.exists {
            return TableState::Absent;
        }
        let chains = wanted.chains.len();
        let same = self.flags == 0
            && self.objects as usize == chains
            && self.good_chains == chains
            && by_chain(self.rules) == by_chain(wanted_rules(wanted));
        if same { TableState::AsWanted } else { TableState::Different }
    }
}

/// The order of the chains means nothing, that of each one's rules does.
fn by_chain(mut rules: Vec<(String, Vec<Expression>)>) -> Vec<(String, Vec<Expression>)> {
    rules.sort_by(|(one, _), (other, _)| one.cmp(other));
    rules
}

fn wanted_rules(table: &Table) -> Vec<(String, Vec<Expression>)> {
    let of_chain = |chain: &Chain| {
        let name = chain.hook.chain_name();
        chain.rules.iter().map(|rule| (name.to_owned(), lower::rule(rule))).collect::<Vec<_>>()
    };
    table.chains.iter().flat_map(of_chain).collect()
}

fn look(
    socket: &mut Socket,
    wanted: Option<&Table>,
    others: &[TableId],
) -> Result<Found, KernelError> {
    let chains: &[Chain] = wanted.map_or(&[], |wanted| &wanted.chains);
    let asked_for = wanted.map(|wanted| &wanted.id).or(others.first());
    let what = asked_for.map_or_else(String::new, |id| format!("look at nftables table {id}"));
    let ask = |batch: &mut Batch| {
        for table in others.iter().chain(wanted.map(|wanted| &wanted.id)) {
            batch.get(kind(NFT_MSG_GETTABLE), named(table), what.as_str());
            batch.tolerate(&[Errno::ENOENT]);
        }
        if let Some(wanted) = wanted {
            get_content(batch, wanted, &what);
        }
    };
    socket.read(ask, |found: &mut Found, number, payload| {
        let attributes = Attributes(payload.get(HEADER..).unwrap_or_default());
        let Some(number) = number.checked_sub(others.len()) else {
            found.others.extend(others.get(number).cloned());
            return;
        };
        match number.checked_sub(1).map(|n| chains.get(n)) {
            None => {
                found.exists = true;
                found.flags = attributes.find(NFTA_TABLE_FLAGS).and_then(read_be32).unwrap_or(0);
                found.objects = attributes.find(NFTA_TABLE_USE).and_then(read_be32).unwrap_or(0);
            }
            Some(Some(chain)) => found.good_chains += usize::from(is_as_wanted(attributes, chain)),
            Some(None) => {
                let rule = wanted.and_then(|wanted| read_rule(attributes, &wanted.id.name));
                found.rules.extend(rule);
            }
        }
    })
}

fn get_content(batch: &mut Batch, table: &Table, what: &str) {
    let TableId { family, name } = &table.id;
    for chain in &table.chains {
        let attributes = vec![
            attribute(NFTA_CHAIN_TABLE, name.as_str()),
            attribute(NFTA_CHAIN_NAME, chain.hook.chain_name()),
        ];
        batch.get(kind(NFT_MSG_GETCHAIN), Message::new(*family, attributes), what);
        batch.tolerate(&[Errno::ENOENT]);
    }
    let rules = Message::new(*family, vec![attribute(NFTA_RULE_TABLE, name.as_str())]);
    batch.dump(kind(NFT_MSG_GETRULE), rules, what);
    batch.tolerate(&[Errno::ENOENT]);
}

fn is_as_wanted(attributes: Attributes<'_>, chain: &Chain) -> bool {
    let base = base_chain(&chain.hook);
    let hook = attributes.nested(NFTA_CHAIN_HOOK);
    let number = |attributes: Attributes<'_>, kind| attributes.find(kind).and_then(read_be32);
    attributes.find(NFTA_CHAIN_TYPE).map(read_string).as_deref() == Some(base.kind)
        && number(hook, NFTA_HOOK_HOOKNUM) == Some(base.hook)
        && number(hook, NFTA_HOOK_PRIORITY) == Some(base.priority as u32)
        && hook.find(NFTA_HOOK_DEV).map(read_string).as_deref() == base.device
        && number(attributes, NFTA_CHAIN_POLICY) == Some(lower::policy(chain.policy))
}

/// A rule's chain and expressions; `None` for one of another table (the filter is a wish).
fn read_rule(attributes: Attributes<'_>, table: &str) -> Option<(String, Vec<Expression>)> {
    if attributes.find(NFTA_RULE_TABLE).map(read_string).as_deref() != Some(table) {
        return None;
    }
    let chain = attributes.find(NFTA_RULE_CHAIN).map(read_string)?;
    Some((chain, expression::decode(attributes.nested(NFTA_RULE_EXPRESSIONS))))
}

/// Every table with a name that is reserved for kvmnet, of any family.
pub(in crate::kernel) fn reserved_tables(socket: &mut Socket) -> Result<Vec<TableId>, KernelError> {
    let ask = |batch: &mut Batch| {
        batch.dump(kind(NFT_MSG_GETTABLE), Message::new(0, vec![]), "list the nftables tables");
    };
    socket.read(ask, |tables: &mut Vec<TableId>, _, payload| {
        tables.extend(read_table(payload).filter(TableId::is_reserved));
    })
}

fn read_table(payload: &[u8]) -> Option<TableId> {
    let family = *payload.first()?;
    let attributes = Attributes(payload.get(HEADER..)?);
    let name = attributes.find(NFTA_TABLE_NAME).map(read_string)?;
    Some(TableId { family, name })
}
