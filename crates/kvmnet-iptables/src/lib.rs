//! kvmnet's rules in the tables of iptables, for hosts without nf_tables and for those who want to
//! see them there. Only `kvmnet` links this; a helper that meets such a network becomes `kvmnet`.
//!
//! A network has chains of its own, `KVMNET-NAME-…`, and jumps to them; nothing else is touched. What
//! they should be (`wanted`) is compared with what `iptables -S` says (`look`, `listing`), and only the
//! difference (`script`) goes to `iptables-restore`, a transaction for each table.
//!
//! For networks with rules elsewhere it adds the accepts that guests need where iptables-legacy drops
//! (`accepts`): of that, netlink knows nothing.

#![forbid(unsafe_code)]

mod accepts;
#[cfg(test)]
mod both_ways;
mod kernel;
mod listing;
mod look;
mod programs;
mod script;
mod wanted;

pub use kernel::Iptables;
