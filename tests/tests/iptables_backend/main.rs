//! Networks whose rules are in the tables of iptables: the same behaviour as with nftables, on either
//! variant of the programs, and by guests' own traffic.

mod killed;

use std::net::UdpSocket;
use std::time::Duration;

use kvmnet_tests::{Host, assert_same};

const LIMIT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(700);
const OUTSIDE: &str = "10.0.0.1:7000";
const VARIANTS: [&str; 2] = ["nft", "legacy"];

const NAT: &str = "address = \"192.168.150.1/24\"\nfirewall = \"iptables\"\n";
const ROUTED: &str = "mode = \"routed\"\naddress = \"10.77.0.1/20\"\nfirewall = \"iptables\"\n";
const ISOLATED: &str = "mode = \"isolated\"\nfirewall = \"iptables\"\n";

/// FORWARD that lets everything through, and such that don't.
const FILTERS: [&str; 4] = [
    ":",
    "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP",
    "iptables -A FORWARD -j REJECT; ip6tables -A FORWARD -j REJECT",
    "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP
     iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN
     iptables -A FORWARD -j DOCKER-USER",
];

/// A host whose `iptables` is of that variant, with rules of the administrator's.
fn host_with(variant: &str) -> Host {
    let host = Host::new();
    host.use_iptables(variant);
    host.ok("iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE
         iptables -A FORWARD -i eno1 -o eno1 -j ACCEPT; ip6tables -A INPUT -i eno9 -j DROP
         # iptables-nft makes a built-in chain with the first rule in it, and leaves it.
         iptables -A INPUT -i eno9 -j DROP; ip6tables -A FORWARD -i eno9 -j DROP");
    let version = host.ok("iptables --version");
    let word = if variant == "nft" { "nf_tables" } else { "legacy" };
    assert!(version.contains(word), "{version}");
    host
}

/// Every rule, of both variants; `kvmnet` alone, or all but those.
fn rules(host: &Host, ours: bool) -> String {
    let all = host.ok("for program in iptables ip6tables; do
             for variant in nft legacy; do echo \"# $program-$variant\"; $program-$variant-save; done
         done 2>/dev/null | sed -E 's/\\[[0-9]+:[0-9]+\\]//'");
    let is_ours = |line: &&str| line.to_lowercase().contains("kvmnet");
    let is_said = |line: &&str| !line.starts_with("# G") && !line.starts_with("# C");
    let lines = all.lines().filter(is_said).filter(|line| is_ours(line) == ours);
    lines.map(|line| format!("{line}\n")).collect()
}

#[track_caller]
fn nothing_left(host: &Host) {
    assert_eq!(rules(host, true), "");
    assert!(host.link("lab").is_none());
    assert_eq!(host.nft_tables().iter().filter(|table| table.contains("kvmnet")).count(), 0);
}

/// All but what kvmnet builds for network `lab`, and its taps.
fn foreign(host: &Host) -> kvmnet_tests::Foreign {
    let all = host.foreign().without_forwarding();
    ["lab", "dmz", "vnet0", "vnet1"].iter().fold(all, |rest, link| rest.without_link(link))
}

#[test]
fn nat_guests_get_out_and_nothing_else_gets_in() {
    for (variant, filter) in VARIANTS.iter().flat_map(|one| FILTERS.map(|other| (*one, other))) {
        println!("{variant}: {filter}");
        let host = host_with(variant);
        let _servers = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
        let container = host.container_network();
        let _container = (container.tcp_server(7000), container.udp_server(7000));
        host.ok(filter);
        host.ok("iptables -t nat -A PREROUTING -i eno1 -p tcp --dport 8080 -j DNAT --to 192.168.150.10:7000");
        host.describe("lab", NAT);
        let anna = host.tap_machine("vnet0", "192.168.150.10/24", "192.168.150.1");
        let bert = host.tap_machine("vnet1", "192.168.150.11/24", "192.168.150.1");
        let _annas = (anna.net().tcp_server(7000), anna.net().udp_server(7000));
        let before = (foreign(&host), rules(&host, false));
        host.quiet_helper_on("lab", "natup", "vnet0");
        host.quiet_helper_on("lab", "natup", "vnet1");
        let alias = &host.link("lab").unwrap()["ifalias"];
        assert_eq!(alias, "kvmnet:lab:forwarding:iptables");
        anna.assert_reaches(OUTSIDE);
        bert.assert_reaches("192.168.150.10:7000");
        // Where nobody drops it, it is the host that lets guests through to its other networks.
        if filter != ":" {
            anna.assert_does_not_reach("172.17.0.2:7000");
        }
        let forwarded = host.outside().tcp_connect("10.0.0.11:8080", "hello", SOON);
        assert!(forwarded.is_ok(), "{forwarded:?}");
        host.outside_ok("ip route add 192.168.150.0/24 via 10.0.0.11");
        assert!(host.outside_tcp_connect("192.168.150.10", 7000, SHORT).is_err());
        // What the old how-to says to look at.
        let shown = host.ok("iptables -t nat -L -n");
        assert!(shown.contains("MASQUERADE") && shown.contains("192.168.150.0/24"), "{shown}");
        assert!(host.nft("ip", "kvmnet-lab").is_none());
        // A second run changes nothing, and sees nothing to change.
        let once = host.foreign();
        host.quiet_helper_on("lab", "natup", "vnet0");
        assert_same(&once, &host.foreign());
        assert_eq!(host.kvmnet_ok(&["reload"]), "lab: is as it should be\n");
        assert_eq!(rules(&host, false), before.1);

        host.quiet_helper_on("lab", "natdown", "vnet0");
        bert.assert_reaches(OUTSIDE);
        host.quiet_helper_on("lab", "natdown", "vnet1");
        nothing_left(&host);
        assert_same(&before.0, &foreign(&host));
        let log = host.syslog().join("\n");
        let built = "vnet0: attached to lab; built nat network lab, its rules: iptables -t nat -S \
                     KVMNET-lab-POST";
        assert!(log.contains(built), "{log}");
    }
}

#[test]
fn routed_guests_and_the_outside_reach_each_other() {
    for (variant, filter) in VARIANTS.iter().flat_map(|one| FILTERS.map(|other| (*one, other))) {
        println!("{variant}: {filter}");
        let host = host_with(variant);
        let _servers = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
        host.outside_ok("ip route add 10.77.0.0/20 via 10.0.0.11");
        host.ok(filter);
        host.describe("lab", ROUTED);
        let anna = host.tap_machine("vnet0", "10.77.0.10/20", "10.77.0.1");
        let _annas = (anna.net().tcp_server(7000), anna.net().udp_server(7000));
        let before = foreign(&host);
        host.quiet_helper_on("lab", "natup", "vnet0");
        anna.assert_reaches(OUTSIDE);
        let inward = host.outside().tcp_connect("10.77.0.10:7000", "hello", SOON);
        assert!(inward.is_ok(), "{inward:?}");
        assert!(!rules(&host, true).contains("MASQUERADE"));
        host.quiet_helper_on("lab", "natdown", "vnet0");
        nothing_left(&host);
        assert_same(&before, &foreign(&host));
    }
}

/// With br_netfilter on, as it is here, and without: guests reach each other, and no socket of the
/// host's hears anything of them.
#[test]
fn isolated_guests_reach_each_other_and_nothing_of_the_host() {
    for (variant, netfilter) in [("nft", 0), ("nft", 1), ("legacy", 0), ("legacy", 1)] {
        for filter in FILTERS {
            println!("{variant}: {netfilter}: {filter}");
            let host = host_with(variant);
            host.ok(&format!("sysctl -qw net.bridge.bridge-nf-call-iptables={netfilter}"));
            host.ok(filter);
            host.describe("lab", ISOLATED);
            let _servers = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
            let anna = host.tap_machine("vnet0", "10.99.0.10/24", "10.99.0.1");
            let bert = host.tap_machine("vnet1", "10.99.0.11/24", "10.99.0.1");
            let _berts = (bert.net().tcp_server(7000), bert.net().udp_server(7000));
            let before = foreign(&host);
            host.quiet_helper_on("lab", "natup", "vnet0");
            host.quiet_helper_on("lab", "natup", "vnet1");
            host.ok("sysctl -qw net.ipv4.ip_forward=1");
            anna.assert_reaches("10.99.0.11:7000");
            // To the bridge's own address on the wire, whatever ARP says.
            let mac = host.link("lab").unwrap()["address"].as_str().unwrap().to_owned();
            host.ok(&format!(
                "ip -n at-vnet0 neigh add 10.99.0.1 lladdr {mac} dev eth0;
                 ip -n at-vnet0 neigh add 10.0.0.11 lladdr {mac} dev eth0 &&
                 ip -n at-vnet0 route add 10.0.0.11 dev eth0"
            ));
            let ear = host.net().enter(|| UdpSocket::bind("0.0.0.0:5353").unwrap());
            ear.set_read_timeout(Some(SHORT)).unwrap();
            for to in
                ["10.0.0.11:5353", "10.99.0.255:5353", "255.255.255.255:5353", "224.0.0.1:5353"]
            {
                anna.net().enter(|| {
                    let mouth = UdpSocket::bind("10.99.0.10:0").unwrap();
                    mouth.set_broadcast(true).unwrap();
                    let _ = mouth.send_to(b"hello", to);
                });
            }
            assert!(ear.recv_from(&mut [0; 16]).is_err());
            anna.assert_does_not_reach(OUTSIDE);
            for tap in ["vnet0", "vnet1"] {
                host.quiet_helper_on("lab", "natdown", tap);
            }
            nothing_left(&host);
            assert_same(&before, &foreign(&host));
        }
    }
}

/// Of whichever backends and modes.
#[test]
fn two_networks_are_kept_apart() {
    for variant in VARIANTS {
        for (one, other) in [(NAT, ROUTED), (ROUTED, NAT)] {
            for is_mixed in [false, true] {
                println!("{variant}: {one} {other} {is_mixed}");
                let host = host_with(variant);
                host.describe("lab", one);
                let text =
                    if is_mixed { other.replace("iptables", "nftables") } else { other.into() };
                host.describe("dmz", &text);
                let address = |text: &str| match text.contains("routed") {
                    true => ("10.77.0.10/20", "10.77.0.1"),
                    false => ("192.168.150.10/24", "192.168.150.1"),
                };
                let (a, b) = (address(one), address(other));
                let anna = host.tap_machine("vnet0", a.0, a.1);
                let bert = host.tap_machine("vnet1", b.0, b.1);
                let servers = [anna.net(), bert.net()]
                    .map(|net| (net.tcp_server(7000), net.udp_server(7000)));
                let _outside = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
                host.outside_ok("ip route add 10.77.0.0/20 via 10.0.0.11");
                host.quiet_helper_on("lab", "natup", "vnet0");
                host.quiet_helper_on("dmz", "natup", "vnet1");
                anna.assert_reaches(OUTSIDE);
                bert.assert_reaches(OUTSIDE);
                let port = |text: &str| format!("{}:7000", text.split('/').next().unwrap());
                anna.assert_does_not_reach(&port(b.0));
                bert.assert_does_not_reach(&port(a.0));
                drop(servers);
                host.quiet_helper_on("lab", "natdown", "vnet0");
                bert.assert_reaches(OUTSIDE);
                host.quiet_helper_on("dmz", "natdown", "vnet1");
                nothing_left(&host);
            }
        }
    }
}

#[test]
fn what_is_damaged_is_put_back_and_nothing_else() {
    for variant in VARIANTS {
        for text in [NAT, ROUTED, ISOLATED] {
            let host = host_with(variant);
            host.describe("lab", text);
            let _tap = host.tap_on("lab", "vnet0");
            let whole = rules(&host, true);
            let others = rules(&host, false);
            for damage in [
                "iptables -F KVMNET-lab-FWD",
                "iptables -D KVMNET-lab-FWD 1",
                "iptables -A KVMNET-lab-FWD -j ACCEPT",
                "iptables -I KVMNET-lab-FWD -j ACCEPT",
                "iptables -D FORWARD -m comment --comment kvmnet:lab -j KVMNET-lab-FWD",
                "iptables -A FORWARD -m comment --comment kvmnet:lab -j KVMNET-lab-FWD",
                "iptables -A INPUT -j KVMNET-lab-FWD",
                "iptables -F FORWARD; iptables -A FORWARD -i eno1 -o eno1 -j ACCEPT
                 iptables -A FORWARD -m comment --comment kvmnet:lab -j KVMNET-lab-FWD",
                "iptables -F FORWARD; iptables -X KVMNET-lab-FWD
                 iptables -F KVMNET-lab-FWD; iptables -X KVMNET-lab-FWD
                 iptables -A FORWARD -i eno1 -o eno1 -j ACCEPT",
                "iptables -t nat -F KVMNET-lab-POST; ip6tables -F KVMNET-lab-FWD; ip6tables -F INPUT
                 ip6tables -A INPUT -i eno9 -j DROP",
                "iptables -N KVMNET-lab-IN; iptables -A KVMNET-lab-IN -j ACCEPT",
                "iptables -t nat -N KVMNET-lab-FWD",
                "iptables-nft -N KVMNET-lab-FWD; iptables-legacy -N KVMNET-lab-FWD
                 iptables-legacy -I FORWARD -j KVMNET-lab-FWD; iptables-nft -I FORWARD -j KVMNET-lab-FWD",
            ] {
                host.sh(damage);
                let said = host.kvmnet_ok(&["reload"]);
                assert_eq!(rules(&host, true), whole, "{variant}: {text}: {damage}");
                println!("{said}");
                assert_eq!(host.kvmnet_ok(&["reload"]), "lab: is as it should be\n", "{damage}");
                // The other variant's table may have been made by the damage itself.
                let words = |text: &str| text.lines().filter(|line| line.starts_with("-A")).count();
                assert_eq!(words(&rules(&host, false)), words(&others), "{damage}");
                host.sh(damage);
                host.quiet_helper_on("lab", "natup", "vnet0");
                assert_eq!(rules(&host, true), whole, "{variant}: {text}: {damage}");
            }
            host.quiet_helper_on("lab", "natdown", "vnet0");
            nothing_left(&host);
        }
    }
}

#[test]
fn the_firewall_changes_while_guests_run() {
    for variant in VARIANTS {
        let host = host_with(variant);
        let _servers = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
        let file = |firewall: &str| {
            host.describe(
                "lab",
                &format!("address = \"192.168.150.1/24\"\nfirewall = \"{firewall}\"\n"),
            );
        };
        file("auto");
        let anna = host.tap_machine("vnet0", "192.168.150.10/24", "192.168.150.1");
        host.quiet_helper_on("lab", "natup", "vnet0");
        for firewall in ["iptables", "nftables", "iptables", "none", "iptables", "auto"] {
            file(firewall);
            host.quiet_helper_on("lab", "natup", "vnet0");
            let is_in = (host.nft("ip", "kvmnet-lab").is_some(), !rules(&host, true).is_empty());
            let (nft, iptables) = match firewall {
                "iptables" => (false, true),
                "none" => (false, false),
                _ => (true, false),
            };
            assert_eq!(is_in, (nft, iptables), "{firewall}");
            let alias = host.link("lab").unwrap()["ifalias"].as_str().unwrap().to_owned();
            assert_eq!(alias.ends_with(":iptables"), iptables, "{firewall}: {alias}");
            if firewall != "none" {
                anna.assert_reaches(OUTSIDE);
            }
            host.quiet_helper_on("lab", "natup", "vnet0");
        }
        // Released by the mark alone.
        file("iptables");
        host.quiet_helper_on("lab", "natup", "vnet0");
        host.ok("rm /etc/kvmnet/lab.toml");
        host.helper("natdown", &["vnet0"]).expect("natdown");
        nothing_left(&host);
    }
}

/// The host's alternatives change, and the rules with them.
#[test]
fn rules_are_where_the_administrators_are() {
    let host = host_with("nft");
    host.describe("lab", NAT);
    let _tap = host.tap_on("lab", "vnet0");
    for variant in ["legacy", "nft", "legacy"] {
        host.use_iptables(variant);
        host.quiet_helper_on("lab", "natup", "vnet0");
        for of in VARIANTS {
            let has = host.ok(&format!("iptables-{of}-save 2>/dev/null")).contains("KVMNET-lab");
            assert_eq!(has, of == variant, "{of} after {variant} was chosen");
        }
    }
    // Found where they are, whatever is chosen by then.
    host.use_iptables("nft");
    host.quiet_helper_on("lab", "ifdown", "vnet0");
    nothing_left(&host);
}

#[test]
fn eight_guests_at_once() {
    for variant in VARIANTS {
        let host = host_with(variant);
        host.describe("lab", NAT);
        let names: Vec<String> = (0..8).map(|n| format!("vnet{n}")).collect();
        let _taps: Vec<_> = names.iter().map(|name| host.tap(name)).collect();
        for helper in ["natup", "natdown"] {
            let runs: Vec<_> = names
                .iter()
                .map(|name| {
                    let mut command = host.command(&format!("/usr/libexec/kvmnet-{helper}"));
                    host.spawn(command.arg(name).env("KVMNET_NETWORK", "lab"))
                })
                .collect();
            for run in runs {
                run.output(LIMIT).expect(helper);
            }
            if helper == "natup" {
                assert_eq!(host.ports("lab").len(), 8);
                let masquerades = rules(&host, true).matches("MASQUERADE").count();
                assert_eq!(masquerades, 3);
            }
        }
        nothing_left(&host);
    }
}

#[test]
fn programs_that_are_missing() {
    let host = host_with("nft");
    host.describe("lab", NAT);
    let _tap = host.tap("vnet0");
    let refused = |name: &str, wanted: &str| {
        let before = host.foreign();
        let output = host.run_helper_on("lab", name, "vnet0");
        assert_eq!(output.stderr, format!("kvmnet-{name}: vnet0: {wanted}\n"));
        assert_eq!(output.code, 1);
        assert_same(&before, &host.foreign());
    };
    let hide = || host.ok("mount --bind /dev/null /usr/bin/kvmnet");
    let show = || host.ok("umount /usr/bin/kvmnet");
    let no_kvmnet = "that takes kvmnet, which works on rules in iptables, and it cannot be run as \
                     /usr/bin/kvmnet or /usr/local/bin/kvmnet; install it there, or have the rules \
                     elsewhere: firewall = \"nftables\" in the network's file";
    hide();
    refused("natup", &format!("not attached: {no_kvmnet}"));
    show();
    host.quiet_helper_on("lab", "natup", "vnet0");
    hide();
    refused("natdown", &format!("not released: {no_kvmnet}"));
    refused("ifdown", &format!("not released: {no_kvmnet}"));
    show();
    host.quiet_helper_on("lab", "natdown", "vnet0");
    nothing_left(&host);

    let no_iptables = "not attached: cannot work on the rules with iptables: it is in none of \
                       /usr/sbin, /usr/bin, /sbin, /bin; install iptables, or have the rules \
                       elsewhere: firewall = \"nftables\" in the network's file";
    host.ok("ln -sf /nowhere /etc/alternatives/iptables");
    refused("natup", no_iptables);
    host.ok("ln -sf /usr/sbin/iptables-nft /etc/alternatives/iptables");
    // Somebody else has made of its table what iptables can't read.
    host.ok(
        "iptables -N SITE; nft add rule ip filter FORWARD ct state new counter meta priority 7",
    );
    let output = host.run_helper_on("lab", "natup", "vnet0");
    println!("{}", output.stderr);
    assert!(output.code == 0 || output.stderr.contains("iptables: it says: "), "{output:?}");
}

/// Where the file leaves it to the kernel and that has no nf_tables, by what it says then.
#[test]
fn a_kernel_without_nf_tables() {
    let host = host_with("legacy");
    let _tap = host.tap("vnet0");
    let every_second = "strace -qq -o /dev/null -e inject=socket:error=EPROTONOSUPPORT:when=2+2";
    let output = host.sh(&format!("{every_second} /usr/libexec/kvmnet-natup vnet0"));
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let alias = &host.link("br0").unwrap()["ifalias"];
    assert_eq!(alias, "kvmnet:default:forwarding:iptables");
    assert!(rules(&host, true).contains("KVMNET-default-POST"));
    host.helper("natdown", &["vnet0"]).expect("natdown");
    nothing_left(&host);
}

/// A name that iptables would read as a pattern.
#[test]
fn a_bridge_with_a_name_of_a_pattern() {
    let host = host_with("nft");
    host.describe("lab", &format!("bridge = \"lab+\"\n{NAT}"));
    let _tap = host.tap("vnet0");
    let output = host.run_helper_on("lab", "natup", "vnet0");
    assert_eq!(
        output.stderr,
        "kvmnet-natup: vnet0: not attached: cannot make rules for lab+ with iptables: it gives a name like \
         this another meaning; choose one of letters, digits and . _ - @ for the bridge\n"
    );
    assert!(host.link("lab+").is_none());
}

/// The command: up, status, check, plan, reload, down, gc.
#[test]
fn the_command_knows_them() {
    for variant in VARIANTS {
        let host = host_with(variant);
        host.describe("lab", NAT);
        let plan = host.kvmnet_ok(&["plan", "up", "lab"]);
        let steps: Vec<&str> = plan.lines().collect();
        assert!(
            steps[0].contains("make bridge lab")
                && steps[0].contains(":pinned:forwarding:iptables"),
            "{plan}"
        );
        assert!(plan.contains("make the chains KVMNET-lab-* of iptables"), "{plan}");
        assert!(host.link("lab").is_none());
        host.kvmnet_ok(&["up", "lab"]);
        let status: serde_json::Value =
            serde_json::from_str(&host.kvmnet_ok(&["status", "--json", "lab"])).unwrap();
        let rules_of = |status: &serde_json::Value| status["networks"][0]["rules"].clone();
        let wanted = serde_json::json!({
            "backend": "iptables", "state": "in-place",
            "command": "iptables -t nat -S KVMNET-lab-POST"
        });
        assert_eq!(rules_of(&status), wanted);
        host.ok(wanted["command"].as_str().unwrap());
        assert!(host.kvmnet(&["check"]).stdout.lines().all(|line| !line.starts_with("mistake")));
        host.ok("iptables -F KVMNET-lab-FWD");
        let status = host.kvmnet_ok(&["status", "lab"]);
        assert!(status.contains("iptables -t nat -S KVMNET-lab-POST (changed)"), "{status}");
        let found = host.kvmnet(&["check"]);
        assert_eq!(found.code, 3);
        assert!(found.stdout.contains("replace the chains KVMNET-lab-* of iptables"), "{found:?}");
        let said = host.kvmnet_ok(&["reload"]);
        assert_eq!(said, "lab: repaired: replace the chains KVMNET-lab-* of iptables\n");
        host.kvmnet_ok(&["down", "lab"]);
        nothing_left(&host);
        // Left over without a bridge, as where somebody has deleted that by hand.
        host.kvmnet_ok(&["up", "lab"]);
        host.ok("ip link del lab");
        let found = host.kvmnet(&["check"]).stdout;
        let stray =
            "the chains KVMNET-lab-* of iptables: network lab is not up; kvmnet gc deletes them";
        assert!(found.contains(stray), "{found}");
        let said = host.kvmnet_ok(&["gc"]);
        let wanted = "gc: deleted what was left of networks that are not up: the chains KVMNET-lab-* of iptables\n";
        assert_eq!(said, format!("{}", wanted.trim_start_matches("gc: ")));
        nothing_left(&host);
    }
}
