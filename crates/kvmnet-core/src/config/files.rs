//! The directory of network files: listed once a run, and read as far as is needed.

use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::{ConfigError, NetworkFile, default_name, default_nat, file, trust};
use crate::model::{Network, NetworkName};

const ENDING: &str = "toml";

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

/// The network files that were there when the run began. None has been opened yet.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    /// Their paths, sorted; none where there is no directory.
    paths: Result<Vec<PathBuf>, ConfigError>,
}

impl Files {
    /// Lists the directory. What is wrong with it is told when a network is asked for.
    #[must_use]
    pub fn list(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), paths: list(directory) }
    }

    /// The names of all networks that could be there: those with a file, whatever is in it, and
    /// `default`.
    #[must_use]
    pub fn known(&self) -> Vec<NetworkName> {
        let paths = self.paths.as_deref().unwrap_or_default();
        let mut names: Vec<_> = paths.iter().filter_map(|path| name_of(path)).collect();
        if !names.contains(&default_name()) {
            names.push(default_name());
        }
        names
    }

    /// The network of that name.
    ///
    /// # Errors
    /// [`ConfigError`] where its file is wrong, or there is none and it isn't `default`.
    pub fn by_name(self, name: &NetworkName, by: &'static str) -> Result<Network, ConfigError> {
        let path = path_of(&self.directory, name);
        let found = if self.paths?.contains(&path) { read(&path, name)? } else { None };
        match found {
            Some(file) => Ok(file.network),
            None if *name == default_name() => Ok(Network::Managed(default_nat())),
            None => Err(ConfigError::NoSuchNetwork { path, name: name.clone(), by }),
        }
    }

    /// The networks that a tap could have been attached to by natup: those of all files that are
    /// right, whatever is wrong with others, and `default`. For releasing it.
    #[must_use]
    pub fn usable(&self) -> Vec<Network> {
        let mut networks = Vec::new();
        let mut has_default = false;
        for path in self.paths.as_deref().unwrap_or_default() {
            let Some(name) = name_of(path) else { continue };
            if let Ok(Some(file)) = read(path, &name) {
                has_default |= name == default_name();
                networks.push(file.network);
            }
        }
        if !has_default {
            networks.push(Network::Managed(default_nat()));
        }
        networks
    }

    /// Every network that has a file, in the order of their names.
    ///
    /// # Errors
    /// [`ConfigError`]: the first thing that is wrong with any, or between two.
    pub fn load(self) -> Result<Vec<Configured>, ConfigError> {
        let mut networks = Vec::new();
        for path in self.paths? {
            networks.extend(configured(path)?);
        }
        match conflicts(&networks).into_iter().next() {
            Some(conflict) => Err(conflict),
            None => Ok(networks),
        }
    }

    /// Every network that has a good file, and everything that is wrong with the others and
    /// between any two.
    #[must_use]
    pub fn survey(self) -> (Vec<Configured>, Vec<ConfigError>) {
        let (mut networks, mut mistakes) = (Vec::new(), Vec::new());
        match self.paths {
            Ok(paths) => {
                for path in paths {
                    match configured(path) {
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

    /// Whether there is a file of that network's, whatever is in it.
    #[must_use]
    pub fn has(&self, name: &NetworkName) -> bool {
        self.paths.as_deref().unwrap_or_default().contains(&path_of(&self.directory, name))
    }
}

/// Where the file of that network is, or would be.
#[must_use]
pub fn path_of(directory: &Path, name: &NetworkName) -> PathBuf {
    directory.join(format!("{name}.{ENDING}"))
}

fn configured(path: PathBuf) -> Result<Option<Configured>, ConfigError> {
    let name = name_of(&path).ok_or_else(|| ConfigError::FileName { path: path.clone() })?;
    Ok(read(&path, &name)?.map(|file| Configured { name, path, file }))
}

/// What the file says; one that has just gone is as good as never there.
fn read(path: &Path, name: &NetworkName) -> Result<Option<NetworkFile>, ConfigError> {
    trust::read(path)?.map(|text| file::parse(path, &text, name)).transpose()
}

fn name_of(path: &Path) -> Option<NetworkName> {
    path.file_stem().and_then(OsStr::to_str).and_then(NetworkName::parse)
}

/// The paths of the directory's network files, sorted; none where there is no directory.
fn list(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
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
