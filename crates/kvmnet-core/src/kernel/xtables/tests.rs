//! Tables as the real kernel gives them, what iptables-legacy has written there, and every kind of
//! damage to that. (That kvmnet's two ways to look at a table agree is tested in kvmnet-iptables.)

use std::{env, fs};

use kvmnet_fuzz::Damage;

use super::ask::{self, Answer};
use super::table::look;
use super::{IPV4, IPV6, Layout};
use crate::kernel::attributes::Malformed;
use crate::kernel::fuzz::conversation::{from_hexadecimal, to_hexadecimal};
use crate::kernel::fuzz::on_a_host;
use crate::model::{AcceptOwner, FilterView, InterfaceName, Match, NetworkName, Rule, Verdict};

const LAYOUTS: [(&Layout, &str); 2] = [(&IPV4, "iptables"), (&IPV6, "ip6tables")];

/// The filter after these commands, each with the family's program for its first word.
fn filter(layout: &'static Layout, program: &str, commands: &[&str]) -> FilterView {
    let script: String =
        commands.iter().map(|command| format!("{program}-legacy -w {command}\n")).collect();
    let answer = on_a_host(&script, || ask::table(layout, "filter").expect("a table"));
    look(layout, &answer).expect("it makes sense").filter.expect("it forwards")
}

#[test]
fn what_drops_and_where_rules_belong() {
    const DOCKER: [&str; 2] = ["-N DOCKER-USER", "-A DOCKER-USER -j RETURN"];
    let passed = "-A FORWARD -j DOCKER-USER";
    for (commands, chain, drops) in [
        (&["-P FORWARD ACCEPT"][..], "FORWARD", false),
        (&["-P FORWARD DROP"], "FORWARD", true),
        (&["-P INPUT DROP", "-P OUTPUT DROP", "-A INPUT -j DROP"], "FORWARD", false),
        (&["-A FORWARD -j DROP"], "FORWARD", true),
        (&["-A FORWARD -j DROP", "-A FORWARD -j ACCEPT"], "FORWARD", false),
        (&["-A FORWARD -j REJECT"], "FORWARD", true),
        (&["-A FORWARD -m comment --comment rest -j REJECT"], "FORWARD", true),
        (&["-A FORWARD -m conntrack --ctstate NEW -j DROP"], "FORWARD", false),
        (&["-A FORWARD -i eno1 -j DROP"], "FORWARD", false),
        (&["-A FORWARD ! -o eno1 -j DROP"], "FORWARD", false),
        (&["-A FORWARD -p tcp -j DROP"], "FORWARD", false),
        (&["-A FORWARD"], "FORWARD", false),
        (&["-A FORWARD -i + -o + -j DROP"], "FORWARD", true),
        (&["-A FORWARD -i e+ -j DROP"], "FORWARD", false),
        (&["-N X", "-A X -j DROP", "-A FORWARD -j X"], "FORWARD", false),
        (&[DOCKER[0], DOCKER[1]], "FORWARD", false),
        (&[DOCKER[0], DOCKER[1], passed], "DOCKER-USER", false),
        (&[DOCKER[0], DOCKER[1], passed, "-P FORWARD DROP"], "DOCKER-USER", true),
        (&[DOCKER[0], "-N A", "-N Z", passed, "-A FORWARD -j Z"], "DOCKER-USER", false),
        (&[DOCKER[0], "-A FORWARD -i eno1 -j DOCKER-USER"], "FORWARD", false),
        (&[DOCKER[0], "-A FORWARD -g DOCKER-USER"], "FORWARD", false),
        (&[DOCKER[0], "-A INPUT -j DOCKER-USER"], "FORWARD", false),
    ] {
        for (layout, program) in LAYOUTS {
            let found = filter(layout, program, commands);
            assert_eq!((&*found.chain, found.drops), (chain, drops), "{program} {commands:?}");
        }
    }
}

fn name(text: &str) -> InterfaceName {
    InterfaceName::parse(text.as_ref()).unwrap()
}

#[test]
fn rules_of_kvmnets_are_read_as_they_were_meant() {
    let lab = AcceptOwner::Network(NetworkName::parse("lab").unwrap());
    let (to, from) = (name("br0"), name("eno1.100"));
    let subnet = "192.168.150.0/24".parse().unwrap();
    let comment = "-m comment --comment kvmnet-lab";
    let between = vec![Match::Input(to.clone()), Match::Output(to.clone())];
    let out = vec![Match::Input(to.clone()), Match::Output(from), Match::Source(subnet)];
    let other = [Match::InputOther(to.clone()), Match::Output(to)];
    let inward = |state| [&other[..], &[Match::Destination(subnet), state]].concat();
    let inwards = "-d 192.168.150.0/24 ! -i br0 -o br0 -m conntrack --ctstate";
    let of_both = [("-i br0 -o br0".to_owned(), Some(between.clone()))];
    let of_ipv4 = [
        ("-s 192.168.150.0/24 -i br0 -o eno1.100".to_owned(), Some(out)),
        (format!("{inwards} RELATED,ESTABLISHED"), Some(inward(Match::Answering))),
        (format!("{inwards} DNAT"), Some(inward(Match::DestinationTranslated))),
        (format!("{inwards} NEW"), None),
        (format!("{inwards} DNAT --ctproto tcp"), None),
        ("! -s 192.168.150.0/24 -i br0 -o br0".to_owned(), None),
        ("-i br0 -f".to_owned(), None),
    ];
    // What somebody has edited is kvmnet's still, and says something else.
    let edited =
        ["-i br0 -o br0 -p tcp", "-i br0 ! -o br0", "-i br+ -o br0", "-i br0 -m mark --mark 1"];
    let edited: Vec<_> = edited.into_iter().map(|rule| (rule.to_owned(), None)).collect();
    for (layout, program) in LAYOUTS {
        let of_family = if layout.family == IPV4.family { &of_ipv4[..] } else { &[] };
        for (rule, matches) in of_both.iter().chain(of_family).chain(&edited) {
            let commands = [
                "-N DOCKER-USER",
                "-A INPUT -j ACCEPT",
                &format!("-A FORWARD {rule} {comment} -j ACCEPT"),
                &format!("-A DOCKER-USER {comment} {rule} -j ACCEPT"),
                "-N Z",
                &format!("-A Z {rule} {comment} -j ACCEPT"),
            ];
            let found = filter(layout, program, &commands).accepts;
            let chains: Vec<&str> = found.iter().map(|found| &*found.at.chain).collect();
            assert_eq!(chains, ["FORWARD", "DOCKER-USER"], "{program} {rule}");
            let wanted = matches.clone().map(|matches| Rule { matches, verdict: Verdict::Accept });
            for found in found {
                assert_eq!((&found.owner, &found.rule), (&lab, &wanted), "{program} {rule}");
            }
        }
    }
}

#[test]
fn whose_a_rule_is_its_comment_says_and_that_it_accepts() {
    for (rule, is_ours) in [
        ("-m comment --comment 'kvmnet bridge br1' -j ACCEPT", true),
        ("-m comment --comment kvmnet-lab -j DROP", false),
        ("-m comment --comment kvmnet-lab -j RETURN", false),
        ("-m comment --comment kvmnet-lab -j LOG", false),
        ("-m comment --comment kvmnet-lab", false),
        ("-m comment --comment 'kvmnet-lab ' -j ACCEPT", false),
        ("-m comment --comment kvmnet -j ACCEPT", false),
        ("-j ACCEPT", false),
    ] {
        for (layout, program) in LAYOUTS {
            let found = filter(layout, program, &[&format!("-A FORWARD -i br0 {rule}")]);
            assert_eq!(found.accepts.len(), usize::from(is_ours), "{program} {rule}");
        }
    }
}

#[test]
fn chains_of_kvmnets_are_seen_in_every_table() {
    for table in ["filter", "nat"] {
        let script = format!("iptables-legacy -t {table} -N KVMNET-lab-POST");
        let with = on_a_host(&script, move || ask::table(&IPV4, table).expect("a table"));
        let with = look(&IPV4, &with).expect("it makes sense");
        assert_eq!((with.has_own_chains, with.filter.is_some()), (true, table == "filter"));
        let script = format!("iptables-legacy -t {table} -N KVMNETS");
        let without = on_a_host(&script, move || ask::table(&IPV4, table).expect("a table"));
        assert!(!look(&IPV4, &without).expect("it makes sense").has_own_chains);
    }
}

/// One that has some of everything.
const STRANGE: &str = "\
-N DOCKER-USER
-N KVMNET-lab-FWD
-P FORWARD DROP
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -j DOCKER-USER
-A FORWARD -m comment --comment kvmnet:lab -j KVMNET-lab-FWD
-A FORWARD -i br0 -o br0 -m comment --comment kvmnet-default -j ACCEPT
-A FORWARD ! -i br0 -o br0 -m conntrack --ctstate DNAT -m comment --comment kvmnet-default -j ACCEPT
-A FORWARD -j REJECT
-A DOCKER-USER -i eno1 -m comment --comment 'kvmnet bridge br1' -j ACCEPT
-A DOCKER-USER -j RETURN";

fn file(program: &str) -> String {
    format!("{}/fixtures/tables/{program}", env!("CARGO_MANIFEST_DIR"))
}

/// As it was recorded: where the forward chain is, then the entries.
fn kept(program: &str) -> Answer {
    let text = fs::read_to_string(file(program));
    let text = text.unwrap_or_else(|why| panic!("{}: {why}", file(program)));
    let mut lines = text.lines();
    let mut number = || lines.next().and_then(|line| line.parse().ok()).expect("a number");
    let forward = Some(number()..number());
    Answer::with(forward, &from_hexadecimal(lines.next().expect("the entries")))
}

/// `KVMNET_RECORD=1` has them recorded anew.
#[test]
fn what_is_kept_is_what_a_kernel_gives() {
    for (layout, program) in LAYOUTS {
        let script: String =
            STRANGE.lines().map(|line| format!("{program}-legacy -w {line}\n")).collect();
        let answer = on_a_host(&script, || ask::table(layout, "filter").expect("a table"));
        if env::var_os("KVMNET_RECORD").is_some() {
            let forward = answer.forward.clone().expect("it forwards");
            let entries = to_hexadecimal(answer.entries());
            let text = format!("{}\n{}\n{entries}\n", forward.start, forward.end);
            fs::write(file(program), text).expect("the fixtures can be written");
        }
        assert_eq!(look(layout, &kept(program)), look(layout, &answer));
        let found = look(layout, &answer).expect("it makes sense");
        let filter = found.filter.expect("it forwards");
        assert_eq!((&*filter.chain, filter.drops), ("DOCKER-USER", true));
        assert_eq!((filter.accepts.len(), found.has_own_chains), (3, true));
    }
}

#[test]
fn no_table_that_is_cut_short_passes_for_whole() {
    for (layout, program) in LAYOUTS {
        let whole = kept(program);
        for length in 0..whole.entries().len() {
            let cut = Answer::with(whole.forward.clone(), &whole.entries()[..length]);
            assert_eq!(look(layout, &cut), Err(Malformed), "{program} at {length}");
        }
    }
}

#[test]
fn no_table_is_too_strange() {
    let kept = LAYOUTS.map(|(layout, program)| (layout, kept(program)));
    bolero::check!().with_type::<(bool, Vec<Damage>)>().for_each(|(which, damages)| {
        let (layout, whole) = &kept[usize::from(*which)];
        let mut entries = whole.entries().to_vec();
        damages.iter().for_each(|damage| damage.apply(&mut entries, &["kvmnet-lab", "ERROR"]));
        let answer = Answer::with(whole.forward.clone(), &entries);
        let _: Result<_, Malformed> = look(layout, &answer);
    });
}
