//! Looking at tables: which there are, and whether one is as it should be.

use nix::errno::Errno;

use super::expression;
use super::lower::{self, base_chain};
use super::message::{
    HEADER, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETTABLE, NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME,
    NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_CHAIN_TYPE, NFTA_HOOK_DEV, NFTA_HOOK_HOOKNUM,
    NFTA_HOOK_PRIORITY, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE, NFTA_TABLE_FLAGS,
    NFTA_TABLE_NAME, NFTA_TABLE_USE, kind, message,
};
use crate::kernel::KernelError;
use crate::kernel::attributes::{Attributes, Malformed, read_be32, read_string, without_nul};
use crate::kernel::batch::Batch;
use crate::kernel::socket::Socket;
use crate::model::{Chain, Table, TableId, TableState};

/// A table that is there.
#[derive(Debug, Clone)]
pub(in crate::kernel) struct FoundTable {
    pub id: TableId,
    /// `NFT_TABLE_F_DORMANT` and its like: a table that does nothing, or is somebody's.
    flags: u32,
    /// How many chains, sets and other objects it holds.
    objects: u32,
}

/// Every table, of any family.
pub(in crate::kernel) fn tables(socket: &mut Socket) -> Result<Vec<FoundTable>, KernelError> {
    let ask = |batch: &mut Batch| {
        batch.dump(kind(NFT_MSG_GETTABLE), message(0), "list the nftables tables");
    };
    socket.read(ask, |tables: &mut Vec<_>, _, payload| {
        tables.push(read_table(payload)?);
        Ok(())
    })
}

fn read_table(payload: &[u8]) -> Result<FoundTable, Malformed> {
    let attributes = Attributes::behind(HEADER, payload)?;
    let family = *payload.first().ok_or(Malformed)?;
    let number = |kind| attributes.find(kind).and_then(read_be32).unwrap_or(0);
    let name = attributes.find(NFTA_TABLE_NAME).map(read_string).ok_or(Malformed)?;
    Ok(FoundTable {
        id: TableId { family, name },
        flags: number(NFTA_TABLE_FLAGS),
        objects: number(NFTA_TABLE_USE),
    })
}

/// Every chain of a family, with its table's name before its own.
pub(in crate::kernel) fn chain_names(
    socket: &mut Socket,
    family: u8,
) -> Result<Vec<(String, String)>, KernelError> {
    let ask = |batch: &mut Batch| {
        batch.dump(kind(NFT_MSG_GETCHAIN), message(family), "list the nftables chains");
    };
    socket.read(ask, |chains: &mut Vec<_>, _, payload| {
        let attributes = Attributes::behind(HEADER, payload)?;
        let text = |kind| attributes.find(kind).map(read_string).ok_or(Malformed);
        chains.push((text(NFTA_CHAIN_TABLE)?, text(NFTA_CHAIN_NAME)?));
        Ok(())
    })
}

/// Compares a table that is to be there with what is, chain by chain and rule by rule.
///
/// One send: each wanted chain, and the rules. The kernel goes through this table alone, however
/// many rules others have.
pub(in crate::kernel) fn table_state(
    socket: &mut Socket,
    wanted: &Table,
    tables: &[FoundTable],
) -> Result<TableState, KernelError> {
    match tables.iter().find(|table| table.id == wanted.id) {
        None => Ok(TableState::Absent),
        Some(table) => Ok(look(socket, wanted)?.compare(table, wanted)),
    }
}

/// What was found in a table.
#[derive(Default)]
struct Found {
    /// Of the wanted chains, those that are there as wanted.
    good_chains: usize,
    /// How many rules each of the wanted chains has.
    rules: Vec<usize>,
    /// Whether a rule isn't the wanted one of its place.
    differs: bool,
}

impl Found {
    /// Compares the next rule of a chain with what is to be there. The order of the chains means nothing,
    /// that of each one's rules does.
    fn take_rule(&mut self, attributes: Attributes<'_>, wanted: &Table) -> Result<(), Malformed> {
        // The filter is a wish: it may be of another table.
        if attributes.find(NFTA_RULE_TABLE).map(without_nul) != Some(wanted.id.name.as_bytes()) {
            return Ok(());
        }
        let name = attributes.find(NFTA_RULE_CHAIN).map(without_nul).ok_or(Malformed)?;
        let expressions = expression::decode(attributes.nested(NFTA_RULE_EXPRESSIONS)?);
        self.rules.resize(wanted.chains.len(), 0);
        let is_of = |chain: &Chain| chain.hook.chain_name().as_bytes() == name;
        let Some(at) = wanted.chains.iter().position(is_of) else {
            self.differs = true;
            return Ok(());
        };
        let rule = wanted.chains[at].rules.get(self.rules[at]);
        self.rules[at] += 1;
        self.differs |= !rule.is_some_and(|rule| expressions.eq(lower::rule(rule)));
        Ok(())
    }

    fn compare(mut self, table: &FoundTable, wanted: &Table) -> TableState {
        let chains = wanted.chains.len();
        self.rules.resize(chains, 0);
        let same = table.flags == 0
            && table.objects as usize == chains
            && self.good_chains == chains
            && !self.differs
            && self.rules.into_iter().eq(wanted.chains.iter().map(|chain| chain.rules.len()));
        if same { TableState::AsWanted } else { TableState::Different }
    }
}

fn look(socket: &mut Socket, wanted: &Table) -> Result<Found, KernelError> {
    let what = format!("look at nftables table {}", wanted.id);
    let ask = |batch: &mut Batch| get_content(batch, wanted, &what);
    socket.read(ask, |found: &mut Found, number, payload| {
        let attributes = Attributes::behind(HEADER, payload)?;
        match wanted.chains.get(number) {
            Some(chain) => found.good_chains += usize::from(is_as_wanted(attributes, chain)?),
            None => found.take_rule(attributes, wanted)?,
        }
        Ok(())
    })
}

fn get_content(batch: &mut Batch, table: &Table, what: &str) {
    let TableId { family, name } = &table.id;
    for chain in &table.chains {
        let mut question = message(*family);
        question.put(NFTA_CHAIN_TABLE, name.as_str());
        question.put(NFTA_CHAIN_NAME, chain.hook.chain_name());
        batch.get(kind(NFT_MSG_GETCHAIN), question, what);
        batch.tolerate(&[Errno::ENOENT]);
    }
    let mut rules = message(*family);
    rules.put(NFTA_RULE_TABLE, name.as_str());
    batch.dump(kind(NFT_MSG_GETRULE), rules, what);
    batch.tolerate(&[Errno::ENOENT]);
}

fn is_as_wanted(attributes: Attributes<'_>, chain: &Chain) -> Result<bool, Malformed> {
    let base = base_chain(&chain.hook);
    let hook = attributes.nested(NFTA_CHAIN_HOOK)?;
    let number = |attributes: Attributes<'_>, kind| attributes.find(kind).and_then(read_be32);
    Ok(attributes.find(NFTA_CHAIN_TYPE).map(read_string).as_deref() == Some(base.kind)
        && number(hook, NFTA_HOOK_HOOKNUM) == Some(base.hook)
        && number(hook, NFTA_HOOK_PRIORITY) == Some(base.priority as u32)
        && hook.find(NFTA_HOOK_DEV).map(read_string).as_deref() == base.device
        && number(attributes, NFTA_CHAIN_POLICY) == Some(lower::policy(chain.policy)))
}
