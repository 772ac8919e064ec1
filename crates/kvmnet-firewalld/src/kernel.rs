//! A kernel with the zones of firewalld's: all else is the kernel's own.

use std::time::{Duration, Instant};

use kvmnet_core::LockError;
use kvmnet_core::kernel::{Kernel, KernelError};
use kvmnet_core::model::{
    BridgedNetwork, BridgedView, InterfaceName, ManagedNetwork, ManagedView, NetworkName,
    ReleaseView, Step, Table, ZoneName, ZoneView,
};

use crate::bus::BusError;
use crate::zones::{Zones, describe, failed};

/// How long a run may wait for firewalld altogether: less than others wait for the run.
const PATIENCE: Duration = Duration::from_secs(3);

/// A kernel, and firewalld where that runs.
pub struct Firewalld<K> {
    /// The kernel itself.
    pub inner: K,
    zones: Option<Zones>,
    /// How long this run has waited so far.
    waited: Duration,
}

impl<K> Firewalld<K> {
    /// Adds firewalld's zones to a kernel. Nobody is asked before it matters.
    pub fn new(kernel: K) -> Self {
        Self { inner: kernel, zones: None, waited: Duration::ZERO }
    }

    /// What zone an interface is in, where firewalld's rules are known to be there, and whether the
    /// one that is wanted is known.
    pub fn zone_of(&mut self, interface: &str, wanted: Option<&ZoneName>) -> ZoneView {
        let view = self.talk(|zones| zones.view(interface, wanted));
        view.unwrap_or_else(|error| ZoneView::Silent { why: describe(&error) })
    }

    fn talk<T>(
        &mut self,
        what: impl FnOnce(&mut Zones) -> Result<T, BusError>,
    ) -> Result<T, BusError> {
        let start = Instant::now();
        let deadline = start + PATIENCE.saturating_sub(self.waited);
        let result = self.connect(deadline).and_then(what);
        // What comes too late, or half, would be taken for the next answer.
        if !matches!(result, Ok(_) | Err(BusError::Refused { .. })) {
            self.zones = None;
        }
        self.waited += start.elapsed();
        result
    }

    fn connect(&mut self, deadline: Instant) -> Result<&mut Zones, BusError> {
        let zones = match &mut self.zones {
            Some(zones) => zones,
            empty => empty.insert(Zones::open(deadline)?),
        };
        zones.set_deadline(deadline);
        Ok(zones)
    }

    fn resolve(&mut self, view: &mut ZoneView, interface: &str, wanted: Option<&ZoneName>) {
        if *view == ZoneView::Unasked {
            *view = self.zone_of(interface, wanted);
        }
    }
}

impl<K: Kernel> Kernel for Firewalld<K> {
    type Lock = K::Lock;
    const HAS_IPTABLES: bool = K::HAS_IPTABLES;

    fn leaves_something(&self) -> bool {
        self.inner.leaves_something()
    }

    fn unread(&self) -> Option<String> {
        self.inner.unread()
    }

    fn lock(&mut self) -> Result<Self::Lock, LockError> {
        let lock = self.inner.lock()?;
        // Each run has its own time.
        (self.zones, self.waited) = (None, Duration::ZERO);
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
        self.talk(|zones| zones.apply(change)).map_err(|error| failed(change, &error))
    }
}
