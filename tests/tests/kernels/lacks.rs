//! What a host may lack: IPv6, nf_tables, the programs of iptables; and br_netfilter, which it may have.

use kvmnet_tests::{GuestSpec, Host, is_torture};

use crate::{boot, helper, hold, quiet, quiet_on, run_whole};

/// Networks of the modes, and a tap for each.
const NETWORKS: [(&str, &str, &str); 4] = [
    ("default", "natdown", "vnet0"),
    ("default", "natdown", "vnet1"),
    ("cell", "natdown", "cell0"),
    ("lan", "ifdown", "lan0"),
];

const STATUS: &str = "\
NETWORK  MODE      BRIDGE  ADDRESS           STATE  PORTS  RULES
cell     isolated  cell    -                 up     1      nft list table netdev kvmnet-cell
default  nat       br0     192.168.100.1/24  up     2      nft list table ip kvmnet-default
lan      bridged   br9     -                 up     2      -
";

fn without_ipv6(version: &'static str) {
    let host = Host::bare();
    let spec = GuestSpec::on_kernel("no-ipv6", version).kernel_parameter("ipv6.disable=1");
    let mut guest = boot(&host, spec.test_program("ways"));
    let guest = &mut guest;
    guest.ok("test ! -e /proc/sys/net/ipv6 && test -z \"$(ip -6 address)\"");
    guest.ok("echo 'mode = \"isolated\"' >/etc/kvmnet/cell.toml
         ip link add br9 type bridge && ip link set eth0 master br9 && ip link set br9 up
         printf 'mode = \"bridged\"\\nbridge = \"br9\"\\n' >/etc/kvmnet/lan.toml");
    for (_, _, tap) in NETWORKS {
        hold(guest, tap);
    }
    // A tap that was a port keeps its MAC address.
    let rest = "look | grep -vE '^(vnet.|cell0|lan0): '";
    let before = guest.ok(rest);
    for (network, down, tap) in NETWORKS {
        quiet_on(guest, network, &down.replace("down", "up"), tap);
    }
    let whole = guest.ok("look");
    assert!(whole.contains("inet 192.168.100.1/24") && whole.contains("kvmnet-cell"), "{whole}");
    for (network, down, tap) in NETWORKS {
        quiet_on(guest, network, &down.replace("down", "up"), tap);
    }
    assert_eq!(guest.ok("look"), whole, "twice");
    assert_eq!(guest.ok("kvmnet check 2>&1 | cat"), "3 networks checked: all is well\n");
    assert_eq!(guest.ok("kvmnet status | head -n 4"), STATUS);
    let well = "cell: is as it should be\ndefault: is as it should be\nbr9: is as it should be\n";
    assert_eq!(guest.ok("kvmnet reload | cat"), well);
    for (network, down, tap) in NETWORKS {
        quiet_on(guest, network, down, tap);
    }
    assert_eq!(guest.ok(rest), before);
    if is_torture() {
        run_whole(guest, "ways");
    }
}

#[test]
fn ipv6_that_is_off_since_boot_on_5_10() {
    without_ipv6("5.10");
}

#[test]
fn ipv6_that_is_off_since_boot_on_6_1() {
    without_ipv6("6.1");
}

#[test]
fn ipv6_that_is_off_since_boot_on_6_12() {
    without_ipv6("6.12");
}

/// As on a host whose administrator has blocked the module, or whose kernel never had it.
#[test]
fn nf_tables_that_the_kernel_lacks() {
    let host = Host::bare();
    let spec = GuestSpec::on_kernel("no-nf-tables", "6.1")
        .before_boot("echo 'install nf_tables /bin/false' >/etc/modprobe.d/site.conf");
    let mut guest = boot(&host, spec);
    let guest = &mut guest;
    guest.ok("! modprobe nf_tables 2>/dev/null && ! nft list tables 2>/dev/null");
    hold(guest, "vnet0");
    hold(guest, "vnet1");
    let variant = |variant: &str| {
        format!(
            "for name in iptables ip6tables; do for ending in '' -save -restore; do
                 ln -sf /usr/sbin/$name-{variant}$ending /etc/alternatives/$name$ending; done; done"
        )
    };
    let before = guest.ok("look");
    let refused = |guest: &mut kvmnet_tests::Guest, wanted: &str| {
        let line = format!("kvmnet-natup: vnet0: not attached: {wanted}\n");
        assert_eq!(helper(guest, "natup", "vnet0"), (1, line));
        assert_eq!(guest.ok("look"), before);
    };

    // Neither of what could hold the rules can.
    refused(
        guest,
        "cannot work on the rules with /usr/sbin/iptables: it is the variant for nf_tables, which this \
         kernel lacks; load it: modprobe nf_tables, or use the other variant: update-alternatives --set \
         iptables /usr/sbin/iptables-legacy",
    );
    guest.ok(&variant("nowhere"));
    refused(
        guest,
        "cannot work on the rules with iptables: it is in none of /usr/sbin, /usr/bin, /sbin, /bin; \
         install iptables, or have the rules elsewhere: firewall = \"nftables\" in the network's file",
    );
    guest.ok("printf 'address = \"192.168.100.1/24\"\\nfirewall = \"nftables\"\\n' >/etc/kvmnet/default.toml");
    refused(
        guest,
        "this kernel has no nf_tables, which the network's rules need; load it: modprobe nf_tables, or do \
         without: firewall = \"iptables\" in the network's file",
    );
    guest.ok("rm /etc/kvmnet/default.toml");

    // The older iptables can, and nobody has to say so. The administrator's rules stay.
    guest.ok(&variant("legacy"));
    guest.ok("iptables -A INPUT -i eth9 -j DROP; iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j MASQUERADE");
    let before = guest.ok("look | grep -v vnet");
    quiet(guest, "natup", "vnet0");
    quiet(guest, "natup", "vnet1");
    let whole = guest.ok("look");
    let rules = guest.ok("iptables-legacy-save -t nat");
    assert!(rules.contains("KVMNET-default-POST -s 192.168.100.0/24"), "{rules}");
    quiet(guest, "natup", "vnet0");
    assert_eq!(guest.ok("look"), whole, "twice");
    assert_eq!(guest.ok("kvmnet check 2>&1 | cat"), "1 network checked: all is well\n");
    assert_eq!(guest.ok("kvmnet reload | cat"), "default: is as it should be\n");
    quiet(guest, "natdown", "vnet0");
    quiet(guest, "natdown", "vnet1");
    assert_eq!(guest.ok("look | grep -v vnet"), before);

    // With nf_tables there again, and no iptables.
    guest.ok(&variant("nowhere"));
    guest.ok("rm /etc/modprobe.d/site.conf");
    quiet(guest, "natup", "vnet0");
    assert!(guest.ok("nft list tables").contains("table ip kvmnet-default"));
    quiet(guest, "natdown", "vnet0");
    assert_eq!(guest.ok("nft list tables"), "");
}

/// Then a frame from port to port of a bridge has to get past the host's FORWARD, and past the rules of
/// every network.
#[test]
fn br_netfilter_hands_frames_to_iptables() {
    let host = Host::bare();
    let spec = GuestSpec::on_kernel("br-netfilter", "6.12").test_program("ways");
    let mut guest = boot(&host, spec);
    let guest = &mut guest;
    guest.ok("modprobe br_netfilter");
    // In the networks that the program makes, too.
    let setting = guest.ok("unshare -n cat /proc/sys/net/bridge/bridge-nf-call-iptables");
    assert_eq!(setting, "1\n");
    run_whole(guest, "ways");

    // Two guests behind ports, on a host that drops what it forwards.
    guest.ok("iptables -P FORWARD DROP");
    let before = guest.ok("look | grep -v vnet0");
    hold(guest, "vnet0");
    quiet(guest, "natup", "vnet0");
    guest.ok("for n in 1 2; do
             ip netns add guest$n && ip link add port$n type veth peer name eth0 netns guest$n
             ip link set port$n master br0 up && ip -n guest$n link set eth0 up
             ip -n guest$n address add 192.168.100.1$n/24 dev eth0
         done");
    let ping = "ip netns exec guest1 ping -c 1 -W 5 192.168.100.12";
    guest.ok(ping);
    // It is kvmnet's accept that lets them.
    guest.ok("iptables -S FORWARD | grep kvmnet && iptables -F FORWARD");
    assert!(!guest.sh(&ping.replace("-W 5", "-W 1")).success(), "nothing drops the frames");
    guest.ok("kvmnet reload | cat");
    guest.ok(ping);
    guest.ok("ip netns del guest1 && ip netns del guest2; while ip link show port2 2>/dev/null; do sleep 0.1; done");
    quiet(guest, "natdown", "vnet0");
    assert_eq!(guest.ok("look | grep -v vnet0"), before);
}
