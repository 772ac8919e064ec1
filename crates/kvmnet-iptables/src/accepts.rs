//! Accept rules in the forward filter of iptables-legacy, which netlink knows nothing of: what is
//! there as values, and a change as a script for `iptables-legacy-restore --noflush`.

use ipnet::Ipv4Net;
use kvmnet_core::model::{
    AcceptOwner, AcceptsChange, DOCKER_USER, FORWARD, FilterView, FoundAccept, InterfaceName,
    Match, Rule, RuleId, RulePlace, Variant, Verdict,
};

use crate::listing::{Listing, network_of, target, words};
use crate::programs::Family;
use crate::wanted::text;

/// What a listing of the table `filter` comes to.
#[must_use]
pub fn filter_view(family: Family, listing: &Listing) -> FilterView {
    let accepts = [FORWARD, DOCKER_USER].into_iter().flat_map(|name| {
        let rules = listing.chain(name).map(|chain| &chain.rules[..]).unwrap_or_default();
        rules.iter().filter_map(move |rule| {
            let (owner, found) = read(rule)?;
            let at = RulePlace { chain: name.to_owned(), id: RuleId::Text(rule.clone()) };
            Some(FoundAccept { at, owner, rule: found })
        })
    });
    FilterView {
        variant: Variant::Legacy,
        family: family.number(),
        chain: listing.forward_chain().to_owned(),
        drops: listing.drops(),
        has_own_chains: false,
        accepts: accepts.collect(),
    }
}

/// What makes the change to a table that is as listed; none where nothing is to be done. What was to
/// go and is gone is done.
#[must_use]
pub fn script(change: &AcceptsChange, listing: &Listing) -> Option<String> {
    // By what they say and not by their place: others may change the table until this is carried out.
    let mut deleted = Vec::new();
    for place in &change.delete {
        let RuleId::Text(rule) = &place.id else { continue };
        let is_it = |found: &(&str, &str)| *found == (&*place.chain, rule);
        let there = listing.chain(&place.chain).into_iter().flat_map(|chain| &chain.rules);
        let gone = deleted.iter().filter(|found| is_it(found)).count();
        if there.filter(|found| *found == rule).count() > gone {
            deleted.push((&*place.chain, &**rule));
        }
    }
    let is_docker = change.chain == DOCKER_USER && listing.chain(DOCKER_USER).is_some();
    let chain = if is_docker { DOCKER_USER } else { FORWARD };
    let head = 1 + jumps_at_head(chain, listing, &deleted);
    let mut lines: Vec<String> =
        deleted.iter().map(|(chain, rule)| format!("-D {chain} {rule}")).collect();
    lines.extend(change.insert.iter().enumerate().map(|(n, (owner, rule))| {
        format!("-I {chain} {} {}", head + n, text(&owner.to_string(), rule, "ACCEPT"))
    }));
    (!lines.is_empty()).then(|| format!("*filter\n{}\nCOMMIT\n", lines.join("\n")))
}

/// How many rules at a chain's head lead to chains of kvmnet's. A network that is to be kept from
/// others is so by what comes first.
fn jumps_at_head(chain: &str, listing: &Listing, deleted: &[(&str, &str)]) -> usize {
    let rules = listing.chain(chain).into_iter().flat_map(|chain| &chain.rules);
    let is_jump = |rule: &&String| target(rule).is_some_and(|name| network_of(&name).is_some());
    rules.filter(|rule| !deleted.contains(&(chain, rule))).take_while(is_jump).count()
}

/// What a rule is of ours: for whose sake it is there, and what it says where that is of a form that
/// kvmnet writes. Rules that don't accept are nobody's but the administrator's, whatever their
/// comment says.
fn read(rule: &str) -> Option<(AcceptOwner, Option<Rule>)> {
    let words = words(rule);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [conditions @ .., "-j", "ACCEPT"] = &words[..] else { return None };
    let at = conditions.windows(3).position(|three| three[..] == ["-m", "comment", "--comment"])?;
    let owner = AcceptOwner::parse(conditions.get(at + 3)?)?;
    let others = [&conditions[..at], &conditions[at + 4..]].concat();
    let matches = matches(&others);
    Some((owner, matches.map(|matches| Rule { matches, verdict: Verdict::Accept })))
}

/// In the order in which kvmnet's own rules have them.
fn matches(mut words: &[&str]) -> Option<Vec<Match>> {
    let name = |name: &str| InterfaceName::parse(name.as_ref()).ok();
    let net = |net: &str| net.parse::<Ipv4Net>().ok();
    let mut found = Vec::new();
    while !words.is_empty() {
        let (order, condition, rest) = match words {
            ["-i", word, rest @ ..] => (0, Match::Input(name(word)?), rest),
            ["!", "-i", word, rest @ ..] => (0, Match::InputOther(name(word)?), rest),
            ["-o", word, rest @ ..] => (1, Match::Output(name(word)?), rest),
            ["-s", word, rest @ ..] => (2, Match::Source(net(word)?), rest),
            ["-d", word, rest @ ..] => (2, Match::Destination(net(word)?), rest),
            ["-m", "conntrack", "--ctstate", state, rest @ ..] => match *state {
                "RELATED,ESTABLISHED" => (3, Match::Answering, rest),
                "DNAT" => (3, Match::DestinationTranslated, rest),
                _ => return None,
            },
            _ => return None,
        };
        found.push((order, condition));
        words = rest;
    }
    found.sort_by_key(|(order, _)| *order);
    Some(found.into_iter().map(|(_, condition)| condition).collect())
}

#[cfg(test)]
mod tests {
    use kvmnet_core::model::{ManagedNetwork, Mode, NetworkName};
    use kvmnet_core::plan::{Surroundings, accepts_of};

    use super::*;

    const HEAD: &str =
        "-P FORWARD DROP\n-N DOCKER-USER\n-N KVMNET-iso-FWD\n-A FORWARD -j DOCKER-USER\n";

    fn name(name: &str) -> InterfaceName {
        InterfaceName::parse(name.as_ref()).unwrap()
    }

    fn owner() -> AcceptOwner {
        AcceptOwner::Network(NetworkName::parse("lab").unwrap())
    }

    fn rules(mode: Mode) -> Vec<Rule> {
        let network = ManagedNetwork::new(NetworkName::parse("lab").unwrap(), name("br0"), mode);
        let uplinks = [name("eno1"), name("wg0.5")];
        let surroundings = Surroundings { uplinks: &uplinks, bridge_netfilter: true };
        accepts_of(&network, Family::Ipv4.number(), &surroundings)
    }

    fn insertion(chain: &str, insert: Vec<(AcceptOwner, Rule)>) -> AcceptsChange {
        AcceptsChange {
            variant: Variant::Legacy,
            family: Family::Ipv4.number(),
            chain: chain.to_owned(),
            insert,
            delete: Vec::new(),
        }
    }

    fn listed(rules: &[&str]) -> Listing {
        let lines: String = rules.iter().map(|rule| format!("-A DOCKER-USER {rule}\n")).collect();
        Listing::parse(&format!("{HEAD}{lines}"))
    }

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        let address = "192.168.150.1/24".parse().unwrap();
        for mode in [Mode::Nat(address), Mode::Routed(address), Mode::Isolated] {
            let rules = rules(mode);
            assert!(!rules.is_empty());
            for rule in rules {
                for owner in [owner(), AcceptOwner::Bridge(name("br1"))] {
                    let text = text(&owner.to_string(), &rule, "ACCEPT");
                    assert_eq!(read(&text), Some((owner, Some(rule.clone()))), "{text}");
                }
            }
        }
    }

    #[test]
    fn whose_a_rule_is_its_comment_says_and_that_it_accepts() {
        for (rule, is_ours) in [
            ("-i br0 -o br0 -m comment --comment kvmnet-lab -j ACCEPT", true),
            ("-i br0 -o br0 -m comment --comment \"kvmnet-lab\" -j ACCEPT", true),
            ("-p tcp -m comment --comment \"kvmnet bridge br1\" -m tcp --dport 1 -j ACCEPT", true),
            ("-i br0 -m comment --comment kvmnet-lab -j DROP", false),
            ("-i br0 -m comment --comment kvmnet-lab -j RETURN", false),
            ("-i br0 -m comment --comment kvmnet-lab", false),
            ("-m comment --comment kvmnet:lab -j KVMNET-lab-FWD", false),
            ("-m comment --comment kvmnet-lab -g ACCEPT", false),
            ("-m comment --comment \"kvmnet-lab \" -j ACCEPT", false),
            ("-m comment --comment \"my kvmnet-lab\" -j ACCEPT", false),
            ("-m comment --comment kvmnet-Lab -j ACCEPT", false),
            ("-m comment --comment kvmnet -j ACCEPT", false),
            ("-m comment --comment \"kvmnet bridge br1 of ours\" -j ACCEPT", false),
            ("-m string --string \"-j ACCEPT\" -m comment --comment kvmnet-lab -j LOG", false),
            ("-j ACCEPT", false),
        ] {
            assert_eq!(read(rule).is_some(), is_ours, "{rule}");
        }
        let edited = read("-i br0 -p tcp -m comment --comment kvmnet-lab -j ACCEPT");
        assert_eq!(edited, Some((owner(), None)));
        for cut in 0..HEAD.len() {
            let _ = read(&HEAD[cut..]);
        }
    }

    #[test]
    fn the_view_of_a_table() {
        let own = "-i br0 -o br0 -m comment --comment kvmnet-lab -j ACCEPT";
        let view = filter_view(Family::Ipv4, &listed(&["-i eno1 -j DROP", own, "-j RETURN"]));
        assert_eq!((&*view.chain, view.drops, view.accepts.len()), (DOCKER_USER, true, 1));
        let at = RulePlace { chain: DOCKER_USER.to_owned(), id: RuleId::Text(own.to_owned()) };
        assert_eq!(view.accepts[0].at, at);
        let nothing = filter_view(Family::Ipv6, &Listing::default());
        assert_eq!((&*nothing.chain, nothing.drops, nothing.accepts.len()), (FORWARD, false, 0));
    }

    #[test]
    fn what_is_inserted_keeps_its_order_behind_jumps_of_kvmnets() {
        let address = "192.168.150.1/24".parse().unwrap();
        let insert = rules(Mode::Nat(address)).into_iter().map(|rule| (owner(), rule)).collect();
        let change = insertion(DOCKER_USER, insert);
        let jump = "-m comment --comment kvmnet:iso -j KVMNET-iso-FWD";
        let script = script(&change, &listed(&[jump, "-i eno9 -j DROP", jump])).unwrap();
        assert_eq!(
            script,
            "\
*filter
-I DOCKER-USER 2 -s 192.168.150.0/24 -i br0 -o eno1 -m comment --comment kvmnet-lab -j ACCEPT
-I DOCKER-USER 3 -s 192.168.150.0/24 -i br0 -o wg0.5 -m comment --comment kvmnet-lab -j ACCEPT
-I DOCKER-USER 4 -d 192.168.150.0/24 ! -i br0 -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment kvmnet-lab -j ACCEPT
-I DOCKER-USER 5 -d 192.168.150.0/24 ! -i br0 -o br0 -m conntrack --ctstate DNAT -m comment --comment kvmnet-lab -j ACCEPT
-I DOCKER-USER 6 -i br0 -o br0 -m comment --comment kvmnet-lab -j ACCEPT
COMMIT
"
        );
    }

    #[test]
    fn what_is_gone_is_deleted_already() {
        let own = "-i br0 -o br0 -m comment --comment kvmnet-lab -j ACCEPT";
        let place = RulePlace { chain: DOCKER_USER.to_owned(), id: RuleId::Text(own.to_owned()) };
        let change =
            AcceptsChange { delete: vec![place.clone(), place], ..insertion(DOCKER_USER, vec![]) };
        assert_eq!(script(&change, &listed(&["-j RETURN"])), None);
        assert_eq!(script(&change, &Listing::default()), None);
        let line = format!("-D DOCKER-USER {own}\n");
        for times in [1, 2] {
            let script = script(&change, &listed(&[own, own, own][..times]));
            assert_eq!(script, Some(format!("*filter\n{}COMMIT\n", line.repeat(times))));
        }
        // Docker's chain has gone, too.
        let rule = rules(Mode::Isolated).remove(0);
        let change = AcceptsChange { insert: vec![(owner(), rule)], ..change };
        let wanted = format!("*filter\n-I FORWARD 1 {own}\nCOMMIT\n");
        assert_eq!(script(&change, &Listing::parse("-P FORWARD DROP\n")), Some(wanted));
    }
}
