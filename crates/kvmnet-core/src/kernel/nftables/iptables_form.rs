//! Rules in the forms that iptables-nft itself writes, so that it reads, saves and restores them like
//! its own.

use ipnet::Ipv4Net;

use super::expression::Expression;
use super::lower::{
    EQUAL, IPV4_DESTINATION, IPV4_SOURCE, NETWORK_HEADER, NFT_META_IIFNAME, NFT_META_OIFNAME,
    NOT_EQUAL, address, compare,
};
use crate::kernel::xtables::connection;
use crate::model::{InterfaceName, Match, Rule, Verdict};

/// A rule in iptables-nft's own words.
pub(super) fn lower(rule: &Rule) -> Vec<Expression> {
    let mut expressions: Vec<Expression> = rule.matches.iter().flat_map(matching).collect();
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
        Match::Source(prefix) => masked(IPV4_SOURCE, *prefix),
        Match::Destination(prefix) => masked(IPV4_DESTINATION, *prefix),
        Match::Answering | Match::DestinationTranslated => {
            connection(condition).map(conntrack).into_iter().collect()
        }
        Match::InputGroup(_) | Match::Protocol(_) | Match::DestinationOutside(_) => Vec::new(),
    }
}

/// The whole address under a mask: iptables before 1.8.6 knows no shorter comparison, and takes
/// one for that of a single address.
fn masked(offset: u32, prefix: Ipv4Net) -> Vec<Expression> {
    let network = prefix.network().octets();
    let mut words =
        vec![Expression::Payload { base: NETWORK_HEADER, offset, length: network.len() as u32 }];
    if prefix.prefix_len() < 32 {
        words.push(Expression::Mask(prefix.netmask().octets().to_vec()));
    }
    words.push(compare(EQUAL, network.to_vec()));
    words
}

/// iptables-nft compares names up to the first NUL, where a name without a wildcard ends.
fn interface(key: u32, operation: u32, name: &InterfaceName) -> Vec<Expression> {
    let mut value = name.as_str().as_bytes().to_vec();
    value.push(0);
    vec![Expression::Meta { key }, compare(operation, value)]
}

fn conntrack(info: impl Into<Vec<u8>>) -> Expression {
    Expression::Match { name: "conntrack".to_owned(), revision: 3, info: info.into() }
}

/// What the expressions of one of our rules say; none where they are of another form.
pub(super) fn raise(expressions: &[Expression]) -> Option<Rule> {
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
                // Whatever else a load could mean: it must be what we would write, or what a later
                // iptables makes of it.
                let words = &rest[..rest.len() - behind.len()];
                let is_ours = words == matching(&found) || words == address(*offset, prefix, EQUAL);
                is_ours.then_some(())?;
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
                assert_eq!(raise(&lower(&rule)), Some(rule));
            }
        }
    }

    #[test]
    fn other_rules_are_not_taken_for_ours() {
        let rule = Rule { matches: vec![Match::Input(name("br0"))], verdict: Verdict::Accept };
        let written = lower(&rule);
        for at in 0..written.len() {
            let mut changed = written.clone();
            changed[at] = Expression::Unknown("lookup".to_owned());
            assert_eq!(raise(&changed), None, "{changed:?}");
        }
        let mut dropping = written;
        *dropping.last_mut().unwrap() = Expression::Verdict(libc::NF_DROP);
        assert_eq!(raise(&dropping), None);
    }
}
