//! The seam to the kernel: it looks and does what it is told, and knows no policy.

mod address;
mod answer;
mod attributes;
mod batch;
mod conntrack;
mod error;
#[cfg(test)]
mod fuzz;
mod host;
mod link;
mod link_change;
mod neighbour;
mod netconf;
mod nfnetlink;
mod nftables;
mod payload;
mod port;
mod release;
mod route;
mod rules_view;
mod socket;
mod sysctl;
mod system;
mod xtables;

pub use error::KernelError;
pub use sysctl::legacy_tables;
pub use system::System;
pub use xtables::{LegacyTable, legacy_table};

use crate::model::{
    BridgedNetwork, BridgedView, InterfaceName, ManagedNetwork, ManagedView, NetworkName,
    ReleaseView, Step, Table,
};

/// All that a run asks of the kernel. [`System`] is the real one; tests have a fake that is whole.
pub trait Kernel {
    /// Held while no other run may look or act; released when dropped.
    type Lock;

    /// Whether it can carry out steps on iptables. One that can't knows by a bridge's mark and by the tables
    /// of iptables-legacy what there would be to do, and a run that comes to that changes nothing.
    const HAS_IPTABLES: bool;

    /// Whether the looks so far have met something that is for another to deal with: firewalld, whose
    /// zones are told over D-Bus, or tables of iptables-legacy that could not be read or have chains of
    /// kvmnet's.
    fn leaves_something(&self) -> bool {
        false
    }

    /// Why a firewall that guests' packets go through could not be looked at by the last look.
    fn unread(&self) -> Option<String> {
        None
    }

    /// Waits until no other run in this network namespace is under way.
    ///
    /// # Errors
    /// [`LockError`](crate::LockError) where the lock can't be had.
    fn lock(&mut self) -> Result<Self::Lock, crate::LockError>;

    /// Looks at what attaching `tap` to the administrator's bridge needs to know.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    fn bridged_view(
        &mut self,
        tap: &InterfaceName,
        network: &BridgedNetwork,
    ) -> Result<BridgedView, KernelError>;

    /// Looks at what building `network`, and attaching `tap` to it, needs to know; `table` is the
    /// one it should have.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    fn managed_view(
        &mut self,
        tap: Option<&InterfaceName>,
        network: &ManagedNetwork,
        table: Option<&Table>,
    ) -> Result<ManagedView, KernelError>;

    /// Looks at what releasing `tap`, and clearing away what nobody uses, needs to know.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    fn release_view(
        &mut self,
        tap: Option<&InterfaceName>,
        known: &[NetworkName],
    ) -> Result<ReleaseView, KernelError>;

    /// Carries out one step. What was to be deleted and is gone counts as done.
    ///
    /// # Errors
    /// [`KernelError`] says which part of it failed and why.
    fn apply(&mut self, step: &Step) -> Result<(), KernelError>;
}
