//! Who holds a tap open: of each process that has `/dev/net/tun` open the kernel says which
//! interface that is (`iff:` in `/proc/PID/fdinfo/FD`, proc(5) and the kernel's `drivers/net/tun.c`).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A program that holds a tap open.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub program: String,
    /// The VM's name, where QEMU was given one with `-name`.
    pub vm: Option<String>,
}

/// The holders of each tap by the tap's name.
pub type Holders = BTreeMap<String, Vec<Holder>>;

/// The processes of this network namespace that hold a tap open, as far as this process may look:
/// root sees all of them.
#[must_use]
pub fn find(proc: &Path) -> Holders {
    let mut found = Holders::new();
    let own = network_namespace(&proc.join("self"));
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    for entry in entries {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let process = entry.path();
        let taps = taps_of(&process);
        // Elsewhere an interface of that name is another one.
        if taps.is_empty() || network_namespace(&process) != own {
            continue;
        }
        let holder = describe(pid, &process);
        for tap in taps {
            let holders = found.entry(tap).or_default();
            // One with several queues is open several times.
            if !holders.contains(&holder) {
                holders.push(holder.clone());
            }
        }
    }
    found.values_mut().for_each(|holders| holders.sort_unstable());
    found
}

fn network_namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/net")).ok()
}

fn taps_of(process: &Path) -> Vec<String> {
    let mut taps = Vec::new();
    for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let is_tun = fs::read_link(entry.path()).is_ok_and(|to| to.ends_with("net/tun"));
        if is_tun {
            let path = process.join("fdinfo").join(entry.file_name());
            taps.extend(fs::read_to_string(path).ok().as_deref().and_then(interface));
        }
    }
    taps
}

fn interface(fdinfo: &str) -> Option<String> {
    let name = fdinfo.lines().find_map(|line| line.strip_prefix("iff:"))?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

fn describe(pid: u32, process: &Path) -> Holder {
    let command_line = fs::read(process.join("cmdline")).unwrap_or_default();
    let arguments = arguments(&command_line);
    let program = arguments.first().and_then(|path| Path::new(path).file_name());
    let program = match program {
        Some(name) => String::from_utf8_lossy(name.as_bytes()).into_owned(),
        None => fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned(),
    };
    let vm = is_qemu(&program).then(|| vm_name(&arguments)).flatten();
    Holder { pid, program, vm }
}

fn arguments(command_line: &[u8]) -> Vec<String> {
    command_line
        .split(|&byte| byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// Distributions call it `qemu-system-ARCH`, `qemu-kvm` or `kvm`.
fn is_qemu(program: &str) -> bool {
    program.starts_with("qemu") || program.contains("kvm")
}

/// What QEMU's `-name NAME[,…]` or `-name …,guest=NAME` says, with `,,` for a comma in it.
fn vm_name(arguments: &[String]) -> Option<String> {
    let is_name = |argument: &String| argument == "-name" || argument == "--name";
    // Of several the last one counts.
    let at = arguments.iter().rposition(is_name)?;
    let mut name = None;
    for (n, option) in options(arguments.get(at + 1)?).into_iter().enumerate() {
        match option.strip_prefix("guest=") {
            Some(guest) => name = Some(guest.to_owned()),
            None if n == 0 && !option.contains('=') => name = Some(option),
            None => {}
        }
    }
    name.filter(|name| !name.is_empty())
}

/// The parts between single commas.
fn options(text: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut rest = text;
    while let Some(at) = rest.find(',') {
        let (before, behind) = rest.split_at(at);
        options.last_mut().expect("there is always one").push_str(before);
        match behind.strip_prefix(",,") {
            Some(behind) => {
                options.last_mut().expect("there is always one").push(',');
                rest = behind;
            }
            None => {
                options.push(String::new());
                rest = &behind[1..];
            }
        }
    }
    options.last_mut().expect("there is always one").push_str(rest);
    options
}

#[cfg(test)]
mod tests {
    use kvmnet_fuzz::{Damage, damaged};

    use super::*;

    #[test]
    fn no_command_line_is_too_strange() {
        const LINES: [&str; 3] = [
            "qemu-system-x86_64\0-name\0guest=web,,1,debug-threads=on\0-m\0guest=vm",
            "/usr/libexec/qemu-kvm\0--name\0web",
            "",
        ];
        bolero::check!().with_type::<(u8, Vec<Damage>)>().for_each(|(which, damages)| {
            let line = damaged(&LINES, *which, damages, &["-name\0", "guest=", ",", ",,", "\0"]);
            let name = vm_name(&arguments(&line));
            assert_ne!(name.as_deref(), Some(""));
        });
    }

    fn named(arguments: &[&str]) -> Option<String> {
        let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
        vm_name(&arguments)
    }

    #[test]
    fn the_vms_name_is_read_as_qemu_reads_it() {
        for (arguments, name) in [
            (&["qemu", "-name", "web1", "-m", "1G"][..], Some("web1")),
            (&["qemu", "--name", "web1"], Some("web1")),
            (&["qemu", "-name", "guest=web1,debug-threads=on"], Some("web1")),
            (&["qemu", "-name", "debug-threads=on,guest=web1"], Some("web1")),
            (&["qemu", "-name", "web1,process=q"], Some("web1")),
            (&["qemu", "-name", "a,,b,process=q"], Some("a,b")),
            (&["qemu", "-name", "a,,"], Some("a,")),
            (&["qemu", "-name", "one", "-name", "two"], Some("two")),
            (&["qemu", "-name", "process=q"], None),
            (&["qemu", "-name"], None),
            (&["qemu", "-m", "1G"], None),
            (&[], None),
        ] {
            assert_eq!(named(arguments).as_deref(), name, "{arguments:?}");
        }
    }

    #[test]
    fn the_interface_is_read_from_fdinfo() {
        let text = "pos:\t0\nflags:\t0104002\nmnt_id:\t25\nino:\t121\niff:\tvnet0\n";
        assert_eq!(interface(text).as_deref(), Some("vnet0"));
        // Opened, and no interface made yet.
        assert_eq!(interface("pos:\t0\niff:\t\n"), None);
        assert_eq!(interface("pos:\t0\n"), None);
    }
}
