//! The kernel with all that `kvmnet` can tell, and no helper carries about.

use kvmnet_core::kernel::KernelError;
use kvmnet_firewalld::Firewalld;
use kvmnet_iptables::Iptables;

/// The kernel, the tables of iptables, and firewalld's zones.
pub type Whole = Firewalld<Iptables>;

/// Opens the network namespace that the process is in.
///
/// # Errors
/// [`KernelError`] where the kernel has no rtnetlink to offer.
pub fn open() -> Result<Whole, KernelError> {
    Ok(Firewalld::new(Iptables::open()?))
}
