//! `kvmnet check`: mistakes in the network files, and what on this host gets in their way.

mod between;
mod firewalld;
mod host;
mod running;

use std::path::Path;
use std::process::ExitCode;

use kvmnet_core::{Chain, output, process};
use nix::unistd::geteuid;

use crate::MISTAKES;
use crate::error::Error;
use crate::gather::gather;
use crate::print::{self, BAD, GOOD, WARNING, styled};

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A guest would not get its network.
    Mistake(String),
    /// It works, but perhaps not as meant.
    Warning(String),
}

/// Looks, and tells what was found.
///
/// # Errors
/// [`Error`] where this user can't look, or the host doesn't let itself be looked at.
pub fn run(directory: &Path) -> Result<ExitCode, Error> {
    if !process::may_change_network() {
        return Err(Error::Capability { what: "check", uid: geteuid().as_raw() });
    }
    let seen = gather(directory)?;
    let mut findings: Vec<Finding> =
        seen.mistakes.iter().map(|mistake| Finding::Mistake(Chain(mistake).to_string())).collect();
    findings.extend(between::find(&seen));
    findings.extend(host::find(&seen)?);
    findings.extend(running::find(&seen)?);
    let mut text = String::new();
    for finding in &findings {
        let (word, line) = match finding {
            Finding::Mistake(line) => (styled(BAD, "mistake"), line),
            Finding::Warning(line) => (styled(WARNING, "warning"), line),
        };
        text.push_str(&format!("{word}: {}\n", output::printable(line)));
    }
    let is_mistake = |finding: &Finding| matches!(finding, Finding::Mistake(_));
    let mistakes = findings.iter().filter(|finding| is_mistake(finding)).count();
    text.push_str(&summary(seen.networks.len(), mistakes, findings.len() - mistakes));
    print::coloured(&text)?;
    Ok(if mistakes == 0 { ExitCode::SUCCESS } else { ExitCode::from(MISTAKES) })
}

fn summary(networks: usize, mistakes: usize, warnings: usize) -> String {
    let count = |n: usize, what: &str| match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    };
    let result = match (mistakes, warnings) {
        (0, 0) => styled(GOOD, "all is well"),
        (0, warnings) => count(warnings, "warning"),
        (mistakes, 0) => count(mistakes, "mistake"),
        (mistakes, warnings) => {
            format!("{}, {}", count(mistakes, "mistake"), count(warnings, "warning"))
        }
    };
    format!("{} checked: {result}\n", count(networks, "network"))
}
