//! What is refused: one line that names object, cause and remedy, exit 1, and nothing changed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use kvmnet_tests::{Foreign, HELPERS, Host, Output, assert_same};

const LIMIT: Duration = Duration::from_secs(20);

/// A snapshot in which our own objects would show, too.
fn state(host: &Host) -> Foreign {
    host.foreign()
}

#[track_caller]
fn assert_refused(host: &Host, before: &Foreign, output: &Output, wanted: &str) {
    assert_eq!(output.stderr, format!("{wanted}\n"));
    assert_eq!((output.code, output.stdout.as_str()), (1, ""));
    assert_same(before, &state(host));
}

/// Runs `helper` with `arguments` on a host as it is and expects `wanted` behind the helper's name.
#[track_caller]
fn refused(host: &Host, helper: &str, arguments: &[&str], wanted: &str) {
    let before = state(host);
    let output = host.helper(helper, arguments);
    assert_refused(host, &before, &output, &format!("kvmnet-{helper}: {wanted}"));
}

#[test]
fn anything_but_one_argument() {
    let host = Host::bare();
    for program in HELPERS {
        let helper = program.strip_prefix("kvmnet-").unwrap();
        for (arguments, given) in [(&[][..], 0), (&["vnet0", "vnet1"], 2), (&["vnet0", ""], 2)] {
            let wanted = format!(
                "{given} arguments given, but QEMU passes exactly one, the tap's name; usage: \
                 {program} IFNAME"
            );
            refused(&host, helper, arguments, &wanted);
        }
    }
}

#[test]
fn names_that_no_interface_can_have() {
    let host = Host::bare();
    let cases: [(&[u8], &str, &str); 12] = [
        (b"", r#""""#, "it is empty"),
        (b"sixteen_bytes_ab", r#""sixteen_bytes_ab""#, "it has 16 bytes, the kernel allows 15"),
        (b"a/b", r#""a/b""#, "it contains '/'"),
        (b"..", r#""..""#, "it is the name of a directory"),
        (b".", r#"".""#, "it is the name of a directory"),
        (b"vnet 0", r#""vnet 0""#, "it contains a space"),
        (b"vnet0\n", r#""vnet0\n""#, "it contains the character U+000A"),
        (b"vnet0\x1b[31m", r#""vnet0\u{1b}[31m""#, "it contains the character U+001B"),
        (b"tap%d", r#""tap%d""#, "it contains '%'"),
        (b"vnet\xff", r#""vnet\xFF""#, "it is not UTF-8"),
        (b"-vnet0", r#""-vnet0""#, "it begins with '-'"),
        (b"--help", r#""--help""#, "it begins with '-'"),
    ];
    for program in HELPERS {
        let before = state(&host);
        for (name, shown, reason) in cases {
            let mut command = host.command(&format!("/usr/libexec/{program}"));
            let run = host.spawn(command.arg(OsStr::from_bytes(name)));
            let wanted = format!(
                "{program}: invalid interface name {shown}: {reason}; usage: {program} IFNAME"
            );
            assert_refused(&host, &before, &run.output(LIMIT), &wanted);
        }
    }
}

#[test]
fn interfaces_that_are_no_free_tap() {
    let host = Host::new();
    host.ok("ip link add br0 type bridge && ip link add br1 type bridge");
    let _tap = host.tap("vnet0");
    host.ok("ip link set vnet0 master br1 && ip link property add dev vnet0 altname alt0");
    host.ok("ip tuntap add tun0 mode tun");
    for helper in ["ifup", "natup"] {
        refused(
            &host,
            helper,
            &["vnet9"],
            "vnet9: there is no such interface; QEMU makes the tap before it runs its script: \
             compare ifname= of -netdev tap",
        );
        refused(
            &host,
            helper,
            &["alt0"],
            "alt0: is an alternative name of vnet0; give the interface's own name",
        );
    }
    for helper in ["ifup", "natup", "ifdown", "natdown"] {
        for (name, kind) in [
            ("eno1", "of kind veth"),
            ("lo", "a plain network device"),
            ("br1", "a bridge"),
            ("tun0", "a tun, which carries IP and no Ethernet"),
        ] {
            let wanted = format!(
                "{name}: is not a tap but {kind}; give the name of a tap, as -netdev tap,ifname= \
                 makes it"
            );
            refused(&host, helper, &[name], &wanted);
        }
    }
    refused(
        &host,
        "ifup",
        &["vnet0"],
        "vnet0: is a port of br1 already; release it first: ip link set vnet0 nomaster",
    );
    refused(
        &host,
        "natdown",
        &["vnet0"],
        "vnet0: is a port of br1, which is not kvmnet's; release it with kvmnet-ifdown vnet0",
    );
    host.ok("ip link del br0");
    refused(
        &host,
        "natup",
        &["vnet0"],
        "vnet0: is a port of br1 already; release it first: ip link set vnet0 nomaster",
    );
}

#[test]
fn a_bridge_that_is_not_there_or_not_one() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    // The default route leads over eno1, which is no bridge.
    refused(
        &host,
        "ifup",
        &["vnet0"],
        "br0: there is no such bridge, and no default route leads over a bridge; make one: \
         ip link add br0 type bridge && ip link set br0 up",
    );
    host.ok("ip link add br0 type veth peer name peer0");
    for helper in ["ifup", "natup"] {
        refused(
            &host,
            helper,
            &["vnet0"],
            "br0: is not a bridge but of kind veth; rename it, so that a bridge can have this name",
        );
    }
}

#[test]
fn the_administrators_bridge_where_nat_is_meant() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.ok("ip link add br0 type bridge");
    let with = |addresses: &str| {
        format!(
            "br0: is not kvmnet's and carries {addresses}; use kvmnet-ifup for a guest on this \
             bridge, or give network default another: bridge = \"NAME\" in \
             /etc/kvmnet/default.toml"
        )
    };
    refused(&host, "natup", &["vnet0"], &with("no IPv4 address"));
    host.ok("ip addr add 10.0.0.11/24 dev br0");
    refused(&host, "natup", &["vnet0"], &with("10.0.0.11/24"));
    host.ok("ip addr add 192.168.100.1/24 dev br0");
    refused(&host, "natup", &["vnet0"], &with("10.0.0.11/24, 192.168.100.1/24"));
    host.ok("ip addr flush dev br0 && ip link set br0 alias kvmnet:lab");
    refused(
        &host,
        "natup",
        &["vnet0"],
        "br0: belongs to kvmnet's network lab, not to default; give network default another: \
         bridge = \"NAME\" in /etc/kvmnet/default.toml",
    );
}

#[test]
fn a_subnet_that_the_host_uses_elsewhere() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    let wanted = |route: &str| {
        format!(
            "192.168.100.0/24: network default needs this subnet, but the host has a route to \
             {route}; choose another: address = \"ADDRESS/LENGTH\" in /etc/kvmnet/default.toml"
        )
    };
    for (make, undo, route) in [
        (
            "ip route add 192.168.100.0/24 via 10.0.0.1",
            "ip route del 192.168.100.0/24",
            "192.168.100.0/24 over eno1",
        ),
        (
            "ip route add 192.168.100.64/26 dev eno1 table 100",
            "ip route del 192.168.100.64/26 dev eno1 table 100",
            "192.168.100.64/26 over eno1",
        ),
        (
            "ip addr add 192.168.100.7/32 dev lo",
            "ip addr del 192.168.100.7/32 dev lo",
            "192.168.100.7/32 over lo",
        ),
        (
            "ip route add blackhole 192.168.100.0/25",
            "ip route del blackhole 192.168.100.0/25",
            "192.168.100.0/25",
        ),
        (
            "ip route add 192.168.100.0/24 nexthop via 10.0.0.1 nexthop via 10.0.0.2",
            "ip route del 192.168.100.0/24",
            "192.168.100.0/24 over eno1",
        ),
    ] {
        host.ok(make);
        refused(&host, "natup", &["vnet0"], &wanted(route));
        host.ok(undo);
    }
    // A route that covers the subnet is in nobody's way.
    host.ok("ip route add 192.168.0.0/16 via 10.0.0.1");
    assert!(host.helper("natup", &["vnet0"]).success());
}

#[test]
fn a_process_that_may_not() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = state(&host);
    let up = "start QEMU as root, or let it take an open tap: -netdev tap,fd=";
    let down = "QEMU's -runas drops it before the downscript runs; the next guest's end as \
                root cleans up, or now: kvmnet gc";
    let unprivileged = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let root_without = "setpriv --inh-caps=-net_admin --bounding-set=-net_admin";
    for (program, remedy) in [
        ("kvmnet-natup", up),
        ("kvmnet-ifup", up),
        ("kvmnet-natdown", down),
        ("kvmnet-ifdown", down),
    ] {
        for (by, uid) in [(unprivileged, 65534), (root_without, 0)] {
            let output = host.sh(&format!("{by} /usr/libexec/{program} vnet0"));
            let wanted = format!(
                "{program}: vnet0: user {uid} lacks the capability CAP_NET_ADMIN; {remedy}"
            );
            assert_refused(&host, &before, &output, &wanted);
        }
    }
    // Bad arguments are told first: they are wrong for whoever runs it.
    let output = host.sh(&format!("{unprivileged} /usr/libexec/kvmnet-natup a/b"));
    assert!(output.stderr.contains("invalid interface name"), "{}", output.stderr);
    // Root of a user namespace has the capability, but not over this network.
    let output = host.sh("unshare --user --map-root-user /usr/libexec/kvmnet-natup vnet0");
    assert_refused(
        &host,
        &before,
        &output,
        "kvmnet-natup: vnet0: not attached: cannot list the nftables tables: \
         Operation not permitted (CAP_NET_ADMIN is needed in the network namespace)",
    );
}

#[test]
fn a_program_with_more_rights_than_its_caller() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let before = state(&host);
    host.ok("cp /usr/libexec/kvmnet-natup /dev/shm/natup && chmod 4755 /dev/shm/natup");
    let output = host.sh("setpriv --reuid 65534 --regid 65534 --clear-groups /dev/shm/natup vnet0");
    let wanted = "kvmnet-natup: refusing to run setuid, setgid or with file capabilities; remove \
                  them and run it as root";
    assert_refused(&host, &before, &output, wanted);
}

#[test]
fn errors_go_to_syslog_too() {
    let host = Host::bare();
    host.helper("natup", &["vnet9"]);
    let messages = host.syslog();
    let [message] = messages.as_slice() else { panic!("{messages:?}") };
    // <27> is facility daemon, severity error.
    assert!(message.starts_with("<27>kvmnet-natup["), "{message}");
    assert!(message.contains("]: vnet9: there is no such interface; "), "{message}");
}
