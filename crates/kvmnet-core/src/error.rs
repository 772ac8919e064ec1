//! Every way a run can fail. The text names the object, the cause and the remedy; a source is
//! printed behind it once, by the program.

use std::fmt;

use thiserror::Error;

use crate::config::ConfigError;
use crate::kernel::KernelError;
use crate::lock::LockError;
use crate::model::{InterfaceName, NameError};
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
    #[error("{tap}: not {}", if *.down { "released" } else { "attached" })]
    Kernel {
        /// The tap.
        tap: InterfaceName,
        /// Whether the tap was to be released.
        down: bool,
        /// What failed.
        source: KernelError,
    },
    /// Parts of taking down failed; the rest was done.
    #[error("{tap}: released in part: {}; the next run of any of kvmnet's helpers goes on with it", OneLine(.failures))]
    TakeDown {
        /// The tap.
        tap: InterfaceName,
        /// What failed.
        failures: Vec<KernelError>,
    },
}

fn remedy(down: bool) -> &'static str {
    if down {
        "QEMU's -runas drops it before the downscript runs; the next run of a kvmnet helper as root cleans up"
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
