//! The fake behind kvmnet's seam, for runs that nothing disturbs.

use kvmnet_core::Report;
use kvmnet_core::kernel::{Kernel, KernelError};
use kvmnet_core::model::{
    BridgedNetwork, BridgedView, InterfaceName, ManagedNetwork, ManagedView, NetworkName,
    ReleaseView, Step, Table,
};
use kvmnet_core::{Error, LockError};

use crate::{Actor, FakeHost};

/// A kernel whose only user is one run.
pub struct FakeKernel<'a> {
    /// The state it changes.
    pub host: &'a mut FakeHost,
    /// The steps it was told to carry out.
    pub steps: Vec<Step>,
}

impl<'a> FakeKernel<'a> {
    /// A kernel over `host`.
    #[must_use]
    pub fn new(host: &'a mut FakeHost) -> Self {
        Self { host, steps: Vec::new() }
    }
}

impl Kernel for FakeKernel<'_> {
    type Lock = ();
    const HAS_IPTABLES: bool = true;

    fn lock(&mut self) -> Result<(), LockError> {
        Ok(())
    }

    fn bridged_view(
        &mut self,
        tap: &InterfaceName,
        network: &BridgedNetwork,
    ) -> Result<BridgedView, KernelError> {
        Ok(self.host.bridged_view(tap, network))
    }

    fn managed_view(
        &mut self,
        tap: Option<&InterfaceName>,
        network: &ManagedNetwork,
        table: Option<&Table>,
    ) -> Result<ManagedView, KernelError> {
        Ok(self.host.managed_view(tap, network, table))
    }

    fn release_view(
        &mut self,
        tap: Option<&InterfaceName>,
        known: &[NetworkName],
    ) -> Result<ReleaseView, KernelError> {
        Ok(self.host.release_view(tap, known))
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        self.steps.push(step.clone());
        self.host.apply(step).map_err(|errno| KernelError::Refused {
            what: step.to_string(),
            errno,
            message: None,
        })
    }
}

/// One ordinary run; its result, and how many steps it took.
pub fn run(host: &mut FakeHost, actor: &Actor) -> (Result<Report, Error>, usize) {
    let mut kernel = FakeKernel::new(host);
    let result = actor.run(&mut kernel);
    (result, kernel.steps.len())
}
