//! The difference between what a table has and what it should have of a network's, for
//! `iptables-restore --noflush`.

use kvmnet_core::model::NetworkName;

use crate::listing::{Chain, Listing, network_of, target, words};
use crate::wanted::{Jump, Wanted};

/// What makes of `found` what is wanted, or takes away all that is the network's; none where nothing
/// is to be done. Rules and chains of others are not touched, but for rules that lead to chains of
/// the network's where none should.
#[must_use]
pub fn script(
    network: &NetworkName,
    table: &str,
    found: &Listing,
    wanted: Option<&Wanted>,
) -> Option<String> {
    let chains = wanted.map_or(&[][..], |wanted| &wanted.chains);
    let jumps = wanted.map_or(&[][..], |wanted| &wanted.jumps);
    let is_own = |chain: &str| network_of(chain).as_ref() == Some(network);

    let mut declared = Vec::new();
    let mut added = Vec::new();
    for (name, rules) in chains {
        if found.chain(name).is_some_and(|chain| same(&chain.rules, rules)) {
            continue;
        }
        // What it holds goes with the declaration.
        declared.push(format!(":{name} - [0:0]"));
        added.extend(rules.iter().map(|rule| format!("-A {name} {rule}")));
    }

    let is_good = |jump: &Jump| is_in_place(found, jump);
    let mut removed = Vec::new();
    for chain in found.chains.iter().filter(|chain| !is_own(&chain.name)) {
        for rule in &chain.rules {
            if !target(rule).is_some_and(|target| is_own(&target)) {
                continue;
            }
            let is_wanted = jumps.iter().any(|jump| {
                jump.from == chain.name && words(&jump.rule) == words(rule) && is_good(jump)
            });
            if !is_wanted {
                removed.push(format!("-D {} {rule}", chain.name));
            }
        }
    }
    let missing = jumps.iter().filter(|jump| !is_good(jump));
    let inserted: Vec<String> =
        missing.map(|jump| format!("-I {} 1 {}", jump.from, jump.rule)).collect();

    let surplus = found
        .chains
        .iter()
        .filter(|chain| is_own(&chain.name) && !chains.iter().any(|(name, _)| *name == chain.name));
    let names: Vec<&str> = surplus.map(|chain| chain.name.as_str()).collect();
    let emptied = names.iter().map(|name| format!("-F {name}"));
    let deleted: Vec<String> =
        emptied.chain(names.iter().map(|name| format!("-X {name}"))).collect();

    let lines = [declared, added, removed, inserted, deleted].concat();
    if lines.is_empty() {
        return None;
    }
    Some(format!("*{table}\n{}\nCOMMIT\n", lines.join("\n")))
}

/// Whether these rules are the wanted ones. Quotes say nothing.
fn same(found: &[String], wanted: &[String]) -> bool {
    found.len() == wanted.len()
        && found.iter().zip(wanted).all(|(found, wanted)| words(found) == words(wanted))
}

/// Whether it is there, once, and where it has to come first does.
fn is_in_place(found: &Listing, jump: &Jump) -> bool {
    let Some(Chain { rules, .. }) = found.chain(jump.from) else {
        return false;
    };
    let is_it = |rule: &String| words(rule) == words(&jump.rule);
    let Some(at) = rules.iter().position(is_it) else {
        return false;
    };
    let is_ours = |rule: &String| target(rule).is_some_and(|target| network_of(&target).is_some());
    let comes_first = !jump.first || rules[..at].iter().all(is_ours);
    comes_first && !rules[at + 1..].iter().any(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::Family;

    fn lab() -> NetworkName {
        NetworkName::parse("lab").unwrap()
    }

    fn wanted() -> Wanted {
        let rule = "-o br0 -m comment --comment kvmnet-lab -j DROP".to_owned();
        Wanted {
            family: Family::Ipv4,
            table: "filter",
            chains: vec![("KVMNET-lab-FWD".to_owned(), vec![rule])],
            jumps: vec![Jump {
                from: "FORWARD",
                rule: "-m comment --comment kvmnet:lab -j KVMNET-lab-FWD".to_owned(),
                first: true,
            }],
        }
    }

    const GOOD: &str = "-P FORWARD ACCEPT
-N KVMNET-lab-FWD
-N KVMNET-dmz-FWD
-A FORWARD -m comment --comment \"kvmnet:dmz\" -j KVMNET-dmz-FWD
-A FORWARD -m comment --comment \"kvmnet:lab\" -j KVMNET-lab-FWD
-A FORWARD -i eno1 -j ACCEPT
-A KVMNET-lab-FWD -o br0 -m comment --comment kvmnet-lab -j DROP
-A KVMNET-dmz-FWD -o dmz -j DROP
";
    const RULES: &str = ":KVMNET-lab-FWD - [0:0]
-A KVMNET-lab-FWD -o br0 -m comment --comment kvmnet-lab -j DROP
";
    const REMOVE: &str = "-D FORWARD -m comment --comment \"kvmnet:lab\" -j KVMNET-lab-FWD\n";
    const INSERT: &str = "-I FORWARD 1 -m comment --comment kvmnet:lab -j KVMNET-lab-FWD\n";

    #[track_caller]
    fn assert_script(found: &str, wanted: Option<&Wanted>, lines: &[&str]) {
        let script = script(&lab(), "filter", &Listing::parse(found), wanted);
        let expected = (!lines.is_empty()).then(|| format!("*filter\n{}COMMIT\n", lines.concat()));
        assert_eq!(script, expected, "{found}");
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        assert_script(GOOD, Some(&wanted()), &[]);
        assert_script("", Some(&wanted()), &[RULES, INSERT]);
    }

    #[test]
    fn only_what_is_wrong_is_put_right() {
        let jump = "-A FORWARD -m comment --comment \"kvmnet:lab\" -j KVMNET-lab-FWD\n";
        let rule = "-A KVMNET-lab-FWD -o br0 -m comment --comment kvmnet-lab -j DROP\n";
        for (damaged, lines) in [
            (GOOD.replace(rule, ""), &[RULES][..]),
            (GOOD.replace(rule, &rule.repeat(2)), &[RULES]),
            (GOOD.replace(rule, &rule.replace("DROP", "ACCEPT")), &[RULES]),
            (GOOD.replace(jump, ""), &[INSERT]),
            (GOOD.replace(jump, &jump.repeat(2)), &[REMOVE, REMOVE, INSERT]),
            (GOOD.replace(jump, &format!("-A FORWARD -j DROP\n{jump}")), &[REMOVE, INSERT]),
            (format!("{GOOD}-A INPUT -j KVMNET-lab-FWD\n"), &["-D INPUT -j KVMNET-lab-FWD\n"]),
            (format!("{GOOD}-N KVMNET-lab-IN\n"), &["-F KVMNET-lab-IN\n", "-X KVMNET-lab-IN\n"]),
        ] {
            assert_script(&damaged, Some(&wanted()), lines);
        }
    }

    #[test]
    fn what_is_the_networks_goes_and_nothing_else() {
        let away = [REMOVE, "-F KVMNET-lab-FWD\n", "-X KVMNET-lab-FWD\n"];
        assert_script(GOOD, None, &away);
        assert_script("-P FORWARD DROP\n-N KVMNET-lab-2-FWD\n-A FORWARD -j ACCEPT\n", None, &[]);
    }
}
