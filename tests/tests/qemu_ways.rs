//! The ways in which QEMU runs its scripts, and in which it fails to.

use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Host, assert_same, wait_until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(10);
const NATUP: &str = "/usr/libexec/kvmnet-natup";
const NATDOWN: &str = "/usr/libexec/kvmnet-natdown";
const GATEWAY: &str = "192.168.100.1";

/// A wrapper as an administrator installs it for QEMU's default scripts, which a link to ours must
/// not be: a package that owns the path would write through it.
fn install_default(host: &Host, path: &str, helper: &str) {
    host.write_program(path, format!("#!/bin/sh\nexec /usr/libexec/kvmnet-{helper} \"$@\"\n"));
}

/// How often a helper has said so in syslog.
fn logged(host: &Host, what: &str) -> usize {
    host.syslog().iter().filter(|line| line.contains(what)).count()
}

/// Starts QEMU with a card on the default network; its guest doesn't boot.
fn start<'host>(host: &'host Host, tap: &str) -> Guest<'host> {
    Guest::start(host, GuestSpec::new(tap).nat(tap).paused())
}

/// The command line of the old document, but for the scripts' paths.
#[test]
fn the_old_command_line() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    let spec = GuestSpec::new("old").ip("192.168.100.10/24").gateway(GATEWAY).line(
        "-net nic,model=virtio,macaddr=52:54:00:12:34:56 \
         -net tap,ifname=vnet0.0,script=/usr/libexec/kvmnet-natup,\
         downscript=/usr/libexec/kvmnet-natdown",
    );
    let mut guest = Guest::boot(&host, spec);
    host.assert_network(&["vnet0.0"]);
    assert_same(&before, &host.foreign_to_kvmnet(&["vnet0.0"]));
    assert_eq!(guest.ok("cat /sys/class/net/eth0/address"), "52:54:00:12:34:56\n");
    let server = host.outside_tcp_server(7000);
    guest.ok("echo hello | nc -w 5 203.0.113.1 7000");
    let peer = server.accept_peer(SOON).expect("the server saw the guest");
    assert_eq!(peer.ip().to_string(), "10.0.0.11");
    assert_eq!(guest.power_off(), 0);
    host.assert_no_network();
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

#[test]
fn several_queues_and_two_cards() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    // QEMU enables as many queues as the guest asks for; the tap has them all.
    let spec = GuestSpec::new("two-cards")
        .args(["-smp", "2"])
        .args([
            "-netdev",
            &format!("tap,id=q,ifname=vnet0,queues=2,script={NATUP},downscript={NATDOWN}"),
        ])
        .args(["-device", "virtio-net-pci,netdev=q,mq=on,vectors=6,mac=52:54:00:00:00:51"])
        .nat("vnet1")
        .ip("192.168.100.10/24")
        .gateway(GATEWAY)
        .parameter("ip1", "192.168.100.11/24");
    let mut guest = Guest::boot(&host, spec);
    host.assert_network(&["vnet0", "vnet1"]);
    assert_eq!(host.ok("ls -d /sys/class/net/vnet0/queues/rx-*").lines().count(), 2);
    assert_eq!(logged(&host, "vnet0: attached to br0"), 1);
    for card in ["eth0", "eth1"] {
        guest.ok(&format!("ping -c1 -W2 -I {card} {GATEWAY}"));
    }
    guest.ok("ping -c1 -W2 203.0.113.1");
    assert_eq!(guest.power_off(), 0);
    assert_eq!(logged(&host, ": released from br0"), 2);
    assert_eq!(logged(&host, "; took down network default"), 1);
    host.assert_no_network();
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

#[test]
fn a_card_plugged_in_while_the_guest_runs() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    let mut guest = Guest::boot(&host, GuestSpec::new("hotplug"));
    host.assert_no_network();
    // Twice: the second time nothing may be left of the first.
    for round in 0..2 {
        let add = format!("netdev_add tap,id=n,ifname=vnet0,script={NATUP},downscript={NATDOWN}");
        assert_eq!(guest.monitor(&add), "");
        host.assert_network(&["vnet0"]);
        assert_eq!(guest.monitor("device_add virtio-net-pci,id=d,netdev=n"), "");
        let there = "/sys/class/net/eth0";
        assert!(wait_until(SOON, || guest.sh(&format!("test -e {there}")).success()));
        guest.ok("ip address add 192.168.100.10/24 dev eth0; ip link set eth0 up");
        guest.ok(&format!("ping -c1 -W2 {GATEWAY}"));
        // Another VM keeps the network in the first round.
        let other = (round == 0).then(|| start(&host, "vnet1"));
        assert_eq!(guest.monitor("device_del d"), "");
        assert!(wait_until(SOON, || !guest.sh(&format!("test -e {there}")).success()));
        let gone = || !guest.monitor("info network").contains("d: index");
        assert!(wait_until(SOON, gone));
        assert_eq!(guest.monitor("netdev_del n"), "");
        if let Some(mut other) = other {
            host.assert_network(&["vnet1"]);
            assert_eq!(other.quit(), 0);
        }
        host.assert_no_network();
    }
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

#[test]
fn the_downscript_without_privileges() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    let spec = GuestSpec::new("runas").nat("vnet0").paused().line("-runas nobody");
    let mut guest = Guest::start(&host, spec);
    let pid = guest.pid();
    assert!(host.ok(&format!("cat /proc/{pid}/status")).contains("\nUid:\t65534\t65534"));
    assert_eq!(guest.quit(), 0);
    let why = "vnet0: user 65534 lacks the capability CAP_NET_ADMIN; QEMU's -runas drops it before \
               the downscript runs; the next guest's end as root cleans up, or now: kvmnet gc";
    // The other line is QEMU's.
    let stderr = guest.stderr();
    assert!(stderr.starts_with(&format!("kvmnet-natdown: {why}\n")), "{stderr}");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    let log = host.syslog();
    assert!(log.last().is_some_and(|line| line.ends_with(why)), "{log:?}");
    // The tap went with QEMU; the network is for the next run.
    host.assert_network(&[]);
    host.helper("natdown", &["vnet0"]).expect("natdown");
    host.assert_no_network();
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

#[test]
fn qemu_in_the_background() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    let spec = GuestSpec::new("daemon").nat("vnet0").line("-daemonize");
    let mut guest = Guest::boot(&host, spec.clone().ip("192.168.100.10/24"));
    host.assert_network(&["vnet0"]);
    guest.ok(&format!("ping -c1 -W2 {GATEWAY}"));
    assert_eq!(guest.power_off(), 0);
    assert!(wait_until(SOON, || host.link("vnet0").is_none()));
    host.assert_no_network();
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
    // What the downscript has to say is heard in syslog alone: standard error is /dev/null then.
    let mut guest = Guest::start(&host, spec.line("-S -runas nobody"));
    assert_eq!(guest.quit(), 0);
    assert!(wait_until(SOON, || logged(&host, "lacks the capability CAP_NET_ADMIN") == 1));
    assert_eq!(guest.stderr(), "");
}

#[test]
fn without_a_downscript_the_next_run_of_any_helper_cleans_up() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    for (helper, tap) in [("natdown", "vnet0"), ("ifdown", "vnet9")] {
        let spec = GuestSpec::new("no-downscript").tap("vnet0", NATUP, "no").paused();
        let mut guest = Guest::start(&host, spec);
        assert_eq!(guest.quit(), 0);
        host.assert_network(&[]);
        host.helper(helper, &[tap]).expect(helper);
        host.assert_no_network();
    }
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

/// `script=` alone leaves the downscript to QEMU's default, and neither leaves both.
#[test]
fn the_default_scripts_of_qemu() {
    let host = Host::new();
    install_default(&host, "/etc/qemu-ifup", "natup");
    install_default(&host, "/etc/qemu-ifdown", "ifdown");
    let before = host.foreign_to_kvmnet(&[]);
    for script in [NATUP, ""] {
        let spec = GuestSpec::new("default").tap("vnet0", script, "").paused();
        let mut guest = Guest::start(&host, spec);
        host.assert_network(&["vnet0"]);
        assert_eq!(guest.quit(), 0);
        host.assert_no_network();
    }
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

#[test]
fn a_start_that_fails_later_leaves_nothing() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    let spec = GuestSpec::new("no-kernel").nat("vnet0").line("-kernel /nonexistent");
    let mut guest = Guest::spawn(&host, spec);
    assert_eq!(guest.wait(SOON), 1, "{}", guest.report());
    assert!(guest.stderr().contains("/nonexistent"), "{}", guest.stderr());
    assert_eq!(logged(&host, "vnet0: attached to br0; built nat network default"), 1);
    host.assert_no_network();
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

#[test]
fn a_script_that_refuses_ends_qemu_and_changes_nothing() {
    let host = Host::new();
    host.ok("ip address flush dev eno1; ip link add br0 type bridge
             ip link set eno1 master br0; ip link set br0 up
             echo 1 >/proc/sys/net/ipv6/conf/br0/disable_ipv6
             ip address add 10.0.0.11/24 dev br0");
    let before = host.foreign();
    let mut guest = Guest::spawn(&host, GuestSpec::new("refused").nat("vnet0"));
    assert_eq!(guest.wait(SOON), 1, "{}", guest.report());
    let ours = "kvmnet-natup: br0: is not kvmnet's and carries 10.0.0.11/24; use kvmnet-ifup for a \
                guest on this bridge, or give network default another: bridge = \"NAME\" in \
                /etc/kvmnet/default.toml\n";
    let stderr = guest.stderr();
    assert!(stderr.starts_with(ours), "{stderr}");
    // The other line is QEMU's.
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    assert!(stderr.contains("network script /usr/libexec/kvmnet-natup failed"), "{stderr}");
    assert_same(&before, &host.foreign());
}

#[test]
fn the_only_vm_killed() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    let kill_one = || {
        start(&host, "vnet0").kill();
        assert!(wait_until(SOON, || host.link("vnet0").is_none()));
        // The kernel took the tap; bridge and rules stay until somebody comes.
        host.assert_network(&[]);
    };

    for helper in ["natdown", "ifdown"] {
        kill_one();
        host.helper(helper, &["vnet7"]).expect(helper);
        host.assert_no_network();
    }

    kill_one();
    let mut next = start(&host, "vnet1");
    host.assert_network(&["vnet1"]);
    assert_eq!(next.quit(), 0);
    host.assert_no_network();

    // A dead network's br0 is not the bridge that ifup means.
    kill_one();
    let tap = host.tap("vnet2");
    let output = host.helper("ifup", &["vnet2"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("br0: there is no such bridge"), "{}", output.stderr);
    host.assert_no_network();

    // ... even where the administrator's is to be found by the default route.
    host.ok("ip link add brlan type bridge && ip link set brlan up
             ip address add 10.1.0.11/24 dev brlan");
    kill_one();
    host.ok("ip route add default via 10.1.0.1 dev brlan metric 5");
    host.helper("ifup", &["vnet2"]).expect("ifup");
    assert_eq!(host.ports("brlan"), ["vnet2"]);
    host.assert_no_network();
    drop(tap);
    host.ok("ip link del brlan");
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

#[test]
fn one_of_two_vms_killed() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    for helper in ["natdown", "ifdown", "natup"] {
        let (mut killed, mut stays) = (start(&host, "vnet0"), start(&host, "vnet1"));
        host.assert_network(&["vnet0", "vnet1"]);
        killed.kill();
        assert!(wait_until(SOON, || host.link("vnet0").is_none()));
        host.assert_network(&["vnet1"]);
        if helper == "natup" {
            let mut next = start(&host, "vnet2");
            host.assert_network(&["vnet1", "vnet2"]);
            assert_eq!(next.quit(), 0);
        } else {
            host.helper(helper, &["vnet0"]).expect(helper);
        }
        host.assert_network(&["vnet1"]);
        assert_eq!(stays.quit(), 0);
        host.assert_no_network();
    }
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

/// Ctrl-C at the terminal, which the kernel sends to the whole process group: QEMU and its script.
#[test]
fn ctrl_c_while_natup_runs() {
    let host = Host::new();
    let before = host.foreign_to_kvmnet(&[]);
    // Any run makes the lock. While somebody else holds it, natup is surely under way.
    host.helper("natdown", &["vnet9"]).expect("natdown");
    let lock = "/run/kvmnet/net-*";
    let hold = format!("exec flock --no-fork {lock} sleep 60");
    let mut holder = host.spawn(host.command("sh").args(["-c", &hold]));
    let held = || !host.sh(&format!("flock --nonblock {lock} true")).success();
    assert!(wait_until(SOON, held));
    let line = format!(
        "exec setsid qemu-system-x86_64 -accel tcg -nodefaults -display none \
         -netdev tap,id=n,ifname=vnet0,script={NATUP},downscript={NATDOWN}"
    );
    let mut qemu = host.spawn(host.command("sh").args(["-c", &line]));
    // The second bit is SIGINT's.
    let runs = "grep -q '^SigBlk:.*[2367abef]$' /proc/$(pidof -s kvmnet-natup)/status";
    assert!(wait_until(SOON, || host.sh(runs).success()), "{:?}", qemu.written());
    let group = qemu.outer_pid().expect("it waits for its script");
    killpg(Pid::from_raw(group), Signal::SIGINT).expect("setsid made it the leader of a group");
    host.ok("sleep 0.2; pidof kvmnet-natup");
    holder.kill();
    assert!(wait_until(SOON, || !host.sh("pidof kvmnet-natup").success()));
    // QEMU sometimes loses a signal that comes while it is starting; it gets another.
    if qemu.wait(Duration::from_secs(2)).is_none() {
        qemu.signal(Signal::SIGTERM);
    }
    assert!(qemu.wait(SOON).is_some(), "QEMU still runs: {:?}", qemu.written());
    assert!(wait_until(SOON, || host.link("vnet0").is_none()));
    host.helper("natdown", &["vnet0"]).expect("natdown");
    host.assert_no_network();
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

/// `-qmp stdio` makes standard output a protocol's, in which no word of ours may be.
#[test]
fn standard_output_is_left_to_qemu() {
    let host = Host::new();
    let qemu = format!(
        "printf '%s\\n' '{{\"execute\": \"qmp_capabilities\"}}' '{{\"execute\": \"quit\"}}' |
         KVMNET_LOG=trace qemu-system-x86_64 -accel tcg -nodefaults -display none -S -qmp stdio \
         -netdev tap,id=n0,ifname=vnet0,script={NATUP},downscript={NATDOWN} \
         -netdev tap,id=n1,ifname=vnet1,script={NATUP},downscript={NATDOWN}"
    );
    let output = host.sh(&qemu);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stdout.lines().count() >= 3, "{output:?}");
    for line in output.stdout.lines() {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    // The helpers had much to say, and said it where it belongs.
    assert!(output.stderr.contains("attached to br0"), "{}", output.stderr);
    assert!(output.stderr.contains("released from br0"), "{}", output.stderr);
}
