//! Mistakes that a program like this is prone to, around the real code: an explorer that doesn't find
//! them would find nothing.

use kvmnet_core::LockError;
use kvmnet_core::kernel::{Kernel, KernelError};
use kvmnet_core::model::{
    BridgeRepair, BridgeView, BridgedNetwork, BridgedView, InterfaceName, Link, LinkChange,
    LinkKind, ManagedNetwork, ManagedView, Mark, Network, NetworkName, ReleaseView, Step, Table,
};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A bridge is taken for ours by its name.
    MarkByName,
    /// What was seen before the lock was had isn't looked at again.
    SkippedRecheck,
    /// The lock is let go of before the first change.
    UnlockBeforeApply,
    /// Guests are counted, and the ports not looked at.
    Counter,
}

/// An MTU of this many bytes is a count of nought: the kernel's only number on a bridge that nothing else
/// here asks for.
const NOUGHT: u32 = 1500;

/// A kernel as a program with a mistake sees and uses it.
pub(crate) struct Mistaken<'a, K: Kernel> {
    inner: &'a mut K,
    bug: Bug,
    network: &'a Network,
    lock: Option<K::Lock>,
}

impl<'a, K: Kernel> Mistaken<'a, K> {
    pub fn new(inner: &'a mut K, bug: Bug, network: &'a Network) -> Self {
        Self { inner, bug, network, lock: None }
    }

    fn lock_late(&mut self) {
        if self.bug == Bug::SkippedRecheck && self.lock.is_none() {
            self.lock = self.inner.lock().ok();
        }
    }

    fn see(&self, bridge: &mut Link) {
        let Network::Managed(network) = self.network else { return };
        if bridge.name != network.bridge.as_str() {
            return;
        }
        match self.bug {
            Bug::MarkByName => bridge.alias = Mark::of(&network.name).to_string(),
            Bug::Counter => bridge.mtu = NOUGHT,
            Bug::SkippedRecheck | Bug::UnlockBeforeApply => {}
        }
    }

    /// As many ports as were counted, whoever they are.
    fn count(&self, bridge: &mut BridgeView) {
        let guests = bridge.link.mtu.saturating_sub(NOUGHT);
        let guest = |number| Link {
            index: 1000 + number,
            kind: LinkKind::Tap { persistent: false },
            master: Some(bridge.link.index),
            ..bridge.link.clone()
        };
        // One of them is the tap that leaves.
        bridge.ports = (1..guests).map(guest).collect();
    }

    fn add_to_count(&mut self, bridge: u32, name: &str, count: i32) -> Result<(), KernelError> {
        let Network::Managed(network) = self.network else { return Ok(()) };
        let view = self.inner.managed_view(None, network, None)?;
        let mtu = view.bridge.map_or(NOUGHT, |bridge| bridge.mtu);
        let mtu = mtu.saturating_add_signed(count).max(NOUGHT);
        let repair = BridgeRepair { mtu: Some(mtu), ..BridgeRepair::default() };
        let change = LinkChange::RepairBridge { index: bridge, name: name.to_owned(), repair };
        self.inner.apply(&Step::Links(vec![change]))
    }

    fn keep_count(&mut self, step: &Step) -> Result<(), KernelError> {
        let Step::Links(changes) = step else { return Ok(()) };
        for change in changes {
            match change {
                LinkChange::AttachTap { master, bridge, .. } => {
                    self.add_to_count(*master, bridge, 1)?;
                }
                LinkChange::ReleaseTap { .. } => {
                    let Network::Managed(network) = self.network else { continue };
                    let view = self.inner.managed_view(None, network, None)?;
                    if let Some(bridge) = view.bridge {
                        self.add_to_count(bridge.index, &bridge.name, -1)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl<K: Kernel> Kernel for Mistaken<'_, K> {
    type Lock = ();
    const HAS_IPTABLES: bool = K::HAS_IPTABLES;

    fn lock(&mut self) -> Result<(), LockError> {
        if self.bug != Bug::SkippedRecheck {
            self.lock = Some(self.inner.lock()?);
        }
        Ok(())
    }

    fn bridged_view(
        &mut self,
        tap: &InterfaceName,
        network: &BridgedNetwork,
    ) -> Result<BridgedView, KernelError> {
        let view = self.inner.bridged_view(tap, network);
        self.lock_late();
        view
    }

    fn managed_view(
        &mut self,
        tap: Option<&InterfaceName>,
        network: &ManagedNetwork,
        table: Option<&Table>,
    ) -> Result<ManagedView, KernelError> {
        let mut view = self.inner.managed_view(tap, network, table)?;
        self.lock_late();
        if let Some(bridge) = &mut view.bridge {
            self.see(bridge);
        }
        Ok(view)
    }

    fn release_view(
        &mut self,
        tap: Option<&InterfaceName>,
        known: &[NetworkName],
    ) -> Result<ReleaseView, KernelError> {
        let mut view = self.inner.release_view(tap, known)?;
        self.lock_late();
        for bridge in &mut view.bridges {
            if self.bug == Bug::Counter {
                self.count(bridge);
            }
            self.see(&mut bridge.link);
        }
        Ok(view)
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        if self.bug == Bug::UnlockBeforeApply {
            self.lock = None;
        }
        self.inner.apply(step)?;
        if self.bug == Bug::Counter {
            self.keep_count(step)?;
        }
        Ok(())
    }
}
