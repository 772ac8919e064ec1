//! What a run has done, and the one line that tells it.

use log::Level;

use crate::model::{NetworkName, TableId};
use crate::plan::{InUse, Note};

/// What a run has done, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The tap is a port of the bridge.
    Attached {
        /// The bridge.
        bridge: String,
        /// What else is worth telling.
        notes: Vec<Note>,
    },
    /// The tap is no port any more.
    Released {
        /// The bridge it was taken from; none where it was free or gone.
        from: Option<String>,
        /// The networks that nobody used any more.
        taken_down: Vec<NetworkName>,
    },
    /// The network is up, and stays so.
    Pinned {
        /// The bridge.
        bridge: String,
        /// Whether it was so before.
        was_pinned: bool,
        /// What else is worth telling.
        notes: Vec<Note>,
    },
    /// Networks went, or lost their pin.
    TakenDown {
        /// Those that nobody used.
        networks: Vec<NetworkName>,
        /// Why the one that was asked for stays.
        in_use: Option<InUse>,
    },
    /// What nobody used is gone.
    Collected {
        /// The networks that nobody used.
        networks: Vec<NetworkName>,
        /// Tables of networks that were not up.
        tables: Vec<TableId>,
        /// How many rules went from other firewalls' chains.
        accepts: usize,
    },
    /// The network is as it should be.
    Repaired {
        /// What was done, in words; nothing where nothing was missing.
        steps: Vec<String>,
    },
}

impl Report {
    /// The line for the log: `subject` is the tap or the network that the run was about.
    #[must_use]
    pub fn describe(&self, subject: &str) -> (Level, String) {
        match self {
            Self::Attached { bridge, notes } => {
                with_notes(format!("{subject}: attached to {bridge}"), bridge, notes)
            }
            Self::Released { from, taken_down } => {
                let mut line = match from {
                    Some(bridge) => format!("{subject}: released from {bridge}"),
                    None => format!("{subject}: was no bridge port any more"),
                };
                for network in taken_down {
                    line.push_str(&format!("; took down network {network}, which nobody used"));
                }
                (Level::Info, line)
            }
            Self::Pinned { bridge, was_pinned, notes } => {
                let was = if *was_pinned { "was up already" } else { "up" };
                let line =
                    format!("{subject}: {was} on {bridge}, to stay until kvmnet down {subject}");
                with_notes(line, bridge, notes)
            }
            Self::TakenDown { networks, in_use } => {
                (Level::Info, describe_taken_down(subject, networks, in_use.as_ref()))
            }
            Self::Collected { networks, tables, accepts } => {
                (Level::Info, describe_collected(networks, tables, *accepts))
            }
            Self::Repaired { steps } if steps.is_empty() => {
                (Level::Info, format!("{subject}: is as it should be"))
            }
            Self::Repaired { steps } => {
                (Level::Warn, format!("{subject}: repaired: {}", steps.join("; ")))
            }
        }
    }
}

fn describe_taken_down(subject: &str, networks: &[NetworkName], in_use: Option<&InUse>) -> String {
    let others = networks.iter().filter(|network| network.as_str() != subject);
    let mut line = match in_use {
        Some(InUse { bridge, ports, unpinned }) => {
            let goes = if *unpinned { "goes now" } else { "goes" };
            format!("{subject}: in use on {bridge} by {}; {goes} with the last", ports.join(", "))
        }
        None if networks.iter().any(|network| network.as_str() == subject) => {
            format!("{subject}: taken down")
        }
        None => format!("{subject}: was not up"),
    };
    for network in others {
        line.push_str(&format!("; took down network {network}, which nobody used"));
    }
    line
}

fn describe_collected(networks: &[NetworkName], tables: &[TableId], accepts: usize) -> String {
    let list = |words: Vec<String>| words.join(", ");
    let mut parts = Vec::new();
    if !networks.is_empty() {
        let names = networks.iter().map(ToString::to_string).collect();
        parts.push(format!("took down what nobody used: {}", list(names)));
    }
    if !tables.is_empty() {
        let names = tables.iter().map(|table| format!("table {table}")).collect();
        parts.push(format!("deleted what was left of networks that are not up: {}", list(names)));
    }
    if accepts > 0 {
        parts.push(format!("deleted {accepts} rules that let through guests who are gone"));
    }
    if parts.is_empty() {
        return "nothing to take down: every network is in use or pinned".to_owned();
    }
    parts.join("; ")
}

fn with_notes(mut line: String, bridge: &str, notes: &[Note]) -> (Level, String) {
    let mut level = Level::Info;
    for note in notes {
        let (note_level, text) = describe_note(bridge, note);
        level = level.min(note_level);
        line.push_str(&text);
    }
    (level, line)
}

fn describe_note(bridge: &str, note: &Note) -> (Level, String) {
    match note {
        Note::Built { network, mode, table: Some(table) } => (
            Level::Info,
            format!("; built {mode} network {network}, its rules: nft list table {table}"),
        ),
        Note::Built { network, mode, table: None } => {
            (Level::Info, format!("; built {mode} network {network}, without rules"))
        }
        Note::Repaired { network } => (Level::Warn, format!("; repaired network {network}")),
        Note::Accepts { family, chain } => {
            let program =
                if i32::from(*family) == libc::NFPROTO_IPV4 { "iptables" } else { "ip6tables" };
            (
                Level::Info,
                format!("; the host's firewall now lets the guests through: {program} -S {chain}"),
            )
        }
        Note::NotAccepted { why } => {
            (Level::Warn, format!("; the host's firewall does not let the guests through: {why}"))
        }
        Note::TurnedOnForwarding { everywhere: true } => {
            (Level::Info, "; turned on net.ipv4.ip_forward".to_owned())
        }
        Note::TurnedOnForwarding { everywhere: false } => {
            (Level::Info, format!("; turned on forwarding of IPv4 on {bridge} and the uplinks"))
        }
        Note::ForeignBridge { address } => (
            Level::Warn,
            format!(
                "; {bridge} is not kvmnet's but carries exactly {address}, so no rules were added"
            ),
        ),
        Note::OwnBridge(owner) => (
            Level::Warn,
            format!(
                "; {bridge} is the bridge of kvmnet's network {owner}, and the guest is on that"
            ),
        ),
        Note::BridgeIsDown => (Level::Warn, format!("; {bridge} is down: ip link set {bridge} up")),
    }
}
