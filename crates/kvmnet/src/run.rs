//! `kvmnet up`, `down`, `gc` and `plan`.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use kvmnet_core::config::{ConfigError, Files};
use kvmnet_core::kernel::System;
use kvmnet_core::model::{ManagedNetwork, Network, NetworkName, Step};
use kvmnet_core::plan::{InUse, Purpose};
use kvmnet_core::{Report, ops, output, process};
use nix::unistd::geteuid;

use crate::cli::Verb;
use crate::error::Error;
use crate::print;

/// Brings a network up, to stay.
///
/// # Errors
/// [`Error`]; the network is then as it was before.
pub fn up(directory: &Path, name: &NetworkName) -> Result<ExitCode, Error> {
    require_capability("up")?;
    let network = managed(directory, name)?;
    let known = Files::list(directory).known();
    process::isolate();
    let report = ops::pin(&mut System::open()?, &network, &known)?;
    tell(name.as_str(), &report)
}

/// Takes a network down, or leaves that to its last guest.
///
/// # Errors
/// [`Error`].
pub fn down(directory: &Path, name: &NetworkName) -> Result<ExitCode, Error> {
    require_capability("down")?;
    let known = known_with(directory, name);
    let mut kernel = System::open()?;
    require_existence(directory, name, &known, &mut kernel)?;
    process::isolate();
    let report = ops::unpin(&mut kernel, name, &known)?;
    tell(name.as_str(), &report)
}

/// Takes down what nobody uses.
///
/// # Errors
/// [`Error`].
pub fn gc(directory: &Path) -> Result<ExitCode, Error> {
    require_capability("gc")?;
    let known = Files::list(directory).known();
    process::isolate();
    let report = ops::collect(&mut System::open()?, &known)?;
    tell("gc", &report)
}

/// Tells the steps of `up` or `down`, and takes none.
///
/// # Errors
/// [`Error`]: what the run itself would be refused for.
pub fn plan(directory: &Path, verb: Verb, name: &NetworkName) -> Result<ExitCode, Error> {
    require_capability("plan")?;
    let mut kernel = System::open()?;
    let (steps, in_use) = match verb {
        Verb::Up => {
            let network = managed(directory, name)?;
            (ops::plan_up(&mut kernel, Purpose::Pinned, &network)?.steps, None)
        }
        Verb::Down => {
            let known = known_with(directory, name);
            require_existence(directory, name, &known, &mut kernel)?;
            let plan = ops::plan_down(&mut kernel, name, &known)?;
            (plan.steps, plan.in_use)
        }
    };
    say(&describe(&steps, in_use.as_ref()))
}

fn describe(steps: &[Step], in_use: Option<&InUse>) -> String {
    let mut lines: Vec<String> =
        steps.iter().enumerate().map(|(n, step)| format!("{}. {step}", n + 1)).collect();
    if let Some(InUse { bridge, ports, .. }) = in_use {
        lines.push(format!("{bridge} stays: in use by {}", ports.join(", ")));
    } else if steps.is_empty() {
        lines.push("nothing to do".to_owned());
    }
    let lines: Vec<String> = lines.iter().map(|line| output::printable(line)).collect();
    lines.join("\n")
}

/// The network, which must be one that kvmnet builds.
fn managed(directory: &Path, name: &NetworkName) -> Result<ManagedNetwork, Error> {
    match Files::list(directory).by_name(name, "the command line") {
        Ok(Network::Managed(network)) => Ok(network),
        Ok(Network::Bridged(bridged)) => {
            Err(Error::Bridged { network: name.clone(), bridge: bridged.bridge })
        }
        Err(ConfigError::NoSuchNetwork { path, name, .. }) => {
            Err(Error::NoSuchNetwork { network: name, path })
        }
        Err(error) => Err(error.into()),
    }
}

/// A network is taken down whatever its file says, or says no more.
fn known_with(directory: &Path, name: &NetworkName) -> Vec<NetworkName> {
    let mut known = Files::list(directory).known();
    if !known.contains(name) {
        known.push(name.clone());
    }
    known
}

/// A name that means nothing is a mistake, not a network that is down already.
fn require_existence(
    directory: &Path,
    name: &NetworkName,
    known: &[NetworkName],
    kernel: &mut System,
) -> Result<(), Error> {
    let error = match managed(directory, name) {
        Err(error @ (Error::NoSuchNetwork { .. } | Error::Bridged { .. })) => error,
        // Taking down never depends on a file that is wrong.
        Ok(_) | Err(_) => return Ok(()),
    };
    // Its file may be gone, or of another mode, since it was brought up.
    let host = kernel.host_view()?;
    let is_up = host.own_bridges(known).any(|(_, mark)| mark.network == *name);
    if is_up { Ok(()) } else { Err(error) }
}

pub(crate) fn require_capability(what: &'static str) -> Result<(), Error> {
    if process::may_change_network() {
        return Ok(());
    }
    Err(Error::Capability { what, uid: geteuid().as_raw() })
}

/// One line for who is here, and for the log.
pub(crate) fn tell(subject: &str, report: &Report) -> Result<ExitCode, Error> {
    let (level, line) = report.describe(subject);
    let line = output::printable(&line);
    output::to_syslog("kvmnet", level, &line);
    // It is done, whoever takes the line: a full disk must not make that look undone.
    let _ = say(&line);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn say(text: &str) -> Result<ExitCode, Error> {
    print::whole(&mut io::stdout().lock(), format!("{text}\n").as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
