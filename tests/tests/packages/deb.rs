//! The package for Debian, in a root file system that was just installed.

use std::fs;

use kvmnet_tests::Host;

use crate::scene::{added, assert_nat_works, files, ok, package, source};

/// Debian's package manager, where nothing can be downloaded and nobody can be asked.
const APT: &str = "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
                   -o Dpkg::Options::=--force-unsafe-io";

fn fresh() -> Host {
    Host::builder().on_fresh_root().build()
}

fn install(host: &Host) -> String {
    ok(host, &format!("{APT} install {}", package(".deb")))
}

/// The README's block of three commands.
fn readmes_commands() -> [String; 3] {
    let readme = fs::read_to_string(source("README.md")).expect("it is there");
    let block = readme.split("```sh\n").find(|block| block.starts_with("make deb\n"));
    let block = block.and_then(|block| block.split("```").next()).expect("README.md has it");
    let mut lines = block.splitn(3, '\n').map(|line| line.replace("\\\n", " "));
    std::array::from_fn(|_| lines.next().expect("three commands"))
}

#[test]
fn from_nothing_to_a_guest_with_nat_in_the_readmes_three_commands() {
    let [make, install, qemu] = readmes_commands();
    // It is what has made the package that the second installs.
    assert_eq!(make, "make deb");
    let host = fresh();
    assert!(!host.sh("command -v qemu-system-x86_64 kvmnet").success());
    let here = format!("cd {} && ", source(".").canonicalize().expect("it is there").display());
    ok(&host, &(here + &install.replace("apt-get", APT)));
    let line = qemu.split_once(" ... ").expect("QEMU's own arguments").1.to_owned();
    assert_nat_works(&host, |spec| spec.line(&line));

    // Debian's own scripts, taken over, are QEMU's package's to take away; what they led to stays.
    ok(&host, "kvmnet adopt --yes");
    assert!(ok(&host, "cat /etc/qemu-ifup").contains("exec /usr/libexec/kvmnet-ifup"));
    ok(&host, &format!("{APT} purge qemu-system-common"));
    assert!(!host.path("/etc/qemu-ifup").exists());
    assert_eq!(ok(&host, "dpkg --verify kvmnet"), "");
}

#[test]
fn removed_it_puts_the_old_scripts_back() {
    let host = fresh();
    install(&host);
    host.install_legacy();
    let scripts = "cd /etc && stat -c '%n %a %u %g %Y %s' qemu-* && sha256sum qemu-*";
    let before = ok(&host, scripts);
    let said = ok(&host, &format!("kvmnet adopt --yes && {APT} remove kvmnet"));
    assert!(said.contains("runs /usr/libexec/kvmnet-natup now"), "{said}");
    assert_eq!(ok(&host, scripts), before);

    // The old one for a tap that goes flushes the NAT of the whole host: not for a guest of kvmnet's.
    install(&host);
    ok(&host, "kvmnet adopt --yes");
    let adopted = ok(&host, scripts);
    let _tap = host.tap_on("default", "vnet0");
    let said = ok(&host, &format!("{APT} remove kvmnet"));
    assert_eq!(ok(&host, scripts), adopted);
    let moves: Vec<_> = said.lines().filter_map(|line| line.split_once("have ended: ")).collect();
    assert_eq!(moves.len(), 3, "{said}");
    moves.iter().for_each(|(_, line)| drop(ok(&host, line)));
    assert_eq!(ok(&host, scripts), before);
}

#[test]
fn it_goes_without_a_trace_and_twice_is_once() {
    let host = fresh();
    let before = files(&host, "");
    let said = install(&host);
    assert!(!said.contains("kvmnet: "), "nothing to be said: {said}");
    let installed = files(&host, "");
    assert!(added(&before, &installed).iter().any(|path| path == "./usr/libexec/kvmnet-natup"));
    assert_eq!(ok(&host, "stat -c '%a %U' /etc/kvmnet"), "755 root\n");
    // The examples are none of the networks.
    assert_eq!(
        ok(&host, "kvmnet status | sed -n '2,$p'").lines().next().unwrap_or_default(),
        "default  nat   br0     192.168.100.1/24  down   0      -"
    );
    ok(&host, "kvmnet check");

    ok(&host, &format!("dpkg -i {}", package(".deb")));
    assert_eq!(files(&host, ""), installed);
    assert_eq!(ok(&host, "dpkg --verify kvmnet"), "");

    host.write("/etc/kvmnet/lab.toml", "mode = \"isolated\"\n");
    ok(&host, "kvmnet up lab && kvmnet down lab");
    let said = ok(&host, &format!("{APT} remove kvmnet"));
    assert!(!said.contains("kvmnet: "), "nothing to be said: {said}");
    // A network's file is the administrator's, like any configuration.
    assert_eq!(ok(&host, "cat /etc/kvmnet/lab.toml"), "mode = \"isolated\"\n");
    assert_eq!(ok(&host, "find /usr /var/lib/systemd /etc/systemd -name '*kvmnet*'"), "");
    ok(&host, &format!("{APT} purge kvmnet"));
    assert_eq!(added(&before, &files(&host, "")), Vec::<String>::new());
    assert_eq!(
        ok(
            &host,
            "find / -xdev -name '*kvmnet*' ! -path '/var/log/*' ! -path '/proc/*' ! -path '/dev/*' ! -path '/sys/*'"
        ),
        ""
    );
    assert_eq!(ok(&host, "ls /run"), ok(&fresh(), "ls /run"));
}

/// The present package as one of a version before, with another example and another helper.
const OLDER: &str = "
    cd /tmp && dpkg-deb -R \"$0\" older && cd older
    sed -i 's/^Version: .*/Version: 0.0.9-1/' DEBIAN/control
    echo '# of old' >>etc/kvmnet/default.toml.example
    printf '#!/bin/sh\\nexit 9\\n' >usr/libexec/kvmnet-ifup
    dpkg-deb -b . ../older.deb";

#[test]
fn an_upgrade_keeps_what_was_edited_and_the_guests_that_run() {
    let host = fresh();
    ok(&host, &OLDER.replace("\"$0\"", &package(".deb")));
    ok(&host, &format!("{APT} install /tmp/older.deb"));
    assert_eq!(host.helper("ifup", &["vnet0"]).code, 9, "the one of old");
    host.write("/etc/kvmnet/default.toml", "address = \"192.168.7.1/24\"\n");
    ok(&host, "sed -i 's/192.168.100.1/192.168.9.1/' /etc/kvmnet/default.toml.example");
    let sums = "sha256sum /etc/kvmnet/default.toml /etc/kvmnet/default.toml.example";
    let edited = ok(&host, sums);
    let tap = host.tap_on("default", "vnet0");
    let up = host.foreign();

    let upgrade = format!("{APT} -o Dpkg::Options::=--force-confold install {}", package(".deb"));
    let said = ok(&host, &upgrade);
    assert!(!said.contains("stay up"), "{said}");
    assert_eq!(ok(&host, sums), edited);
    assert_eq!(up.diff(&host.foreign()), "");
    assert_eq!(host.ports("br0"), ["vnet0"]);
    assert_eq!(host.addresses("br0"), ["192.168.7.1/24"]);
    host.helper("natdown", &["vnet0"]).expect("natdown");
    assert!(host.link("br0").is_none());
    drop(tap);
}

#[test]
fn removed_while_guests_run_it_leaves_them_alone_and_says_what_stays() {
    let host = fresh();
    let before = host.foreign().without_forwarding();
    install(&host);
    host.write("/etc/kvmnet/cell.toml", "mode = \"isolated\"\n");
    host.write("/etc/kvmnet/old.toml", "address = \"192.168.9.1/24\"\nbridge = \"br-old\"\n");
    let _tap = host.tap_on("default", "vnet0");
    // A guest that was killed has left a network, which nobody uses.
    drop(host.tap_on("old", "vnet1"));
    ok(&host, "kvmnet up cell");
    let up = host.foreign();

    let said = ok(&host, &format!("{APT} remove kvmnet"));
    let after = host.foreign();
    let without =
        |state: kvmnet_tests::Foreign| state.without_link("br-old").without_table("kvmnet-old");
    assert_eq!(without(up).diff(&after), "", "the guest's and the pinned network");
    assert!(host.link("br-old").is_none(), "what nobody used is gone");
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("by hand: ")).collect();
    assert!(said.contains("kvmnet: these networks stay up"), "{said}");
    assert_eq!(lines.len(), 2, "{said}");
    // As the documentation has it.
    let page = fs::read_to_string(source("docs/install.md")).expect("it is there");
    for line in said.lines().filter(|line| line.starts_with("kvmnet: ")) {
        assert!(page.contains(&format!("{line}\n")), "{line}");
    }
    assert!(lines[0].contains("cell on cell (-), pinned, 0 ports; "), "{said}");
    assert!(lines[1].contains("default on br0 (192.168.100.1/24), up, 1 ports; "), "{said}");
    // What it tells to do does it.
    for line in lines {
        ok(&host, line.split_once("by hand: ").expect("it was found by that").1);
    }
    let left = host.foreign().without_forwarding().without_link("vnet0");
    assert_eq!(before.without_link("vnet0").diff(&left), "");
}

#[test]
fn a_kvmnet_that_is_broken_can_be_removed() {
    let host = fresh();
    install(&host);
    // Even where it is broken.
    host.write_program("/usr/bin/kvmnet", "#!/bin/sh\necho broken >&2; exit 1\n");
    ok(&host, &format!("{APT} remove kvmnet"));
    assert!(ok(&host, "dpkg -s kvmnet").contains("Status: deinstall ok config-files"));
    assert!(!host.path("/usr/bin/kvmnet").exists());
}
