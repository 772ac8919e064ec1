//! Fixtures with what else manages networks or guests: the real ones.

use std::mem;

use crate::fixtures::{Fixture, bridge_has_it_all, change, default, look};
use crate::stage::{SOON, Stage};

pub const FIXTURES: &[Fixture] = &[
    look("libvirt", libvirt).with_managers(),
    look("libvirt with files", |stage| {
        stage.install_all();
        libvirt(stage);
    })
    .with_managers(),
    look("libvirt after a kill", |stage| {
        libvirt(stage);
        stage.host.ok("virsh attach-device web /tmp/nat.xml --config; virsh start web");
        assert_eq!(stage.host.ports("br0"), ["web0"]);
        stage.host.ok("kill -KILL $(pidof qemu-system-x86_64)");
        let gone = || stage.host.link("br0").is_none() && stage.host.nft_tables().is_empty();
        assert!(kvmnet_tests::wait_until(SOON, gone));
    })
    .with_managers(),
    change("default asked for a lease", default, |stage| {
        let ask = "busybox udhcpc -n -q -f -t 2 -T 1 -i eth0 -s /bin/true 2>&1";
        let asked = stage.host.sh_in(stage.guests[0].net(), ask);
        asked.success() && asked.stdout.contains("lease of 192.168.100.")
    })
    .with_managers(),
    look("netplan", |stage| {
        // It would try this, if it could be taken back.
        let tried = stage.host.sh("netplan try </dev/null");
        assert!(tried.stdout.contains("br0: reverting custom parameters"), "{tried:?}");
        assert!(!stage.host.path("/run/systemd/network").exists());
    })
    .with_managers(),
    change(
        "ifupdown",
        |stage| {
            let old = "iface eno1 inet static\n    address 10.0.0.11/24\n    gateway 10.0.0.1\n";
            stage.host.write("/etc/network/interfaces.d/eno1", old);
            stage.host.ok("mkdir /run/network; ip address flush dev eno1; ifup eno1");
        },
        bridge_has_it_all,
    )
    .with_managers(),
    change("NetworkManager", |stage| mem::forget(stage.host.network_manager()), bridge_has_it_all)
        .with_managers(),
];

/// It ends with the host.
fn libvirt(stage: &mut Stage) {
    mem::forget(stage.host.libvirt());
}
