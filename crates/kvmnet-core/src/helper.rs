//! The programs that QEMU runs: `PROGRAM IFNAME`, exit 0 or one line of error.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use log::Level;

use crate::config::{self, Choice, Files};
use crate::error::{Chain, Error, Goal};
use crate::kernel::{Kernel, KernelError, System};
use crate::model::{Firewall, InterfaceName, ManagedNetwork, Network};
use crate::ops;
use crate::output::{self, Buffer};
use crate::plan::Note;
use crate::process;
use crate::report::Report;

/// The subcommand by which `kvmnet` stands in for a helper.
pub const SUBCOMMAND: &str = "helper";
/// Where `kvmnet` is looked for, beside what the build says and what lies beside the helper.
pub(crate) const PLACES: &str = "/usr/bin/kvmnet or /usr/local/bin/kvmnet";
const WITHOUT_KVMNET: &str =
    "it is firewalld or iptables-legacy, which takes kvmnet, and that cannot be run as";

/// What a helper does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Makes the tap a port of the administrator's bridge.
    Ifup,
    /// Releases the tap from whatever bridge.
    Ifdown,
    /// Makes the tap a port of a NAT network, building that where need be.
    Natup,
    /// Releases the tap, and takes the network down with the last one.
    Natdown,
}

impl Verb {
    /// The name the helper is installed by.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Ifup => "kvmnet-ifup",
            Self::Ifdown => "kvmnet-ifdown",
            Self::Natup => "kvmnet-natup",
            Self::Natdown => "kvmnet-natdown",
        }
    }

    /// Its name behind [`SUBCOMMAND`].
    fn word(self) -> &'static str {
        self.program().trim_start_matches("kvmnet-")
    }

    /// The verb by that name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Ifup, Self::Ifdown, Self::Natup, Self::Natdown];
        all.into_iter().find(|verb| verb.word() == word)
    }

    fn is_down(self) -> bool {
        matches!(self, Self::Ifdown | Self::Natdown)
    }
}

/// Runs a helper from its arguments to its exit code. Where there is something to change in a firewall that
/// isn't told by netlink, the process becomes `kvmnet`, before anything was changed (but for leftovers of
/// others, which may be gone): no helper has to carry that about.
#[must_use]
pub fn main(verb: Verb) -> ExitCode {
    run(verb, std::env::args_os().skip(1).collect(), |tap| {
        let mut is_auto = false;
        let mut settle = |_: &mut System, network: &mut ManagedNetwork| {
            is_auto = network.firewall == Firewall::Auto;
            match network.firewall {
                Firewall::Iptables => Err(goal(verb, tap).needs_kvmnet(false)),
                _ => Ok(()),
            }
        };
        let result = execute(verb, tap, System::open, &mut settle);
        match &result {
            Err(Error::NeedsKvmnet { optional: false, .. }) => become_kvmnet(verb, tap),
            Err(Error::NeedsKvmnet { optional: true, .. }) => {
                become_kvmnet(verb, tap);
                // What the guest has without it is better than no guest.
                let mut result = execute(verb, tap, System::open_for_netlink_alone, settle);
                if let Ok(Report::Attached { notes, .. }) = &mut result {
                    notes.push(Note::MayNotAccept { why: format!("{WITHOUT_KVMNET} {PLACES}") });
                }
                return result;
            }
            Err(Error::Kernel { source: KernelError::NoNftables, .. }) if is_auto => {
                become_kvmnet(verb, tap);
            }
            _ => {}
        }
        result
    })
}

/// Runs a helper in the place of one that became this program: with these arguments, and on this
/// kernel, which first makes of a network's firewall what it is to be here.
#[must_use]
pub fn stand_in<K: Kernel>(
    verb: Verb,
    arguments: Vec<OsString>,
    open: impl FnOnce() -> Result<K, KernelError>,
    settle: impl FnOnce(&mut K, &mut ManagedNetwork) -> Result<(), KernelError>,
) -> ExitCode {
    run(verb, arguments, |tap| {
        execute(verb, tap, open, |kernel, network| {
            settle(kernel, network).map_err(|source| goal(verb, tap).failed(source))
        })
    })
}

fn run(
    verb: Verb,
    arguments: Vec<OsString>,
    execute: impl FnOnce(&InterfaceName) -> Result<Report, Error>,
) -> ExitCode {
    process::isolate();
    let log = Buffer::install();
    let result = judge(verb, arguments).and_then(|tap| Ok((execute(&tap)?, tap)));
    // The lock is released: from here on a slow reader holds up nobody but this process.
    let code = match &result {
        Ok((report, tap)) => {
            let (level, line) = report.describe(tap.as_str());
            log::log!(level, "{line}");
            output::to_syslog(verb.program(), level, &output::printable(&line));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let line = output::printable(&Chain(error).to_string());
            output::to_syslog(verb.program(), Level::Error, &line);
            output::to_stderr(format!("{}: {line}\n", verb.program()).as_bytes());
            ExitCode::FAILURE
        }
    };
    output::to_stderr(&log.take());
    code
}

/// The tap, where the process may do what is asked of it.
fn judge(verb: Verb, arguments: Vec<OsString>) -> Result<InterfaceName, Error> {
    if process::is_privileged_by_its_file() {
        return Err(Error::Setuid);
    }
    let tap = parse(verb, arguments)?;
    if !process::may_change_network() {
        return Err(Error::Capability {
            tap,
            uid: nix::unistd::geteuid().as_raw(),
            down: verb.is_down(),
        });
    }
    Ok(tap)
}

fn parse(verb: Verb, mut arguments: Vec<OsString>) -> Result<InterfaceName, Error> {
    let program = verb.program();
    if arguments.len() != 1 {
        return Err(Error::Usage { program, given: arguments.len() });
    }
    let name = arguments.remove(0);
    InterfaceName::parse(&name).map_err(|reason| Error::Name { program, name, reason })
}

fn goal(verb: Verb, tap: &InterfaceName) -> Goal<'_> {
    if verb.is_down() { Goal::Release(tap) } else { Goal::Attach(tap) }
}

fn execute<K: Kernel>(
    verb: Verb,
    tap: &InterfaceName,
    open: impl FnOnce() -> Result<K, KernelError>,
    settle: impl FnOnce(&mut K, &mut ManagedNetwork) -> Result<(), Error>,
) -> Result<Report, Error> {
    let mut kernel = open().map_err(|source| goal(verb, tap).failed(source))?;
    let files = Files::list(Path::new(config::DIRECTORY));
    let known = files.known();
    match verb {
        Verb::Ifup | Verb::Natup => {
            let mut network = config::resolve(files, &Choice::of_process(), tap, || match verb {
                Verb::Ifup => Network::Bridged(config::default_bridged()),
                _ => Network::Managed(config::default_nat()),
            })?;
            if let Network::Managed(managed) = &mut network {
                settle(&mut kernel, managed)?;
            }
            ops::up(&mut kernel, tap, &network, &known)
        }
        Verb::Ifdown => ops::down_from_any(&mut kernel, tap, &known),
        // Whose a bridge is, the bridge says. A file that is wrong or gone keeps no tap from being
        // released; it matters only for bridges that aren't kvmnet's.
        Verb::Natdown => ops::down(&mut kernel, tap, || files.usable(), &known),
    }
}

/// Goes on as `kvmnet`, with the helper's own name, which may say the network. Returns only where that
/// can't be run. `PATH` has no say in it.
fn become_kvmnet(verb: Verb, tap: &InterfaceName) {
    let name = std::env::args_os().next().unwrap_or_else(|| verb.program().into());
    let arguments = [name, SUBCOMMAND.into(), verb.word().into(), tap.as_str().into()];
    let arguments: Vec<CString> =
        arguments.into_iter().filter_map(|text| CString::new(text.into_vec()).ok()).collect();
    // PREFIX/libexec/kvmnet-natup and PREFIX/bin/kvmnet come from one installation.
    let helper = std::env::current_exe().unwrap_or_default();
    let beside = helper.parent().and_then(Path::parent).map(|prefix| prefix.join("bin/kvmnet"));
    let built = option_env!("KVMNET_BINDIR").map(|directory| Path::new(directory).join("kvmnet"));
    let usual = ["/usr/bin/kvmnet", "/usr/local/bin/kvmnet"].map(PathBuf::from);
    for program in beside.into_iter().chain(built).chain(usual) {
        if let Ok(path) = CString::new(program.into_os_string().into_vec()) {
            // It returns an error or not at all.
            let _ = nix::unistd::execv(&path, &arguments);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use kvmnet_fuzz::{Damage, damaged};

    use super::*;
    use crate::output::printable;

    #[test]
    fn no_argument_is_too_strange() {
        const LINES: [&str; 4] = ["vnet0", "fifteen-bytes-x", "vnet0\0extra", ""];
        const PIECES: [&str; 12] =
            ["\0", "/", "%d", "..", "-", " ", "\n", "\u{202e}", "\u{a0}", "@", "all", "\x1b[31m"];
        bolero::check!().with_type::<(u8, Vec<Damage>)>().for_each(|(which, damages)| {
            let line = damaged(&LINES, *which, damages, &PIECES);
            let arguments = line.split(|&byte| byte == 0);
            let arguments = arguments.map(|argument| OsString::from_vec(argument.to_vec()));
            match parse(Verb::Natup, arguments.collect()) {
                Ok(tap) => {
                    // What the kernel takes for one name, and a path in /proc/sys for one component.
                    assert_eq!(tap.as_str().as_bytes(), line, "{tap:?}");
                    assert!((1..=15).contains(&line.len()), "{tap:?}");
                    assert!(!line.contains(&b'/'), "{tap:?}");
                }
                Err(error) => {
                    let line = printable(&error.to_string());
                    assert!(!line.contains(char::is_control), "{line}");
                }
            }
        });
    }
}
