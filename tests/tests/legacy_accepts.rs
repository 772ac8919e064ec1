//! A host whose iptables-legacy forwards only what it names, which nftables shows nothing of: guests
//! of networks with rules in nftables have accept rules of kvmnet's there.

use std::time::{Duration, Instant};

use kvmnet_tests::{Foreign, Host, assert_same, wait_until};

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(700);
const OUTSIDE: &str = "10.0.0.1:7000";

/// FORWARD that drops, or rejects what is left, for both families.
const DROPPING: [&str; 3] = [
    "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP",
    "iptables-legacy -A FORWARD -m comment --comment 'all else' -j REJECT
     ip6tables-legacy -A FORWARD -j DROP",
    "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP
     iptables-legacy -N DOCKER-USER; iptables-legacy -A DOCKER-USER -j RETURN
     iptables-legacy -A FORWARD -j DOCKER-USER",
];
const POLICY: &str = DROPPING[0];
const DOCKER: &str = DROPPING[2];

const OF_NAT: [&str; 4] = [
    "-s 192.168.100.0/24 -i br0 -o eno1 -m comment --comment kvmnet-default -j ACCEPT",
    "-d 192.168.100.0/24 ! -i br0 -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment \
     --comment kvmnet-default -j ACCEPT",
    "-d 192.168.100.0/24 ! -i br0 -o br0 -m conntrack --ctstate DNAT -m comment --comment \
     kvmnet-default -j ACCEPT",
    "-i br0 -o br0 -m comment --comment kvmnet-default -j ACCEPT",
];

/// kvmnet's rules in these chains, in their order.
fn ours(host: &Host, program: &str) -> Vec<String> {
    let rules = host.ok(&format!("{program} -S"));
    let own = rules.lines().filter(|line| line.contains("kvmnet"));
    own.map(|line| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned()).collect()
}

const PROGRAMS: [&str; 4] =
    ["iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"];

#[track_caller]
fn no_rules_of_ours(host: &Host) {
    for program in PROGRAMS {
        assert!(ours(host, program).is_empty(), "{program}: {:?}", ours(host, program));
    }
}

#[track_caller]
fn natup(host: &Host, tap: &str) {
    host.helper("natup", &[tap]).expect(tap);
}

#[track_caller]
fn natdown(host: &Host, tap: &str) {
    host.helper("natdown", &[tap]).expect(tap);
}

fn foreign(host: &Host) -> Foreign {
    host.foreign_to_kvmnet(&["vnet0", "vnet1"])
}

/// Takes kvmnet's rules out of a variant's chains by hand.
fn remove(host: &Host, program: &str) {
    host.ok(&format!("{program} -S | sed -n '/kvmnet/s/^-A/{program} -D/p' | sh"));
}

#[test]
fn nat_guests_get_out_and_nothing_else_gets_through() {
    for dropping in DROPPING {
        println!("{dropping}");
        let host = Host::new();
        let _servers = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
        host.ok(dropping);
        host.ok("iptables-legacy -t nat -A PREROUTING -i eno1 -p tcp --dport 8080 -j DNAT --to 192.168.100.10:7000
                 iptables-legacy -A FORWARD -i eno9 -m comment --comment 'a \"strange\" \\rule' -j ACCEPT
                 iptables-legacy -A INPUT -s 10.9.9.9 -j DROP; ip6tables-legacy -A FORWARD -i eno9 -j DROP");
        if dropping.contains("REJECT") {
            host.ok("iptables-legacy -A FORWARD -j REJECT; ip6tables-legacy -A FORWARD -j REJECT");
        }
        let anna = host.tap_machine("vnet0", "192.168.100.10/24", "192.168.100.1");
        let bert = host.tap_machine("vnet1", "192.168.100.11/24", "192.168.100.1");
        let _annas = (anna.net().tcp_server(7000), anna.net().udp_server(7000));
        let before = foreign(&host);
        natup(&host, "vnet0");
        natup(&host, "vnet1");
        anna.assert_reaches(OUTSIDE);
        bert.assert_reaches("192.168.100.10:7000");
        let forwarded = host.outside().tcp_connect("10.0.0.11:8080", "hello", SOON);
        assert!(forwarded.is_ok(), "{forwarded:?}");
        host.outside_ok("ip route add 192.168.100.0/24 via 10.0.0.11");
        assert!(host.outside_tcp_connect("192.168.100.10", 7000, SHORT).is_err());
        assert_eq!(ours(&host, "iptables-legacy"), OF_NAT);
        assert_eq!(ours(&host, "ip6tables-legacy"), OF_NAT[3..]);
        assert_eq!((ours(&host, "iptables-nft").len(), ours(&host, "ip6tables-nft").len()), (0, 0));
        let chain = if dropping == DOCKER { "DOCKER-USER" } else { "FORWARD" };
        let first = host.ok(&format!("iptables-legacy -S {chain} 1"));
        assert_eq!(first.trim(), format!("-A {chain} {}", OF_NAT[0]));
        let log = host.syslog().join("\n");
        let said = format!("now lets the guests through: iptables-legacy -S {chain}");
        assert!(log.contains(&said) && log.contains(": ip6tables-legacy -S FORWARD"), "{log}");
        let status = host.kvmnet_ok(&["status"]);
        for family in ["ip", "ip6"] {
            let line = format!(
                "iptables-legacy {family} filter FORWARD lets through only what it names; kvmnet opened \
                 it for default.\n"
            );
            assert!(status.contains(&line), "{status}");
        }
        assert_eq!(host.kvmnet_ok(&["check"]), "1 network checked: all is well\n");
        // A second run changes nothing.
        let once = host.foreign();
        natup(&host, "vnet1");
        assert_eq!(host.kvmnet_ok(&["reload"]), "default: is as it should be\n");
        assert_same(&once, &host.foreign());
        // Without them it was the firewall that kept the guests in.
        for put_back in ["natup", "reload"] {
            remove(&host, "iptables-legacy");
            bert.assert_does_not_reach(OUTSIDE);
            let found = host.kvmnet(&["check"]);
            let lacks = format!(
                "is not as it should be; kvmnet reload puts it right, as does the next \
                                 guest's start: in iptables-legacy's ip filter {chain}: insert iifname"
            );
            assert!(found.code == 3 && found.stdout.contains(&lacks), "{found:?}");
            match put_back {
                "natup" => natup(&host, "vnet1"),
                _ => drop(host.kvmnet_ok(&["reload"])),
            }
            bert.assert_reaches(OUTSIDE);
            assert_eq!(ours(&host, "iptables-legacy"), OF_NAT);
        }
        // One of them.
        host.ok(&format!("iptables-legacy -D {chain} 2"));
        natup(&host, "vnet1");
        let mut found = ours(&host, "iptables-legacy");
        found.sort();
        let mut wanted = OF_NAT;
        wanted.sort_unstable();
        assert_eq!(found, wanted);

        natdown(&host, "vnet0");
        bert.assert_reaches(OUTSIDE);
        natdown(&host, "vnet1");
        no_rules_of_ours(&host);
        host.assert_no_network();
        assert_same(&before, &foreign(&host));
    }
}

/// What one variant lets through, the other may drop.
#[test]
fn both_variants_drop() {
    for (firewall, chosen) in
        [("nftables", "nft"), ("nftables", "legacy"), ("iptables", "nft"), ("iptables", "legacy")]
    {
        println!("{firewall}, {chosen}");
        let host = Host::new();
        let _servers = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
        host.use_iptables(chosen);
        host.ok(&DOCKER.replace("-legacy", "-nft"));
        host.ok(POLICY);
        host.describe(
            "default",
            &format!("address = \"192.168.100.1/24\"\nfirewall = \"{firewall}\"\n"),
        );
        let anna = host.tap_machine("vnet0", "192.168.100.10/24", "192.168.100.1");
        let before = foreign(&host);
        natup(&host, "vnet0");
        anna.assert_reaches(OUTSIDE);
        let rules = |program: &str| {
            let rules = ours(&host, program);
            assert!(!rules.is_empty(), "{program}");
            rules
        };
        for variant in ["nft", "legacy"] {
            let has_chains = firewall == "iptables" && chosen == variant;
            let rules = rules(&format!("iptables-{variant}"));
            assert_eq!(rules == OF_NAT, !has_chains, "{variant}: {rules:#?}");
            assert!(rules.iter().all(|rule| !rule.contains("KVMNET")) || has_chains, "{rules:#?}");
        }
        assert_eq!(host.kvmnet_ok(&["reload"]), "default: is as it should be\n");
        assert_eq!(host.kvmnet_ok(&["check"]), "1 network checked: all is well\n");
        for variant in ["nft", "legacy"] {
            if firewall == "nftables" {
                remove(&host, &format!("iptables-{variant}"));
                anna.assert_does_not_reach(OUTSIDE);
                natup(&host, "vnet0");
                anna.assert_reaches(OUTSIDE);
            }
        }
        natdown(&host, "vnet0");
        no_rules_of_ours(&host);
        assert_same(&before, &foreign(&host));
    }
}

/// Networks with rules in iptables itself, of either variant, and such without, in the same chains.
#[test]
fn beside_chains_of_kvmnets() {
    for variant in ["nft", "legacy"] {
        let host = Host::new();
        host.use_iptables(variant);
        host.ok(&POLICY.replace("legacy", variant));
        host.describe("lab", "mode = \"isolated\"\nfirewall = \"iptables\"\n");
        let _cell = host.tap_on("lab", "vnet1");
        let _tap = host.tap("vnet0");
        natup(&host, "vnet0");
        // What keeps the isolated guests in comes first, and stays as it is.
        let program = format!("iptables-{variant}");
        let first = host.ok(&format!("{program} -S FORWARD 1"));
        assert!(first.trim().ends_with("-j KVMNET-lab-FWD"), "{first}");
        let accepts = || {
            let rules = ours(&host, &program);
            let accepts = rules.into_iter().filter(|rule| rule.contains("kvmnet-default"));
            accepts.collect::<Vec<_>>()
        };
        assert_eq!(accepts(), OF_NAT);
        let said = "default: is as it should be\nlab: is as it should be\n";
        assert_eq!(host.kvmnet_ok(&["reload"]), said);
        host.ok(&format!("{program} -D FORWARD 3"));
        natup(&host, "vnet0");
        assert_eq!(accepts().len(), OF_NAT.len());
        assert_eq!(host.kvmnet_ok(&["reload"]), said);
        natdown(&host, "vnet1");
        assert_eq!(ours(&host, &program).len(), OF_NAT.len());
        natdown(&host, "vnet0");
        no_rules_of_ours(&host);
    }
}

/// With br_netfilter, as this kernel has it. Their rule goes with the last guest of the bridge, a
/// killed one's by gc.
#[test]
fn guests_on_the_administrators_bridge() {
    let host = Host::new();
    host.ok(POLICY);
    host.ok("ip link add br1 type bridge && ip link set br1 up");
    host.describe("lan", "mode = \"bridged\"\nbridge = \"br1\"\ntaps = [\"vnet*\"]\n");
    let anna = host.tap_machine("vnet0", "10.99.0.10/24", "10.99.0.1");
    let bert = host.tap_machine("vnet1", "10.99.0.11/24", "10.99.0.1");
    let _berts = (bert.net().tcp_server(7000), bert.net().udp_server(7000));
    let wanted = ["-i br1 -o br1 -m comment --comment \"kvmnet bridge br1\" -j ACCEPT"];
    let both = || [ours(&host, "iptables-legacy"), ours(&host, "ip6tables-legacy")];
    let up = |tap| {
        natup(&host, tap);
        assert_eq!(both(), [wanted, wanted]);
    };
    for (last, is_killed) in [("natdown", false), ("ifdown", false), ("gc", true)] {
        up("vnet0");
        up("vnet1");
        anna.assert_reaches("10.99.0.11:7000");
        host.ok("iptables-legacy -F FORWARD");
        anna.assert_does_not_reach("10.99.0.11:7000");
        host.kvmnet_ok(&["reload"]);
        anna.assert_reaches("10.99.0.11:7000");
        natdown(&host, "vnet0");
        assert_eq!(both(), [wanted, wanted], "{last}");
        if is_killed {
            // The bridge has guests as long as the tap is there.
            host.kvmnet_ok(&["gc"]);
            assert_eq!(both(), [wanted, wanted]);
            host.ok("ip link set vnet1 nomaster");
            let said = "deleted 2 rules that let through guests who are gone\n";
            assert_eq!(host.kvmnet_ok(&["gc"]), said);
        } else {
            host.helper(last, &["vnet1"]).expect(last);
        }
        no_rules_of_ours(&host);
    }
    // Not where frames don't come to it.
    host.ok(
        "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
    );
    natup(&host, "vnet0");
    no_rules_of_ours(&host);
}

#[test]
fn what_a_killed_vm_leaves_goes() {
    let host = Host::new();
    host.ok(POLICY);
    let tap = host.tap("vnet0");
    let before = foreign(&host);
    natup(&host, "vnet0");
    host.kvmnet_ok(&["gc"]);
    assert_eq!(ours(&host, "iptables-legacy"), OF_NAT);
    drop(tap);
    // Another test's child may hold it open until it has begun its own program.
    assert!(wait_until(SOON, || host.link("vnet0").is_none()));
    assert_eq!(ours(&host, "iptables-legacy"), OF_NAT);
    host.kvmnet_ok(&["gc"]);
    no_rules_of_ours(&host);
    host.assert_no_network();
    assert_same(&before, &foreign(&host));
}

/// Whatever an administrator writes beside a rule of his own: only the reserved comments, and only
/// with what accepts, are kvmnet's.
#[test]
fn rules_of_the_administrators_stay() {
    let host = Host::new();
    host.ok(POLICY);
    for (comment, target) in [
        ("kvmnet", "ACCEPT"),
        ("kvmnet-", "ACCEPT"),
        ("kvmnet-Default", "ACCEPT"),
        ("kvmnet-default ", "ACCEPT"),
        ("my kvmnet-default", "ACCEPT"),
        ("kvmnet:default", "ACCEPT"),
        ("kvmnet bridge br1 of mine", "ACCEPT"),
        ("kvmnet-default", "DROP"),
        ("kvmnet-default", "RETURN"),
        ("kvmnet-default", "LOG"),
    ] {
        host.ok(&format!(
            "iptables-legacy -A FORWARD -s 10.9.9.9 -m comment --comment '{comment}' -j {target}"
        ));
    }
    let rules = || host.ok("iptables-legacy -S");
    let before = rules();
    let _tap = host.tap("vnet0");
    natup(&host, "vnet0");
    assert_ne!(rules(), before);
    natdown(&host, "vnet0");
    host.kvmnet_ok(&["gc"]);
    assert_eq!(rules(), before);
    // One of kvmnet's own that somebody has edited is kvmnet's still.
    natup(&host, "vnet0");
    host.ok("iptables-legacy -I FORWARD -i br0 -m comment --comment kvmnet-default -j ACCEPT");
    natup(&host, "vnet0");
    let own = rules().lines().filter(|line| line.contains(" br0 ")).count();
    assert_eq!(own, OF_NAT.len());
    natdown(&host, "vnet0");
    assert_eq!(rules(), before);
}

/// How many programs a program starts, or becomes.
fn starts(host: &Host, arguments: &[&str]) -> usize {
    let (output, trace) = host.strace(&["-f", "-e", "trace=execve"], arguments);
    assert!(output.success(), "{output:?}");
    // The first is strace's own.
    trace.lines().filter(|line| line.contains("execve(")).count() - 1
}

/// A host that doesn't use iptables-legacy doesn't have its tables made.
#[test]
fn where_it_is_not_in_use_nothing_is_started() {
    let host = Host::new();
    host.ok("iptables-nft -P FORWARD DROP");
    let _tap = host.tap("vnet0");
    for helper in ["natup", "natdown"] {
        assert_eq!(starts(&host, &[&format!("/usr/libexec/kvmnet-{helper}"), "vnet0"]), 0);
    }
    assert_eq!(starts(&host, &["kvmnet", "up", "default"]), 0);
    for file in ["ip_tables_names", "ip6_tables_names"] {
        assert_eq!(host.ok(&format!("cat /proc/net/{file}")), "");
    }
}

/// To look takes no program, only to change something.
#[test]
fn where_nothing_is_to_be_changed_nothing_is_started() {
    const IDLE: &str = "iptables-legacy -A FORWARD -i eno9 -j DROP
                        iptables-legacy -t nat -A POSTROUTING -o eno1 -j MASQUERADE";
    for (rules, drops) in [(IDLE, false), (DROPPING[0], true), (DROPPING[1], true), (DOCKER, true)]
    {
        println!("{rules}");
        let host = Host::new();
        host.ok(rules);
        let names = || host.ok("cat /proc/net/ip_tables_names /proc/net/ip6_tables_names");
        let before = names();
        let _taps = (host.tap("vnet0"), host.tap("vnet1"));
        for (helper, tap, changes) in [
            ("natup", "vnet0", true),
            ("natup", "vnet0", false),
            ("natup", "vnet1", false),
            ("natdown", "vnet0", false),
            ("natdown", "vnet0", false),
            ("natdown", "vnet1", true),
        ] {
            let started = starts(&host, &[&format!("/usr/libexec/kvmnet-{helper}"), tap]);
            assert_eq!(started > 0, drops && changes, "{helper} {tap}: {started}");
        }
        assert_eq!(starts(&host, &["kvmnet", "up", "default"]) > 0, drops);
        host.kvmnet_ok(&["down", "default"]);
        // Before the look itself makes one.
        assert_eq!(names(), before);
        no_rules_of_ours(&host);
    }
}

/// What is of kvmnet's where no bridge is left to speak of it goes, too, whoever sees it first.
#[test]
fn chains_without_a_bridge_go() {
    for (program, table) in [("iptables", "filter"), ("iptables", "nat"), ("ip6tables", "filter")] {
        let host = Host::new();
        host.ok("iptables-legacy -N X");
        host.ok(&format!("{program}-legacy -t {table} -N KVMNET-lab-FWD"));
        let _tap = host.tap("vnet0");
        natup(&host, "vnet0");
        natdown(&host, "vnet0");
        let left = host.ok(&format!("{program}-legacy -t {table} -S"));
        assert!(!left.contains("KVMNET"), "{program} {table}: {left}");
        host.ok("iptables-legacy -X X");
    }
}

#[test]
fn with_firewall_none_it_is_left_alone() {
    let host = Host::new();
    host.ok("iptables-legacy -P FORWARD DROP; ip6tables-legacy -A FORWARD -j REJECT");
    host.describe("default", "address = \"192.168.100.1/24\"\nfirewall = \"none\"\n");
    let _tap = host.tap("vnet0");
    natup(&host, "vnet0");
    no_rules_of_ours(&host);
    let found = host.kvmnet_ok(&["check"]);
    let line = |chain, why| {
        format!(
            "warning: network default: iptables-legacy chain {chain} lets through only what it names, by \
             its {why}, and firewall = \"none\" keeps kvmnet from naming the guests\n"
        )
    };
    let (ip, ip6) = (line("ip filter FORWARD", "policy"), line("ip6 filter FORWARD", "last rule"));
    assert_eq!(found, format!("{ip}{ip6}1 network checked: 2 warnings\n"));
}

/// Of a helper alone: the guest starts, and the log says what it lacks.
#[test]
fn without_the_command() {
    let host = Host::new();
    host.ok(POLICY);
    let _tap = host.tap("vnet0");
    natup(&host, "vnet0");
    natdown(&host, "vnet0");
    let log = host.syslog().len();
    host.ok("mount --bind /dev/null /usr/bin/kvmnet");
    natup(&host, "vnet0");
    assert_eq!(host.ports("br0"), ["vnet0"]);
    no_rules_of_ours(&host);
    let line = host.syslog()[log..].join("\n");
    let why = "; the host's firewall may not let the guests through: it is firewalld or \
               iptables-legacy, which takes kvmnet, and that cannot be run as /usr/bin/kvmnet or \
               /usr/local/bin/kvmnet";
    assert!(line.contains("vnet0: attached to br0") && line.contains(why), "{line}");
    natdown(&host, "vnet0");
    host.assert_no_network();
}

/// The table is in use, by a program that brings its own, and the host has none.
#[test]
fn without_programs() {
    let host = Host::new();
    host.ok(POLICY);
    host.ok("mount --bind /dev/null /usr/sbin/xtables-legacy-multi");
    let _tap = host.tap("vnet0");
    natup(&host, "vnet0");
    let why = "cannot work on the rules with ip6tables-legacy: it is in none of /usr/sbin, /usr/bin, \
               /sbin, /bin; install it";
    let log = host.syslog().join("\n");
    let said = format!("; the host's firewall may not let the guests through: {why}");
    assert!(log.contains(&said), "{log}");
    assert_eq!(host.ports("br0"), ["vnet0"]);
    let line = format!(
        "warning: iptables-legacy: its filter table is in use, and guests are cut off where it forwards \
         only what it names, since kvmnet {why}\n1 network checked: 1 warning\n"
    );
    assert_eq!(host.kvmnet_ok(&["check"]), line);
    natdown(&host, "vnet0");
    host.assert_no_network();
}

/// Stands before the real programs. At one of their starts it does as it is told.
const WRAPPER: &str = r#"#!/bin/sh
count=$(($(cat /run/count) + 1)); echo $count >/run/count
read -r what at </run/plan
run() { /run/real "${0##*/}" "$@"; }
case $what in failing) [ $count -ge "$at" ] && exit 1;; esac
if [ $count = "$at" ]; then
    case $what in
        killed-before) kill -9 $PPID; exit 1;;
        killed-after) run "$@"; kill -9 $PPID; exit 1;;
        failed-before) exit 1;;
        failed-after) run "$@"; exit 1;;
        changed)
            /run/real iptables-legacy -F FORWARD
            for port in 1 2 3 4 5 6; do
                /run/real iptables-legacy -A FORWARD -p tcp --dport $port -j DROP
            done;;
    esac
fi
run "$@"
"#;

/// A program doesn't start, or does and fails, or the run is killed before or after, at every start
/// there is: guests are attached all the same, and an ordinary run comes to what it should be.
#[test]
fn whatever_fails_the_next_run_puts_things_right() {
    let host = Host::new();
    host.ok(POLICY);
    host.ok("cp /usr/sbin/xtables-legacy-multi /run/real");
    host.write_program("/run/wrapper", WRAPPER);
    host.ok("mount --bind /run/wrapper /usr/sbin/xtables-legacy-multi");
    let _tap = host.tap("vnet0");
    let plan = |what: &str| host.ok(&format!("echo 0 >/run/count; echo {what} >/run/plan"));
    let starts = || host.ok("cat /run/count").trim().parse::<usize>().expect("it counts");
    let state = || {
        let rules = host.ok("for family in '' 6; do
             /run/real ip${family}tables-legacy-save; done | grep -v '^[:#]'
             nft list ruleset; ip -o link | sed -E 's/state [A-Z]+//; s/NO-CARRIER,//; s/,LOWER_UP//'");
        rules.replace(":forwarding", "")
    };
    plan("none 0");
    natup(&host, "vnet0");
    let whole = state();
    natdown(&host, "vnet0");
    let clean = state();
    let mut runs = 0;
    for what in ["killed-before", "killed-after", "failed-before", "failed-after", "failing"] {
        for (helper, prepare) in [("natup", natdown as fn(&Host, &str)), ("natdown", natup)] {
            for at in 1.. {
                plan("none 0");
                prepare(&host, "vnet0");
                plan(&format!("{what} {at}"));
                let output = host.helper(helper, &["vnet0"]);
                if starts() < at {
                    break;
                }
                runs += 1;
                let told = format!("{helper} with {what} at {at}: {output:?}");
                assert!(
                    output.success() || !what.starts_with("fail") || helper == "natdown",
                    "{told}"
                );
                plan("none 0");
                // By the guest's own next run, and by the other.
                natup(&host, "vnet0");
                assert_eq!(state(), whole, "{told}");
                plan(&format!("{what} {at}"));
                let _ = host.helper("natdown", &["vnet0"]);
                plan("none 0");
                natdown(&host, "vnet0");
                assert_eq!(state(), clean, "{told}");
            }
        }
    }
    println!("{runs} runs were disturbed");
    assert!(runs >= 30, "{runs}");
    // Somebody makes the chain anew between the look and the change.
    for (helper, prepare) in [("natup", natdown as fn(&Host, &str)), ("natdown", natup)] {
        for at in 1.. {
            host.ok("/run/real iptables-legacy -F FORWARD");
            plan("none 0");
            prepare(&host, "vnet0");
            plan(&format!("changed {at}"));
            host.helper(helper, &["vnet0"]).expect(helper);
            if starts() < at {
                break;
            }
            let rules = host.ok("/run/real iptables-legacy -S FORWARD");
            assert_eq!(rules.matches("-j DROP").count(), 6, "{helper} at {at}: {rules}");
            plan("none 0");
            natup(&host, "vnet0");
            let rules = host.ok("/run/real iptables-legacy -S FORWARD");
            assert_eq!(rules.matches("kvmnet").count(), 4, "{helper} at {at}: {rules}");
        }
    }
}

/// As with every other change of kvmnet's: killed before a system call of its own (of all of them
/// every seventh).
#[test]
fn killed_anywhere_the_next_run_puts_things_right() {
    let host = Host::new();
    host.ok(DOCKER);
    let _tap = host.tap("vnet0");
    let rules = || (ours(&host, "iptables-legacy"), ours(&host, "ip6tables-legacy"));
    natup(&host, "vnet0");
    let whole = rules();
    natdown(&host, "vnet0");
    let mut killed = 0;
    for (helper, prepare) in [("natup", natdown as fn(&Host, &str)), ("natdown", natup)] {
        let program = format!("/usr/libexec/kvmnet-{helper}");
        prepare(&host, "vnet0");
        for (name, number) in host.system_calls(&[&program, "vnet0"]).iter().step_by(7) {
            prepare(&host, "vnet0");
            let what = format!("inject={name}:signal=KILL:when={number}");
            let (output, _) = host.strace(&["-e", &what], &[&program, "vnet0"]);
            killed += usize::from(output.code == 128 + 9);
            natup(&host, "vnet0");
            assert_eq!(rules(), whole, "natup after {helper} with {what}");
            let (output, _) = host.strace(&["-e", &what], &[&program, "vnet0"]);
            assert!(output.success() || output.code == 128 + 9, "{what}: {output:?}");
            natdown(&host, "vnet0");
            no_rules_of_ours(&host);
            host.assert_no_network();
        }
    }
    println!("killed {killed} times");
    assert!(killed > 40, "{killed}");
}

/// A long ruleset of somebody's costs what its own program takes to list and write it.
#[test]
fn ten_thousand_rules() {
    let host = Host::new();
    let mut rules = "*filter\n:FORWARD DROP [0:0]\n".to_owned();
    for n in 0..10_000 {
        rules.push_str(&format!("-A FORWARD -s 10.8.{}.{} -i eno9 -j DROP\n", n / 256, n % 256));
    }
    host.write("/run/rules", rules + "COMMIT\n");
    let _tap = host.tap("vnet0");
    let time = |what: &str| {
        let begin = Instant::now();
        for helper in ["natup", "natdown"] {
            let begin = Instant::now();
            host.helper(helper, &["vnet0"]).expect(helper);
            println!("{what}: {helper} {:?}", begin.elapsed());
        }
        begin.elapsed()
    };
    time("without legacy tables");
    host.ok("iptables-legacy -P FORWARD DROP");
    time("with an empty one");
    host.ok("iptables-legacy-restore /run/rules");
    let all = || host.ok("iptables-legacy -S");
    let before = all();
    let begin = Instant::now();
    let _ = all();
    println!("iptables-legacy -S alone {:?}", begin.elapsed());
    let long = time("with 10,000 rules");
    assert_eq!(all(), before);
    natup(&host, "vnet0");
    assert_eq!(ours(&host, "iptables-legacy"), OF_NAT);
    assert!(long < Duration::from_secs(5), "{long:?}");
}

/// Somebody holds the lock of iptables-legacy: guests start without, one after the other.
#[test]
fn a_lock_that_is_never_free() {
    let host = Host::new();
    host.ok(POLICY);
    let _taps = [host.tap("vnet0"), host.tap("vnet1")];
    let mut holder = host.command("flock");
    let holder = host.spawn(holder.args(["-o", "/run/xtables.lock", "sleep", "60"]));
    assert!(wait_until(SOON, || !host.sh("flock -n /run/xtables.lock true").success()));
    let begin = Instant::now();
    let runs = ["vnet0", "vnet1"].map(|tap| {
        let mut command = host.command("/usr/libexec/kvmnet-natup");
        host.spawn(command.arg(tap))
    });
    for run in runs {
        run.output(Duration::from_secs(30)).expect("natup");
    }
    println!("two guests in {:?}", begin.elapsed());
    assert_eq!(host.ports("br0"), ["vnet0", "vnet1"]);
    let log = host.syslog().join("\n");
    assert_eq!(log.matches("may not let the guests through: cannot list table filter").count(), 2);
    drop(holder);
    assert!(wait_until(SOON, || host.sh("flock -n /run/xtables.lock true").success()));
    host.kvmnet_ok(&["reload"]);
    assert_eq!(ours(&host, "iptables-legacy"), OF_NAT);
    natdown(&host, "vnet0");
    natdown(&host, "vnet1");
    no_rules_of_ours(&host);
}
