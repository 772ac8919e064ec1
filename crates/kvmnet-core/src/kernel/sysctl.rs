//! Sysctls, by their files: a key with dots can't name an interface that has some.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::KernelError;
use crate::model::Sysctl;

const ROOT: &str = "/proc/sys/net";

fn path(sysctl: &Sysctl) -> PathBuf {
    let root = Path::new(ROOT);
    match sysctl {
        Sysctl::ForwardIpv4 => root.join("ipv4/ip_forward"),
        Sysctl::ForwardInterface { interface } => {
            root.join("ipv4/conf").join(interface.as_str()).join("forwarding")
        }
        Sysctl::DisableIpv6 { interface } => {
            root.join("ipv6/conf").join(interface.as_str()).join("disable_ipv6")
        }
    }
}

/// Whether a sysctl is on.
pub(super) fn is_on(sysctl: &Sysctl) -> Result<bool, KernelError> {
    let path = path(sysctl);
    fs::read(&path)
        .map(|value| value.first().is_some_and(|&digit| digit != b'0'))
        .map_err(|error| KernelError::system(format!("read {}", path.display()), error))
}

/// `net.bridge.bridge-nf-call-iptables`; none where br_netfilter isn't loaded.
pub(super) fn bridge_netfilter() -> Option<bool> {
    filters_frames_of("iptables")
}

/// Whether frames that a bridge passes on are filtered, of either family.
pub(super) fn filters_frames() -> bool {
    ["iptables", "ip6tables"].iter().any(|program| filters_frames_of(program) == Some(true))
}

fn filters_frames_of(program: &str) -> Option<bool> {
    let value = fs::read(Path::new(ROOT).join(format!("bridge/bridge-nf-call-{program}"))).ok()?;
    Some(value.first() != Some(&b'0'))
}

/// The tables of xtables-legacy that are there (`/proc/net/ip_tables_names`).
pub(super) fn legacy_tables() -> Vec<String> {
    let names = fs::read_to_string("/proc/self/net/ip_tables_names").unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

/// Writes 1. Where that fails and 1 is there already, all is well.
pub(super) fn write(sysctl: &Sysctl) -> Result<(), KernelError> {
    let path = path(sysctl);
    let written =
        OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(b"1\n"));
    let Err(source) = written else {
        return Ok(());
    };
    let (beforehand, absent) = match sysctl {
        Sysctl::ForwardIpv4 | Sysctl::ForwardInterface { .. } => ("net.ipv4.ip_forward", false),
        // A new interface takes the default's value. A kernel without IPv6 has none to turn off.
        Sysctl::DisableIpv6 { .. } => {
            ("net.ipv6.conf.default.disable_ipv6", source.kind() == io::ErrorKind::NotFound)
        }
    };
    if absent || fs::read(&path).is_ok_and(|value| value.starts_with(b"1")) {
        return Ok(());
    }
    Err(KernelError::Sysctl { name: key(sysctl), beforehand, source })
}

/// The name as sysctl(8) takes it, which also takes slashes for dots.
fn key(sysctl: &Sysctl) -> String {
    match sysctl {
        Sysctl::ForwardIpv4 => "net.ipv4.ip_forward".to_owned(),
        Sysctl::ForwardInterface { interface } => format!("net/ipv4/conf/{interface}/forwarding"),
        Sysctl::DisableIpv6 { interface } if interface.as_str().contains('.') => {
            format!("net/ipv6/conf/{interface}/disable_ipv6")
        }
        Sysctl::DisableIpv6 { interface } => format!("net.ipv6.conf.{interface}.disable_ipv6"),
    }
}
