//! Every way a run can fail. The text names the object, the cause and the remedy; a source is
//! printed behind it once, by the program.

use std::fmt;

use thiserror::Error;

use crate::config::ConfigError;
use crate::kernel::KernelError;
use crate::lock::LockError;
use crate::model::{InterfaceName, NameError, NetworkName};
use crate::plan::Refusal;

/// A run that failed. Nothing was changed, or what was changed was undone; of a take-down that
/// failed in part, the rest was done.
#[derive(Debug, Error)]
pub enum Error {
    /// Not exactly one argument.
    #[error(
        "{given} arguments given, but QEMU passes exactly one, the tap's name; usage: {program} IFNAME"
    )]
    Usage {
        /// The program's name.
        program: &'static str,
        /// How many arguments came.
        given: usize,
    },
    /// The argument is no interface name.
    #[error("invalid interface name {name:?}: {reason}; usage: {program} IFNAME")]
    Name {
        /// The program's name.
        program: &'static str,
        /// What was given.
        name: std::ffi::OsString,
        /// What is wrong with it.
        reason: NameError,
    },
    /// The program runs with more rights than its caller has.
    #[error(
        "refusing to run setuid, setgid or with file capabilities; remove them and run it as root"
    )]
    Setuid,
    /// The process may not change the network.
    #[error("{tap}: user {uid} lacks the capability CAP_NET_ADMIN; {}", remedy(*.down))]
    Capability {
        /// The tap.
        tap: InterfaceName,
        /// The effective user.
        uid: u32,
        /// Whether the tap was to be released.
        down: bool,
    },
    /// The lock can't be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The network files, or the choice between networks.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What is there, or what was asked for, isn't fit.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel can't be asked or told.
    #[error("{object}: not {goal}")]
    Kernel {
        /// What the run was about: a tap, or a network.
        object: String,
        /// What was to be done with it, as a participle.
        goal: &'static str,
        /// What failed.
        source: KernelError,
    },
    /// Parts of taking down failed; the rest was done.
    #[error("{object}: {goal} in part: {}; the next guest's end goes on with it, or now: kvmnet gc", OneLine(.failures))]
    TakeDown {
        /// What the run was about: a tap, or a network.
        object: String,
        /// What was to be done with it, as a participle.
        goal: &'static str,
        /// What failed.
        failures: Vec<KernelError>,
    },
}

/// What a run is about, for its errors.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal<'a> {
    /// A tap is to become a port.
    Attach(&'a InterfaceName),
    /// A tap is to be released.
    Release(&'a InterfaceName),
    /// A network is to be up.
    Build(&'a NetworkName),
    /// A network that is up is to be as it should be.
    Repair(&'a NetworkName),
    /// An administrator's bridge is to have what its guests need.
    RepairBridge(&'a InterfaceName),
    /// A network is to go.
    TakeDown(&'a NetworkName),
    /// What nobody uses is to go.
    Sweep,
}

impl Goal<'_> {
    fn object(self) -> String {
        match self {
            Self::Attach(name) | Self::Release(name) | Self::RepairBridge(name) => name.to_string(),
            Self::Build(network) | Self::Repair(network) | Self::TakeDown(network) => {
                format!("network {network}")
            }
            Self::Sweep => "unused networks".to_owned(),
        }
    }

    fn participle(self) -> &'static str {
        match self {
            Self::Attach(_) => "attached",
            Self::Release(_) => "released",
            Self::Build(_) => "built",
            Self::Repair(_) | Self::RepairBridge(_) => "repaired",
            Self::TakeDown(_) | Self::Sweep => "taken down",
        }
    }

    /// The run has failed for that.
    pub(crate) fn failed(self, source: KernelError) -> Error {
        Error::Kernel { object: self.object(), goal: self.participle(), source }
    }

    /// Taking down is done unless something of it has failed; the rest was done then.
    pub(crate) fn done_unless(self, failures: Vec<KernelError>) -> Result<(), Error> {
        if failures.is_empty() {
            return Ok(());
        }
        Err(Error::TakeDown { object: self.object(), goal: self.participle(), failures })
    }
}

fn remedy(down: bool) -> &'static str {
    if down {
        "QEMU's -runas drops it before the downscript runs; the next guest's end as root cleans up, or now: kvmnet gc"
    } else {
        "start QEMU as root, or let it take an open tap: -netdev tap,fd="
    }
}

/// An error with its sources, in one line.
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

struct OneLine<'a>(&'a [KernelError]);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{}", Chain(error))?;
        }
        Ok(())
    }
}
