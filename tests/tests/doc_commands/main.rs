//! Every command in the documents is run, on the real kernel, or says why not.
//!
//! What it runs on stands in the document, in a comment before the block, the table or the
//! paragraph (in a manual page the same words behind `.\"`):
//!
//! - `<!-- run: FIXTURE -->`: on a host of its own, made as `fixtures.rs` and `firewalls.rs` say; for
//!   QEMU's command lines also where its taps are then: `<!-- run: host, vnet0 on br0 -->`
//! - `<!-- run: as before -->`: on the host of the commands before, on which their QEMU still runs
//! - `<!-- file: NAME -->`: is `/etc/kvmnet/NAME.toml`, and a helper makes that network
//! - `<!-- not run: WHY -->`; for one of several commands in a text `(not run: why)` behind it
//!
//! A command has to succeed; in a ```console block to print what stands there, and in a table what
//! stands as code behind it.

mod document;
mod firewalls;
mod fixtures;
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
    bridged: "docs/bridged.md",
    command: "docs/command.md",
    design: "docs/design.md",
    docker: "docs/docker.md",
    firewalld: "docs/firewalld.md",
    iptables: "docs/iptables.md",
    isolated: "docs/isolated.md",
    ifup_manual: "docs/man/kvmnet-ifup.8",
    natup_manual: "docs/man/kvmnet-natup.8",
    network_manual: "docs/man/kvmnet-network.5",
    command_manual: "docs/man/kvmnet.8",
    nat: "docs/nat.md",
    networks: "docs/networks.md",
    nftables: "docs/nftables.md",
    routed: "docs/routed.md",
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
