//! The package for RPM, by `rpm --root`: no distribution of RPM's is to be had where the tests run, so the
//! root is the other's.

use kvmnet_tests::Host;

use crate::scene::{added, assert_nat_works, files, here, ok, package};

/// A host of this machine's programs, with a fresh root at `/tmp/root`.
fn fresh() -> Host {
    let host = Host::builder().without_kvmnet().build();
    let tree = kvmnet_tests::fresh_root();
    ok(&host, &format!(
        "mkdir -p /dev/shm/lower /dev/shm/upper /dev/shm/work /tmp/root && mount -o bind,ro {} /dev/shm/lower &&
         mount -t overlay -o lowerdir=/dev/shm/lower,upperdir=/dev/shm/upper,workdir=/dev/shm/work root /tmp/root &&
         mount -t proc proc /tmp/root/proc && mount --bind /run /tmp/root/run && mount -t sysfs sysfs /tmp/root/sys &&
         mknod -m 666 /tmp/root/dev/null c 1 3; rpm --root /tmp/root --initdb",
        tree.display()
    ));
    host
}

fn rpm(host: &Host, arguments: &str) -> String {
    // What it wants of a distribution is a shell, which that root has from another's package.
    let options = if arguments.starts_with("-q") { "" } else { "--nodeps --force-debian" };
    ok(host, &format!("rpm --root /tmp/root {options} {arguments}"))
}

#[test]
fn it_wants_nothing_but_a_shell_for_its_scripts() {
    let wants = here(std::process::Command::new("rpm").args(["-qpR", &package(".rpm")]));
    for line in wants.lines() {
        let own = ["/bin/sh", "rpmlib(", "config(kvmnet)"].iter().any(|own| line.starts_with(own));
        assert!(own, "{line}");
    }
}

#[test]
fn a_guest_gets_out_with_what_it_installs_and_it_goes_without_a_trace() {
    let host = fresh();
    let before = files(&host, "/tmp/root");
    assert_eq!(rpm(&host, &format!("-i {}", package(".rpm"))), "");
    let installed = files(&host, "/tmp/root");
    assert_eq!(rpm(&host, &format!("-i --replacepkgs {}", package(".rpm"))), "", "twice is once");
    assert_eq!(files(&host, "/tmp/root"), installed);
    assert_eq!(rpm(&host, "-V kvmnet"), "");
    let libexec = "/tmp/root/usr/libexec";
    assert_nat_works(&host, |spec| {
        spec.tap("vnet0", &format!("{libexec}/kvmnet-natup"), &format!("{libexec}/kvmnet-natdown"))
    });
    assert_eq!(rpm(&host, "-e kvmnet"), "");
    let left = added(&before, &files(&host, "/tmp/root"));
    // Directories that a distribution's own packages have.
    let left: Vec<_> = left.iter().filter(|path| path.contains("kvmnet")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A version before, with another example and another helper.
const OLDER: &str = "
Name: kvmnet
Version: 0.0.9
Release: 1
Summary: older
License: MIT
BuildArch: x86_64
%description
older
%install
mkdir -p %{buildroot}/etc/kvmnet %{buildroot}/usr/libexec
echo '# of old' >%{buildroot}/etc/kvmnet/default.toml.example
printf '#!/bin/sh\\nexit 9\\n' >%{buildroot}/usr/libexec/kvmnet-ifup
chmod 755 %{buildroot}/usr/libexec/kvmnet-ifup
%files
%config(noreplace) /etc/kvmnet/default.toml.example
/usr/libexec/kvmnet-ifup
";

#[test]
fn an_upgrade_keeps_what_was_edited() {
    let host = fresh();
    host.write("/tmp/older.spec", OLDER);
    ok(
        &host,
        "cd /tmp && rpmbuild -bb --define '_topdir /tmp/older' --define '_tmppath /tmp' older.spec",
    );
    rpm(&host, "-i /tmp/older/RPMS/x86_64/kvmnet-0.0.9-1.x86_64.rpm");
    assert_eq!(host.sh("/tmp/root/usr/libexec/kvmnet-ifup vnet0").code, 9, "the one of old");
    host.write("/tmp/root/etc/kvmnet/default.toml", "address = \"192.168.7.1/24\"\n");
    ok(&host, "echo '# mine' >>/tmp/root/etc/kvmnet/default.toml.example");
    let sums = "cd /tmp/root/etc/kvmnet && sha256sum default.toml default.toml.example";
    let edited = ok(&host, sums);
    let said = rpm(&host, &format!("-U {}", package(".rpm")));
    assert!(said.contains("created as") && !said.contains("stay up"), "{said}");
    assert_eq!(ok(&host, sums), edited);
    assert!(host.path("/tmp/root/etc/kvmnet/default.toml.example.rpmnew").exists());
    assert!(rpm(&host, "-q kvmnet").starts_with("kvmnet-0.1.0-1."));
    let _tap = host.tap("vnet0");
    ok(&host, "/tmp/root/usr/libexec/kvmnet-natup vnet0");
}

#[test]
fn removed_while_guests_run_it_leaves_them_alone_and_says_what_stays() {
    let host = fresh();
    rpm(&host, &format!("-i {}", package(".rpm")));
    let _tap = host.tap("vnet0");
    ok(&host, "/tmp/root/usr/libexec/kvmnet-natup vnet0");
    let up = host.foreign();
    let said = rpm(&host, "-e kvmnet");
    assert!(said.contains("kvmnet: these networks stay up"), "{said}");
    assert!(said.contains("ip link delete br0; nft delete table ip kvmnet-default"), "{said}");
    assert_eq!(up.diff(&host.foreign()), "");
}
