//! What `docs/libvirt.md` says of the real libvirt, beyond the commands that stand there.

use std::time::Duration;

use kvmnet_tests::{Host, assert_same, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// A card on a tap of libvirt's, as the document has it.
fn card(target: &str, helper: &str) -> String {
    format!(
        "<interface type='ethernet'>{target}<mac address='52:54:00:12:34:56'/>\
         <script path='/usr/libexec/kvmnet-{helper}up'/>\
         <downscript path='/usr/libexec/kvmnet-{helper}down'/><model type='virtio'/></interface>"
    )
}

/// Gives the guest its only card.
#[track_caller]
fn plug(host: &Host, card: &str) {
    host.write("/run/card.xml", card);
    host.ok("virsh undefine web; virsh define /run/web.xml
             virsh attach-device web /run/card.xml --config");
}

fn host() -> Host {
    Host::builder().with_managers().build()
}

#[test]
fn a_guest_on_nat_however_it_ends() {
    let host = host();
    let mut libvirt = Some(host.libvirt());
    let before = host.foreign_to_kvmnet(&[]);
    plug(&host, &card("<target dev='web0'/>", "nat"));
    for end in ["virsh destroy web", "kill -KILL $(pidof qemu-system-x86_64)"] {
        host.ok("virsh start web");
        host.assert_network(&["web0"]);
        let link = host.link("web0").expect("it is there");
        assert_eq!(link["address"], "fe:54:00:12:34:56");
        host.ok(end);
        assert!(wait_until(SOON, || host.link("br0").is_none()), "{end}");
        host.assert_no_network();
    }
    // Nobody is there to run the downscript, until libvirtd is back.
    host.ok(
        "virsh start web; kill -KILL $(pidof libvirtd); kill -KILL $(pidof qemu-system-x86_64)",
    );
    assert!(wait_until(SOON, || host.link("web0").is_none()));
    host.assert_network(&[]);
    drop(libvirt.take());
    let _libvirt = host.libvirt();
    assert!(wait_until(SOON, || host.link("br0").is_none()));
    host.assert_no_network();
    assert_same(&before, &host.foreign_to_kvmnet(&[]));
}

#[test]
fn names_that_are_libvirts_own() {
    let host = host();
    let _libvirt = host.libvirt();
    for target in ["<target dev='vnet7'/>", ""] {
        plug(&host, &card(target, "nat"));
        host.ok("virsh start web");
        let ports = host.ports("br0");
        assert!(
            ports.len() == 1 && ports[0].starts_with("vnet") && ports[0] != "vnet7",
            "{ports:?}"
        );
        host.ok("virsh destroy web");
        host.assert_no_network();
    }
}

#[test]
fn a_guest_on_a_bridge_of_the_administrators() {
    let host = host();
    let _libvirt = host.libvirt();
    host.ok("ip address flush dev eno1; ip link add br0 type bridge; ip link set eno1 master br0
             ip link set br0 up; echo 1 >/proc/sys/net/ipv6/conf/br0/disable_ipv6
             ip address add 10.9.0.1/24 dev br0");
    let before = host.foreign();
    plug(&host, &card("<target dev='web0'/>", "nat"));
    let refused = host.sh("virsh start web");
    let said =
        "unexpected exit status 1: kvmnet-natup: br0: is not kvmnet's and carries 10.9.0.1/24";
    assert!(!refused.success() && refused.stderr.contains(said), "{refused:?}");
    assert!(wait_until(SOON, || host.link("web0").is_none()));
    assert_same(&before, &host.foreign());

    plug(&host, &card("<target dev='web0'/>", "if"));
    host.ok("virsh start web");
    assert_eq!(host.ports("br0"), ["eno1", "web0"]);
    host.ok("virsh destroy web");
    assert_eq!(host.ports("br0"), ["eno1"]);
    assert_same(&before, &host.foreign());
}
