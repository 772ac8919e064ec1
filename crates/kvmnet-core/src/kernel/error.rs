//! What the kernel answered when it said no.

use std::io;

use nix::errno::Errno;
use thiserror::Error;

/// A request to the kernel that failed.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The kernel refused it.
    #[error("cannot {what}: {}{}", describe(*.errno), hint(.message.as_deref()))]
    Refused {
        /// What was asked for, as an infinitive.
        what: String,
        /// The error number.
        errno: Errno,
        /// The kernel's own words (`NLMSGERR_ATTR_MSG`), where it gave any.
        message: Option<String>,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was attempted, as an infinitive.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The kernel's answer made no sense.
    #[error("cannot {what}: the kernel's answer {problem}")]
    Answer {
        /// What was asked for, as an infinitive.
        what: String,
        /// What is wrong with the answer.
        problem: &'static str,
    },
    /// A sysctl can't be written.
    #[error("cannot set {name} to 1; have it so beforehand: sysctl -w {beforehand}=1")]
    Sysctl {
        /// The sysctl, as sysctl(8) takes it.
        name: String,
        /// The one that, set before the run, makes it unnecessary.
        beforehand: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A program that works on iptables isn't there, or doesn't do as it is told.
    #[error("cannot {what} with {program}: it {problem}")]
    Iptables {
        /// What was asked for, as an infinitive.
        what: String,
        /// The program.
        program: String,
        /// What it does, or is, in place of that; and what to do where that is known.
        problem: String,
    },
    /// firewalld doesn't do as it is told.
    #[error("cannot have firewalld {what}: {problem}")]
    Firewalld {
        /// What was asked for, as an infinitive.
        what: String,
        /// Why not, and what to do.
        problem: String,
    },
    /// The kernel is built without nf_tables, or may not load it.
    #[error(
        "this kernel has no nf_tables, which the network's rules need; load it: modprobe nf_tables, or do \
         without: firewall = \"iptables\" in the network's file"
    )]
    NoNftables,
}

impl KernelError {
    pub(super) fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }

    /// The error number, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::System { source, .. } | Self::Sysctl { source, .. } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            Self::Answer { .. }
            | Self::Iptables { .. }
            | Self::Firewalld { .. }
            | Self::NoNftables => None,
        }
    }
}

/// Says of the errors that have an everyday cause here what it is.
fn describe(errno: Errno) -> String {
    match errno {
        Errno::EPERM | Errno::EACCES => {
            format!("{} (CAP_NET_ADMIN is needed in the network namespace)", errno.desc())
        }
        // `BR_MAX_PORTS` (`net/bridge/br_private.h`), less the number 0.
        Errno::EXFULL => {
            "the bridge has 1023 ports, the most that the kernel allows; put this guest on \
                          another bridge, that of another network"
                .to_owned()
        }
        Errno::ENODEV => "it has just gone (No such device)".to_owned(),
        _ => errno.desc().to_owned(),
    }
}

fn hint(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| format!(" ({message})"))
}
