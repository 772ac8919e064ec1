//! The programs that QEMU runs: `PROGRAM IFNAME`, exit 0 or one line of error.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use log::Level;

use crate::config::{self, Choice, Files};
use crate::error::{Chain, Error, Goal};
use crate::kernel::System;
use crate::model::{InterfaceName, Network};
use crate::ops;
use crate::output::{self, Buffer};
use crate::process;
use crate::report::Report;

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

    fn is_down(self) -> bool {
        matches!(self, Self::Ifdown | Self::Natdown)
    }
}

/// Runs a helper from its arguments to its exit code.
#[must_use]
pub fn main(verb: Verb) -> ExitCode {
    process::isolate();
    let log = Buffer::install();
    let result = run(verb, std::env::args_os().skip(1).collect());
    // The lock is released: from here on a slow reader holds up nobody but this process.
    let code = match &result {
        Ok((tap, report)) => {
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

fn run(verb: Verb, arguments: Vec<OsString>) -> Result<(InterfaceName, Report), Error> {
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
    let report = execute(verb, &tap)?;
    Ok((tap, report))
}

fn parse(verb: Verb, mut arguments: Vec<OsString>) -> Result<InterfaceName, Error> {
    let program = verb.program();
    if arguments.len() != 1 {
        return Err(Error::Usage { program, given: arguments.len() });
    }
    let name = arguments.remove(0);
    InterfaceName::parse(&name).map_err(|reason| Error::Name { program, name, reason })
}

fn execute(verb: Verb, tap: &InterfaceName) -> Result<Report, Error> {
    let goal = if verb.is_down() { Goal::Release(tap) } else { Goal::Attach(tap) };
    let mut kernel = System::open().map_err(|source| goal.failed(source))?;
    let files = Files::list(Path::new(config::DIRECTORY));
    let known = files.known();
    match verb {
        Verb::Ifup | Verb::Natup => {
            let network = config::resolve(files, &Choice::of_process(), tap, || match verb {
                Verb::Ifup => Network::Bridged(config::default_bridged()),
                _ => Network::Managed(config::default_nat()),
            })?;
            ops::up(&mut kernel, tap, &network, &known)
        }
        Verb::Ifdown => ops::down_from_any(&mut kernel, tap, &known),
        // Whose a bridge is, the bridge says. A file that is wrong or gone keeps no tap from being
        // released; it matters only for bridges that aren't kvmnet's.
        Verb::Natdown => ops::down(&mut kernel, tap, || files.usable(), &known),
    }
}
