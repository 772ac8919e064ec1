//! The documents hold to the code: files are compared, no network is touched, and no root is needed.

mod command;
mod diagnostics;
mod facts;
mod links;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 23] = [
    "README.md",
    "CHANGELOG.md",
    "docs/adopt.md",
    "docs/design.md",
    "docs/command.md",
    "docs/networks.md",
    "docs/nat.md",
    "docs/routed.md",
    "docs/isolated.md",
    "docs/iptables.md",
    "docs/bridged.md",
    "docs/docker.md",
    "docs/udev.md",
    "docs/ufw.md",
    "docs/firewalld.md",
    "docs/nftables.md",
    "docs/systemd.md",
    "docs/libvirt.md",
    "docs/host-bridge.md",
    "docs/performance.md",
    "docs/reliability.md",
    "docs/troubleshooting.md",
    "docs/from-scripts.md",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn source(name: &str) -> String {
    read(&format!("crates/kvmnet-core/src/{name}.rs"))
}
