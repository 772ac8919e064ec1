//! Pieces of scripts, and whatever bytes there are.

use std::fs;
use std::path::Path;

use kvmnet_fuzz::{Damage, damaged};

use super::*;

fn problems(text: &str) -> Vec<(usize, String)> {
    let problems = read(&format!("#!/bin/sh\n{text}\n")).problems;
    problems.into_iter().map(|remark| (remark.line - 1, remark.why)).collect()
}

/// What is in the text puts the tap on this bridge, and nothing is in the way.
#[track_caller]
fn joins(text: &str, bridge: &str) {
    let reading = read(&format!("#!/bin/sh\n{text}\n"));
    assert_eq!(reading.problems, [], "{text}");
    assert_eq!(reading.joins, [bridge], "{text}");
}

#[test]
fn ways_to_put_a_tap_on_a_bridge() {
    for text in [
        "brctl addif br0 $1",
        "brctl addif br0 \"$1\"",
        "brctl addif 'br0' ${1}",
        "sudo -n /usr/sbin/brctl addif br0 \"${1}\"",
        "exec brctl addif br0 $1 >/dev/null 2>&1",
        "ip link set $1 master br0",
        "ip link set dev $1 master br0 up",
        "/sbin/ip l set master br0 dev $1",
        "ip link set $1 up promisc on master br0",
        "busybox brctl addif br0 $1",
        "b=br; n=0; brctl addif $b$n $1",
        "b=\"br0\"\nt=$1\nbrctl addif \"$b\" \"$t\" || exit 1",
        "b=br0; if [ -n \"$1\" ]; then brctl addif ${b} $1; else echo no; exit 1; fi",
        "up() { brctl addif $2 $1; }\nup $1 br0",
        "function up {\n brctl addif br0 \"$@\"\n}\nup $1",
        "B='brctl addif br0'; $B $1",
        "for b in br0; do brctl addif $b $1; done",
        "brctl addif \\\n  br0 $1 # and done",
        "export BR=br0\nbrctl addif $BR $1",
        "brctl addif ${2:-br0} $1",
        "while ! ip link show $1; do sleep 1; done; brctl addif br0 $1",
        "[ \"x$1\" = x ] && exit 1; brctl addif br0 $1",
        "ip link set $1 master br0; exit 0; tc qdisc add dev $1 root fq",
        "(ip link show br0; exit 0); brctl addif br0 $1",
    ] {
        joins(text, "br0");
    }
}

#[test]
fn what_cannot_be_told_is_said_with_its_line() {
    for (text, line) in [
        ("brctl addif $BRIDGE $1", 1),
        ("b=br0\n[ -n \"$B\" ] && b=$B\nbrctl addif $b $1", 3),
        ("if [ $x = 1 ]; then b=br0; else b=br1; fi\nbrctl addif $b $1", 1),
        ("brctl addif br${1#tap} $1", 1),
        ("brctl addif br0 $2", 1),
        ("\n\neval \"brctl addif br0 $1\"", 3),
        ("x=$(brctl addif br0 $1)", 1),
        ("x=`reboot`", 1),
        ("shift; brctl addif br0 $1", 1),
        ("set -- a b; brctl addif br0 $1", 1),
        ("command -p reboot", 1),
        ("trap 'reboot' EXIT", 1),
        ("cat /etc/bridge", 1),
        ("awk 'BEGIN { system(\"reboot\") }'", 1),
        ("echo 1 >/proc/sys/net/ipv4/conf/all/proxy_arp", 1),
        ("echo 1 | tee /proc/sys/net/ipv6/conf/all/forwarding", 1),
        ("sysctl -w net.ipv4.conf.br0.proxy_arp=1", 1),
        ("ip6tables -A FORWARD -j ACCEPT", 1),
        ("iptables -A FORWARD -i br0 -d 10.0.0.0/8 -j DROP", 1),
        ("iptables -P FORWARD DROP", 1),
        ("iptables -A INPUT -i br0 -j DROP", 1),
        ("iptables-restore </etc/iptables.rules", 1),
        ("nft -f /etc/nftables.conf", 1),
        ("nft add rule ip nat prerouting tcp dport 80 dnat to 10.0.0.1", 1),
        ("ip addr add fd00::1/64 dev br0", 1),
        ("ifconfig br0 10.0.0.1 netmask 255.0.255.0", 1),
        ("f() { f; }\nf", 1),
    ] {
        let found = problems(text);
        assert!(found.iter().any(|(found, _)| *found == line), "{text}: {found:?}");
    }
}

#[test]
fn who_is_let_in_to_guests() {
    let told = |rule: &str| {
        let text =
            format!("#!/bin/sh\nbrctl addbr br7\niptables {rule} -j ACCEPT\nbrctl addif br7 $1\n");
        let reading = read(&text);
        assert_eq!(reading.problems, [], "{rule}");
        reading.left_out[0].why.starts_with("into a nat network")
    };
    for (rule, wanted) in [
        ("-A FORWARD -o br7", true),
        ("-I FORWARD -i eth0 -o br7", true),
        ("-A FORWARD -d 192.168.7.0/24", true),
        ("-A FORWARD -o br7 -m state --state NEW,RELATED,ESTABLISHED", true),
        ("-A FORWARD -o br7 -m state --state RELATED,ESTABLISHED", false),
        ("-A FORWARD -i br7", false),
        ("-A FORWARD -i br7 -o eth0", false),
        ("-A FORWARD -i br7 -o br7", false),
        ("-I FORWARD -m physdev --physdev-is-bridged", false),
    ] {
        assert_eq!(told(rule), wanted, "{rule}");
    }
}

#[test]
fn netmasks() {
    for (text, prefix) in [
        ("24", Some(24)),
        ("33", None),
        ("255.255.255.0", Some(24)),
        ("255.255.0.255", None),
        ("0.0.0.0", Some(0)),
        ("255.255.255.255", Some(32)),
        ("x", None),
    ] {
        assert_eq!(prefix_of(text), prefix, "{text}");
    }
}

#[test]
fn what_is_no_script() {
    assert_eq!(problems("\0")[0].1, "is no text");
    let long = "# long\n".repeat(LARGEST / 7);
    assert!(problems(&long)[0].1.starts_with("is larger than 64 KiB"));
}

/// Scripts of all kinds, cut, mixed and with bytes that don't belong there: reading ends, soon, and
/// without a panic.
#[test]
fn no_bytes_bring_it_down() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/adopt/fixtures");
    let scripts: Vec<String> = fs::read_dir(fixtures)
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect();
    let scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
    const PIECES: [&str; 32] = [
        "$(",
        "${",
        "`",
        "\"",
        "'",
        "(",
        ")",
        "{",
        "}",
        ";;",
        "&&",
        "||",
        "|",
        "<<E\n",
        "\nE\n",
        "if ",
        "fi\n",
        "case x in ",
        "esac",
        "$1",
        "$@",
        "for x in ",
        "done",
        "f() {",
        "\\",
        "\\\n",
        "\u{fffd}",
        "é",
        "\0",
        "<<<",
        "x=(",
        ">&",
    ];
    bolero::check!().with_type::<(u8, Vec<Damage>)>().for_each(|(which, damages)| {
        let bytes = damaged(&scripts, *which, damages, &PIECES);
        let _ = read(&String::from_utf8_lossy(&bytes));
    });
}

/// Nor does what is deep or long.
#[test]
fn no_depth_brings_it_down() {
    for piece in [
        "(",
        "$(",
        "${",
        "{ ",
        "`",
        "if true; then ",
        "case x in x) ",
        "f() { ",
        "\"$(",
        "for x in y; do ",
    ] {
        let deep = piece.repeat(LARGEST / piece.len() - 1);
        let _ = read(&deep);
        let _ = read(&format!("{deep}\n{}", ")}".repeat(10)));
    }
    // Functions that call each other twice would take forever.
    let mut text = String::new();
    for n in 0..40 {
        text += &format!("f{n}() {{ f{m}; f{m}; }}\n", m = n + 1);
    }
    text += "f40() { :; }\nf0\n";
    assert!(!read(&text).problems.is_empty());
    // As do variables that hold each other twice.
    let mut text = "a0=xxxxxxxxxx\n".to_owned();
    for n in 0..60 {
        text += &format!("a{}=\"$a{n}$a{n}\"\n", n + 1);
    }
    let _ = read(&text);
}
