//! The units: on a host with systemd, what a firewall's service takes from the networks comes back
//! by itself. Each test is one boot of a distribution's kernel with the distribution's services.

use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Host};

/// How long a service may take here, where a processor is emulated by one that others use, too.
const SLOW: Duration = Duration::from_secs(240);

/// Addresses and a machine outside, on a host that had no card.
const LAN: &str = "
    modprobe tun && ip netns add outside && ip netns add guest
    ip link add eno1 type veth peer name lan0 netns outside
    ip addr add 10.0.0.11/24 dev eno1 && ip link set eno1 up
    ip route add default via 10.0.0.1
    ip -n outside addr add 10.0.0.1/24 dev lan0 && ip -n outside link set lan0 up
    ip netns exec outside busybox nc -ll -p 7000 -e cat </dev/null >/dev/null 2>&1 &
";

/// A tap on the network, and a machine that is a port of its bridge, too: a guest without QEMU.
const GUEST: &str = "
    ip tuntap add vnet0 mode tap && /usr/libexec/kvmnet-natup vnet0
    ip link add g0 type veth peer name eth0 netns guest
    ip link set g0 master br0 && ip link set g0 up
    ip -n guest addr add 192.168.100.10/24 dev eth0 && ip -n guest link set eth0 up
    ip -n guest route add default via 192.168.100.1
";

/// A connection of the guest's: what goes into one pipe comes out of the other, from outside.
const CONNECTION: &str = "
    mkfifo /run/say /run/heard
    ip netns exec guest bash -c '
        exec 3<>/dev/tcp/10.0.0.1/7000 4<>/run/say 5<>/run/heard
        while read -r word <&4; do
            echo $word >&3; read -r -t 30 answer <&3 || answer=cut; echo $answer >&5
        done' </dev/null >/dev/null 2>&1 &
";

/// What the packages' scripts do, of both kinds.
const INSTALLED: &str = include_str!("../../packaging/scripts/installed");
const LEAVING: &str = include_str!("../../packaging/scripts/leaving");
const GONE: &str = include_str!("../../packaging/scripts/gone");

fn boot<'host>(host: &'host Host, name: &str, before_boot: &str) -> Guest<'host> {
    let mut guest = Guest::boot(host, GuestSpec::with_systemd(name).before_boot(before_boot));
    guest.ok(LAN);
    guest
}

/// Runs what may take long, and must succeed.
#[track_caller]
fn run(guest: &mut Guest, script: &str) -> String {
    guest.sh_within(script, SLOW).expect(script)
}

/// The connection that was made at the beginning still is one.
#[track_caller]
fn assert_connected(guest: &mut Guest, when: &str) {
    let word = when.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    // What was said last has been acknowledged. What is sent while there are no rules may cut it.
    let script =
        format!("timeout 60 sh -c 'echo {word} >/run/say; head -n 1 /run/heard'; sleep 0.5");
    let heard = run(guest, &script);
    assert_eq!(heard.trim(), word, "{when}");
}

/// A new connection gets out, with the host's address.
fn gets_out(guest: &mut Guest) -> bool {
    let script = "ip netns exec guest timeout 3 bash -c '
        exec 3<>/dev/tcp/10.0.0.1/7000; echo hello >&3; read -r a <&3; test $a = hello'";
    guest.sh_within(script, SLOW).success()
}

/// Runs the command of an administrator who knows nothing of kvmnet. It takes something from the
/// network, or the log would have nothing to say of it; and all is there again, without another
/// command, and carries old and new connections. `PLACE` says where the rules are.
#[track_caller]
fn assert_comes_back(guest: &mut Guest, place: Place, command: &str) {
    let there = match place {
        Place::Table => "kvmnet status --json default | grep -q '\"state\": *\"in-place\"'",
        Place::Accepts => "iptables -S FORWARD | grep -q kvmnet-default",
        Place::LegacyAccepts => "iptables-legacy -S FORWARD | grep -q kvmnet-default",
    };
    let script = format!(
        "repairs() {{ journalctl -b -q -o cat -t kvmnet | grep -c repaired; }}
        while systemctl list-jobs --no-legend 'kvmnet*' | grep -q .; do sleep 0.5; done
        old=$(repairs); {{ {command}; }} >/run/said 2>&1 || {{ cat /run/said; exit 98; }}
        start=$(date +%s%N)
        until test $(repairs) -gt $old && {there}; do
            test $(($(date +%s%N) - start)) -lt 60000000000 || exit 99; sleep 0.5
        done
        echo $((($(date +%s%N) - start) / 1000000))"
    );
    let output = guest.sh_within(&script, SLOW);
    if !output.success() {
        let log = "nft list tables; iptables -S FORWARD; systemctl list-units --all 'kvmnet*'
            journalctl -b -n 60 --no-pager";
        panic!("{command}: {}{}", output.stdout, guest.sh_within(log, SLOW).stdout);
    }
    println!("{command}: back, as seen {} ms after it", output.stdout.trim());
    assert_connected(guest, command);
    // firewalld goes on with its reload for a while, and lets nothing new through until it is done.
    assert!((0..20).any(|_| gets_out(guest)), "{command}");
}

/// Where what is taken was.
#[derive(Clone, Copy)]
enum Place {
    /// In the network's own table.
    Table,
    /// In iptables' FORWARD, which has the policy DROP.
    Accepts,
    /// In that of iptables-legacy.
    LegacyAccepts,
}

#[track_caller]
fn assert_all_well(guest: &mut Guest) {
    assert_eq!(run(guest, "systemctl --failed --no-legend").trim(), "");
}

#[test]
fn what_a_firewalls_service_takes_comes_back() {
    let host = Host::builder().without_uplink().build();
    let mut guest = boot(&host, "firewalls", "systemctl mask kvmnet-reload-commands.path");
    let guest = &mut guest;

    let verify = "cd /usr/lib/systemd/system && systemd-analyze verify --man=no \
                  kvmnet-reload.service kvmnet-reload@nftables.service kvmnet-reload-commands.path";
    assert_eq!(run(guest, &format!("({verify}) 2>&1")).trim(), "", "systemd-analyze verify");

    run(guest, GUEST);
    run(guest, CONNECTION);
    assert_connected(guest, "at first");

    // Without the units nobody puts it back.
    run(guest, "systemctl mask kvmnet-reload@nftables && systemctl start nftables; sleep 2");
    assert!(!run(guest, "nft list tables").contains("kvmnet"));
    assert!(!gets_out(guest));
    run(guest, "kvmnet reload; systemctl stop nftables; kvmnet reload");
    assert!(gets_out(guest));
    assert_connected(guest, "by hand");

    // The packages' scripts start what watches a firewall that is up.
    run(guest, "systemctl start nftables; kvmnet reload");
    run(guest, "systemctl unmask kvmnet-reload-commands.path kvmnet-reload@nftables");
    run(guest, INSTALLED);
    for command in [
        "systemctl reload nftables",
        "systemctl restart nftables",
        "systemctl stop nftables; systemctl start nftables",
    ] {
        assert_comes_back(guest, Place::Table, command);
    }
    // One behind the other, faster than they are put right.
    let often = "for i in 1 2 3 4; do systemctl reload nftables || exit; done";
    assert_comes_back(guest, Place::Table, often);

    // A unit that fails is nothing to the firewall.
    run(guest, "mv /usr/bin/kvmnet /usr/bin/kvmnet.away");
    run(guest, "systemctl restart nftables && systemctl is-active nftables");
    run(guest, "until systemctl is-failed kvmnet-reload; do sleep 0.1; done");
    run(guest, "systemctl is-active nftables; mv /usr/bin/kvmnet.away /usr/bin/kvmnet");
    assert_comes_back(guest, Place::Table, "systemctl reload nftables");
    assert_comes_back(guest, Place::Table, "systemctl stop nftables");

    // Those that work by way of iptables: kvmnet's accepts in their chains come and come back.
    run(guest, "printf '*filter\\n:FORWARD DROP [0:0]\\nCOMMIT\\n' >/etc/iptables/rules.v4");
    for verb in ["start", "restart"] {
        assert_comes_back(guest, Place::Accepts, &format!("systemctl {verb} netfilter-persistent"));
    }
    run(guest, "systemctl stop netfilter-persistent; iptables -P FORWARD ACCEPT; iptables -F");
    run(guest, "kvmnet reload");

    // ufw's own commands don't go by its service.
    run(guest, "sed -i s/MANAGE_BUILTINS=no/MANAGE_BUILTINS=yes/ /etc/default/ufw");
    run(guest, "sed -i s/ENABLED=no/ENABLED=yes/ /etc/ufw/ufw.conf");
    for command in ["systemctl start ufw", "ufw reload"] {
        assert_comes_back(guest, Place::Accepts, command);
    }
    run(guest, "ufw disable");
    assert!(!run(guest, "iptables -S FORWARD").contains("kvmnet"));
    assert!(gets_out(guest), "ufw disable");
    assert_comes_back(guest, Place::Accepts, "ufw --force enable");
    run(guest, "ufw disable");

    // What the unit may do is enough for the programs of the older iptables.
    run(guest, "iptables-legacy -P FORWARD DROP");
    assert_comes_back(guest, Place::LegacyAccepts, "systemctl start nftables");
    assert_all_well(guest);

    // A package that goes leaves the guest its network, and nothing to systemd.
    let said = run(guest, LEAVING);
    assert!(said.contains("default on br0 (192.168.100.1/24), up, 2 ports;"), "{said}");
    run(guest, "cd /usr/lib/systemd/system && rm kvmnet-reload* *.wants/kvmnet-reload*");
    run(guest, GONE);
    assert_eq!(run(guest, "systemctl list-units --all --no-legend --plain 'kvmnet*'").trim(), "");
    assert_all_well(guest);
    assert!(gets_out(guest));
    assert_connected(guest, "removed");
}

#[test]
fn what_firewalld_takes_comes_back() {
    let host = Host::builder().without_uplink().build();
    let before_boot = "
        echo '<zone target=\"ACCEPT\"><interface name=\"br0\"/></zone>' >/etc/firewalld/zones/trusted.xml";
    let mut guest = boot(&host, "firewalld", before_boot);
    let guest = &mut guest;
    // No firewall is there yet, and so nothing of kvmnet's but what watches for one.
    assert_all_well(guest);
    let active = run(guest, "systemctl list-units --no-legend --plain 'kvmnet*'");
    let only = active.starts_with("kvmnet-reload-commands.path ") && active.lines().count() == 1;
    assert!(only, "{active}");
    run(guest, GUEST);
    run(guest, CONNECTION);
    assert_connected(guest, "at first");
    // firewalld takes what is in the chains of iptables, but leaves their policy.
    run(guest, "iptables -P FORWARD DROP; kvmnet reload");
    // As firewall-cmd asks, but for longer than its half a minute. Its service counts as started before it
    // has touched a rule, and before a SIGHUP means a reload to it.
    let ask = |what: &str| {
        format!(
            "busctl {what} org.fedoraproject.FirewallD1 \
             /org/fedoraproject/FirewallD1 org.fedoraproject.FirewallD1"
        )
    };
    let runs = format!("until {} state | grep -q RUNNING; do sleep 0.2; done", ask("get-property"));
    let call = ask("call --timeout=200");
    for command in [
        format!("systemctl start firewalld; {runs}"),
        "systemctl reload firewalld".to_owned(),
        format!("{call} reload"),
        format!("{call} completeReload"),
        format!("systemctl restart firewalld; {runs}"),
    ] {
        assert_comes_back(guest, Place::Accepts, &command);
    }
    assert_all_well(guest);
}

/// As `nft list ruleset >/etc/nftables.conf` saves it while guests run.
#[test]
fn a_saved_ruleset_with_our_tables_does_no_harm_at_boot() {
    let ruleset = {
        let host = Host::new();
        host.ok("iptables -P FORWARD DROP");
        let _tap = host.tap_on("default", "vnet0");
        host.ok("nft list ruleset")
    };
    assert!(ruleset.contains("table ip kvmnet-default {"), "{ruleset}");
    let host = Host::builder().without_uplink().build();
    let before_boot = format!(
        "cat >/etc/nftables.conf <<'END'\n#!/usr/sbin/nft -f\nflush ruleset\n{ruleset}\nEND\n\
         systemctl enable nftables"
    );
    let mut guest = boot(&host, "saved", &before_boot);
    let guest = &mut guest;
    assert_all_well(guest);
    let tables = run(guest, "nft list tables");
    assert!(tables.contains("ip kvmnet-default"), "the ruleset was not restored: {tables}");
    assert!(run(guest, "kvmnet status default | cat").contains(" down "));
    run(guest, "systemctl is-active nftables kvmnet-reload@nftables");
    // The host itself isn't kept from anything.
    let out = "timeout 3 bash -c 'exec 3<>/dev/tcp/10.0.0.1/7000; echo hello >&3; read -r a <&3; test $a = hello'";
    run(guest, out);
    run(guest, GUEST);
    assert_eq!(run(guest, "kvmnet reload").trim(), "default: is as it should be");
    assert!(gets_out(guest));
    run(guest, CONNECTION);
    assert_connected(guest, "at first");
    for verb in ["restart", "reload"] {
        assert_comes_back(guest, Place::Table, &format!("systemctl {verb} nftables"));
    }
    run(guest, "ip link del g0 && ip link del vnet0 && kvmnet gc && kvmnet status");
    run(guest, "! ip link show br0 2>&1 && ! nft list tables | grep kvmnet");
    // And back again, with nobody on the network.
    run(
        guest,
        "systemctl restart nftables && until ! systemctl list-jobs | grep kvmnet; do sleep 0.1; done",
    );
    assert_all_well(guest);
    run(guest, "kvmnet gc && ! nft list tables | grep kvmnet");
    // The firewall stops with the host, and nothing of kvmnet's holds that up.
    guest.sh_within("systemctl --no-block poweroff", SLOW);
    assert_eq!(guest.wait(Duration::from_secs(60)), 0);
}
