//! A host that networkd manages, with files that fit whatever there is.

use kvmnet_tests::{Guest, Host};

use crate::{
    IFUP, NATUP, PLAIN, QEMUS, addresses, await_that, boot, close_all, install, master, open, run,
};

/// Both networks are as kvmnet built them.
#[track_caller]
fn assert_exact(guest: &mut Guest, when: &str) {
    assert_eq!(master(guest, "vnet0"), "br0", "{when}");
    assert_eq!(master(guest, "adm0"), "lan", "{when}");
    assert_eq!(addresses(guest, "br0"), "192.168.100.1/24", "{when}");
    assert_eq!(addresses(guest, "vnet0"), "", "{when}");
    assert_eq!(addresses(guest, "adm0"), "", "{when}");
    let said = run(guest, "kvmnet reload");
    assert!(said.lines().all(|line| line.ends_with(": is as it should be")), "{when}: {said}");
}

/// A host whose administrator has networkd manage whatever there is: cards, by the file that
/// networkd's own manual begins with, and all else; a bridge, and a tap of a VM of the administrator's.
const NETWORKD: &str = "
    cd /etc/systemd/network
    put() { printf '[Match]\\n%s\\n[Network]\\nLinkLocalAddressing=no\\nAddress=%s\\n' $2 $3 >$1; }
    put 20-lan.network Name=lan 10.60.0.1/24
    put 20-own.network Name=own0 10.50.0.1/24
    put 50-wired.network Type=ether 10.99.0.1/32
    put 60-any.network Name=* 10.98.0.1/32
    echo DHCP=yes >>50-wired.network
    echo ConfigureWithoutCarrier=yes | tee -a 20-lan.network >>20-own.network
    printf '[NetDev]\\nName=lan\\nKind=bridge\\n' >20-lan.netdev
    systemctl enable systemd-networkd
";

#[test]
fn networkd_leaves_ports_and_bridges_alone() {
    let host = Host::builder().without_uplink().build();
    let mut guest = boot(&host, "networkd", NETWORKD);
    let guest = &mut guest;
    let taps = [
        ("vnet0", QEMUS, NATUP),
        ("adm0", QEMUS, IFUP),
        ("own0", QEMUS, ""),
        ("vpn0", PLAIN, ""),
        ("tun0", "1001", ""),
    ];
    // Opened last, so that networkd has had its way with the others, too.
    let others =
        "networkctl status own0 | grep -q 20-own && ip -br a show own0 | grep -q 10.50.0.1/24 &&
        networkctl status lan | grep -q 20-lan && ip -br a show lan | grep -q 10.60.0.1/24 &&
        ip -br a show vpn0 | grep -q 10.99.0.1/32 && ip -br a show tun0 | grep -q 10.98.0.1/32";
    await_that(guest, "networkctl status lan | grep -q configured");

    // Without our files. networkd may be done with a tap just before a helper attaches it.
    let is_wrong = (0..10).any(|_| {
        open(guest, &taps);
        await_that(guest, others);
        let taken =
            "for tap in vnet0 adm0; do networkctl status $tap | grep -q 50-wired || exit 1; done";
        await_that(guest, taken);
        let is_wrong = [master(guest, "vnet0"), master(guest, "adm0")].contains(&String::new())
            && addresses(guest, "br0") != "192.168.100.1/24";
        if !is_wrong {
            close_all(guest);
        }
        is_wrong
    });
    assert!(is_wrong, "networkd does no harm without our files");
    close_all(guest);

    install(guest);
    run(guest, "systemctl restart systemd-networkd");
    open(guest, &taps);
    await_that(guest, others);
    let unmanaged = "for link in br0 vnet0 adm0; do
        networkctl status $link | grep -q '(unmanaged)' || exit 1; done";
    await_that(guest, unmanaged);
    assert_exact(guest, "at first");
    run(guest, "systemctl restart systemd-networkd");
    await_that(guest, &format!("{unmanaged}; {others}"));
    assert_exact(guest, "networkd began anew");
    run(guest, "udevadm trigger --settle --subsystem-match=net; networkctl reload");
    await_that(guest, &format!("{unmanaged}; {others}"));
    assert_exact(guest, "after a trigger");
    run(guest, "ip link set vnet0 down && ip link set vnet0 name web && ip link set web up");
    run(guest, "udevadm settle; sleep 1");
    await_that(guest, "networkctl status web | grep -q '(unmanaged)'");
    assert_eq!(master(guest, "web"), "br0");
    run(guest, "ip link set web down && ip link set web name vnet0 && ip link set vnet0 up");
    assert_exact(guest, "after two renames");

    // An administrator who wants a bridge managed all the same says so.
    run(
        guest,
        "d=/etc/systemd/network/05-kvmnet.network.d; mkdir $d
         printf '[Match]\\nName=!br0\\n' >$d/br0.conf; networkctl reload; networkctl reconfigure br0",
    );
    await_that(guest, "ip -br a show br0 | grep -q 10.98.0.1/32");
    await_that(guest, "networkctl status vnet0 | grep -q '(unmanaged)'");
    assert_eq!(run(guest, "systemctl --failed --no-legend").trim(), "");
}
