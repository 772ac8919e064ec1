//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use kvmnet_core::model::NetworkName;

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed or refused, for the reason on stderr; 2 wrong usage; \
3 check has found mistakes.

Networks are described in /etc/kvmnet/NAME.toml, kvmnet-network(5); none is needed for the network \
\"default\".";

/// Networks of QEMU guests on this host
#[derive(Debug, Parser)]
#[command(name = "kvmnet", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show networks, their ports, and the VMs that hold them
    Status {
        /// Print JSON, as share/kvmnet/status.schema.json describes it
        #[arg(long, conflicts_with = "tree")]
        json: bool,
        /// Draw host, networks, ports and VMs as a tree
        #[arg(long)]
        tree: bool,
        /// Only these networks
        #[arg(value_name = "NAME", value_parser = parse_network)]
        networks: Vec<NetworkName>,
    },
    /// Look for mistakes in the network files, and for what on this host gets in their way
    Check,
    /// Tell the steps that `up` or `down` would take now, and take none
    Plan {
        /// What would be done
        verb: Verb,
        /// The network
        #[arg(value_name = "NAME", value_parser = parse_network)]
        network: NetworkName,
    },
    /// Bring a network up, to stay until `down`, whether guests use it or not
    Up {
        /// The network
        #[arg(value_name = "NAME", value_parser = parse_network)]
        network: NetworkName,
    },
    /// Take a network down; while guests use it, leave that to the last of them
    Down {
        /// The network
        #[arg(value_name = "NAME", value_parser = parse_network)]
        network: NetworkName,
    },
    /// Put back what somebody took from networks that are up: rules, address, settings
    Reload,
    /// Take down every network that nobody uses: what killed VMs have left
    Gc,
    /// Have old scripts, such as /etc/qemu-ifup, run kvmnet's programs under their old paths
    ///
    /// Without --yes it only tells what it would do. Without SCRIPT it looks at the usual places.
    Adopt {
        /// Do it
        #[arg(long)]
        yes: bool,
        /// Put the scripts back, as they were
        #[arg(long)]
        undo: bool,
        /// Adopt the scripts as this network, whatever else they do
        #[arg(
            long, value_name = "NAME", value_parser = parse_network, conflicts_with = "undo",
            requires = "scripts"
        )]
        network: Option<NetworkName>,
        /// Only these scripts, and the other half of each
        #[arg(value_name = "SCRIPT")]
        scripts: Vec<PathBuf>,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

impl Command {
    /// Whether it changes the host, so that the log should tell how it went.
    pub fn changes_something(&self) -> bool {
        matches!(
            self,
            Self::Up { .. }
                | Self::Down { .. }
                | Self::Gc
                | Self::Reload
                | Self::Adopt { yes: true, .. }
        )
    }
}

/// What `plan` tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verb {
    /// `kvmnet up`
    Up,
    /// `kvmnet down`
    Down,
}

fn parse_network(text: &str) -> Result<NetworkName, String> {
    NetworkName::parse(text).ok_or_else(|| {
        "a network's name is 1 to 15 of a-z, 0-9, _ and -, and begins with a letter or digit"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use clap::CommandFactory;
    use kvmnet_fuzz::{Damage, damaged};

    use super::*;

    #[test]
    fn no_argument_is_too_strange() {
        const LINES: [&str; 6] = [
            "kvmnet\0status\0--json\0lab",
            "kvmnet\0plan\0up\0lab",
            "kvmnet\0adopt\0--yes\0--undo\0/etc/qemu-ifup",
            "kvmnet\0gc",
            "kvmnet\0completions\0bash",
            "",
        ];
        const PIECES: [&str; 10] =
            ["\0", "--", "-", "=", "--help", "\u{202e}", "\x1b[31m", "\n", "down", "reload"];
        bolero::check!().with_type::<(u8, Vec<Damage>)>().for_each(|(which, damages)| {
            let line = damaged(&LINES, *which, damages, &PIECES);
            let arguments = line.split(|&byte| byte == 0).map(OsStr::from_bytes);
            if let Err(error) = Cli::try_parse_from(arguments) {
                assert!(matches!(error.exit_code(), 0 | 2), "{error}");
            }
        });
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn names_that_no_network_can_have_are_wrong_usage() {
        for name in ["", "Lab", "a/b", "../x", "-x", "sixteen-letters-x"] {
            let error = Cli::try_parse_from(["kvmnet", "up", "--", name]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{name}");
        }
        assert!(Cli::try_parse_from(["kvmnet", "up", "lab-2"]).is_ok());
    }
}
