//! The table `filter` that iptables-nft works on, and rules of ours in its chains.

use neli::consts::nl::NlmF;
use nix::errno::Errno;

use super::expression::{self, Expression};
use super::iptables_form::{lower, raise};
use super::message::{
    HEADER, NFT_MSG_DELRULE, NFT_MSG_GETCHAIN, NFT_MSG_GETGEN, NFT_MSG_GETRULE, NFT_MSG_NEWRULE,
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_GEN_ID,
    NFTA_HOOK_HOOKNUM, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE,
    NFTA_RULE_POSITION, NFTA_RULE_TABLE, NFTA_RULE_USERDATA, begin_at, end, kind, message, nested,
};
use crate::kernel::KernelError;
use crate::kernel::attributes::{Attributes, Malformed, read_be32, read_string};
use crate::kernel::batch::Batch;
use crate::kernel::socket::Socket;
use crate::model::{
    AcceptOwner, AcceptsChange, CHAIN_PREFIX, DOCKER_USER, FILTER, FORWARD, FilterView,
    ForwardChain, FoundAccept, RuleId, RulePlace, TableId, Variant,
};

/// How often a change is tried on a ruleset that others keep changing.
const ATTEMPTS: usize = 32;
/// `NFTNL_UDATA_RULE_COMMENT` (libnftnl).
const USERDATA_COMMENT: u8 = 0;

/// Looks at the forward filter of one family; none where nothing there filters.
pub(in crate::kernel) fn filter_view(
    socket: &mut Socket,
    family: u8,
) -> Result<Option<FilterView>, KernelError> {
    let chains = chains(socket, family)?;
    let Some(policy) = chains.forward_policy else {
        return Ok(None);
    };
    let forward = rules(socket, family, FILTER, FORWARD)?;
    let drops = policy == libc::NF_DROP as u32 || forward.last().is_some_and(Found::stops_all);
    // A chain that no packet comes by, left of an earlier Docker, is no place for rules.
    let chain = if forward.iter().any(|rule| rule.always_leads_to(DOCKER_USER)) {
        DOCKER_USER
    } else {
        FORWARD
    };
    let mut found = forward;
    if chains.has_docker_user {
        found.extend(rules(socket, family, FILTER, DOCKER_USER)?);
    }
    Ok(Some(FilterView {
        variant: Variant::Nft,
        family,
        chain: chain.to_owned(),
        drops,
        has_own_chains: false,
        accepts: found.into_iter().filter_map(Found::into_accept).collect(),
    }))
}

/// Every base chain of the forward hook that lets through only what it names.
pub(in crate::kernel) fn dropping_chains(
    socket: &mut Socket,
) -> Result<Vec<ForwardChain>, KernelError> {
    let ask = |batch: &mut Batch| {
        batch.dump(kind(NFT_MSG_GETCHAIN), message(0), "list the nftables chains");
    };
    let found = socket.read(ask, |chains: &mut Vec<_>, _, payload| {
        chains.extend(forward_chain(payload)?);
        Ok(())
    })?;
    let mut dropping = Vec::new();
    for chain in found {
        let ForwardChain { table: TableId { family, name }, chain: chain_name, by_policy, .. } =
            &chain;
        let drops = *by_policy
            || rules(socket, *family, name, chain_name)?.last().is_some_and(Found::stops_all);
        if drops {
            dropping.push(chain);
        }
    }
    Ok(dropping)
}

/// A base chain of the forward hook.
fn forward_chain(payload: &[u8]) -> Result<Option<ForwardChain>, Malformed> {
    let attributes = Attributes::behind(HEADER, payload)?;
    let family = *payload.first().ok_or(Malformed)?;
    // The hooks of other families have other numbers.
    let forwards =
        [libc::NFPROTO_IPV4, libc::NFPROTO_IPV6, libc::NFPROTO_INET, libc::NFPROTO_BRIDGE];
    let number = |attributes: Attributes<'_>, kind| attributes.find(kind).and_then(read_be32);
    let hook = number(attributes.nested(NFTA_CHAIN_HOOK)?, NFTA_HOOK_HOOKNUM);
    let is_there = forwards.contains(&i32::from(family));
    let policy = number(attributes, NFTA_CHAIN_POLICY);
    let (Some(libc::NF_INET_FORWARD), Some(policy), true) =
        (hook.map(|hook| hook as libc::c_int), policy, is_there)
    else {
        return Ok(None);
    };
    let text = |kind| attributes.find(kind).map(read_string).ok_or(Malformed);
    Ok(Some(ForwardChain {
        variant: Variant::Nft,
        table: TableId { family, name: text(NFTA_CHAIN_TABLE)? },
        chain: text(NFTA_CHAIN_NAME)?,
        by_policy: policy == libc::NF_DROP as u32,
    }))
}

/// Changes rules of ours, all or nothing. What was to go and is gone is done, and where nothing
/// filters any more, nothing is to be added.
pub(in crate::kernel) fn change_accepts(
    socket: &mut Socket,
    change: &AcceptsChange,
) -> Result<(), KernelError> {
    let mut attempts = 1;
    loop {
        match try_to_change(socket, change) {
            // Somebody has changed the ruleset since it was looked at.
            Err(error) if error.errno() == Some(Errno::ERESTART) && attempts < ATTEMPTS => {
                attempts += 1;
            }
            result => return result,
        }
    }
}

/// The kernel numbers rules by table, from 1: in one that was made anew our numbers can be other
/// people's rules. So what is there is looked at once more, and the transaction holds only for that.
fn try_to_change(socket: &mut Socket, change: &AcceptsChange) -> Result<(), KernelError> {
    let generation = generation(socket)?;
    let family = change.family;
    let chains = chains(socket, family)?;
    if chains.forward_policy.is_none() {
        return Ok(());
    }
    let mut ours = Vec::new();
    for chain in [FORWARD, DOCKER_USER] {
        if change.delete.iter().any(|place| place.chain == chain) {
            let found = rules(socket, family, FILTER, chain)?.into_iter();
            ours.extend(found.filter_map(Found::into_accept).map(|accept| accept.at));
        }
    }
    let is_docker = change.chain == DOCKER_USER && chains.has_docker_user;
    let chain = if is_docker { DOCKER_USER } else { FORWARD };
    let what = format!(
        "change kvmnet's rules in {} {chain}, which takes the kernel's nft_compat; \
         firewall = \"none\" does without",
        TableId { family, name: FILTER.to_owned() }
    );
    let deletions = change.delete.iter().filter(|place| ours.contains(place));
    let deletions = deletions.filter_map(|place| {
        let RuleId::Handle(handle) = &place.id else { return None };
        let mut delete = message(family);
        delete.put(NFTA_RULE_TABLE, FILTER).put(NFTA_RULE_CHAIN, place.chain.as_str());
        delete.put(NFTA_RULE_HANDLE, handle.to_be_bytes());
        Some((NFT_MSG_DELRULE, NlmF::empty(), delete))
    });
    let behind = match change.insert.is_empty() {
        true => None,
        false => last_jump_at_head(rules(socket, family, FILTER, chain)?, change),
    };
    // Each goes to the same place, so the last comes first.
    let insertions = change.insert.iter().rev().map(|(owner, rule)| {
        let mut insert = message(family);
        insert.put(NFTA_RULE_TABLE, FILTER).put(NFTA_RULE_CHAIN, chain);
        insert.nest(nested(NFTA_RULE_EXPRESSIONS), |list| {
            expression::encode(&lower(rule), list);
        });
        insert.put(NFTA_RULE_USERDATA, userdata(&owner.to_string()).as_slice());
        let mut flags = NlmF::CREATE;
        if let Some(handle) = behind {
            insert.put(NFTA_RULE_POSITION, handle.to_be_bytes());
            flags |= NlmF::APPEND;
        }
        (NFT_MSG_NEWRULE, flags, insert)
    });
    let messages: Vec<_> = deletions.chain(insertions).collect();
    let Some(last) = messages.len().checked_sub(1) else {
        return Ok(());
    };
    let mut batch = socket.batch();
    begin_at(&mut batch, &what, generation);
    for (n, (number, flags, message)) in messages.into_iter().enumerate() {
        if n == last {
            batch.change(kind(number), flags, message, what.as_str());
        } else {
            batch.part(kind(number), flags, message, what.as_str());
        }
    }
    end(&mut batch, &what);
    socket.request(batch)
}

/// The last of the rules at a chain's head that lead to chains of kvmnet's. A network that is to be
/// kept from others is so by what comes first.
fn last_jump_at_head(rules: Vec<Found>, change: &AcceptsChange) -> Option<u64> {
    let stay = rules.into_iter().filter(|rule| !change.delete.contains(&rule.at));
    let jumps = stay.take_while(Found::leads_to_kvmnets);
    let last = jumps.last()?;
    match last.at.id {
        RuleId::Handle(handle) => Some(handle),
        RuleId::Offset(_) | RuleId::Text(_) => None,
    }
}

/// The number of the ruleset's present state.
fn generation(socket: &mut Socket) -> Result<u32, KernelError> {
    let ask = |batch: &mut Batch| {
        let what = "ask for the ruleset's generation";
        batch.get(kind(NFT_MSG_GETGEN), message(0), what);
    };
    socket.read(ask, |generation: &mut u32, _, payload| {
        let attributes = Attributes::behind(HEADER, payload)?;
        *generation = attributes.find(NFTA_GEN_ID).and_then(read_be32).ok_or(Malformed)?;
        Ok(())
    })
}

/// A rule's comment as nft and iptables-nft write it: type, length with the closing NUL, text.
fn userdata(comment: &str) -> Vec<u8> {
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let mut bytes = vec![USERDATA_COMMENT, length];
    bytes.extend(comment.bytes().take(usize::from(length) - 1));
    bytes.push(0);
    bytes
}

#[derive(Default)]
struct Chains {
    /// The policy of FORWARD, where that is a base chain of the forward hook.
    forward_policy: Option<u32>,
    has_docker_user: bool,
}

fn chains(socket: &mut Socket, family: u8) -> Result<Chains, KernelError> {
    let ask = |batch: &mut Batch| {
        for chain in [FORWARD, DOCKER_USER] {
            let mut question = message(family);
            question.put(NFTA_CHAIN_TABLE, FILTER).put(NFTA_CHAIN_NAME, chain);
            let what = format!("look at the chain {chain}");
            batch.get(kind(NFT_MSG_GETCHAIN), question, what);
            batch.tolerate(&[Errno::ENOENT]);
        }
    };
    socket.read(ask, |chains: &mut Chains, number, payload| {
        let attributes = Attributes::behind(HEADER, payload)?;
        if number == 0 {
            let hook = attributes.nested(NFTA_CHAIN_HOOK)?.find(NFTA_HOOK_HOOKNUM);
            let is_forward = hook.and_then(read_be32) == Some(libc::NF_INET_FORWARD as u32);
            let policy = attributes.find(NFTA_CHAIN_POLICY).and_then(read_be32);
            chains.forward_policy = policy.filter(|_| is_forward);
        } else {
            chains.has_docker_user = true;
        }
        Ok(())
    })
}

/// A rule of whatever origin.
struct Found {
    at: RulePlace,
    comment: Option<String>,
    expressions: Vec<Expression>,
}

fn rules(
    socket: &mut Socket,
    family: u8,
    table: &str,
    chain: &str,
) -> Result<Vec<Found>, KernelError> {
    let ask = |batch: &mut Batch| {
        let mut question = message(family);
        question.put(NFTA_RULE_TABLE, table).put(NFTA_RULE_CHAIN, chain);
        let what = format!("list the rules of the chain {chain}");
        batch.dump(kind(NFT_MSG_GETRULE), question, what);
        batch.tolerate(&[Errno::ENOENT]);
    };
    socket.read(ask, |found: &mut Vec<Found>, _, payload| {
        found.extend(read_rule(payload, family, table, chain)?);
        Ok(())
    })
}

/// None for a rule of another chain: the filter is a wish.
fn read_rule(
    payload: &[u8],
    family: u8,
    table: &str,
    chain: &str,
) -> Result<Option<Found>, Malformed> {
    let attributes = Attributes::behind(HEADER, payload)?;
    let text = |kind| attributes.find(kind).map(read_string);
    let is_here = payload.first() == Some(&family)
        && text(NFTA_RULE_TABLE).as_deref() == Some(table)
        && text(NFTA_RULE_CHAIN).as_deref() == Some(chain);
    if !is_here {
        return Ok(None);
    }
    let handle = attributes.find(NFTA_RULE_HANDLE).and_then(|bytes| bytes.try_into().ok());
    let handle = handle.map(u64::from_be_bytes).ok_or(Malformed)?;
    let expressions: Vec<Expression> =
        expression::decode(attributes.nested(NFTA_RULE_EXPRESSIONS)?).collect();
    let own_words = expressions.iter().find_map(comment_of);
    let words = attributes.find(NFTA_RULE_USERDATA).and_then(comment_in_userdata);
    Ok(Some(Found {
        at: RulePlace { chain: chain.to_owned(), id: RuleId::Handle(handle) },
        comment: own_words.or(words),
        expressions,
    }))
}

fn comment_of(expression: &Expression) -> Option<String> {
    match expression {
        Expression::Match { name, info, .. } if name == "comment" => Some(read_string(info)),
        _ => None,
    }
}

/// A list of type, length and value, a byte each of the first two.
fn comment_in_userdata(mut rest: &[u8]) -> Option<String> {
    while let [kind, length, behind @ ..] = rest {
        let value = behind.get(..usize::from(*length))?;
        if *kind == USERDATA_COMMENT {
            return Some(read_string(value));
        }
        rest = &behind[value.len()..];
    }
    None
}

impl Found {
    /// Its last expression, if it holds for every packet.
    fn unconditional(&self) -> Option<&Expression> {
        let (last, others) = self.expressions.split_last()?;
        let says_nothing = |one: &Expression| match one {
            Expression::Counter => true,
            Expression::Match { name, .. } => name == "comment",
            Expression::Unknown(name) => name == "log",
            _ => false,
        };
        others.iter().all(says_nothing).then_some(last)
    }

    /// Whether nothing gets past it.
    fn stops_all(&self) -> bool {
        match self.unconditional() {
            Some(Expression::Verdict(code)) => *code == libc::NF_DROP,
            Some(Expression::Target(name)) => name == "REJECT" || name == "DROP",
            Some(Expression::Unknown(name)) => name == "reject",
            _ => false,
        }
    }

    fn always_leads_to(&self, wanted: &str) -> bool {
        matches!(self.unconditional(), Some(Expression::Jump { chain, .. }) if chain == wanted)
    }

    fn leads_to_kvmnets(&self) -> bool {
        let target = self.unconditional();
        matches!(target, Some(Expression::Jump { chain, .. }) if chain.starts_with(CHAIN_PREFIX))
    }

    /// What it is of ours. Rules that don't accept are nobody's but the administrator's, whatever
    /// their comment says.
    fn into_accept(self) -> Option<FoundAccept> {
        let owner = AcceptOwner::parse(self.comment.as_deref()?)?;
        let accepts = self.expressions.last() == Some(&Expression::Verdict(libc::NF_ACCEPT));
        accepts.then_some(())?;
        let rule = raise(&self.expressions);
        Some(FoundAccept { at: self.at, owner, rule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_found_in_userdata() {
        assert_eq!(comment_in_userdata(b"\x00\x05lab1\0").as_deref(), Some("lab1"));
        assert_eq!(comment_in_userdata(&userdata("kvmnet-lab")).as_deref(), Some("kvmnet-lab"));
        assert_eq!(comment_in_userdata(b"\x01\x02ab\x00\x03xy\0").as_deref(), Some("xy"));
        for broken in [&b""[..], b"\x00", b"\x00\x09ab", b"\x01\x02ab"] {
            assert_eq!(comment_in_userdata(broken), None, "{broken:?}");
        }
    }
}
