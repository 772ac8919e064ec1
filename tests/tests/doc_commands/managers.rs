//! Fixtures with what else manages networks or guests: the real ones.

use std::mem;

use crate::fixtures::{Fixture, look};
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
];

/// It ends with the host.
fn libvirt(stage: &mut Stage) {
    mem::forget(stage.host.libvirt());
}
