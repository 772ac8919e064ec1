//! `kvmnet check`: each thing that it finds, in its words, and that a look changes nothing.

use std::time::Duration;

use kvmnet_tests::{Host, assert_same, wait_until};

const LAB: &str = "address = \"192.168.150.1/24\"\n";

/// Where the kernel has br_netfilter, it is on in every new network.
fn quiet(host: Host) -> Host {
    host.ok("! test -e /proc/sys/net/bridge || sysctl -w net.bridge.bridge-nf-call-iptables=0");
    host
}

/// Exactly these findings, which are mistakes where one begins so; nothing changes.
#[track_caller]
fn finds(host: &Host, findings: &[&str], summary: &str) {
    let before = host.foreign();
    let output = host.kvmnet(&["check"]);
    assert_same(&before, &host.foreign());
    let wanted: String =
        findings.iter().chain([&summary]).map(|line| format!("{line}\n")).collect();
    assert_eq!(output.stdout, wanted);
    let has_mistakes = findings.iter().any(|line| line.starts_with("mistake: "));
    let code = if has_mistakes { 3 } else { 0 };
    assert_eq!((output.code, output.stderr.as_str()), (code, ""));
}

#[test]
fn all_is_well() {
    let host = quiet(Host::new());
    finds(&host, &[], "1 network checked: all is well");
    host.describe("lab", &format!("{LAB}taps = [\"lab*\"]\n"));
    host.describe("cell", "mode = \"isolated\"\ntaps = [\"cell*\"]\n");
    host.describe("lan", "mode = \"bridged\"\nbridge = \"br1\"\n");
    host.ok("ip link add br1 type bridge");
    finds(&host, &[], "4 networks checked: all is well");
    let _taps =
        [host.tap_on("lab", "lab0"), host.tap_on("cell", "cell0"), host.tap_on("default", "t0")];
    host.kvmnet_ok(&["up", "lab"]);
    // Neither the administrator's own table nor another family's is kvmnet's business.
    host.ok("nft add table ip site; nft add table inet kvmnet-old; nft add table ip kvmnet-Old");
    finds(&host, &[], "4 networks checked: all is well");
}

#[test]
fn it_needs_root() {
    let host = quiet(Host::bare());
    let output = host.kvmnet_unprivileged(&["check"]);
    let why = "kvmnet: check: user 1000 lacks the capability CAP_NET_ADMIN; run it as root\n";
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (1, "", why));
}

#[test]
fn every_file_that_is_wrong() {
    let host = quiet(Host::bare());
    for (name, text) in [
        ("b-key", "mode = \"isolated\"\n\nbrigde = \"br7\"\n"),
        ("c-mode", "mode = \"natted\"\n"),
        ("d-address", "address = \"192.168.150.0/24\"\n"),
        ("e-quotes", "mode = nat\n"),
        ("f-good", LAB),
        ("g-open", LAB),
        ("Upper", LAB),
    ] {
        host.describe(name, text);
    }
    host.ok("chmod 666 /etc/kvmnet/g-open.toml; mkdir /etc/kvmnet/h-dir.toml; ln -s /nowhere /etc/kvmnet/i-link.toml");
    let output = host.kvmnet(&["check"]);
    assert_eq!((output.code, output.stderr.as_str()), (3, ""));
    let lines: Vec<&str> = output.stdout.lines().collect();
    for (line, wanted) in lines.iter().zip([
        "mistake: /etc/kvmnet/Upper.toml: a network's name is 1 to 15 of a-z, 0-9, _ and -,",
        "mistake: /etc/kvmnet/b-key.toml:3: unknown key brigde; the keys are mode, bridge,",
        "mistake: /etc/kvmnet/c-mode.toml:1: mode = \"natted\" is none; write \"nat\",",
        "mistake: /etc/kvmnet/d-address.toml:1: address = \"192.168.150.0/24\" is the subnet itself;",
        "mistake: /etc/kvmnet/e-quotes.toml:1: a word without quotes; write it in quotes:",
        "mistake: /etc/kvmnet/g-open.toml: ",
        "mistake: /etc/kvmnet/h-dir.toml: ",
        "mistake: /etc/kvmnet/i-link.toml: ",
        "2 networks checked: 8 mistakes",
    ]) {
        assert!(line.starts_with(wanted), "{line}\n{wanted}");
    }
    assert_eq!(lines.len(), 9, "{lines:#?}");
    host.ok("chmod 777 /etc/kvmnet");
    let output = host.kvmnet(&["check"]);
    assert!(output.stdout.starts_with("mistake: /etc/kvmnet: ") && output.code == 3, "{output:?}");
}

#[test]
fn two_files_in_conflict() {
    let host = quiet(Host::bare());
    host.describe("one", "address = \"10.1.0.1/16\"\n");
    host.describe("two", "mode = \"routed\"\naddress = \"10.1.7.1/24\"\n");
    host.describe("three", "mode = \"isolated\"\nbridge = \"two\"\n");
    finds(
        &host,
        &[
            "mistake: /etc/kvmnet/one.toml and /etc/kvmnet/two.toml: both have addresses of \
             10.1.7.0/24; change one of them",
            "mistake: /etc/kvmnet/three.toml and /etc/kvmnet/two.toml: both have the bridge two; \
             change one of them",
        ],
        "4 networks checked: 2 mistakes",
    );
}

#[test]
fn a_file_against_the_network_that_is_built_in() {
    let host = quiet(Host::bare());
    let instead = "while one is up, a guest of the other is refused: give one another, or describe \
                   default in a file of its own";
    for (text, what) in [
        ("mode = \"isolated\"\nbridge = \"br0\"\n", "have the bridge br0"),
        ("address = \"192.168.100.129/25\"\n", "have addresses of 192.168.100.128/25"),
    ] {
        host.describe("lab", text);
        let line = format!(
            "warning: network lab and the built-in network default: both {what}; {instead}"
        );
        finds(&host, &[&line], "2 networks checked: 1 warning");
    }
    // Described, it is a mistake like any other.
    host.describe("default", "address = \"192.168.100.1/24\"\n");
    let both = "mistake: /etc/kvmnet/default.toml and /etc/kvmnet/lab.toml: both have addresses of \
                192.168.100.128/25; change one of them";
    finds(&host, &[both], "2 networks checked: 1 mistake");
    host.describe("default", "address = \"192.168.77.1/24\"\n");
    finds(&host, &[], "2 networks checked: all is well");
}

#[test]
fn a_tap_of_two_networks() {
    let host = quiet(Host::bare());
    host.describe("lab", &format!("{LAB}taps = [\"lab*\"]\n"));
    host.describe("cell", "mode = \"isolated\"\ntaps = [\"*web\", \"cell?\"]\n");
    finds(&host, &[], "3 networks checked: all is well");
    let _taps = [host.tap("lab-web"), host.tap("lab-db"), host.tap("cell0")];
    let line = "mistake: lab-web: matches taps= of network cell and of network lab; change one of \
                them, or choose with kvmnet-natup@NAME";
    finds(&host, &[line], "3 networks checked: 1 mistake");
    // natup says so, too.
    assert!(host.helper("natup", &["lab-web"]).stderr.contains("lab-web: matches taps= of"));
}

/// What the guest would be refused for, word for word.
#[track_caller]
fn as_refused(host: &Host, network: &str, kind: &str) -> String {
    let tap = host.tap("probe");
    let mut natup = host.command("/usr/libexec/kvmnet-natup");
    let output = host
        .spawn(natup.arg(tap.name()).env("KVMNET_NETWORK", network))
        .output(Duration::from_secs(20));
    assert_eq!(output.code, 1, "{output:?}");
    drop(tap);
    // Another test's child that has yet to exec may hold it for a moment.
    assert!(wait_until(Duration::from_secs(10), || host.link("probe").is_none()));
    let why = output.stderr.strip_prefix("kvmnet-natup: ").expect("it says why").trim_end();
    let which = if kind == "mistake" { "" } else { ", which is built in" };
    format!("{kind}: network {network}{which}: {why}")
}

#[test]
fn a_bridge_that_is_somebody_elses() {
    let host = quiet(Host::new());
    host.describe("lab", LAB);
    host.ok("for n in lab br0; do ip link add $n type bridge; ip link set $n up; done; ip addr add 10.1.0.1/24 dev br0");
    let (default, lab) =
        (as_refused(&host, "default", "warning"), as_refused(&host, "lab", "mistake"));
    assert!(default.contains("br0: is not kvmnet's and carries 10.1.0.1/24"), "{default}");
    finds(&host, &[&default, &lab], "2 networks checked: 1 mistake, 1 warning");
    host.ok("ip link del lab");
    finds(&host, &[&default], "2 networks checked: 1 warning");
    host.ok("ip link del br0 && ip link add lab type veth peer name veth1");
    let lab = as_refused(&host, "lab", "mistake");
    assert!(lab.contains("lab: is not a bridge but of kind veth"), "{lab}");
    finds(&host, &[&lab], "2 networks checked: 1 mistake");
}

/// What the old scripts have left up is taken as it is by natup, and so no mistake.
#[test]
fn the_old_scripts_bridge() {
    let host = quiet(Host::new());
    host.ok(
        "ip link add br0 type bridge && ip addr add 192.168.100.1/24 dev br0 && ip link set br0 up",
    );
    let line = "warning: network default: br0 is not kvmnet's but carries exactly 192.168.100.1/24: \
                guests join it as it is, without rules of kvmnet's, and kvmnet up is refused";
    finds(&host, &[line], "1 network checked: 1 warning");
    let _tap = host.tap_on("default", "t0");
    assert_eq!(host.ports("br0"), ["t0"]);
    finds(&host, &[line], "1 network checked: 1 warning");
    host.ok("ip link set eno1 master br0");
    let output = host.kvmnet(&["check"]);
    assert!(
        output.stdout.contains("which is built in: br0: is not kvmnet's and carries"),
        "{output:?}"
    );
}

#[test]
fn a_subnet_in_use_and_a_route_that_covers_it() {
    let host = quiet(Host::new());
    host.describe("lab", LAB);
    host.ok("ip route add 192.168.0.0/16 via 10.0.0.1");
    let covers = |name: &str, subnet: &str| {
        format!(
            "warning: network {name}: the route to 192.168.0.0/16 over eno1 covers its subnet {subnet}; what \
             that route leads to there is out of reach while the network is up"
        )
    };
    let (default, lab) = (covers("default", "192.168.100.0/24"), covers("lab", "192.168.150.0/24"));
    finds(&host, &[&default, &lab], "2 networks checked: 2 warnings");
    let _tap = host.tap_on("lab", "t0");
    finds(&host, &[&default, &lab], "2 networks checked: 2 warnings");
    host.helper("natdown", &["t0"]).expect("natdown");
    host.ok("ip route del 192.168.0.0/16 && ip addr add 192.168.150.77/32 dev eno1");
    let lab = as_refused(&host, "lab", "mistake");
    assert!(lab.contains("the host has a route to 192.168.150.77/32 over eno1"), "{lab}");
    finds(&host, &[&lab], "2 networks checked: 1 mistake");
}

#[test]
fn a_host_that_may_not_forward() {
    let host = quiet(Host::new());
    host.describe("lab", &format!("{LAB}forwarding = \"never\"\n"));
    let lab = as_refused(&host, "lab", "mistake");
    finds(&host, &[&lab], "2 networks checked: 1 mistake");
    host.ok("sysctl -w net.ipv4.ip_forward=1");
    finds(&host, &[], "2 networks checked: all is well");
}

#[test]
fn the_bridge_of_a_bridged_network() {
    let host = quiet(Host::bare());
    host.describe("lan", "mode = \"bridged\"\nbridge = \"br1\"\n");
    let missing = "mistake: network lan: br1: there is no such bridge; make one: ip link add br1 \
                   type bridge && ip link set br1 up";
    finds(&host, &[missing], "2 networks checked: 1 mistake");
    host.ok("ip link add br1 type veth peer name br2");
    let other = "mistake: network lan: br1: is not a bridge but of kind veth; rename it, so that a \
                 bridge can have this name";
    finds(&host, &[other], "2 networks checked: 1 mistake");
    host.ok("ip link del br1 && ip link add br1 type bridge");
    finds(&host, &[], "2 networks checked: all is well");
}

/// Chains that let through only what they name, but for iptables' own, where kvmnet names the guests
/// itself; and whether frames from guest to guest go through them.
#[test]
fn firewalls_that_kvmnet_adds_nothing_to() {
    let host = quiet(Host::bare());
    let own = "name them there: iifname BRIDGE accept, and oifname BRIDGE ct state \
               established,related accept";
    let zone = "put their bridges in a zone that does: firewall-cmd --permanent --zone=trusted \
                --add-interface=BRIDGE";
    for (chain, name, why, remedy) in [
        (
            "table inet f { chain x { type filter hook forward priority 0; policy drop; }; }",
            "inet f x",
            "policy",
            own,
        ),
        (
            "table ip f { chain x { type filter hook forward priority 5; counter drop; }; }",
            "ip f x",
            "last rule",
            own,
        ),
        (
            "table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; ct state established accept; reject; }; }",
            "inet firewalld filter_FORWARD",
            "last rule",
            zone,
        ),
    ] {
        host.ok(&format!("nft '{chain}'"));
        let line = |frames| {
            format!(
                "warning: nftables chain {name}: lets through only what it names, by its {why}{frames}; where it cuts guests off, {remedy}"
            )
        };
        finds(&host, &[&line("")], "1 network checked: 1 warning");
        let netfilter = host.sh("sysctl -w net.bridge.bridge-nf-call-iptables=1").success();
        if netfilter {
            let frames = ", and frames from guest to guest (br_netfilter is on)";
            finds(&host, &[&line(frames)], "1 network checked: 1 warning");
            host.ok("sysctl -w net.bridge.bridge-nf-call-iptables=0");
        }
        host.ok("nft flush ruleset");
    }
    host.ok("nft 'table inet f { chain x { type filter hook forward priority 0; ip saddr 10.9.9.9 drop; }
                                 chain y { type filter hook input priority 0; policy drop; }; }'
             iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
    finds(&host, &[], "1 network checked: all is well");
}

/// Where kvmnet may not add what guests need, that is said.
#[test]
fn a_network_whose_rules_are_the_administrators() {
    let host = quiet(Host::bare());
    host.describe("lab", &format!("{LAB}firewall = \"none\"\n"));
    host.ok("iptables -P FORWARD DROP; ip6tables -A FORWARD -j REJECT");
    let line = |chain, why| {
        format!(
            "warning: network lab: nftables chain {chain} lets through only what it names, by its \
             {why}, and firewall = \"none\" keeps kvmnet from naming the guests"
        )
    };
    let (ip, ip6) = (line("ip filter FORWARD", "policy"), line("ip6 filter FORWARD", "last rule"));
    finds(&host, &[&ip, &ip6], "2 networks checked: 2 warnings");
}

#[test]
fn iptables_legacy() {
    let host = quiet(Host::bare());
    if !host.sh("iptables-legacy -P FORWARD DROP").success() {
        println!("this kernel has no xtables-legacy");
        return;
    }
    let line = "warning: iptables-legacy: its filter table is in use, and kvmnet adds no rules to \
                it; where it cuts guests off, name them: iptables-legacy -I FORWARD -i BRIDGE -j \
                ACCEPT";
    finds(&host, &[line], "1 network checked: 1 warning");
}

#[test]
fn a_network_that_is_not_as_it_should_be() {
    let host = quiet(Host::bare());
    host.describe("cell", "mode = \"isolated\"\n");
    let _taps = [host.tap_on("default", "t0"), host.tap_on("cell", "t1")];
    let put_right =
        "is not as it should be; kvmnet reload puts it right, as does the next guest's start:";
    for (damage, network, steps) in [
        ("nft flush ruleset; kvmnet-reload-cell", "default", "make table ip kvmnet-default"),
        ("nft add chain ip kvmnet-default more", "default", "replace table ip kvmnet-default"),
        ("ip addr flush dev br0", "default", "give br0 the address 192.168.100.1/24"),
        ("ip link set br0 down", "default", "repair bridge br0: up"),
        (
            "ip link set cell arp on; ip link set cell alias ''",
            "cell",
            "repair bridge cell: alias kvmnet:cell no ARP",
        ),
        (
            "sysctl -w net.ipv4.ip_forward=0; ip link set br0 alias kvmnet:default:forwarding",
            "default",
            "set net.ipv4.ip_forward to 1",
        ),
        ("sysctl -w net.ipv6.conf.cell.disable_ipv6=0", "cell", "set disable_ipv6 of cell to 1"),
    ] {
        let damage = damage.replace("kvmnet-reload-cell", "nft -f /run/cell");
        host.ok(&format!("nft list table netdev kvmnet-cell >/run/cell; {damage}"));
        let line = format!("mistake: network {network}: {put_right} {steps}");
        finds(&host, &[&line], "2 networks checked: 1 mistake");
        host.kvmnet_ok(&["reload"]);
        finds(&host, &[], "2 networks checked: all is well");
    }
}

#[test]
fn what_nobody_uses_or_describes() {
    let host = quiet(Host::bare());
    host.describe("lab", LAB);
    host.describe("cell", "mode = \"isolated\"\n");
    drop(host.tap_on("lab", "t0"));
    let unused = "warning: network lab: is up on lab, and nobody uses it, as after a VM was killed; \
                  kvmnet gc takes it down";
    finds(&host, &[unused], "3 networks checked: 1 warning");
    host.ok("rm /etc/kvmnet/lab.toml");
    let gone = "warning: network lab: is up on lab, but has no file that can be read; it goes with its \
                last guest";
    finds(&host, &[gone, unused], "2 networks checked: 2 warnings");
    host.ok("ip link set lab alias kvmnet:lab:pinned:forwarding");
    finds(&host, &[&format!("{gone}, after kvmnet down lab")], "2 networks checked: 1 warning");
    host.describe("lab", "mode = \"bridged\"\nbridge = \"lab\"\n");
    let bridged = "mistake: network lab: is up on lab, which kvmnet made, but its file says bridged; \
                   stop its guests, or kvmnet down lab";
    finds(&host, &[bridged], "3 networks checked: 1 mistake");
    host.kvmnet_ok(&["down", "lab"]);
    host.ok("rm /etc/kvmnet/lab.toml");
    // A saved ruleset that came back at boot.
    host.ok("nft add table ip kvmnet-old; nft add table netdev kvmnet-cell; nft add table inet kvmnet-mine");
    let table = |table: &str, network: &str| {
        format!(
            "warning: nftables table {table}: network {network} is not up; kvmnet gc deletes it"
        )
    };
    finds(
        &host,
        &[&table("ip kvmnet-old", "old"), &table("netdev kvmnet-cell", "cell")],
        "2 networks checked: 2 warnings",
    );
    // It does, and nothing else.
    assert_eq!(
        host.kvmnet_ok(&["gc"]),
        "deleted what was left of networks that are not up: table ip kvmnet-old, table netdev \
         kvmnet-cell\n"
    );
    assert_eq!(host.nft_tables(), ["inet kvmnet-mine"]);
    finds(&host, &[], "2 networks checked: all is well");
}
