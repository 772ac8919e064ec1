//! udev's MAC addresses, NetworkManager, dhcpcd, and what the rule makes of all kinds of links.

use kvmnet_tests::{Guest, Host, wait_until};

use crate::{
    IFUP, NATUP, PLAIN, QEMUS, SLOW, addresses, assert_known, await_that, boot, close_all, install,
    known, open, run,
};

/// The bridge follows the lowest of its ports, as where NIC and bridge are left to the kernel.
const LAN: &str = "
    printf '[Match]\\nOriginalName=lan br5\\n[Link]\\nMACAddressPolicy=none\\n' >/etc/systemd/network/10-lan.link
    udevadm control --reload
    ip link add lan type bridge && udevadm settle
    ip link add eno1 address 52:54:00:aa:bb:cc type dummy && ip link set eno1 master lan
    ip link set eno1 up && ip link set lan up && udevadm settle
";

fn mac(guest: &mut Guest, link: &str) -> String {
    run(guest, &format!("cat /sys/class/net/{link}/address")).trim().to_owned()
}

#[test]
fn udev_leaves_addresses_and_others_taps_alone() {
    let host = Host::builder().without_uplink().build();
    let mut guest = boot(&host, "udev", "");
    let guest = &mut guest;
    run(guest, LAN);
    assert_eq!(mac(guest, "lan"), "52:54:00:aa:bb:cc");

    // Without our files.
    let lost = run(guest, "race 300 lan");
    println!("without: {} lost their addresses", lost.trim());
    assert!(!lost.starts_with('0'), "{lost}");
    run(guest, "systemctl start dbus NetworkManager");
    let taps = [("vnet0", QEMUS, NATUP), ("own0", QEMUS, ""), ("vpn0", PLAIN, "")];
    let up = "ip address add 10.50.0.1/24 dev own0; ip link set own0 up; ip link set vpn0 up";
    open(guest, &taps);
    run(guest, up);
    let states = |guest: &mut Guest| run(guest, "nmcli -c no -t -f DEVICE,STATE device");
    let taken = |guest: &mut Guest, link: &str| {
        states(guest).lines().any(|line| line == format!("{link}:connected (externally)"))
    };
    for link in ["br0", "vnet0", "own0"] {
        assert!(wait_until(SLOW, || taken(guest, link)), "{link}: {}", states(guest));
    }
    // It keeps in a file, by its index, that it has had br0, and a bridge that is there when it starts it
    // would have again.
    run(guest, "systemctl stop NetworkManager && rm -r /run/NetworkManager/devices");
    assert_dhcpcd_leaves_alone(guest, "");
    assert_dhcpcd_leaves_alone(guest, "--nodev");
    close_all(guest);

    install(guest);
    run(guest, "systemctl start NetworkManager");
    open(guest, &taps);
    run(guest, up);
    assert!(wait_until(SLOW, || taken(guest, "own0")), "{}", states(guest));
    for link in ["br0", "vnet0"] {
        let unmanaged = format!("{link}:unmanaged");
        assert!(states(guest).lines().any(|line| line == unmanaged), "{}", states(guest));
    }
    run(guest, "systemctl stop NetworkManager");
    assert_known(guest, "br0", "bridge");
    assert_known(guest, "vnet0", "port");
    for link in ["own0", "vpn0", "lan", "eno1"] {
        assert_eq!(known(guest, link), "", "{link}");
    }
    assert_tests_clean(guest);
    assert_delays(guest);
    assert_kept(guest);

    let before = mac(guest, "lan");
    assert_eq!(run(guest, "race 20 lan").trim(), "0 of 20");
    assert_eq!(run(guest, &format!("race 10 {IFUP}")).trim(), "0 of 10");
    assert_eq!(mac(guest, "lan"), before);

    // What a rule for a killed guest's tap would have to go by.
    run(guest, "udevadm monitor --udev --property --subsystem-match=net >/run/monitor & sleep 1");
    close_all(guest);
    await_that(guest, "sed -n '/ remove .*vnet0 /,/^$/p' /run/monitor | grep -q KVMNET=port");
    let log = run(guest, "journalctl -b -q -o cat -u systemd-udevd | grep -i kvmnet || true");
    assert_eq!(log, "", "udev complains");
}

/// dhcpcd needs none of our files: it takes a card and neither bridges nor taps.
#[track_caller]
fn assert_dhcpcd_leaves_alone(guest: &mut Guest, option: &str) {
    let script = format!(
        "mkdir -p /var/lib/dhcpcd
         ip link add eth7 type veth peer name eth8; ip link set eth7 up; ip link set eth8 up
         dhcpcd -B {option} >/run/said 2>&1 & p=$!
         timeout 60 sh -c 'until grep -q \"eth7: soliciting a DHCP\" /run/said; do sleep 0.2; done'
         sleep 1; kill $p; while kill -0 $p 2>/dev/null; do sleep 0.1; done; ip link del eth7
         cat /run/said"
    );
    let said = run(guest, &script);
    assert!(said.contains("eth7: soliciting a DHCP"), "{said}");
    for link in ["br0:", "vnet0:", "own0:", "vpn0:", "lan:"] {
        assert!(!said.contains(link), "{link} {said}");
    }
    assert_eq!(addresses(guest, "br0"), "192.168.100.1/24");
}

/// `udevadm test` finds nothing wrong with the rule, and runs our program for whom it may matter only.
#[track_caller]
fn assert_tests_clean(guest: &mut Guest) {
    for (link, asked) in
        [("vnet0", 1), ("own0", 1), ("vpn0", 0), ("br0", 0), ("lan", 0), ("eno1", 0)]
    {
        let said = run(guest, &format!("udevadm test /sys/class/net/{link} 2>&1"));
        assert!(said.contains("78-kvmnet.rules"), "{said}");
        let of_ours = said.lines().filter(|line| line.contains("kvmnet"));
        let starts = of_ours.clone().filter(|line| line.contains("Starting '/usr/bin/kvmnet udev"));
        assert_eq!(starts.count(), asked, "{link}: {said}");
        // That our program says no is none of these.
        let is_wrong = |line: &&str| {
            ["nvalid", "nknown", "ignoring line"].iter().any(|word| line.contains(word))
        };
        let wrong: Vec<_> = of_ours.filter(is_wrong).collect();
        assert_eq!(wrong, [""; 0], "{link}");
    }
}

/// A tap that is none of ours is held up for a moment where it looks like QEMU's, and not else.
#[track_caller]
fn assert_delays(guest: &mut Guest) {
    // From the tap's event to its end, by udev's own clock for both.
    let took = |guest: &mut Guest, name: &str, make: &str| {
        let script = format!(
            "udevadm monitor --kernel --udev --subsystem-match=net >/run/events & p=$!; sleep 1
             {make} {name}; udevadm settle; sleep 0.2; kill $p
             sed -n 's/^\\(KERNEL\\|UDEV\\) *\\[\\([0-9.]*\\)\\] add .*\\/{name} .*/\\2/p' /run/events"
        );
        let times = run(guest, &script);
        let times: Vec<f64> = times.lines().map(|time| time.parse().expect("seconds")).collect();
        let [start, end] = times[..] else { panic!("{name}: {times:?}") };
        end - start
    };
    run(
        guest,
        "cat >/run/open <<'END'
open-tap $2 $1 >/dev/null 2>&1 </dev/null & echo $! >/run/pid.$2
sleep 2
END",
    );
    let vpn = took(guest, "vpn1", &format!("sh /run/open {PLAIN}"));
    let own = took(guest, "own1", &format!("sh /run/open {QEMUS}"));
    let persistent = took(guest, "made0", "ip tuntap add mode tap vnet_hdr dev");
    println!(
        "add of a tap: like QEMU's {own:.3} s, a VPN's {vpn:.3} s, persistent {persistent:.3} s"
    );
    assert!(own > 0.25 && own < 5.0, "{own}");
    // What others cost differs from run to run; that nothing is started for them doesn't.
    for link in ["vpn1", "made0"] {
        let said = run(guest, &format!("udevadm test /sys/class/net/{link} 2>&1"));
        assert!(!said.contains("Starting '/usr/bin/kvmnet"), "{link}: {said}");
    }
}

/// What was once known stays known, and nothing else becomes it.
#[track_caller]
fn assert_kept(guest: &mut Guest) {
    let trigger = "udevadm trigger --settle --subsystem-match=net";
    let queues = [("adm9", "5102", IFUP), ("vnet2", "5102", NATUP), ("plain0", PLAIN, NATUP)];
    open(guest, &queues);
    assert_known(guest, "adm9", "port");
    assert_known(guest, "vnet2", "port");
    // Nobody waits for one without a virtio header; the next event knows it.
    run(guest, trigger);
    assert_known(guest, "plain0", "port");

    run(guest, "ip link set adm9 down && ip link set adm9 name web && ip link set web up");
    run(guest, "ip link set br0 alias ''; udevadm settle");
    assert_known(guest, "web", "port");
    for action in ["change", "add"] {
        run(guest, &format!("{trigger} --action={action}"));
        assert_known(guest, "web", "port");
        assert_known(guest, "vnet0", "port");
        assert_known(guest, "br0", "bridge");
    }
    run(guest, "ip link set br0 alias kvmnet:default; ip link set br0 address 02:00:00:00:00:01");
    run(guest, trigger);
    assert_known(guest, "br0", "bridge");
    assert_known(guest, "vnet2", "port");
    run(guest, "kvmnet reload");

    // An administrator's bridge with a VLAN of ours, which has our address by inheritance.
    run(
        guest,
        "ip link add br5 type bridge; ip link add link br0 name br0.5 type vlan id 5
         echo 1 >/sys/class/net/br5/bridge/stp_state; udevadm settle; ip link set br0.5 master br5",
    );
    assert_eq!(mac(guest, "br5"), mac(guest, "br0"));
    // As libvirt does it.
    run(guest, "ip link set own0 down; ip link set own0 address fe:54:00:01:02:03 master lan up");
    run(guest, &format!("ip link set web nomaster; {trigger}"));
    for link in ["br5", "br0.5", "own0", "web", "lan"] {
        assert_eq!(known(guest, link), "", "{link}");
    }
    run(guest, "ip link del br5; ip link del br0.5; ip link del made0");

    // An administrator's rule has the last word.
    run(
        guest,
        "cat >/etc/udev/rules.d/79-local.rules <<'END'
SUBSYSTEM==\"net\", ACTION!=\"remove\", KERNEL==\"made0\", ENV{KVMNET}=\"port\", ENV{NM_UNMANAGED}=\"1\"
SUBSYSTEM==\"net\", ACTION!=\"remove\", KERNEL==\"vnet2\", ENV{KVMNET}=\"\", ENV{NM_UNMANAGED}=\"\"
END
         udevadm control --reload; ip tuntap add made0 mode tap; udevadm trigger -w /sys/class/net/vnet2
         udevadm settle",
    );
    assert_eq!(known(guest, "vnet2"), "");
    assert_known(guest, "made0", "port");
    run(guest, "ip link del made0");
}
