//! Every way a subcommand can fail.

use std::io;
use std::path::PathBuf;

use kvmnet_core::Chain;
use kvmnet_core::config::ConfigError;
use kvmnet_core::kernel::KernelError;
use kvmnet_core::model::{InterfaceName, NetworkName};
use thiserror::Error;

/// A subcommand that failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The run was refused or has failed.
    #[error(transparent)]
    Run(#[from] kvmnet_core::Error),
    /// A network file is wrong or missing.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The process may not change the network.
    #[error("{what}: user {uid} lacks the capability CAP_NET_ADMIN; run it as root")]
    Capability {
        /// The subcommand.
        what: &'static str,
        /// The effective user.
        uid: u32,
    },
    /// A network that is the administrator's is to be brought up or taken down.
    #[error(
        "network {network}: its mode is bridged, and its bridge {bridge} is yours to make and to \
         remove; there is nothing to bring up or take down"
    )]
    Bridged {
        /// The network.
        network: NetworkName,
        /// Its bridge.
        bridge: InterfaceName,
    },
    /// No network of that name is described, and none is up.
    #[error(
        "network {network}: there is no {}; kvmnet status shows the networks that there are",
        .path.display()
    )]
    NoSuchNetwork {
        /// The name that was given.
        network: NetworkName,
        /// The file that isn't there.
        path: PathBuf,
    },
    /// The host can't be looked at.
    #[error("the host cannot be looked at")]
    Look(#[from] KernelError),
    /// Some networks could not be repaired.
    #[error("not all is as it should be: {}", list(.0))]
    Incomplete(Vec<Error>),
    /// Scripts are to be replaced by who isn't root.
    #[error("adopt: user {uid} may not replace scripts; run it as root")]
    NotRoot {
        /// The effective user.
        uid: u32,
    },
    /// A file can't be looked at or changed.
    #[error("{}: cannot be {what}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was to be done with it.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// Scripts were left as they are.
    #[error("not adopted: {0}")]
    NotAdopted(String),
    /// Not everything is as it was before.
    #[error("not undone: {0}")]
    NotUndone(String),
    /// stdout doesn't take what is to be printed.
    #[error("cannot print")]
    Print(#[from] io::Error),
}

fn list(errors: &[Error]) -> String {
    let lines: Vec<String> = errors.iter().map(|error| Chain(error).to_string()).collect();
    lines.join("; ")
}
