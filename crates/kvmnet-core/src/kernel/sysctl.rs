//! Sysctls, by their files: a key with dots can't name an interface that has some.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::KernelError;
use crate::model::{Link, Sysctl};

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
    read(&path)
        .map(|value| value.first().is_some_and(|&digit| digit != b'0'))
        .map_err(|error| KernelError::system(format!("read {}", path.display()), error))
}

/// `net.bridge.bridge-nf-call-iptables`; none where br_netfilter isn't loaded.
pub(super) fn bridge_netfilter() -> Result<Option<bool>, KernelError> {
    filters_frames_of("iptables")
}

/// Whether frames that this bridge passes on are filtered, of either family: by the host's setting or
/// its own. None: one that is yet to be made, which has no setting of its own.
pub(super) fn filters_frames(bridge: Option<&Link>) -> Result<bool, KernelError> {
    let of_host = [filters_frames_of("iptables")?, filters_frames_of("ip6tables")?];
    let is_loaded = of_host.iter().any(Option::is_some);
    let own = is_loaded && bridge.is_some_and(|bridge| bridge.filters_frames);
    Ok(of_host.contains(&Some(true)) || own)
}

fn filters_frames_of(program: &str) -> Result<Option<bool>, KernelError> {
    let value = read_if_there(&format!("{ROOT}/bridge/bridge-nf-call-{program}"))?;
    Ok(value.map(|value| value.first() != Some(&b'0')))
}

/// A file of the kernel's that isn't there where what it is about isn't. Whatever else keeps it from
/// being read says nothing of that.
pub(super) fn read_if_there(path: &str) -> Result<Option<Vec<u8>>, KernelError> {
    match read(Path::new(path)) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(KernelError::system(format!("read {path}"), error)),
    }
}

/// Reads a file of the kernel's, most of which are a few bytes long: their size, which they don't tell
/// beforehand, isn't asked for.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut content = vec![0; 256];
    let mut length = 0;
    loop {
        match file.read(&mut content[length..]) {
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        // They give what there is at once, as far as it fits.
        if length < content.len() {
            content.truncate(length);
            return Ok(content);
        }
        content.resize(2 * length, 0);
    }
}

/// The tables that xtables-legacy has in use for this family (`NFPROTO_IPV4` or `NFPROTO_IPV6`). To ask
/// for one by its program would make it.
///
/// # Errors
/// [`KernelError::System`] where that can't be read.
pub fn legacy_tables(family: u8) -> Result<Vec<String>, KernelError> {
    let file = if i32::from(family) == libc::NFPROTO_IPV4 { "ip" } else { "ip6" };
    let names = read_if_there(&format!("/proc/self/net/{file}_tables_names"))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&names).lines().map(str::to_owned).collect())
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
    if absent || read(&path).is_ok_and(|value| value.starts_with(b"1")) {
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
