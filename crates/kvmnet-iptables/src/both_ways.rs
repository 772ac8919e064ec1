//! Tables of all kinds, looked at as the helpers do it and as `kvmnet` does, by iptables-legacy: a helper
//! that saw what `kvmnet` doesn't would become it for nothing, and one that didn't see it would keep
//! guests in.

use std::cell::Cell;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use kvmnet_core::kernel::legacy_table;
use kvmnet_core::model::{FILTER, FORWARD, FilterView, RuleId, Variant};
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::accepts;
use crate::programs::{Family, Program};

const TABLES: u32 = 150;
const CHAINS: [&str; 5] = ["INPUT", "FORWARD", "FORWARD", "DOCKER-USER", "Z"];
const INPUTS: [&str; 6] = ["", "-i br0", "! -i br0", "-i eno1", "-i br1", "-i +"];
const OUTPUTS: [&str; 5] = ["", "-o br0", "! -o eno1", "-o eno1.5", "-o +"];
const IPV4: [&str; 6] = ["", "-p udp", "-s 10.0.0.0/8", "-d 10.1.2.3", "! -d 10.0.0.0/8", "-f"];
const IPV6: [&str; 6] = ["", "", "-s fd00::/8", "! -d fd00::1", "-p all", "-p ipv6-icmp"];
const EXTENSIONS: [&str; 8] = [
    "",
    "",
    "-m conntrack --ctstate RELATED,ESTABLISHED",
    "-m conntrack --ctstate DNAT",
    "-m conntrack --ctstate NEW",
    "-m conntrack ! --ctstate DNAT",
    "-m mark --mark 7",
    "-m limit --limit 1/sec",
];
const COMMENTS: [&str; 8] = [
    "",
    "",
    "-m comment --comment kvmnet-lab",
    "-m comment --comment kvmnet-default",
    "-m comment --comment \"kvmnet bridge br1\"",
    "-m comment --comment kvmnet-lab -m comment --comment kvmnet-default",
    "-m comment --comment \"a \\\"kvmnet-lab\\\"\"",
    "-m comment --comment kvmnet:lab",
];
const TARGETS: [&str; 10] = [
    "-j ACCEPT",
    "-j ACCEPT",
    "-j ACCEPT",
    "-j DROP",
    "-j REJECT",
    "-j RETURN",
    "-j Z",
    "-j DOCKER-USER",
    "-g DOCKER-USER",
    "",
];

/// The number of a chain, that of each part of a rule, whether the comment comes first, and whether there is
/// nothing else.
type Numbers = (usize, [usize; 6], bool, bool);

fn rule(family: Family, (chain, numbers, is_comment_first, is_plain): &Numbers) -> String {
    let [input, output, addresses, extension, comment, target] = *numbers;
    let addresses = match family {
        Family::Ipv4 => IPV4[addresses],
        Family::Ipv6 => IPV6[addresses],
    };
    let (one, other) = if *is_comment_first {
        (COMMENTS[comment], EXTENSIONS[extension])
    } else {
        (EXTENSIONS[extension], COMMENTS[comment])
    };
    let (chain, target) = (CHAINS[*chain], TARGETS[target]);
    // It would lead in a circle.
    let target = if target.ends_with(chain) || chain == "Z" && target.contains("DOCKER") {
        "-j ACCEPT"
    } else if chain == "DOCKER-USER" && target == "-j Z" {
        "-j DROP"
    } else {
        target
    };
    if *is_plain {
        return format!("-A {chain} {} {target}", COMMENTS[comment]);
    }
    // Nothing leaves by that chain.
    let output = if chain == "INPUT" { "" } else { OUTPUTS[output] };
    format!("-A {chain} {} {output} {addresses} {one} {other} {target}", INPUTS[input])
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let parts = (
        0..INPUTS.len(),
        0..OUTPUTS.len(),
        0..IPV4.len(),
        0..EXTENSIONS.len(),
        0..COMMENTS.len(),
        0..TARGETS.len(),
    );
    let parts = parts.prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f]);
    (0..CHAINS.len(), parts, any::<bool>(), any::<bool>())
}

/// Each of the two tells a rule from others in its own way.
fn without_ids(mut view: FilterView) -> FilterView {
    view.accepts.iter_mut().for_each(|found| found.at.id = RuleId::Offset(0));
    view
}

/// Without `--noflush`, which [`Program::restore`] has.
fn restore(family: Family, script: &str) {
    let program = match family {
        Family::Ipv4 => "iptables-legacy-restore",
        Family::Ipv6 => "ip6tables-legacy-restore",
    };
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it is installed");
    child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{script}");
}

fn table(family: Family, rules: &[Numbers], drops: bool, has_docker: bool) -> String {
    let policy = if drops { "DROP" } else { "ACCEPT" };
    let docker = if has_docker { ":DOCKER-USER - [0:0]\n" } else { "" };
    let rules: String = rules
        .iter()
        .map(|numbers| rule(family, numbers))
        .filter(|rule| has_docker || !rule.contains("DOCKER-USER"))
        .map(|rule| rule + "\n")
        .collect();
    format!("*filter\n:FORWARD {policy} [0:0]\n:Z - [0:0]\n{docker}{rules}COMMIT\n")
}

/// What the table that is there now comes to, as the helpers see it and as `kvmnet` does.
fn looked_at(family: Family, program: &Program) -> [FilterView; 2] {
    let read = legacy_table(family.number(), FILTER).expect("a table").filter;
    let listing = program.list(FILTER).expect("a listing");
    [read.expect("it forwards"), accepts::filter_view(family, &listing)].map(without_ids)
}

/// In the network namespace that the thread is in.
fn compare() {
    let tables = (proptest::collection::vec(numbers(), 0..12), any::<bool>(), any::<bool>());
    let config = Config { failure_persistence: None, ..Config::with_cases(TABLES) };
    let seen: [Cell<u32>; 4] = Default::default();
    for family in Family::ALL {
        let program = Program::of(family, Variant::Legacy).expect("iptables-legacy");
        let result = TestRunner::new(config.clone()).run(&tables, |(rules, drops, has_docker)| {
            let script = table(family, &rules, drops, has_docker);
            restore(family, &script);
            let [read, listed] = looked_at(family, &program);
            prop_assert_eq!(&read, &listed, "{}", script);
            let has_known = read.accepts.iter().any(|found| found.rule.is_some());
            let kinds = [read.drops, read.chain != FORWARD, !read.accepts.is_empty(), has_known];
            for (count, is_so) in seen.iter().zip(kinds) {
                count.set(count.get() + u32::from(is_so));
            }
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{family:?}: {error}"));
    }
    println!("drops, leads to DOCKER-USER, has accepts, such as kvmnet writes: {seen:?}");
    assert!(seen.iter().all(|count| count.get() > 0), "{seen:?}");
}

#[test]
fn see_the_same() {
    let in_its_own_namespace = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("only root can make a network namespace");
        compare();
    };
    thread::spawn(in_its_own_namespace).join().expect("all is the same");
}
