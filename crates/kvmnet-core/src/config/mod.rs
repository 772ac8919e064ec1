//! Which networks there are, and which one a tap belongs to.
//!
//! One network, one file: `/etc/kvmnet/NAME.toml`; none is needed. Releasing a tap never depends on
//! a file: the bridge itself says whose it is.

mod defaults;
mod error;
mod file;
mod files;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
mod trust;

use std::ffi::OsStr;
use std::path::Path;

use wildmatch::WildMatch;

pub use defaults::{default_bridged, default_name, default_nat};
pub use error::ConfigError;
pub use file::{NetworkFile, parse};
pub use files::{Configured, Files, conflict, path_of};

use crate::model::{InterfaceName, Network, NetworkName};

/// Where the network files are.
pub const DIRECTORY: &str = "/etc/kvmnet";
/// The environment variable that chooses a network.
const VARIABLE: &str = "KVMNET_NETWORK";

/// What asks for a network by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// What stands behind an `@` in the program's name: `kvmnet-natup@lab`.
    pub program: Option<String>,
    /// `KVMNET_NETWORK`.
    pub variable: Option<String>,
}

impl Choice {
    /// Reads the process's own name and environment.
    #[must_use]
    pub fn of_process() -> Self {
        let program = std::env::args_os().next().unwrap_or_default();
        Self {
            program: behind_at(&program),
            variable: std::env::var_os(VARIABLE)
                .filter(|name| !name.is_empty())
                .map(|name| name.to_string_lossy().into_owned()),
        }
    }
}

fn behind_at(program: &OsStr) -> Option<String> {
    let name = Path::new(program).file_name()?.to_string_lossy().into_owned();
    name.split_once('@').map(|(_, network)| network.to_owned())
}

/// The network that `tap` belongs to: by the program's name, else by the environment, else by the
/// one file whose `taps` match, else `default`.
///
/// # Errors
/// [`ConfigError`] where a file that has to be read is wrong, or the choice isn't clear. Where no
/// network is named, that is any file: its `taps` could have matched.
pub fn resolve(
    files: Files,
    choice: &Choice,
    tap: &InterfaceName,
    default: impl FnOnce() -> Network,
) -> Result<Network, ConfigError> {
    let named = [(&choice.program, "the program's name"), (&choice.variable, VARIABLE)];
    if let Some((name, by)) = named.iter().find_map(|(name, by)| Some((name.as_ref()?, *by))) {
        let name = NetworkName::parse(name)
            .ok_or_else(|| ConfigError::BadName { name: name.clone(), by })?;
        return files.by_name(&name, by);
    }
    let mut networks = files.load()?;
    let mut matching = networks
        .iter()
        .filter(|network| network.file.taps.iter().any(|pattern| fits(pattern, tap)));
    let (first, second) = (matching.next(), matching.next());
    if let (Some(one), Some(other)) = (first, second) {
        return Err(ConfigError::Ambiguous {
            tap: tap.clone(),
            one: one.path.clone(),
            other: other.path.clone(),
        });
    }
    if let Some(found) = first {
        return Ok(found.file.network.clone());
    }
    match default() {
        // The file of that name stands in for what is built in.
        Network::Managed(_) => {
            let at = networks.iter().position(|network| network.name == default_name());
            let file = at.map(|at| networks.swap_remove(at).file.network);
            Ok(file.unwrap_or_else(|| Network::Managed(default_nat())))
        }
        bridged @ Network::Bridged(_) => Ok(bridged),
    }
}

fn fits(pattern: &str, tap: &InterfaceName) -> bool {
    WildMatch::new(pattern).matches(tap.as_str())
}
