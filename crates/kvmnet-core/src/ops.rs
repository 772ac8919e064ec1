//! What a run does: lock, look, plan, apply. The only module that sees both decisions and effects.
//!
//! There is one way back: a run that fails to attach its tap looks again and releases it, as the
//! downscript does. What that leaves, and what a killed run leaves, the next run clears away.

use log::{debug, error};

use crate::error::{Chain, Error};
use crate::kernel::{Kernel, KernelError};
use crate::model::{
    BridgedNetwork, InterfaceName, ManagedNetwork, Network, NetworkName, ReleaseView, owner_of,
};
use crate::plan::{self, AttachPlan, Note, Refusal, ReleasePlan, ReleaseScope};

/// What a run has done, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The tap is a port of the bridge.
    Attached {
        /// The bridge.
        bridge: String,
        /// What else is worth telling.
        notes: Vec<Note>,
    },
    /// The tap is no port any more.
    Released {
        /// The bridge it was taken from; none where it was free or gone.
        from: Option<String>,
        /// The networks that nobody used any more.
        taken_down: Vec<NetworkName>,
    },
}

impl Report {
    fn released(plan: ReleasePlan) -> Self {
        Self::Released { from: plan.released_from, taken_down: plan.taken_down }
    }
}

/// Makes `tap` a port of `network`, which is built where it isn't there and repaired where
/// something of it is missing.
///
/// # Errors
/// [`Error`]; the tap is then no port, unless it was one before.
pub fn up<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    network: &Network,
    known: &[NetworkName],
) -> Result<Report, Error> {
    let _lock = kernel.lock()?;
    let plan = match network {
        Network::Managed(managed) => plan_managed(kernel, tap, managed)?,
        Network::Bridged(bridged) => plan_bridged(kernel, tap, bridged, known)?,
    };
    let scope = ReleaseScope::OursOr(std::slice::from_ref(network));
    for step in &plan.steps {
        debug!("{step}");
        if let Err(source) = kernel.apply(step) {
            if !plan.was_port {
                undo(kernel, tap, scope, known);
            }
            return Err(attaching(tap, source));
        }
    }
    Ok(Report::Attached { bridge: plan.bridge, notes: plan.notes })
}

/// Releases `tap` from kvmnet's bridge, or from one that natup attaches to for one of `networks`, and
/// takes down every network that nobody uses then. The networks are asked for once at the most, and
/// only where the bridge itself doesn't say that it is kvmnet's.
///
/// # Errors
/// [`Error::Refused`], and nothing was changed; or [`Error::TakeDown`], and all that could be done
/// was.
pub fn down<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    networks: impl FnOnce() -> Vec<Network>,
    known: &[NetworkName],
) -> Result<Report, Error> {
    let _lock = kernel.lock()?;
    let view = look(kernel, tap, known)?;
    let plan = match plan::release(&view, tap, ReleaseScope::OursOr(&[]), known) {
        Err(Refusal::PortOfForeign { .. }) => {
            plan::release(&view, tap, ReleaseScope::OursOr(&networks()), known)?
        }
        planned => planned?,
    };
    apply_release(kernel, tap, plan).map(Report::released)
}

/// As [`down`], but from whatever bridge.
///
/// # Errors
/// As [`down`].
pub fn down_from_any<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    known: &[NetworkName],
) -> Result<Report, Error> {
    let _lock = kernel.lock()?;
    let plan = release(kernel, tap, ReleaseScope::AnyBridge, known)?;
    Ok(Report::released(plan))
}

fn plan_managed<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    network: &ManagedNetwork,
) -> Result<AttachPlan, Error> {
    let table = plan::table_of(network);
    let view = kernel
        .managed_view(Some(tap), network, table.as_ref())
        .map_err(|source| attaching(tap, source))?;
    Ok(plan::attach_managed(&view, Some(tap), network)?)
}

fn plan_bridged<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    network: &BridgedNetwork,
    known: &[NetworkName],
) -> Result<AttachPlan, Error> {
    let mut view = kernel.bridged_view(tap, network).map_err(|source| attaching(tap, source))?;
    // What a killed VM left of a network of kvmnet's is not the administrator's bridge.
    if view.named.as_ref().is_some_and(|named| owner_of(named, known).is_some()) {
        sweep(kernel, tap, known)?;
        view = kernel.bridged_view(tap, network).map_err(|source| attaching(tap, source))?;
    }
    Ok(plan::attach_bridged(&view, tap, network, known)?)
}

fn sweep<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    known: &[NetworkName],
) -> Result<(), Error> {
    let view = kernel.release_view(None, known).map_err(|source| attaching(tap, source))?;
    let failures = apply_all(kernel, &plan::sweep(&view, known));
    failures.into_iter().next().map_or(Ok(()), |source| Err(attaching(tap, source)))
}

fn release<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    scope: ReleaseScope<'_>,
    known: &[NetworkName],
) -> Result<ReleasePlan, Error> {
    let view = look(kernel, tap, known)?;
    let plan = plan::release(&view, tap, scope, known)?;
    apply_release(kernel, tap, plan)
}

fn look<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    known: &[NetworkName],
) -> Result<ReleaseView, Error> {
    let failed = |source| Error::Kernel { tap: tap.clone(), down: true, source };
    kernel.release_view(Some(tap), known).map_err(failed)
}

fn apply_release<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    plan: ReleasePlan,
) -> Result<ReleasePlan, Error> {
    let failures = apply_all(kernel, &plan);
    if failures.is_empty() { Ok(plan) } else { Err(Error::TakeDown { tap: tap.clone(), failures }) }
}

/// Taking down goes on past what fails: the less is left, the better.
fn apply_all<K: Kernel>(kernel: &mut K, plan: &ReleasePlan) -> Vec<KernelError> {
    let mut failures = Vec::new();
    for step in &plan.steps {
        debug!("{step}");
        failures.extend(kernel.apply(step).err());
    }
    failures
}

fn undo<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    scope: ReleaseScope<'_>,
    known: &[NetworkName],
) {
    if let Err(failure) = release(kernel, tap, scope, known) {
        error!("{}", Chain(&failure));
    }
}

fn attaching(tap: &InterfaceName, source: KernelError) -> Error {
    Error::Kernel { tap: tap.clone(), down: false, source }
}
