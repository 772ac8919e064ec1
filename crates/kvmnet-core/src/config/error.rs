//! What can be wrong with the network files: where, what, and what to write instead.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::model::{InterfaceName, NetworkName};

/// A network file, or a choice between networks, that can't be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The directory or a file can't be read.
    #[error("{}: cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Somebody other than root could change it.
    #[error("{}: {problem}; whoever writes it decides over the host's network: {remedy} {}", .path.display(), .path.display())]
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
        /// The command that mends it.
        remedy: &'static str,
    },
    /// It isn't a file, or not one of that size.
    #[error("{}: {problem}", .path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Its text isn't what it should be.
    #[error("{}:{line}: {problem}", .path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what to write instead.
        problem: String,
    },
    /// Its name is no network's.
    #[error("{}: a network's name is 1 to 15 of a-z, 0-9, _ and -, and begins with a letter or digit: rename the file", .path.display())]
    FileName {
        /// The file.
        path: PathBuf,
    },
    /// Two networks want the same bridge or the same addresses.
    #[error("{} and {}: both {what}; change one of them", .one.display(), .other.display())]
    Conflict {
        /// One file.
        one: PathBuf,
        /// The other.
        other: PathBuf,
        /// What both want.
        what: String,
    },
    /// There is no file for the network that was asked for.
    #[error("{}: there is no such file for network {name}, which {by} asks for", .path.display())]
    NoSuchNetwork {
        /// The file that isn't there.
        path: PathBuf,
        /// The network.
        name: NetworkName,
        /// What asks for it.
        by: &'static str,
    },
    /// A network was asked for by a name that none can have.
    #[error(
        "{by} asks for network {name:?}; a network's name is 1 to 15 of a-z, 0-9, _ and -, and begins with a letter or digit"
    )]
    BadName {
        /// What was asked for.
        name: String,
        /// What asks for it.
        by: &'static str,
    },
    /// A tap matches the patterns of several networks.
    #[error("{tap}: matches taps= of {} and of {}; change one of them, or choose with kvmnet-natup@NAME", .one.display(), .other.display())]
    Ambiguous {
        /// The tap.
        tap: InterfaceName,
        /// One file.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
}
