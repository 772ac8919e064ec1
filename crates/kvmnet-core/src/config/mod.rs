//! Which networks there are, and which one a tap belongs to.
//!
//! One network, one file: `/etc/kvmnet/NAME.toml`; none is needed. Releasing a tap never depends on
//! a file: the bridge itself says whose it is.

mod defaults;
mod error;
mod file;
#[cfg(test)]
mod tests;
mod trust;

use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use wildmatch::WildMatch;

pub use defaults::{default_bridged, default_name, default_nat};
pub use error::ConfigError;
pub use file::NetworkFile;

use crate::model::{InterfaceName, Network, NetworkName};

/// Where the network files are.
pub const DIRECTORY: &str = "/etc/kvmnet";
const ENDING: &str = "toml";
/// The environment variable that chooses a network.
const VARIABLE: &str = "KVMNET_NETWORK";

/// A network and the file that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configured {
    /// The network's name.
    pub name: NetworkName,
    /// Its file.
    pub path: PathBuf,
    /// What it says.
    pub file: NetworkFile,
}

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
    directory: &Path,
    choice: &Choice,
    tap: &InterfaceName,
    default: impl FnOnce() -> Network,
) -> Result<Network, ConfigError> {
    let named = [(&choice.program, "the program's name"), (&choice.variable, VARIABLE)];
    if let Some((name, by)) = named.iter().find_map(|(name, by)| Some((name.as_ref()?, *by))) {
        let name = NetworkName::parse(name)
            .ok_or_else(|| ConfigError::BadName { name: name.clone(), by })?;
        return by_name(directory, &name, by);
    }
    let mut networks = load(directory)?;
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

/// Where the file of that network is, or would be.
#[must_use]
pub fn path_of(directory: &Path, name: &NetworkName) -> PathBuf {
    directory.join(format!("{name}.{ENDING}"))
}

/// The network of that name.
///
/// # Errors
/// [`ConfigError`] where its file is wrong, or there is none and it isn't `default`.
pub fn by_name(
    directory: &Path,
    name: &NetworkName,
    by: &'static str,
) -> Result<Network, ConfigError> {
    let path = path_of(directory, name);
    let opened = trust::open_directory(directory)?;
    let text = match opened {
        Some(_) => trust::read(&path)?,
        None => None,
    };
    match text {
        Some(text) => Ok(file::parse(&path, &text, name)?.network),
        None if *name == default_name() => Ok(Network::Managed(default_nat())),
        None => Err(ConfigError::NoSuchNetwork { path, name: name.clone(), by }),
    }
}

/// Every network that has a file, in the order of their names.
///
/// # Errors
/// [`ConfigError`]: the first thing that is wrong with any, or between two.
pub fn load(directory: &Path) -> Result<Vec<Configured>, ConfigError> {
    let mut networks = Vec::new();
    for path in files(directory)? {
        networks.extend(read(path)?);
    }
    match conflicts(&networks).into_iter().next() {
        Some(conflict) => Err(conflict),
        None => Ok(networks),
    }
}

/// Every network that has a good file, and everything that is wrong with the others and between
/// any two.
#[must_use]
pub fn survey(directory: &Path) -> (Vec<Configured>, Vec<ConfigError>) {
    let (mut networks, mut mistakes) = (Vec::new(), Vec::new());
    match files(directory) {
        Ok(paths) => {
            for path in paths {
                match read(path) {
                    Ok(network) => networks.extend(network),
                    Err(mistake) => mistakes.push(mistake),
                }
            }
        }
        Err(mistake) => mistakes.push(mistake),
    }
    mistakes.extend(conflicts(&networks));
    (networks, mistakes)
}

/// Reads one file; one that has just gone is as good as never there.
fn read(path: PathBuf) -> Result<Option<Configured>, ConfigError> {
    let stem = path.file_stem().and_then(OsStr::to_str).and_then(NetworkName::parse);
    let name = stem.ok_or_else(|| ConfigError::FileName { path: path.clone() })?;
    let Some(text) = trust::read(&path)? else {
        return Ok(None);
    };
    let file = file::parse(&path, &text, &name)?;
    Ok(Some(Configured { name, path, file }))
}

/// The names of all networks that could be there: those with a file, whatever is in it, and
/// `default`.
#[must_use]
pub fn known_networks(directory: &Path) -> Vec<NetworkName> {
    let named = files(directory).unwrap_or_default();
    let stems = named.iter().filter_map(|path| path.file_stem().and_then(OsStr::to_str));
    let mut names: Vec<_> = stems.filter_map(NetworkName::parse).collect();
    if !names.contains(&default_name()) {
        names.push(default_name());
    }
    names
}

/// The paths of the directory's network files, sorted; none where there is no directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let Some(opened) = trust::open_directory(directory)? else {
        return Ok(Vec::new());
    };
    let read = |source| ConfigError::Read { path: directory.to_owned(), source };
    // What was checked is read, whatever has become of the path since.
    let entries =
        std::fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd())).map_err(read)?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = directory.join(entry.map_err(read)?.file_name());
        if path.extension() == Some(OsStr::new(ENDING)) && !is_hidden(&path) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// An editor's or a package manager's own.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn conflicts(networks: &[Configured]) -> Vec<ConfigError> {
    let mut found = Vec::new();
    for (n, one) in networks.iter().enumerate() {
        for other in &networks[n + 1..] {
            found.extend(conflict(&one.file.network, &other.file.network).map(|what| {
                ConfigError::Conflict { one: one.path.clone(), other: other.path.clone(), what }
            }));
        }
    }
    found
}

/// What two networks both want; none where they get along.
#[must_use]
pub fn conflict(one: &Network, other: &Network) -> Option<String> {
    if one.bridge() == other.bridge() {
        return Some(format!("have the bridge {}", one.bridge()));
    }
    let (a, b) = (one.subnet()?, other.subnet()?);
    let overlap = a.contains(&b) || b.contains(&a);
    overlap.then(|| format!("have addresses of {}", if a.contains(&b) { b } else { a }))
}
