//! Decisions: what was seen against what is wanted gives steps, or a refusal. Pure functions.

mod accepts;
mod bridged;
mod managed;
mod port;
mod refusal;
mod release;
mod rules;
mod tap;
#[cfg(test)]
mod tests;
mod zone;

pub use accepts::{Surroundings, narrow as accepts_of};
pub use bridged::attach_bridged;
pub use managed::{Purpose, attach_managed, is_up};
pub use port::{PortOf, port_of};
pub use refusal::Refusal;
pub use release::{InUse, ReleasePlan, ReleaseScope, TakeDownPlan, release, sweep, take_down};
pub use rules::table_of;
pub use zone::unknown as unknown_zone;

use ipnet::Ipv4Net;

use crate::model::{Mode, NetworkName, Step, TableId, Variant, ZoneName};

/// What attaching a tap comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachPlan {
    /// The steps, in order; none where all is as it should be.
    pub steps: Vec<Step>,
    /// The bridge that the tap becomes a port of.
    pub bridge: String,
    /// Whether what was asked for is so already: the tap a port of that bridge, or the network
    /// pinned. Such a run has nothing to undo.
    pub was_done: bool,
    /// What is worth telling an administrator.
    pub notes: Vec<Note>,
}

/// Something an administrator should find in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The network was built.
    Built {
        /// The network.
        network: NetworkName,
        /// What its guests can reach.
        mode: Mode,
        /// Where its rules are; none where they are the administrator's.
        table: Option<TableId>,
    },
    /// Something of the network was missing and was put back.
    Repaired {
        /// The network.
        network: NetworkName,
    },
    /// The host's own firewall lets through only what it names, and now names the guests.
    Accepts {
        /// Where the chain is.
        variant: Variant,
        /// The address family (`NFPROTO_IPV4` or `NFPROTO_IPV6`).
        family: u8,
        /// The chain that has the new rules.
        chain: String,
    },
    /// The host's own firewall lets through only what it names, and could not be told of the guests.
    NotAccepted {
        /// The reason.
        why: String,
    },
    /// The host's own firewall lets through only what it names, and there is no default route whose
    /// interface could be named.
    NoUplink,
    /// The host's own firewall could not be looked at: it may let through only what it names.
    MayNotAccept {
        /// The reason.
        why: String,
    },
    /// firewalld runs, and the bridge is in this zone now.
    InZone {
        /// The zone.
        zone: ZoneName,
    },
    /// firewalld runs, and the bridge isn't in the zone that lets its guests through.
    NotInZone {
        /// The reason, and the remedy.
        why: String,
    },
    /// The host forwarded no IPv4 before.
    TurnedOnForwarding {
        /// Whether that is so for the whole host, `net.ipv4.ip_forward`, which stays on.
        everywhere: bool,
    },
    /// The bridge isn't kvmnet's but carries the network's address, and no rules were added.
    ForeignBridge {
        /// The address.
        address: Ipv4Net,
    },
    /// The bridge that was meant to be the administrator's is that of a network of kvmnet's.
    OwnBridge(NetworkName),
    /// The bridge is administratively down, and not kvmnet's to set up.
    BridgeIsDown,
}
