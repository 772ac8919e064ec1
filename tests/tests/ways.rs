//! Guests of all four modes on one host without another firewall, and who reaches whom: by kvmnet's own
//! tables, and by either variant of iptables.

use kvmnet_tests::{Host, Lab, assert_same, ways};

#[test]
fn by_nf_tables() {
    let lab = Lab::on(Host::new());
    every_mode_from_first_to_last(&lab);
}

#[test]
fn by_iptables_nft() {
    by_iptables("nft");
}

#[test]
fn by_iptables_legacy() {
    by_iptables("legacy");
}

fn by_iptables(variant: &str) {
    let lab = Lab::on(Host::new());
    lab.host.use_iptables(variant);
    lab.host.describe("default", "bridge = \"br0\"\naddress = \"192.168.100.1/24\"\n");
    lab.host.ok("for file in default routed iso; do
             echo 'firewall = \"iptables\"' >>/etc/kvmnet/$file.toml; done");
    every_mode_from_first_to_last(&lab);
}

#[track_caller]
fn every_mode_from_first_to_last(lab: &Lab) {
    let before = lab.foreign();
    lab.attach();
    lab.assert_reached(&ways::all());
    lab.host.kvmnet_ok(&["check"]);
    let well =
        ["default", "iso", "routed", "br1"].map(|name| format!("{name}: is as it should be\n"));
    assert_eq!(lab.host.kvmnet_ok(&["reload"]), well.concat());
    lab.detach();
    assert_same(&before, &lab.foreign());
    lab.assert_no_trace();
}
