//! Plain data: names, networks, what the kernel showed, and the steps that change it. No I/O.

mod accept;
mod firewall;
mod host;
mod link;
mod mac;
mod mark;
mod name;
mod network;
mod step;
mod view;
mod zone;

pub use accept::{
    AcceptOwner, AcceptsChange, DOCKER_USER, FILTER, FORWARD, FilterView, FoundAccept, RuleId,
    RulePlace, Variant,
};
pub use firewall::{
    CHAIN_PREFIX, Chain, Hook, Match, Policy, Protocol, Rule, Table, TableId, Verdict,
};
pub use host::{ForwardChain, HostForwarding, HostRoute, HostView, RulesState};
pub use link::{ALL_GROUPS, BRIDGE_GROUP, Inet6, Link, LinkKind};
pub use mac::{BRIDGE_PREFIX, Mac};
pub use mark::{Mark, owner_of};
pub use name::{InterfaceName, NameError, NetworkName};
pub use network::{BridgedNetwork, Firewall, Forwarding, ManagedNetwork, Mode, Network};
pub use step::{BridgeRepair, LinkChange, Step, Sysctl};
pub use view::{
    BridgeView, BridgedView, ForwardingView, ManagedView, ReleaseView, Route, TableState, TapView,
    runs_as_isolated,
};
pub use zone::{ZoneChange, ZoneChangeKind, ZoneName, ZoneView};
