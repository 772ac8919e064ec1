//! Plain data: names, networks, what the kernel showed, and the steps that change it. No I/O.

mod firewall;
mod link;
mod mac;
mod mark;
mod name;
mod network;
mod step;
mod view;

pub use firewall::{Chain, Hook, Match, Protocol, Rule, Table, TableId, Verdict};
pub use link::{Inet6, Link, LinkKind};
pub use mac::Mac;
pub use mark::{Mark, owner_of};
pub use name::{InterfaceName, NameError, NetworkName};
pub use network::{BridgedNetwork, NatNetwork, Network};
pub use step::{LinkChange, Step, Sysctl};
pub use view::{BridgeView, BridgedView, NatView, ReleaseView, Route, TableState, TapView};
