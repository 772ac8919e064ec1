//! A kernel with the zones of firewalld's: all else is the kernel's own.

use std::time::{Duration, Instant};

use kvmnet_core::LockError;
use kvmnet_core::kernel::{Kernel, KernelError};
use kvmnet_core::model::{
    BridgedNetwork, BridgedView, InterfaceName, ManagedNetwork, ManagedView, NetworkName,
    ReleaseView, Step, Table, ZoneName, ZoneView,
};

use crate::zones::{Zones, describe};

/// How long a run may wait for firewalld altogether: less than others wait for the run.
const PATIENCE: Duration = Duration::from_secs(3);

/// A kernel, and firewalld where that runs.
pub struct Firewalld<K> {
    /// The kernel itself.
    pub inner: K,
    zones: Option<Zones>,
    /// When it is too late to go on waiting; set with the first question.
    deadline: Option<Instant>,
}

impl<K> Firewalld<K> {
    /// Adds firewalld's zones to a kernel. Nobody is asked before it matters.
    pub fn new(kernel: K) -> Self {
        Self { inner: kernel, zones: None, deadline: None }
    }

    /// What zone an interface is in, where firewalld's rules are known to be there, and whether the
    /// one that is wanted is known.
    pub fn zone_of(&mut self, interface: &str, wanted: Option<&ZoneName>) -> ZoneView {
        let view = match self.zones() {
            Ok(zones) => zones.view(interface, wanted),
            Err(error) => Err(error),
        };
        view.unwrap_or_else(|error| ZoneView::Silent { why: describe(&error) })
    }

    fn resolve(&mut self, view: &mut ZoneView, interface: &str, wanted: Option<&ZoneName>) {
        if *view == ZoneView::Unasked {
            *view = self.zone_of(interface, wanted);
        }
    }

    fn zones(&mut self) -> Result<&mut Zones, crate::bus::BusError> {
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        match &mut self.zones {
            Some(zones) => Ok(zones),
            empty => Ok(empty.insert(Zones::open(deadline)?)),
        }
    }
}

impl<K: Kernel> Kernel for Firewalld<K> {
    type Lock = K::Lock;
    const HAS_IPTABLES: bool = K::HAS_IPTABLES;

    fn leaves_something(&self) -> bool {
        self.inner.leaves_something()
    }

    fn lock(&mut self) -> Result<Self::Lock, LockError> {
        let lock = self.inner.lock()?;
        // Each run has its own time.
        (self.zones, self.deadline) = (None, None);
        Ok(lock)
    }

    fn bridged_view(
        &mut self,
        tap: &InterfaceName,
        network: &BridgedNetwork,
    ) -> Result<BridgedView, KernelError> {
        let mut view = self.inner.bridged_view(tap, network)?;
        if let Some(bridge) = view.named.as_ref().or(view.default_route.as_ref()) {
            let name = bridge.name.clone();
            self.resolve(&mut view.zone, &name, network.zone.as_ref());
        }
        Ok(view)
    }

    fn managed_view(
        &mut self,
        tap: Option<&InterfaceName>,
        network: &ManagedNetwork,
        table: Option<&Table>,
    ) -> Result<ManagedView, KernelError> {
        let mut view = self.inner.managed_view(tap, network, table)?;
        let wanted = network.wanted_zone();
        self.resolve(&mut view.zone, network.bridge.as_str(), wanted.as_ref());
        Ok(view)
    }

    fn release_view(
        &mut self,
        tap: Option<&InterfaceName>,
        known: &[NetworkName],
    ) -> Result<ReleaseView, KernelError> {
        let mut view = self.inner.release_view(tap, known)?;
        for bridge in &mut view.bridges {
            self.resolve(&mut bridge.zone, &bridge.link.name, None);
        }
        Ok(view)
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        let Step::Zone(change) = step else {
            return self.inner.apply(step);
        };
        let zones = self.zones().map_err(|error| KernelError::Firewalld {
            what: change.to_string(),
            problem: describe(&error),
        })?;
        zones.apply(change)
    }
}
