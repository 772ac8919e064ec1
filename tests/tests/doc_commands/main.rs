//! Every command in the documents is run, on the real kernel, or says why not.
//!
//! What it runs on stands in the document, in a comment before the block, the table or the
//! paragraph (in a manual page the same words behind `.\"`):
//!
//! - `<!-- run: FIXTURE -->`: on a host of its own, made as `fixtures.rs` and `firewalls.rs` say; for
//!   QEMU's command lines also where its taps are then: `<!-- run: host, vnet0 on br0 -->`
//! - `<!-- run: as before -->`: on the host of the commands before, on which their QEMU still runs
//! - `<!-- file: NAME -->`: is `/etc/kvmnet/NAME.toml`, and a helper makes that network
//! - `<!-- file: /PATH -->`: is there on the hosts of this document
//! - `<!-- not run: WHY -->`; for one of several commands in a text `(not run: why)` behind it
//!
//! A command has to succeed; in a ```console block to print what stands there, and in a table what
//! stands as code behind it.

mod document;
mod firewalls;
mod fixtures;
mod managers;
mod manual;
mod mark;
mod markdown;
mod stage;

use std::collections::BTreeSet;
use std::process::Command;

/// A test for each document, so that they run side by side.
macro_rules! documents {
    ($($test:ident: $document:literal,)*) => {
        const DOCUMENTS: &[&str] = &[$($document),*];
        $(#[test]
        fn $test() {
            stage::run($document);
        })*
    };
}

documents! {
    readme: "README.md",
    adopt: "docs/adopt.md",
    bridged: "docs/bridged.md",
    command: "docs/command.md",
    design: "docs/design.md",
    docker: "docs/docker.md",
    firewalld: "docs/firewalld.md",
    from_scripts: "docs/from-scripts.md",
    host_bridge: "docs/host-bridge.md",
    install: "docs/install.md",
    iptables: "docs/iptables.md",
    isolated: "docs/isolated.md",
    libvirt: "docs/libvirt.md",
    ifup_manual: "docs/man/kvmnet-ifup.8",
    natup_manual: "docs/man/kvmnet-natup.8",
    network_manual: "docs/man/kvmnet-network.5",
    command_manual: "docs/man/kvmnet.8",
    nat: "docs/nat.md",
    networks: "docs/networks.md",
    nftables: "docs/nftables.md",
    performance: "docs/performance.md",
    reliability: "docs/reliability.md",
    routed: "docs/routed.md",
    systemd: "docs/systemd.md",
    troubleshooting: "docs/troubleshooting.md",
    udev: "docs/udev.md",
    ufw: "docs/ufw.md",
}

#[test]
fn every_document_has_its_test() {
    assert_eq!(document::documents(), DOCUMENTS);
}

#[test]
fn every_manual_that_is_named_exists() {
    let mut named = BTreeSet::new();
    for document in DOCUMENTS {
        let path = document::repository().join(document);
        let text = std::fs::read_to_string(path).expect("it was read before");
        let pages = text.split('`').filter_map(|span| span.strip_prefix("man kvmnet"));
        named.extend(pages.map(str::to_owned));
    }
    for page in &named {
        let path = |section| format!("docs/man/kvmnet{page}.{section}");
        let exists = (1..=8).any(|section| document::repository().join(path(section)).exists());
        assert!(exists, "man kvmnet{page}");
    }
    assert!(named.len() > 2, "the documents are not read as they should be: {named:?}");
}

/// Nobody would notice a mistake in one that nothing reads. Those of systemd's are for `guides.rs`.
#[test]
fn every_file_is_read() {
    for document in DOCUMENTS {
        let pieces = document::read(document);
        let mut commands = String::new();
        for piece in &pieces {
            if let (
                document::Content::Commands(steps),
                mark::Mark::Run { .. } | mark::Mark::AsBefore,
            ) = (&piece.content, &piece.mark)
            {
                commands.extend(steps.iter().flat_map(|step| [step.command.as_str(), "\n"]));
            }
        }
        for piece in &pieces {
            let mark::Mark::File(path) = &piece.mark else { continue };
            let name = path.rsplit('/').next().unwrap_or_default();
            let is_for_systemd =
                *document == "docs/systemd.md" || path.starts_with("/etc/systemd/");
            let is_read = !path.starts_with('/') || is_for_systemd || commands.contains(name);
            assert!(is_read, "{}: no command reads {path}", piece.at);
        }
    }
}

/// What `make demo` runs.
#[test]
fn the_demo() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).output().expect("it is a program");
    assert!(output.status.success(), "{output:?}");
}

/// One that no document names is never tried, and so may not be true any more.
#[test]
fn every_fixture_is_used() {
    let mut used = BTreeSet::new();
    for piece in DOCUMENTS.iter().flat_map(|document| document::read(document)) {
        if let mark::Mark::Run { fixture, .. } = piece.mark {
            used.insert(fixture);
        }
    }
    for fixture in fixtures::all() {
        assert!(used.contains(fixture.name), "{}", fixture.name);
    }
}
