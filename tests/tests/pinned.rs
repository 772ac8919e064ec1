//! `kvmnet up`, `down`, `plan` and `gc` on the real kernel.

use std::time::Duration;

use kvmnet_tests::{Foreign, Guest, GuestSpec, Host, assert_same, wait_until};

const SOON: Duration = Duration::from_secs(10);
const LAB: &str = "address = \"192.168.150.1/24\"\n";

/// All but what kvmnet builds for network `lab`, and its taps.
fn foreign(host: &Host) -> Foreign {
    let all = host.foreign().without_table("kvmnet-lab").without_forwarding();
    ["lab", "t0", "t1"].iter().fold(all, |rest, link| rest.without_link(link))
}

fn alias(host: &Host, bridge: &str) -> String {
    host.link(bridge).expect(bridge)["ifalias"].as_str().unwrap_or_default().to_owned()
}

/// What the administrator has.
fn furnish(host: &Host) {
    host.ok("
        ip link add br01 type bridge && ip addr add 10.1.0.1/24 dev br01
        echo 1 >/proc/sys/net/ipv6/conf/br01/disable_ipv6 && ip link set br01 up
        iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE
        nft add table inet site && nft add table ip kvmnetish
        nft add chain inet site forward '{ type filter hook forward priority 0; }'
        ip route add 192.168.0.0/16 via 10.0.0.1
    ");
}

/// What `plan` tells is what the run then does; telling changes nothing.
#[track_caller]
fn run_as_planned(host: &Host, verb: &str, network: &str) -> Vec<String> {
    let (before, logged) = (host.foreign(), host.syslog());
    let plan = host.kvmnet_ok(&["plan", verb, network]);
    assert_same(&before, &host.foreign());
    assert_eq!(host.syslog(), logged);
    let run = host.sh(&format!("KVMNET_LOG=debug kvmnet {verb} {network}"));
    assert!(run.success(), "{run:?}");
    let steps: Vec<String> = run
        .stderr
        .lines()
        .map(|line| line.strip_prefix("DEBUG: ").expect(line).to_owned())
        .collect();
    let wanted: Vec<String> =
        steps.iter().enumerate().map(|(n, step)| format!("{}. {step}", n + 1)).collect();
    let told: Vec<&str> = plan.lines().filter(|line| !line.contains(" stays: ")).collect();
    if steps.is_empty() && !plan.contains(" stays: ") {
        assert_eq!(plan, "nothing to do\n");
    } else {
        assert_eq!(told, wanted);
    }
    steps
}

#[test]
fn plan_tells_what_up_and_down_do() {
    for (text, first) in [
        (LAB, "make table ip kvmnet-lab"),
        (
            "mode = \"routed\"\naddress = \"192.168.150.1/24\"\nmtu = 9000\n",
            "make table ip kvmnet-lab",
        ),
        ("mode = \"isolated\"\n", "make bridge lab (index"),
        (
            "address = \"192.168.150.1/24\"\nfirewall = \"none\"\nforwarding = \"interfaces\"\n",
            "make bridge lab (index",
        ),
    ] {
        let host = Host::new();
        furnish(&host);
        host.describe("lab", text);
        let before = foreign(&host);
        let steps = run_as_planned(&host, "up", "lab");
        assert!(steps.len() >= 3 && steps[0].starts_with(first), "{steps:?}");
        assert!(alias(&host, "lab").starts_with("kvmnet:lab:pinned"));
        let up = host.foreign();
        let said = host.kvmnet_ok(&["up", "lab"]);
        assert_eq!(said, "lab: was up already on lab, to stay until kvmnet down lab\n");
        assert_same(&up, &host.foreign());
        assert!(run_as_planned(&host, "up", "lab").is_empty());
        assert_same(&before, &foreign(&host));
        // Something is missing: only that is done.
        host.ok("ip link set lab down");
        assert_eq!(run_as_planned(&host, "up", "lab").len(), 1);
        // While a guest is on it, down means unpinning.
        let tap = host.tap_on("lab", "t0");
        let plan = host.kvmnet_ok(&["plan", "down", "lab"]);
        assert!(plan.ends_with("\nlab stays: in use by t0\n"), "{plan}");
        assert_eq!(run_as_planned(&host, "down", "lab").len(), 1);
        assert!(!alias(&host, "lab").contains("pinned"));
        assert!(run_as_planned(&host, "down", "lab").is_empty());
        host.kvmnet_ok(&["up", "lab"]);
        host.helper("natdown", &["t0"]).expect("natdown");
        drop(tap);
        assert!(!run_as_planned(&host, "down", "lab").is_empty());
        assert!(host.link("lab").is_none());
        assert_same(&before, &foreign(&host));
        assert!(run_as_planned(&host, "down", "lab").is_empty());
    }
}

#[test]
fn the_network_that_is_built_in() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    let said = host.kvmnet_ok(&["up", "default"]);
    assert_eq!(
        said,
        "default: up on br0, to stay until kvmnet down default; built nat network default, its rules: \
         nft list table ip kvmnet-default; turned on net.ipv4.ip_forward\n"
    );
    assert_eq!(alias(&host, "br0"), "kvmnet:default:pinned:forwarding");
    assert_eq!(
        (host.sysctl("net/ipv4/ip_forward"), host.addresses("br0")),
        ("1".into(), vec!["192.168.100.1/24".into()])
    );
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
    assert_eq!(host.kvmnet_ok(&["down", "default"]), "default: taken down\n");
    host.assert_no_network();
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
    let logged = host.syslog().join("\n");
    assert!(logged.contains("kvmnet[") && logged.contains("]: default: taken down"), "{logged}");
}

#[test]
fn a_pinned_network_outlives_its_guests() {
    let host = Host::new();
    host.describe("lab", LAB);
    let before = foreign(&host);
    host.kvmnet_ok(&["up", "lab"]);
    let pinned = host.foreign();
    let mut guest = Guest::start(
        &host,
        GuestSpec::new("vm")
            .tap("lab0", "/usr/libexec/kvmnet-natup", "/usr/libexec/kvmnet-natdown")
            .paused(),
    );
    // It joined the network that its tap names: none does.
    assert_eq!(host.ports("br0"), ["lab0"]);
    assert_eq!(guest.quit(), 0);
    host.describe("lab", &format!("{LAB}taps = [\"lab*\"]\n"));
    let mut guest = Guest::start(
        &host,
        GuestSpec::new("vm")
            .tap("lab0", "/usr/libexec/kvmnet-natup", "/usr/libexec/kvmnet-natdown")
            .paused(),
    );
    assert_eq!(host.ports("lab"), ["lab0"]);
    assert!(alias(&host, "lab").contains(":pinned"));
    assert_eq!(guest.quit(), 0);
    assert!(wait_until(SOON, || host.link("lab0").is_none()));
    assert_same(&pinned, &host.foreign());
    assert_eq!(
        host.kvmnet_ok(&["gc"]),
        "nothing to take down: every network is in use or pinned\n"
    );
    assert_same(&pinned, &host.foreign());
    host.helper("natdown", &["vnet9"]).expect("natdown");
    assert_same(&pinned, &host.foreign());
    assert_eq!(host.kvmnet_ok(&["down", "lab"]), "lab: taken down\n");
    assert_same(&before, &foreign(&host));
}

#[test]
fn down_while_guests_use_it_leaves_it_to_the_last() {
    let host = Host::new();
    host.describe("lab", LAB);
    let _taps = [host.tap_on("lab", "t0"), host.tap_on("lab", "t1")];
    let used = host.foreign();
    // Pinned under their feet, and nothing but the mark changes.
    let said = host.kvmnet_ok(&["up", "lab"]);
    assert_eq!(said, "lab: up on lab, to stay until kvmnet down lab\n");
    let diff = used.diff(&host.foreign());
    assert_eq!(diff.lines().filter(|line| line.starts_with("  ")).count(), 2, "{diff}");
    assert_eq!(
        host.kvmnet_ok(&["down", "lab"]),
        "lab: in use on lab by t0, t1; goes now with the last\n"
    );
    assert_same(&used, &host.foreign());
    assert_eq!(
        host.kvmnet_ok(&["down", "lab"]),
        "lab: in use on lab by t0, t1; goes with the last\n"
    );
    host.helper("natdown", &["t0"]).expect("natdown");
    assert_eq!(host.ports("lab"), ["t1"]);
    host.helper("natdown", &["t1"]).expect("natdown");
    assert!(host.link("lab").is_none() && host.nft_tables().is_empty());
}

#[test]
fn down_depends_on_no_file() {
    let host = Host::new();
    for (n, change) in [
        "rm /etc/kvmnet/lab.toml",
        "rm -r /etc/kvmnet",
        "echo mode = broken >/etc/kvmnet/lab.toml",
        "chmod 666 /etc/kvmnet/lab.toml",
        "chmod 777 /etc/kvmnet",
        "echo 'mode = \"bridged\"' >/etc/kvmnet/lab.toml",
        "echo 'mode = \"isolated\"' >/etc/kvmnet/lab.toml",
        "echo 'bridge = \"elsewhere\"' >>/etc/kvmnet/lab.toml",
        "ip link set lab down; ip link set lab name natx",
        "nft flush ruleset",
        "rm /etc/kvmnet/lab.toml; nft flush ruleset",
    ]
    .iter()
    .enumerate()
    {
        host.ok("rm -rf /etc/kvmnet");
        host.describe("lab", if n % 2 == 0 { LAB } else { "mode = \"isolated\"\n" });
        let before = foreign(&host);
        host.kvmnet_ok(&["up", "lab"]);
        host.ok(change);
        assert_eq!(host.kvmnet_ok(&["down", "lab"]), "lab: taken down\n", "{change}");
        assert!(host.nft_tables().is_empty() && host.link("natx").is_none(), "{change}");
        assert_same(&before, &foreign(&host));
    }
    // By its address alone, where somebody else's words are its alias.
    host.ok("rm -rf /etc/kvmnet");
    host.describe("lab", LAB);
    host.kvmnet_ok(&["up", "lab"]);
    host.ok("ip link set lab alias words && rm /etc/kvmnet/lab.toml");
    assert_eq!(host.kvmnet_ok(&["down", "lab"]), "lab: taken down\n");
    // Not up: a name that means something, and one that doesn't.
    host.describe("lab", LAB);
    assert_eq!(host.kvmnet_ok(&["down", "lab"]), "lab: was not up\n");
    host.describe("lab", "mode = broken\n");
    assert_eq!(host.kvmnet_ok(&["down", "lab"]), "lab: was not up\n");
    for verb in [&["down"][..], &["plan", "down"], &["up"], &["plan", "up"]] {
        host.kvmnet_refuses(
            &[verb, &["nope"]].concat(),
            "network nope: there is no /etc/kvmnet/nope.toml; \
             kvmnet status shows the networks that there are",
        );
    }
}

#[test]
fn refused_and_nothing_changed() {
    let host = Host::new();
    let refused = |network: &str, wanted: &str| {
        for verb in [&["plan", "up"][..], &["up"]] {
            host.kvmnet_refuses(&[verb, &[network]].concat(), wanted);
        }
    };
    let another = "or give network lab another: bridge = \"NAME\" in /etc/kvmnet/lab.toml";
    let onto = "for a guest on this bridge write mode = \"bridged\" in /etc/kvmnet/lab.toml,";
    host.describe("lan", "mode = \"bridged\"\nbridge = \"br1\"\n");
    let bridged = "network lan: its mode is bridged, and its bridge br1 is yours to make and to \
                   remove; there is nothing to bring up or take down";
    refused("lan", bridged);
    host.kvmnet_refuses(&["down", "lan"], bridged);
    host.kvmnet_refuses(&["plan", "down", "lan"], bridged);
    host.describe("lab", "mode = nat\n");
    refused(
        "lab",
        "/etc/kvmnet/lab.toml:1: a word without quotes; write it in quotes: mode = \"nat\"",
    );
    host.describe("lab", &format!("{LAB}forwarding = \"never\"\n"));
    refused(
        "lab",
        "lab: the host doesn't forward IPv4, and forwarding = \"never\" forbids turning it on; do so \
         yourself: sysctl -w net.ipv4.ip_forward=1",
    );
    host.describe("lab", LAB);
    // Somebody's bridge; also one with exactly the network's address, which natup would attach to.
    host.ok("ip link add lab type bridge && ip link set lab up");
    refused("lab", &format!("lab: is not kvmnet's and carries no IPv4 address; {onto} {another}"));
    host.ok("ip addr add 192.168.150.1/24 dev lab");
    refused("lab", &format!("lab: is not kvmnet's and carries 192.168.150.1/24; {onto} {another}"));
    host.ok("ip link del lab && ip addr add 192.168.150.9/32 dev eno1");
    refused(
        "lab",
        "192.168.150.0/24: network lab needs this subnet, but the host has a route to \
         192.168.150.9/32 over eno1; choose another: address = \"ADDRESS/LENGTH\" in \
         /etc/kvmnet/lab.toml",
    );
    host.ok("ip addr del 192.168.150.9/32 dev eno1");
    // The alias is where the pin goes.
    let _tap = host.tap_on("lab", "t0");
    host.ok("ip link set lab alias 'VM net'");
    refused(
        "lab",
        "lab: has the alias \"VM net\", which leaves no room for kvmnet's mark; \
         take the alias away: ip link set lab alias \"\"",
    );
    host.ok("ip link set lab alias ''");
    host.kvmnet_ok(&["up", "lab"]);
    host.ok("ip link set lab down; ip link set lab name natx; ip link set natx up");
    let output = host.kvmnet(&["up", "lab"]);
    assert!(output.stderr.contains("lab: runs on the bridge natx, not on lab"), "{output:?}");
    for arguments in
        [&["up", "lab"][..], &["down", "lab"], &["plan", "up", "lab"], &["gc"], &["reload"]]
    {
        let before = host.foreign();
        let output = host.kvmnet_unprivileged(arguments);
        let why = format!(
            "kvmnet: {}: user 1000 lacks the capability CAP_NET_ADMIN; run it as root\n",
            arguments[0]
        );
        assert_eq!((output.code, output.stdout.as_str(), output.stderr), (1, "", why));
        assert_same(&before, &host.foreign());
    }
}

#[test]
fn gc_takes_down_what_a_killed_vm_left_and_nothing_else() {
    let host = Host::new();
    furnish(&host);
    for (network, number) in [("used", 1), ("pinned", 2), ("left", 3)] {
        host.describe(
            network,
            &format!("address = \"10.20.{number}.1/24\"\ntaps = [\"{network}*\"]\n"),
        );
    }
    host.describe("cell", "mode = \"isolated\"\ntaps = [\"cell*\"]\n");
    let _used = host.tap_on("used", "used0");
    host.kvmnet_ok(&["up", "pinned"]);
    let before = host.foreign();
    let mut guests =
        ["left0", "cell0"].map(|tap| Guest::start(&host, GuestSpec::new(tap).nat(tap).paused()));
    assert_eq!(
        (host.ports("left"), host.ports("cell")),
        (vec!["left0".into()], vec!["cell0".into()])
    );
    assert_eq!(
        host.kvmnet_ok(&["gc"]),
        "nothing to take down: every network is in use or pinned\n"
    );
    guests.iter_mut().for_each(Guest::kill);
    assert!(wait_until(SOON, || host.link("left0").is_none() && host.link("cell0").is_none()));
    assert!(host.link("left").is_some() && host.link("cell").is_some());
    host.ok("rm /etc/kvmnet/cell.toml; nft add table ip kvmnet-old");
    let said = host.kvmnet_ok(&["gc"]);
    let (taken, tables) = said.split_once("; ").expect("both are told");
    assert!(
        ["took down what nobody used: left, cell", "took down what nobody used: cell, left"]
            .contains(&taken),
        "{said}"
    );
    assert_eq!(tables, "deleted what was left of networks that are not up: table ip kvmnet-old\n");
    assert_same(&before, &host.foreign());
    // An idle persistent tap keeps nothing, and stays.
    host.persistent_tap("left1");
    host.helper_on("left", "natup", "left1");
    assert_eq!(host.ports("left"), ["left1"]);
    assert_eq!(host.kvmnet_ok(&["gc"]), "took down what nobody used: left\n");
    assert!(host.link("left1").is_some_and(|tap| tap["master"].is_null()));
}
