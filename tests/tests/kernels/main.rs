//! kvmnet on the kernels that distributions have, in guests with all their modules: the tests of this
//! directory's neighbours, and what only these kernels have, or a host may lack.

mod lacks;
mod links;

use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Host, Tally, is_torture};

/// What a guest's processor is: emulated, and perhaps one of several at once.
const SLOW: Duration = Duration::from_secs(600);
/// A program that is run whole.
const SLOWER: Duration = Duration::from_secs(7200);

/// Programs of these tests, and which of theirs are run on each kernel.
const SOME: [(&str, &[&str]); 3] = [
    (
        "kernel",
        &[
            "nft_shows_the_wanted_rules",
            "twice_is_once",
            "the_administrators_bridge_keeps_mac_mtu_and_addresses",
            "whoever_runs_next_clears_away_what_a_killed_vm_left",
        ],
    ),
    (
        "modes",
        &[
            "isolated_has_no_address_no_arp_no_ipv6_and_a_chain_that_drops_all",
            "frames_to_link_local_addresses_do_not_get_round_the_isolation",
            "forwarding_of_the_interfaces_carries_packets",
        ],
    ),
    ("connections", &["nothing_is_asked_where_nothing_is_tracked"]),
];

/// Those that `make torture` runs whole.
const WHOLE: [&str; 13] = [
    "kernel",
    "modes",
    "ways",
    "connections",
    "check",
    "status",
    "nat_host",
    "natdown",
    "mode_change",
    "refusals",
    "pinned",
    "reload",
    "iptables_backend",
];

#[test]
fn on_5_10() {
    on_kernel("5.10", "by_iptables_legacy");
}

#[test]
fn on_6_1() {
    on_kernel("6.1", "by_iptables_nft");
}

#[test]
fn on_6_12() {
    on_kernel("6.12", "by_iptables_nft");
}

/// The tests of other programs, on that kernel; with one of the variants of iptables.
fn on_kernel(version: &'static str, iptables: &'static str) {
    // The ways of all modes, the first guest and the last, what is left; check and reload.
    let ways = ["by_nf_tables", iptables];
    let programs = if is_torture() {
        WHOLE.map(|program| (program, &[][..])).to_vec()
    } else {
        SOME.into_iter().chain([("ways", &ways[..])]).collect()
    };
    let host = Host::bare();
    let mut spec = GuestSpec::on_kernel(version, version);
    for (program, _) in &programs {
        spec = spec.test_program(program);
    }
    let mut guest = Guest::boot(&host, spec);
    let release = guest.ok("uname -r");
    assert!(release.starts_with(&format!("{version}.")), "{release}");
    let mut tally = Tally::new(format!("tests on Linux {version}"));
    tally.remark(release.trim());
    for (program, tests) in programs {
        run(&mut guest, program, tests, &mut tally);
    }
    tally.finish();
}

/// Runs tests of one program in the guest, or all of them where none is named.
fn run(guest: &mut Guest, program: &str, tests: &[&str], tally: &mut Tally) {
    // Kills at every system call are a campaign of their own, and take hours here.
    let (exact, limit) = match tests {
        [] => ("--skip killed_anywhere", SLOWER),
        _ => ("--exact", SLOW),
    };
    let script = format!("/tests/{program} --test-threads=1 {exact} {} 2>&1", tests.join(" "));
    let output = guest.sh_within(&script, limit);
    let ran = |line: &str| {
        let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
        Some((name.to_owned(), result == "ok"))
    };
    let results: Vec<_> = output.stdout.lines().filter_map(ran).collect();
    for (name, passed) in &results {
        if *passed {
            tally.converged();
        } else {
            tally.leaked(format!("{program}: {name}"));
        }
    }
    let failed = results.iter().any(|(_, passed)| !passed);
    // A name that no test has is no error to the program.
    let missing = !tests.is_empty() && results.len() != tests.len();
    if !output.success() || failed || missing {
        let count = results.len();
        tally.leaked(format!("{program}: {count} tests ran, {}:\n{}", output.code, output.stdout));
    }
}

/// Python programs that the guests run.
const TOOLS: [(&str, &str); 2] = [
    ("tap", include_str!("../../kernel-guest/tap.py")),
    ("datapath", include_str!("../../kernel-guest/datapath.py")),
];

/// A guest for one of the other tests of this program.
fn boot<'host>(host: &'host Host, spec: GuestSpec) -> Guest<'host> {
    let mut guest = Guest::boot(host, spec);
    guest.ok(LAN);
    for (name, text) in TOOLS {
        let file = format!("/usr/bin/{name}");
        guest.ok(&format!("cat >{file} <<'END'\n{text}END\nchmod 755 {file}"));
    }
    guest
}

/// Makes a tap that a program holds, as QEMU would, and by which frames come.
fn hold(guest: &mut Guest, tap: &str) {
    guest.ok(&format!(
        "tap {tap} >/dev/null 2>&1 </dev/null &
         until ip link show {tap} >/dev/null 2>&1; do sleep 0.1; done"
    ));
}

/// A card to a machine outside, and what looks at all that is there. Its address is that of a card: a random one can be as
/// high as a tap's, and a bridge takes the lowest.
const LAN: &str = "
    ip netns add outside; ip link add eth0 address 52:54:00:00:00:01 type veth peer name lan0 netns outside
    ip -n outside address add 10.0.0.1/24 dev lan0; ip -n outside link set lan0 up; ip link set eth0 up
    cat >/usr/bin/look <<'END'
ip -o link | sed -E 's/^[0-9]+: //; s/state [A-Z]+//; s/NO-CARRIER,//; s/,LOWER_UP//'
ip -o address | sed -E 's/^[0-9]+: //; s/ tentative//; s/valid_lft.*//' | grep -v ' fe80:'
bridge vlan; nft list ruleset 2>&1
! lsmod | grep -q '^ip_tables ' || { iptables-legacy-save; ip6tables-legacy-save; } | sed -E 's/ \\[[0-9:]+\\]$//; /^#/d'
END
    chmod 755 /usr/bin/look
";

/// What a helper says and how it ends: nothing and 0 where all went well.
fn helper(guest: &mut Guest, name: &str, tap: &str) -> (i32, String) {
    let output = guest.sh(&format!("/usr/libexec/kvmnet-{name} {tap} 2>&1"));
    (output.code, output.stdout)
}

#[track_caller]
fn quiet(guest: &mut Guest, name: &str, tap: &str) {
    assert_eq!(helper(guest, name, tap), (0, String::new()), "{name} {tap}");
}

#[track_caller]
fn quiet_on(guest: &mut Guest, network: &str, name: &str, tap: &str) {
    let command = format!("KVMNET_NETWORK={network} /usr/libexec/kvmnet-{name} {tap} 2>&1");
    let output = guest.sh(&command);
    assert_eq!((output.code, output.stdout.as_str()), (0, ""), "{name} {tap} on {network}");
}

/// Runs all tests of a program in the guest, which must pass.
#[track_caller]
fn run_whole(guest: &mut Guest, program: &str) {
    let output = guest.sh_within(&format!("/tests/{program} --test-threads=1 2>&1"), SLOW);
    assert!(output.success(), "{program}:\n{}", output.stdout);
}
