//! What a run does: lock, look, plan, apply. The only module that sees both decisions and effects.
//!
//! There is one way back: a run that fails to attach its tap looks again and releases it, as the
//! downscript does. What that leaves, and what a killed run leaves, the next run clears away.

use log::{debug, error};

use crate::error::{Chain, Error};
use crate::kernel::{Kernel, KernelError};
use crate::model::{BridgedNetwork, InterfaceName, ManagedNetwork, Network, NetworkName, owner_of};
use crate::plan::{self, AttachPlan, Note, ReleasePlan, ReleaseScope};

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
    let scope = ReleaseScope::OursOr(Some(network));
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

/// Releases `tap` from its bridge, and takes down every network that nobody uses then.
///
/// # Errors
/// [`Error::Refused`], and nothing was changed; or [`Error::TakeDown`], and all that could be done
/// was.
pub fn down<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    scope: ReleaseScope<'_>,
    known: &[NetworkName],
) -> Result<Report, Error> {
    let _lock = kernel.lock()?;
    let plan = release(kernel, tap, scope, known)?;
    Ok(Report::Released { from: plan.released_from, taken_down: plan.taken_down })
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
    let view = kernel.release_view(Some(tap), known).map_err(|source| Error::Kernel {
        tap: tap.clone(),
        down: true,
        source,
    })?;
    let plan = plan::release(&view, tap, scope, known)?;
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
