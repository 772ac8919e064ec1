//! The table `filter` that iptables-nft works on, and rules of ours in its chains. They are written
//! in the forms that iptables-nft itself writes, so that it reads, saves and restores them like its
//! own.

use ipnet::Ipv4Net;
use neli::consts::nl::NlmF;
use nix::errno::Errno;

use super::expression::{self, Expression};
use super::lower::{
    EQUAL, IPV4_DESTINATION, IPV4_SOURCE, NFT_META_IIFNAME, NFT_META_OIFNAME, NOT_EQUAL, address,
    compare,
};
use super::message::{
    HEADER, Message, NFT_MSG_DELRULE, NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_NEWRULE,
    NFTA_CHAIN_HOOK, NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_HOOK_HOOKNUM,
    NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE, NFTA_RULE_TABLE, NFTA_RULE_USERDATA,
    attribute, begin, end, kind, nested,
};
use crate::kernel::KernelError;
use crate::kernel::attributes::{Attributes, read_be32, read_string};
use crate::kernel::socket::{Batch, Socket};
use crate::model::{
    AcceptOwner, AcceptsChange, FilterView, ForwardChain, FoundAccept, InterfaceName, Match, Rule,
    RulePlace, TableId, Verdict,
};

/// The table's name.
pub(in crate::kernel) const TABLE: &str = "filter";
const FORWARD: &str = "FORWARD";
/// Made by Docker for rules of others, and left alone by it from then on.
const DOCKER_USER: &str = "DOCKER-USER";

/// `sizeof(struct xt_comment_info)` (`linux/netfilter/xt_comment.h`).
const COMMENT_LENGTH: usize = 256;
/// `sizeof(struct xt_conntrack_mtinfo3)` (`linux/netfilter/xt_conntrack.h`), 164, rounded up to
/// eight bytes as `XT_ALIGN` has it.
const CONNTRACK_LENGTH: usize = 168;
/// Where its `match_flags` and its `state_mask` are, both `__u16`.
const CONNTRACK_FLAGS: usize = 146;
const CONNTRACK_STATE_MASK: usize = 150;
/// `XT_CONNTRACK_STATE`.
const MATCH_STATE: u16 = 1;
/// `XT_CONNTRACK_STATE_BIT` of established and related, and `XT_CONNTRACK_STATE_DNAT`.
const ESTABLISHED_OR_RELATED: u16 = (1 << 1) | (1 << 2);
const DESTINATION_TRANSLATED: u16 = 1 << 7;
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
    let forward = rules(socket, family, TABLE, FORWARD)?;
    let drops = policy == libc::NF_DROP as u32 || forward.last().is_some_and(Found::stops_all);
    let mut found = forward;
    if chains.has_docker_user {
        found.extend(rules(socket, family, TABLE, DOCKER_USER)?);
    }
    let chain = if chains.has_docker_user { DOCKER_USER } else { FORWARD };
    Ok(Some(FilterView {
        family,
        chain: chain.to_owned(),
        drops,
        accepts: found.into_iter().filter_map(Found::into_accept).collect(),
    }))
}

/// Every base chain of the forward hook that lets through only what it names.
pub(in crate::kernel) fn dropping_chains(
    socket: &mut Socket,
) -> Result<Vec<ForwardChain>, KernelError> {
    let ask = |batch: &mut Batch| {
        batch.dump(kind(NFT_MSG_GETCHAIN), Message::new(0, vec![]), "list the nftables chains");
    };
    let found = socket.read(ask, |chains: &mut Vec<_>, _, payload| {
        chains.extend(forward_chain(payload));
    })?;
    let mut dropping = Vec::new();
    for chain in found {
        let ForwardChain { table: TableId { family, name }, chain: chain_name, by_policy } = &chain;
        let drops = *by_policy
            || rules(socket, *family, name, chain_name)?.last().is_some_and(Found::stops_all);
        if drops {
            dropping.push(chain);
        }
    }
    Ok(dropping)
}

/// A base chain of the forward hook.
fn forward_chain(payload: &[u8]) -> Option<ForwardChain> {
    let family = *payload.first()?;
    // The hooks of other families have other numbers.
    let forwards =
        [libc::NFPROTO_IPV4, libc::NFPROTO_IPV6, libc::NFPROTO_INET, libc::NFPROTO_BRIDGE];
    if !forwards.contains(&i32::from(family)) {
        return None;
    }
    let attributes = Attributes(payload.get(HEADER..)?);
    let hook = attributes.nested(NFTA_CHAIN_HOOK).find(NFTA_HOOK_HOOKNUM).and_then(read_be32)?;
    let text = |kind| attributes.find(kind).map(read_string);
    let table = TableId { family, name: text(NFTA_CHAIN_TABLE)? };
    let policy = attributes.find(NFTA_CHAIN_POLICY).and_then(read_be32)?;
    let by_policy = policy == libc::NF_DROP as u32;
    let chain = ForwardChain { table, chain: text(NFTA_CHAIN_NAME)?, by_policy };
    (hook == libc::NF_INET_FORWARD as u32).then_some(chain)
}

/// Changes rules of ours, all or nothing.
pub(in crate::kernel) fn change_accepts(
    socket: &mut Socket,
    change: &AcceptsChange,
) -> Result<(), KernelError> {
    let what = format!("change kvmnet's rules in the chain {}", change.chain);
    let mut batch = socket.batch();
    begin(&mut batch, &what);
    let deletions = change.delete.iter().map(|place| {
        (NFT_MSG_DELRULE, NlmF::empty(), {
            Message::new(
                change.family,
                vec![
                    attribute(NFTA_RULE_TABLE, TABLE),
                    attribute(NFTA_RULE_CHAIN, place.chain.as_str()),
                    attribute(NFTA_RULE_HANDLE, place.handle.to_be_bytes()),
                ],
            )
        })
    });
    // Each goes to the head, so the last comes first.
    let insertions = change.insert.iter().rev().map(|(owner, rule)| {
        (NFT_MSG_NEWRULE, NlmF::CREATE, {
            Message::new(
                change.family,
                vec![
                    attribute(NFTA_RULE_TABLE, TABLE),
                    attribute(NFTA_RULE_CHAIN, change.chain.as_str()),
                    nested(NFTA_RULE_EXPRESSIONS, expression::encode(&lower(owner, rule))),
                ],
            )
        })
    });
    let messages: Vec<_> = deletions.chain(insertions).collect();
    let last = messages.len().saturating_sub(1);
    for (n, (number, flags, message)) in messages.into_iter().enumerate() {
        if n == last {
            batch.change(kind(number), flags, message, what.as_str());
        } else {
            batch.part(kind(number), flags, message, what.as_str());
        }
    }
    end(&mut batch, &what);
    socket.request(batch, |_, _| {})
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
            let attributes =
                vec![attribute(NFTA_CHAIN_TABLE, TABLE), attribute(NFTA_CHAIN_NAME, chain)];
            let what = format!("look at the chain {chain}");
            batch.get(kind(NFT_MSG_GETCHAIN), Message::new(family, attributes), what);
            batch.tolerate(&[Errno::ENOENT]);
        }
    };
    socket.read(ask, |chains: &mut Chains, number, payload| {
        let attributes = Attributes(payload.get(HEADER..).unwrap_or_default());
        if number == 0 {
            let hook = attributes.nested(NFTA_CHAIN_HOOK).find(NFTA_HOOK_HOOKNUM);
            let is_forward = hook.and_then(read_be32) == Some(libc::NF_INET_FORWARD as u32);
            let policy = attributes.find(NFTA_CHAIN_POLICY).and_then(read_be32);
            chains.forward_policy = policy.filter(|_| is_forward);
        } else {
            chains.has_docker_user = true;
        }
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
        let attributes = vec![attribute(NFTA_RULE_TABLE, table), attribute(NFTA_RULE_CHAIN, chain)];
        let what = format!("list the rules of the chain {chain}");
        batch.dump(kind(NFT_MSG_GETRULE), Message::new(family, attributes), what);
        batch.tolerate(&[Errno::ENOENT]);
    };
    socket.read(ask, |found: &mut Vec<Found>, _, payload| {
        found.extend(read_rule(payload, family, table, chain));
    })
}

/// `None` for a rule of another chain: the filter is a wish.
fn read_rule(payload: &[u8], family: u8, table: &str, chain: &str) -> Option<Found> {
    let attributes = Attributes(payload.get(HEADER..)?);
    let text = |kind| attributes.find(kind).map(read_string);
    let is_here = *payload.first()? == family
        && text(NFTA_RULE_TABLE).as_deref() == Some(table)
        && text(NFTA_RULE_CHAIN).as_deref() == Some(chain);
    if !is_here {
        return None;
    }
    let handle = attributes.find(NFTA_RULE_HANDLE)?.try_into().map(u64::from_be_bytes).ok()?;
    let expressions = expression::decode(attributes.nested(NFTA_RULE_EXPRESSIONS));
    let own_words = expressions.iter().find_map(comment_of);
    let words = attributes.find(NFTA_RULE_USERDATA).and_then(comment_in_userdata);
    Some(Found {
        at: RulePlace { chain: chain.to_owned(), handle },
        comment: own_words.or(words),
        expressions,
    })
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
    /// Whether nothing gets past it.
    fn stops_all(&self) -> bool {
        let last = self.expressions.last();
        let stops = match last {
            Some(Expression::Verdict(code)) => *code == libc::NF_DROP,
            Some(Expression::Unknown(name)) => name == "reject" || name == "target",
            _ => false,
        };
        let others = self.expressions.len().saturating_sub(1);
        stops && self.expressions[..others].iter().all(|other| *other == Expression::Counter)
    }

    fn into_accept(self) -> Option<FoundAccept> {
        let owner = AcceptOwner::parse(self.comment.as_deref()?)?;
        let rule = raise(&self.expressions);
        Some(FoundAccept { at: self.at, owner, rule })
    }
}

/// A rule in iptables-nft's own words.
fn lower(owner: &AcceptOwner, rule: &Rule) -> Vec<Expression> {
    let mut expressions: Vec<Expression> = rule.matches.iter().flat_map(matching).collect();
    let mut comment = owner.to_string().into_bytes();
    comment.resize(COMMENT_LENGTH, 0);
    expressions.push(Expression::Match { name: "comment".to_owned(), revision: 0, info: comment });
    expressions.push(Expression::Counter);
    expressions.push(Expression::Verdict(match rule.verdict {
        Verdict::Drop => libc::NF_DROP,
        _ => libc::NF_ACCEPT,
    }));
    expressions
}

fn matching(condition: &Match) -> Vec<Expression> {
    match condition {
        Match::Input(name) => interface(NFT_META_IIFNAME, EQUAL, name),
        Match::InputOther(name) => interface(NFT_META_IIFNAME, NOT_EQUAL, name),
        Match::Output(name) => interface(NFT_META_OIFNAME, EQUAL, name),
        Match::Source(prefix) => address(IPV4_SOURCE, *prefix, EQUAL),
        Match::Destination(prefix) => address(IPV4_DESTINATION, *prefix, EQUAL),
        Match::Answering => vec![connection(ESTABLISHED_OR_RELATED)],
        Match::DestinationTranslated => vec![connection(DESTINATION_TRANSLATED)],
        Match::InputGroup(_) | Match::Protocol(_) | Match::DestinationOutside(_) => Vec::new(),
    }
}

/// iptables-nft compares names up to the first NUL, where a name without a wildcard ends.
fn interface(key: u32, operation: u32, name: &InterfaceName) -> Vec<Expression> {
    let mut value = name.as_str().as_bytes().to_vec();
    value.push(0);
    vec![Expression::Meta { key }, compare(operation, value)]
}

fn connection(states: u16) -> Expression {
    let mut info = vec![0; CONNTRACK_LENGTH];
    info[CONNTRACK_FLAGS..CONNTRACK_FLAGS + 2].copy_from_slice(&MATCH_STATE.to_ne_bytes());
    let mask = CONNTRACK_STATE_MASK..CONNTRACK_STATE_MASK + 2;
    info[mask].copy_from_slice(&states.to_ne_bytes());
    Expression::Match { name: "conntrack".to_owned(), revision: 3, info }
}

/// What the expressions of one of our rules say; none where they are of another form.
fn raise(expressions: &[Expression]) -> Option<Rule> {
    let mut matches = Vec::new();
    let mut rest = expressions;
    loop {
        rest = match rest {
            [Expression::Counter, Expression::Verdict(libc::NF_ACCEPT)]
            | [Expression::Verdict(libc::NF_ACCEPT)] => break,
            [Expression::Match { name, .. }, behind @ ..] if name == "comment" => behind,
            [found @ Expression::Match { .. }, behind @ ..] => {
                let known = [Match::Answering, Match::DestinationTranslated];
                matches.push(known.into_iter().find(|one| matching(one) == [found.clone()])?);
                behind
            }
            [Expression::Meta { key }, Expression::Compare { operation, value }, behind @ ..] => {
                matches.push(raise_interface(*key, *operation, value)?);
                behind
            }
            [Expression::Payload { offset, .. }, behind @ ..] => {
                let (prefix, behind) = raise_prefix(behind)?;
                let found = match *offset {
                    IPV4_SOURCE => Match::Source(prefix),
                    IPV4_DESTINATION => Match::Destination(prefix),
                    _ => return None,
                };
                // Whatever else a load could mean: it must be what we would write.
                let length = expressions.len() - rest.len();
                let words = matching(&found);
                (expressions.get(length..length + words.len())? == words).then_some(())?;
                matches.push(found);
                behind
            }
            _ => return None,
        };
    }
    Some(Rule { matches, verdict: Verdict::Accept })
}

fn raise_interface(key: u32, operation: u32, value: &[u8]) -> Option<Match> {
    let name = InterfaceName::parse(std::str::from_utf8(value.strip_suffix(&[0])?).ok()?.as_ref());
    match (key, operation) {
        (NFT_META_IIFNAME, EQUAL) => name.ok().map(Match::Input),
        (NFT_META_IIFNAME, NOT_EQUAL) => name.ok().map(Match::InputOther),
        (NFT_META_OIFNAME, EQUAL) => name.ok().map(Match::Output),
        _ => None,
    }
}

/// The prefix that a loaded address is compared with.
fn raise_prefix(rest: &[Expression]) -> Option<(Ipv4Net, &[Expression])> {
    let octets = |value: &[u8]| {
        let mut octets = [0; 4];
        octets.get_mut(..value.len())?.copy_from_slice(value);
        Some(octets)
    };
    match rest {
        [Expression::Mask(mask), Expression::Compare { operation: EQUAL, value }, behind @ ..] => {
            let netmask = octets(mask)?.into();
            Some((Ipv4Net::with_netmask(octets(value)?.into(), netmask).ok()?, behind))
        }
        [Expression::Compare { operation: EQUAL, value }, behind @ ..] => {
            let length = u8::try_from(value.len() * 8).ok()?;
            Some((Ipv4Net::new(octets(value)?.into(), length).ok()?, behind))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> InterfaceName {
        InterfaceName::parse(text.as_ref()).unwrap()
    }

    #[test]
    fn rules_read_as_they_were_written() {
        let owner = AcceptOwner::parse("kvmnet-lab").unwrap();
        for prefix in ["192.168.100.0/24", "10.77.0.0/20", "10.0.0.0/8", "10.1.2.3/32"] {
            let prefix: Ipv4Net = prefix.parse().unwrap();
            for matches in [
                vec![Match::Input(name("br0")), Match::Output(name("eno1"))],
                vec![Match::Input(name("br0")), Match::Output(name("eno1")), Match::Source(prefix)],
                vec![
                    Match::InputOther(name("br0")),
                    Match::Output(name("br0")),
                    Match::Destination(prefix),
                    Match::Answering,
                ],
                vec![Match::Destination(prefix), Match::DestinationTranslated],
            ] {
                let rule = Rule { matches, verdict: Verdict::Accept };
                assert_eq!(raise(&lower(&owner, &rule)), Some(rule));
            }
        }
    }

    #[test]
    fn other_rules_are_not_taken_for_ours() {
        let owner = AcceptOwner::parse("kvmnet-lab").unwrap();
        let rule = Rule { matches: vec![Match::Input(name("br0"))], verdict: Verdict::Accept };
        let written = lower(&owner, &rule);
        for at in 0..written.len() {
            let mut changed = written.clone();
            changed[at] = Expression::Unknown("lookup".to_owned());
            assert_eq!(raise(&changed), None, "{changed:?}");
        }
        let mut dropping = written;
        *dropping.last_mut().unwrap() = Expression::Verdict(libc::NF_DROP);
        assert_eq!(raise(&dropping), None);
    }

    #[test]
    fn comments_are_found_in_userdata() {
        assert_eq!(comment_in_userdata(b"\x00\x05lab1\0").as_deref(), Some("lab1"));
        assert_eq!(comment_in_userdata(b"\x01\x02ab\x00\x03xy\0").as_deref(), Some("xy"));
        for broken in [&b""[..], b"\x00", b"\x00\x09ab", b"\x01\x02ab"] {
            assert_eq!(comment_in_userdata(broken), None, "{broken:?}");
        }
    }
}
