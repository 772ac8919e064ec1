//! Runs that are killed while they work on iptables, and programs of iptables' that are.

use kvmnet_tests::amount;

use super::{NAT, VARIANTS, host_with, nothing_left, rules};

/// Killed before a system call of its own (of all of them every seventh): an ordinary run puts things
/// right, and rules are never there without a mark.
#[test]
fn killed_anywhere_the_next_run_puts_things_right() {
    for variant in VARIANTS {
        let host = host_with(variant);
        host.describe("default", &NAT.replace("192.168.150", "192.168.100"));
        let _tap = host.tap("vnet0");
        let run = |helper: &str| host.helper(helper, &["vnet0"]).expect(helper);
        let state = || {
            let links = host
                .ok("ip -o link | sed -E 's/state [A-Z]+//; s/NO-CARRIER,//; s/,LOWER_UP//'
                                 ip -o -4 addr | sed 's/valid_lft.*//'");
            (rules(&host, true), links.replace(":forwarding", ""))
        };
        run("natup");
        let whole = state();
        run("natdown");
        let clean = state();
        let mut killed = 0;
        for (helper, prepare) in [("natup", "natdown"), ("natdown", "natup")] {
            let program = format!("/usr/libexec/kvmnet-{helper}");
            run(prepare);
            let calls = host.system_calls(&[&program, "vnet0"]);
            for (name, number) in calls.iter().step_by(amount(21, 7)) {
                run(prepare);
                let what = format!("inject={name}:signal=KILL:when={number}");
                let (output, _) = host.strace(&["-e", &what], &[&program, "vnet0"]);
                killed += usize::from(output.code == 128 + 9);
                if !rules(&host, true).is_empty() {
                    let alias = host.ok("cat /sys/class/net/br0/ifalias");
                    assert!(alias.trim().ends_with(":iptables"), "{what}: {alias}");
                }
                run("natup");
                assert_eq!(state(), whole, "natup after {helper} with {what}");
                run("natdown");
                let (output, _) = host.strace(&["-e", &what], &[&program, "vnet0"]);
                assert!(output.success() || output.code == 128 + 9, "{what}: {output:?}");
                run("natdown");
                assert_eq!(state(), clean, "natdown after {helper} with {what}");
            }
        }
        println!("{variant}: killed {killed} times");
        assert!(killed > amount(13, 40), "{killed}");
    }
}

/// Takes the place of every program of iptables'. The one whose number is in `/run/doomed` is killed,
/// before or after it has done what it was asked for, as the word behind that says.
const DOOMED: &str = r#"#!/bin/sh
name=${0##*/}
case $name in
*-save) variant=${name%-save}-VARIANT-save ;;
*-restore) variant=${name%-restore}-VARIANT-restore ;;
*) variant=$name-VARIANT ;;
esac
exec 9>>/run/calls
flock 9
echo "$name $*" >&9
number=$(wc -l </run/calls)
exec 9>&-
read -r doomed when </run/doomed
[ "$number" = "$doomed" ] || exec "/usr/sbin/$variant" "$@"
[ "$when" = before ] || "/usr/sbin/$variant" "$@"
kill -9 $$
"#;

/// What a run says of a program that was killed; the next run puts things right.
#[test]
fn programs_that_are_killed() {
    for variant in VARIANTS {
        let host = host_with(variant);
        host.describe("lab", NAT);
        let _tap = host.tap("vnet0");
        host.write_program("/run/program", DOOMED.replace("VARIANT", variant));
        let doom = |whom: &str| host.ok(&format!("echo {whom} >/run/doomed; rm -f /run/calls"));
        let calls = || host.ok("cat /run/calls").lines().count();
        let run = |helper: &str| host.run_helper_on("lab", helper, "vnet0");
        let quiet = |helper: &str| host.quiet_helper_on("lab", helper, "vnet0");
        let of_others = rules(&host, false);
        quiet("natup");
        let whole = rules(&host, true);
        quiet("natdown");
        doom("0");
        host.ok("for name in iptables ip6tables; do for ending in '' -save -restore; do
                     ln -sf /run/program /etc/alternatives/$name$ending
                 done; done");
        quiet("natup");
        let of_natup = calls();
        doom("0");
        quiet("natdown");
        let of_natdown = calls();
        assert!(of_natup > 3 && of_natdown > 3, "{of_natup} and {of_natdown} programs");
        for (helper, calls) in [("natup", of_natup), ("natdown", of_natdown)] {
            for number in 1..=calls {
                let both = ["before", "after"];
                let some = [both[number % 2]];
                for when in amount(&some[..], &both) {
                    if helper == "natdown" {
                        quiet("natup");
                    }
                    doom(&format!("{number} {when}"));
                    let output = run(helper);
                    let what = format!("{variant}: {helper}, program {number}, {when}: {output:?}");
                    // It may look again, or have had all it needed.
                    let is_said = output.code == 1 && output.stderr.lines().count() == 1;
                    assert!(is_said || output.code == 0, "{what}");
                    doom("0");
                    if helper == "natup" {
                        quiet("natup");
                        assert_eq!(rules(&host, true), whole, "{what}");
                        assert!(host.link("lab").is_some(), "{what}");
                    }
                    quiet("natdown");
                    assert_eq!(rules(&host, false), of_others, "{what}");
                    nothing_left(&host);
                }
            }
        }
        println!("{variant}: {of_natup} and {of_natdown} programs");
    }
}
