//! A host whose own firewall, through iptables, forwards only what it names, as Docker and ufw
//! make it: guests have accept rules of kvmnet's there, as narrow as can be.

use std::time::Duration;

use kvmnet_tests::{Host, wait_until};

const SOON: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(700);
const OUTSIDE: &str = "10.0.0.1:7000";

/// FORWARD that drops, or rejects what is left, for both families.
const DROPPING: [(&str, &str); 3] = [
    ("a policy", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP"),
    (
        "a last rule",
        "iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited
         ip6tables -A FORWARD -j REJECT",
    ),
    (
        "Docker's chain",
        "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP
         iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN
         iptables -A FORWARD -j DOCKER-USER",
    ),
];

/// What `iptables -S` shows of kvmnet's rules, without their chain, sorted.
fn ours(host: &Host, program: &str) -> Vec<String> {
    let rules = host.ok(&format!("{program} -S"));
    let own = rules.lines().filter(|line| line.contains("kvmnet"));
    let mut own: Vec<String> =
        own.map(|line| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned()).collect();
    own.sort();
    own
}

#[track_caller]
fn no_rules_of_ours(host: &Host) {
    assert_eq!((ours(host, "iptables"), ours(host, "ip6tables")), (vec![], vec![]));
}

fn write(host: &Host, network: &str, text: &str) {
    host.ok("mkdir -p /etc/kvmnet /run/x");
    host.write(format!("/etc/kvmnet/{network}.toml"), text);
    for helper in ["natup", "natdown"] {
        host.ok(&format!("ln -sf /usr/libexec/kvmnet-{helper} /run/x/kvmnet-{helper}@{network}"));
    }
}

#[track_caller]
fn attach(host: &Host, network: &str, tap: &str) {
    let program = match network {
        "default" => "/usr/libexec/kvmnet-natup".to_owned(),
        network => format!("/run/x/kvmnet-natup@{network}"),
    };
    host.run(&[&program, tap]).expect(tap);
}

fn release(host: &Host, tap: &str) {
    host.helper("ifdown", &[tap]).expect(tap);
}

#[test]
fn nat_guests_get_out_and_nothing_else_gets_through() {
    for (what, dropping) in DROPPING {
        let host = Host::new();
        let _servers = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
        // Another network of the host's, such as containers are on: guests have no way into it.
        let container = host.container_network();
        let _container = (container.tcp_server(7000), container.udp_server(7000));
        host.ok(dropping);
        host.ok("iptables -t nat -A PREROUTING -i eno1 -p tcp --dport 8080 -j DNAT --to 192.168.100.10:7000");
        let anna = host.tap_machine("vnet0", "192.168.100.10/24", "192.168.100.1");
        let bert = host.tap_machine("vnet1", "192.168.100.11/24", "192.168.100.1");
        let before = host.foreign_to_kvmnet(&["vnet0", "vnet1"]);
        let _annas = (anna.net().tcp_server(7000), anna.net().udp_server(7000));
        attach(&host, "default", "vnet0");
        attach(&host, "default", "vnet1");
        anna.assert_reaches(OUTSIDE);
        bert.assert_reaches("192.168.100.10:7000");
        anna.assert_does_not_reach("172.17.0.2:7000");
        // The administrator's port forward comes in, and nothing else.
        let forwarded = host.outside().tcp_connect("10.0.0.11:8080", "hello", SOON);
        assert!(forwarded.is_ok(), "{what}: {forwarded:?}");
        host.outside_ok("ip route add 192.168.100.0/24 via 10.0.0.11");
        assert!(host.outside_tcp_connect("192.168.100.10", 7000, SHORT).is_err(), "{what}");

        let wanted = [
            "-s 192.168.100.0/24 -i br0 -o eno1 -m comment --comment kvmnet-default -j ACCEPT",
            "-d 192.168.100.0/24 ! -i br0 -o br0 -m conntrack --ctstate RELATED,ESTABLISHED \
             -m comment --comment kvmnet-default -j ACCEPT",
            "-d 192.168.100.0/24 ! -i br0 -o br0 -m conntrack --ctstate DNAT \
             -m comment --comment kvmnet-default -j ACCEPT",
            "-i br0 -o br0 -m comment --comment kvmnet-default -j ACCEPT",
        ];
        let mut sorted = wanted;
        sorted.sort_unstable();
        assert_eq!(ours(&host, "iptables"), sorted, "{what}");
        assert_eq!(ours(&host, "ip6tables"), wanted[3..], "{what}");
        let status = host.run(&["kvmnet", "status"]).expect("status");
        for family in ["ip", "ip6"] {
            let line = format!(
                "{family} filter FORWARD lets through only what it names; kvmnet opened it for default.\n"
            );
            assert!(status.contains(&line), "{status}");
        }
        // Without them it was the firewall that kept the guests in.
        host.ok("for chain in FORWARD DOCKER-USER; do
                     iptables -S $chain 2>/dev/null | sed -n '/kvmnet/s/^-A/iptables -D/p' | sh
                 done");
        bert.assert_does_not_reach(OUTSIDE);
        attach(&host, "default", "vnet1");
        bert.assert_reaches(OUTSIDE);
        assert_eq!(ours(&host, "iptables"), sorted, "{what}");

        release(&host, "vnet0");
        bert.assert_reaches(OUTSIDE);
        release(&host, "vnet1");
        no_rules_of_ours(&host);
        host.assert_no_network();
        host.ok("iptables -t nat -S >/dev/null");
        kvmnet_tests::assert_same(&before, &host.foreign_to_kvmnet(&["vnet0", "vnet1"]));
    }
}

#[test]
fn routed_guests_and_the_outside_reach_each_other() {
    for (what, dropping) in DROPPING {
        let host = Host::new();
        let _servers = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
        host.outside_ok("ip route add 10.77.0.0/20 via 10.0.0.11");
        host.ok(dropping);
        write(&host, "lab", "mode = \"routed\"\naddress = \"10.77.0.1/20\"\n");
        let anna = host.tap_machine("vnet0", "10.77.0.10/20", "10.77.0.1");
        let _annas = (anna.net().tcp_server(7000), anna.net().udp_server(7000));
        attach(&host, "lab", "vnet0");
        anna.assert_reaches(OUTSIDE);
        let inward = host.outside().tcp_connect("10.77.0.10:7000", "hello", SOON);
        assert!(inward.is_ok(), "{what}: {inward:?}");
        assert_eq!(ours(&host, "iptables").len(), 3, "{what}");
        release(&host, "vnet0");
        no_rules_of_ours(&host);
    }
}

/// With br_netfilter, as this kernel has it, frames from guest to guest are filtered, too.
#[test]
fn guests_of_one_bridge_reach_each_other() {
    for (what, dropping) in DROPPING {
        for isolated in [true, false] {
            let host = Host::new();
            assert_eq!(host.sysctl("net/bridge/bridge-nf-call-iptables"), "1");
            host.ok(dropping);
            let bridge = if isolated {
                write(&host, "lab", "mode = \"isolated\"\n");
                "lab"
            } else {
                host.ok("ip link add br1 type bridge && ip link set br1 up");
                write(&host, "lan", "mode = \"bridged\"\nbridge = \"br1\"\n");
                "br1"
            };
            let network = if isolated { "lab" } else { "lan" };
            let anna = host.tap_machine("vnet0", "10.99.0.10/24", "10.99.0.1");
            let bert = host.tap_machine("vnet1", "10.99.0.11/24", "10.99.0.1");
            let _berts = (bert.net().tcp_server(7000), bert.net().udp_server(7000));
            attach(&host, network, "vnet0");
            attach(&host, network, "vnet1");
            anna.assert_reaches("10.99.0.11:7000");
            let wanted = if isolated {
                format!("-i {bridge} -o {bridge} -m comment --comment kvmnet-lab -j ACCEPT")
            } else {
                format!(
                    "-i {bridge} -o {bridge} -m comment --comment \"kvmnet bridge br1\" -j ACCEPT"
                )
            };
            for program in ["iptables", "ip6tables"] {
                assert_eq!(ours(&host, program), [&*wanted], "{what}");
            }
            release(&host, "vnet0");
            assert_eq!(ours(&host, "iptables").len(), 1, "{what}");
            release(&host, "vnet1");
            no_rules_of_ours(&host);
        }
    }
}

/// A bridge can have its frames filtered where the host's others don't.
#[test]
fn a_bridges_own_setting_counts() {
    let host = Host::new();
    host.ok("sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0
             iptables -P FORWARD DROP; ip6tables -P FORWARD DROP
             ip link add br1 type bridge && ip link set br1 up");
    write(&host, "lan", "mode = \"bridged\"\nbridge = \"br1\"\n");
    let anna = host.tap_machine("vnet0", "10.99.0.10/24", "10.99.0.1");
    let bert = host.tap_machine("vnet1", "10.99.0.11/24", "10.99.0.1");
    let _berts = (bert.net().tcp_server(7000), bert.net().udp_server(7000));
    attach(&host, "lan", "vnet0");
    attach(&host, "lan", "vnet1");
    no_rules_of_ours(&host);
    anna.assert_reaches("10.99.0.11:7000");
    host.ok("ip link set br1 type bridge nf_call_iptables 1");
    anna.assert_does_not_reach("10.99.0.11:7000");
    attach(&host, "lan", "vnet1");
    anna.assert_reaches("10.99.0.11:7000");
    release(&host, "vnet0");
    release(&host, "vnet1");
    no_rules_of_ours(&host);
    // One of kvmnet's own.
    attach(&host, "default", "vnet0");
    assert!(!ours(&host, "iptables").iter().any(|rule| rule.starts_with("-i br0 -o br0")));
    host.ok("ip link set br0 type bridge nf_call_iptables 1");
    attach(&host, "default", "vnet0");
    assert!(ours(&host, "iptables").iter().any(|rule| rule.starts_with("-i br0 -o br0")));
}

/// There is no interface then whose name a rule could have.
#[test]
fn without_a_default_route_the_log_says_so() {
    let host = Host::new();
    let _server = host.outside_tcp_server(7000);
    host.ok("iptables -P FORWARD DROP");
    let route = host.ok("ip route show default");
    host.ok("ip route del default");
    let anna = host.tap_machine("vnet0", "192.168.100.10/24", "192.168.100.1");
    let mut natup = host.command("/usr/libexec/kvmnet-natup");
    let output = natup.arg("vnet0").env("KVMNET_LOG", "info").output().expect("natup runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let wanted = "the host has no default route now, so that its firewall lets no guest out; once it \
                  has one: kvmnet reload";
    assert!(output.status.success() && log.contains(wanted), "{log}");
    host.ok(&format!("ip route add {route}"));
    assert!(anna.net().tcp_connect(OUTSIDE, "hello", SHORT).is_err());
    host.run(&["kvmnet", "reload"]).expect("reload");
    let answer = anna.net().tcp_connect(OUTSIDE, "hello", SOON);
    assert!(answer.is_ok(), "{answer:?}");
}

#[test]
fn nothing_is_added_where_everything_passes() {
    let host = Host::new();
    host.ok("iptables -A FORWARD -i eno1 -o eno1 -j DROP; iptables -N DOCKER-USER");
    let _tap = host.tap("vnet0");
    let rules = || host.ok("iptables -S; ip6tables -S");
    let before = rules();
    attach(&host, "default", "vnet0");
    assert_eq!(rules(), before);
}

/// Saved and restored by iptables they are ours still; a run changes nothing, and the last takes
/// them away.
#[test]
fn they_survive_iptables_restore_and_a_second_run_changes_nothing() {
    let host = Host::new();
    host.ok("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
    let _tap = host.tap("vnet0");
    attach(&host, "default", "vnet0");
    let rules = ours(&host, "iptables");
    for damage in [
        "iptables-save >/tmp/saved && iptables-restore /tmp/saved",
        "iptables -I FORWARD -i eno1 -o eno1 -j DROP",
        "nft list ruleset >/tmp/rules",
    ] {
        host.ok(damage);
        let before = host.foreign();
        attach(&host, "default", "vnet0");
        kvmnet_tests::assert_same(&before, &host.foreign());
    }
    for damage in [
        "iptables -F FORWARD",
        "iptables -D FORWARD -i br0 -o br0 -m comment --comment kvmnet-default -j ACCEPT",
        "iptables -I FORWARD -i br0 -m comment --comment kvmnet-default -j ACCEPT",
        "iptables -I FORWARD -i br0 -o br0 -m comment --comment kvmnet-default -j ACCEPT",
        "nft flush ruleset; iptables -P FORWARD DROP; ip6tables -P FORWARD DROP",
    ] {
        host.ok(damage);
        attach(&host, "default", "vnet0");
        assert_eq!(ours(&host, "iptables"), rules, "{damage}");
        assert_eq!(ours(&host, "ip6tables").len(), 1, "{damage}");
    }
    host.helper("natdown", &["vnet0"]).expect("natdown");
    no_rules_of_ours(&host);
}

/// Only what accepts is kvmnet's, whatever an administrator writes beside a rule of his own.
#[test]
fn a_rule_that_drops_is_the_administrators() {
    let host = Host::new();
    host.ok("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP
             iptables -A FORWARD -s 10.9.9.9 -m comment --comment kvmnet-default -j DROP");
    let _tap = host.tap("vnet0");
    attach(&host, "default", "vnet0");
    release(&host, "vnet0");
    host.run(&["kvmnet", "gc"]).expect("gc");
    let left = "-s 10.9.9.9/32 -m comment --comment kvmnet-default -j DROP";
    assert_eq!(ours(&host, "iptables"), [left]);
}

/// The kernel numbers the rules of a table from 1. One that was made anew between a run's look and
/// its change has other people's rules under the numbers of ours.
#[test]
fn a_table_that_is_made_anew_meanwhile_loses_nothing() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    let anew = "iptables -F FORWARD; nft delete table ip filter; iptables -P FORWARD DROP
                for port in 1 2 3 4 5 6 7 8 9 10 11 12; do
                    iptables -A FORWARD -p tcp --dport $port -j DROP
                done";
    for send in 1..=14 {
        host.ok("iptables -P FORWARD DROP; iptables -F FORWARD");
        attach(&host, "default", "vnet0");
        let delay = format!("inject=sendto:delay_enter=400000:when={send}");
        let mut command = host.command("strace");
        command.args(["-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e", &delay]);
        let natdown = host.spawn(command.args(["/usr/libexec/kvmnet-natdown", "vnet0"]));
        std::thread::sleep(Duration::from_millis(200));
        host.ok(anew);
        natdown.output(SOON).expect("natdown");
        let rules = host.ok("iptables -S FORWARD");
        assert_eq!(rules.matches("-j DROP").count(), 12, "delayed at send {send}\n{rules}");
        host.assert_no_network();
        host.ok("iptables -F FORWARD");
    }
}

/// Left of a Docker that is gone: no packet comes by its chain any more.
#[test]
fn a_chain_of_dockers_that_nothing_leads_to_is_not_used() {
    let host = Host::new();
    let _servers = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
    host.ok("iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN");
    let anna = host.tap_machine("vnet0", "192.168.100.10/24", "192.168.100.1");
    attach(&host, "default", "vnet0");
    anna.assert_reaches(OUTSIDE);
    assert!(!host.ok("iptables -S DOCKER-USER").contains("kvmnet"));
    // It comes back, and the rules go there.
    host.ok("iptables -I FORWARD -j DOCKER-USER");
    attach(&host, "default", "vnet0");
    assert!(!host.ok("iptables -S FORWARD").contains("kvmnet"));
    anna.assert_reaches(OUTSIDE);
    release(&host, "vnet0");
    no_rules_of_ours(&host);
}

/// A killed VM runs no downscript: its rules go with the next run, or by gc.
#[test]
fn what_a_killed_vm_leaves_goes() {
    let host = Host::new();
    host.ok("iptables -P FORWARD DROP; ip link add br1 type bridge; ip link set br1 up");
    write(&host, "lan", "mode = \"bridged\"\nbridge = \"br1\"\n");
    let taps = (host.tap("vnet0"), host.tap("vnet1"));
    attach(&host, "default", "vnet0");
    attach(&host, "lan", "vnet1");
    assert_eq!(ours(&host, "iptables").len(), 5);
    host.run(&["kvmnet", "gc"]).expect("gc");
    assert_eq!(ours(&host, "iptables").len(), 5);
    drop(taps);
    // Another test's child may hold them open until it has begun its own program.
    assert!(wait_until(SOON, || host.link("vnet0").is_none() && host.link("vnet1").is_none()));
    host.run(&["kvmnet", "gc"]).expect("gc");
    no_rules_of_ours(&host);
    host.assert_no_network();
}

/// Docker starts while guests are there: `kvmnet reload`, or the next guest, opens its firewall.
#[test]
fn a_firewall_that_comes_later_is_opened_by_reload() {
    let host = Host::new();
    let _servers = (host.outside_tcp_server(7000), host.outside_udp_server(7000));
    let anna = host.tap_machine("vnet0", "192.168.100.10/24", "192.168.100.1");
    attach(&host, "default", "vnet0");
    anna.assert_reaches(OUTSIDE);
    host.ok(DROPPING[2].1);
    anna.assert_does_not_reach(OUTSIDE);
    host.run(&["kvmnet", "reload"]).expect("reload");
    anna.assert_reaches(OUTSIDE);
    // Another default route: out over that as well.
    host.ok("ip link add wg0 type veth peer name far && ip addr add 10.5.0.1/24 dev wg0 &&
             ip link set wg0 up && ip link set far up && ip route add default via 10.5.0.2 metric 9");
    host.run(&["kvmnet", "reload"]).expect("reload");
    assert!(ours(&host, "iptables").iter().any(|rule| rule.contains("-o wg0")));
    let log = host.syslog().join("\n");
    assert!(log.contains("in ip filter DOCKER-USER: insert"), "{log}");
}

#[test]
fn with_firewall_none_the_administrators_firewall_is_left_alone() {
    let host = Host::new();
    host.ok("iptables -P FORWARD DROP");
    write(&host, "lab", "address = \"10.77.0.1/20\"\nfirewall = \"none\"\n");
    let _tap = host.tap("vnet0");
    attach(&host, "lab", "vnet0");
    no_rules_of_ours(&host);
}
