//! What a run does: lock, look, plan, apply. The only module that sees both decisions and effects.
//!
//! There is one way back: a run that fails to attach its tap looks again and releases it, as the
//! downscript does. What that leaves, and what a killed run leaves, the next run clears away.

use log::{debug, error};

use crate::error::{Chain, Error, Goal};
use crate::kernel::{Kernel, KernelError};
use crate::model::{
    BridgedNetwork, Firewall, InterfaceName, Link, LinkChange, ManagedNetwork, ManagedView,
    Network, NetworkName, ReleaseView, Step, TableId, Variant, owner_of,
};
use crate::plan::{
    self, AttachPlan, Note, Purpose, Refusal, ReleasePlan, ReleaseScope, TakeDownPlan,
};
use crate::report::Report;

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
    let goal = Goal::Attach(tap);
    let plan = match network {
        Network::Managed(managed) => plan_managed(kernel, Purpose::Guest(tap), managed, goal)?,
        Network::Bridged(bridged) => plan_bridged(kernel, tap, bridged, known)?,
    };
    let is_left_alone = |managed: &ManagedNetwork| {
        managed.firewall == Firewall::None && managed.wanted_zone().is_none()
    };
    let mut notes = plan.notes;
    if matches!(network, Network::Managed(managed) if is_left_alone(managed)) {
        require_iptables(kernel, &plan.steps, goal)?;
    } else {
        require_whole(kernel, &plan.steps, goal)?;
        notes.extend(kernel.unread().map(|why| Note::MayNotAccept { why }));
    }
    if let Err(source) = apply_until_one_fails(kernel, &plan.steps, &mut notes) {
        if !plan.was_done {
            let scope = ReleaseScope::OursOr(std::slice::from_ref(network));
            report_failure(undo(kernel, tap, scope, known, lifts(&plan.steps)));
        }
        return Err(goal.failed(source));
    }
    Ok(Report::Attached { bridge: plan.bridge, notes })
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
    require_whole(kernel, &plan.steps, Goal::Release(tap))?;
    apply_release(kernel, tap, plan).map(released)
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
    let view = look(kernel, tap, known)?;
    let plan = plan::release(&view, tap, ReleaseScope::AnyBridge, known)?;
    require_whole(kernel, &plan.steps, Goal::Release(tap))?;
    apply_release(kernel, tap, plan).map(released)
}

/// Brings `network` up, built or repaired as for a tap, to stay until [`unpin`] takes it down.
///
/// # Errors
/// [`Error`]; the network is then as it was before, except for repairs that were made.
pub fn pin<K: Kernel>(
    kernel: &mut K,
    network: &ManagedNetwork,
    known: &[NetworkName],
) -> Result<Report, Error> {
    let _lock = kernel.lock()?;
    let goal = Goal::Build(&network.name);
    let plan = plan_managed(kernel, Purpose::Pinned, network, goal)?;
    let mut notes = plan.notes;
    if network.firewall != Firewall::None {
        notes.extend(kernel.unread().map(|why| Note::MayNotAccept { why }));
    }
    if let Err(source) = apply_until_one_fails(kernel, &plan.steps, &mut notes) {
        if !plan.was_done {
            report_failure(take_down(kernel, &network.name, known));
        }
        return Err(goal.failed(source));
    }
    Ok(Report::Pinned { bridge: plan.bridge, was_pinned: plan.was_done, notes })
}

/// Takes `network` down, or, where somebody uses it, leaves that to its last guest.
///
/// # Errors
/// [`Error::TakeDown`], and all that could be done was.
pub fn unpin<K: Kernel>(
    kernel: &mut K,
    network: &NetworkName,
    known: &[NetworkName],
) -> Result<Report, Error> {
    let _lock = kernel.lock()?;
    let plan = take_down(kernel, network, known)?;
    Ok(Report::TakenDown { networks: plan.taken_down, in_use: plan.in_use })
}

/// Takes down every network that nobody uses: what a killed VM has left.
///
/// # Errors
/// [`Error::TakeDown`], and all that could be done was.
pub fn collect<K: Kernel>(kernel: &mut K, known: &[NetworkName]) -> Result<Report, Error> {
    let _lock = kernel.lock()?;
    let plan = plan_collect(kernel, known)?;
    Goal::Sweep.done_unless(apply_all(kernel, &plan.steps))?;
    let is_left_over = |table: &&TableId| {
        table.network().is_none_or(|network| !plan.taken_down.contains(&network))
    };
    let deleted = plan.steps.iter().filter_map(|step| match step {
        Step::DeleteTable(table) => Some(table),
        _ => None,
    });
    let tables = deleted.filter(is_left_over).cloned().collect();
    let accepts = plan.steps.iter().map(|step| match step {
        Step::Accepts(change) => change.delete.len(),
        _ => 0,
    });
    Ok(Report::Collected { networks: plan.taken_down, tables, accepts: accepts.sum() })
}

/// Puts back what is missing of `network`, if it is up; none where it isn't.
///
/// # Errors
/// [`Error`]: something is in the way, or could not be put back.
pub fn repair<K: Kernel>(
    kernel: &mut K,
    network: &ManagedNetwork,
) -> Result<Option<Report>, Error> {
    let _lock = kernel.lock()?;
    let goal = Goal::Repair(&network.name);
    let view = view_of(kernel, Purpose::Repair, network, goal)?;
    if !plan::is_up(&view, network) {
        return Ok(None);
    }
    let plan = plan::attach_managed(&view, Purpose::Repair, network)?;
    repaired(kernel, &plan.steps, plan.notes, goal).map(Some)
}

/// Puts back what the guests on an administrator's bridge need of the host's own firewall, if `tap`
/// is one of them still; none where it isn't. The tap stays as it is.
///
/// # Errors
/// [`Error`]: something is in the way, or could not be put back.
pub fn repair_bridged<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    network: &BridgedNetwork,
    known: &[NetworkName],
) -> Result<Option<Report>, Error> {
    let _lock = kernel.lock()?;
    let Some(plan) = plan_repair_bridged(kernel, tap, network, known)? else { return Ok(None) };
    repaired(kernel, &plan.steps, plan.notes, Goal::RepairBridge(&network.bridge)).map(Some)
}

/// The steps that [`repair_bridged`] would take now; none where the tap isn't on that bridge.
///
/// # Errors
/// As [`repair_bridged`].
pub fn plan_repair_bridged<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    network: &BridgedNetwork,
    known: &[NetworkName],
) -> Result<Option<AttachPlan>, Error> {
    let goal = Goal::RepairBridge(&network.bridge);
    let view = kernel.bridged_view(tap, network).map_err(|source| goal.failed(source))?;
    let bridge = view.named.as_ref().map(|bridge| bridge.index);
    let master = view.tap.link.as_ref().and_then(|link| link.master);
    if bridge.is_none() || master != bridge {
        return Ok(None);
    }
    let plan = plan::attach_bridged(&view, tap, network, known)?;
    let is_of_firewalls = |step: &Step| matches!(step, Step::Accepts(_) | Step::Zone(_));
    Ok(Some(AttachPlan { steps: plan.steps.into_iter().filter(is_of_firewalls).collect(), ..plan }))
}

fn repaired<K: Kernel>(
    kernel: &mut K,
    steps: &[Step],
    mut notes: Vec<Note>,
    goal: Goal<'_>,
) -> Result<Report, Error> {
    let mut zone = Ok(());
    for step in steps {
        debug!("{step}");
        match kernel.apply(step) {
            // The network's own damage doesn't wait for another firewall.
            Err(error) if matches!(step, Step::Zone(_)) => zone = Err(error),
            applied => applied.map_err(|source| goal.failed(source))?,
        }
    }
    zone.map_err(|source| goal.failed(source))?;
    notes.retain(|note| matches!(note, Note::NotInZone { .. }));
    Ok(Report::Repaired { steps: steps.iter().map(ToString::to_string).collect(), notes })
}

/// The steps that a run for this purpose would take now.
///
/// # Errors
/// Those that the run itself would meet before its first step.
pub fn plan_up<K: Kernel>(
    kernel: &mut K,
    purpose: Purpose<'_>,
    network: &ManagedNetwork,
) -> Result<AttachPlan, Error> {
    let goal = purpose.tap().map_or(Goal::Build(&network.name), Goal::Attach);
    plan_managed(kernel, purpose, network, goal)
}

/// What [`unpin`] would do now.
///
/// # Errors
/// [`Error::Kernel`] where the kernel doesn't answer.
pub fn plan_down<K: Kernel>(
    kernel: &mut K,
    network: &NetworkName,
    known: &[NetworkName],
) -> Result<TakeDownPlan, Error> {
    let view = kernel
        .release_view(None, known)
        .map_err(|source| Goal::TakeDown(network).failed(source))?;
    Ok(plan::take_down(&view, network, known))
}

/// What [`collect`] would do now.
///
/// # Errors
/// [`Error::Kernel`] where the kernel doesn't answer.
pub fn plan_collect<K: Kernel>(
    kernel: &mut K,
    known: &[NetworkName],
) -> Result<TakeDownPlan, Error> {
    let view = kernel.release_view(None, known).map_err(|source| Goal::Sweep.failed(source))?;
    Ok(plan::sweep(&view, known))
}

fn plan_managed<K: Kernel>(
    kernel: &mut K,
    purpose: Purpose<'_>,
    network: &ManagedNetwork,
    goal: Goal<'_>,
) -> Result<AttachPlan, Error> {
    let view = view_of(kernel, purpose, network, goal)?;
    Ok(plan::attach_managed(&view, purpose, network)?)
}

fn view_of<K: Kernel>(
    kernel: &mut K,
    purpose: Purpose<'_>,
    network: &ManagedNetwork,
    goal: Goal<'_>,
) -> Result<ManagedView, Error> {
    let table = plan::table_of(network);
    kernel
        .managed_view(purpose.tap(), network, table.as_ref())
        .map_err(|source| goal.failed(source))
}

fn plan_bridged<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    network: &BridgedNetwork,
    known: &[NetworkName],
) -> Result<AttachPlan, Error> {
    let goal = Goal::Attach(tap);
    let mut view = kernel.bridged_view(tap, network).map_err(|source| goal.failed(source))?;
    // What a killed VM left of a network of kvmnet's is not the administrator's bridge.
    if view.named.as_ref().is_some_and(|named| owner_of(named, known).is_some()) {
        let leftovers = kernel.release_view(None, known).map_err(|source| goal.failed(source))?;
        let sweep = plan::sweep(&leftovers, known);
        require_whole(kernel, &sweep.steps, goal)?;
        let failures = apply_all(kernel, &sweep.steps);
        if let Some(source) = failures.into_iter().next() {
            return Err(goal.failed(source));
        }
        view = kernel.bridged_view(tap, network).map_err(|source| goal.failed(source))?;
    }
    Ok(plan::attach_bridged(&view, tap, network, known)?)
}

fn take_down<K: Kernel>(
    kernel: &mut K,
    network: &NetworkName,
    known: &[NetworkName],
) -> Result<TakeDownPlan, Error> {
    let plan = plan_down(kernel, network, known)?;
    Goal::TakeDown(network).done_unless(apply_all(kernel, &plan.steps))?;
    Ok(plan)
}

/// The way back: what was begun is undone. What there is in iptables, of others or of a run before, waits
/// for the next program that can work on that where this one can't.
fn undo<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    scope: ReleaseScope<'_>,
    known: &[NetworkName],
    lifted: bool,
) -> Result<ReleasePlan, Error> {
    let mut view = look(kernel, tap, known)?;
    if !K::HAS_IPTABLES {
        let is_left = |link: &Link| owner_of(link, known).is_some_and(|mark| mark.iptables);
        let master = view.tap.as_ref().and_then(|tap| tap.master);
        view.bridges.retain(|bridge| Some(bridge.link.index) == master || !is_left(&bridge.link));
        view.tables.retain(|table| !table.is_in_iptables());
        view.filters.retain(|filter| filter.variant != Variant::Legacy);
    }
    let mut plan = plan::release(&view, tap, scope, known)?;
    let is_left_up = |link: &&Link| lifted && link.up && link.master.is_none();
    if let Some(link) = view.tap.as_ref().filter(is_left_up) {
        let down = LinkChange::ReleaseTap { index: link.index, tap: tap.clone() };
        plan.steps.insert(0, Step::Links(vec![down]));
    }
    apply_release(kernel, tap, plan)
}

/// Whether the steps set a tap up that was down.
fn lifts(steps: &[Step]) -> bool {
    let lifts = |change: &LinkChange| matches!(change, LinkChange::AttachTap { was_up: false, .. });
    steps.iter().any(|step| matches!(step, Step::Links(changes) if changes.iter().any(lifts)))
}

/// Nothing is begun that this program can't bring to its end.
fn require_whole<K: Kernel>(kernel: &K, steps: &[Step], goal: Goal<'_>) -> Result<(), Error> {
    require_iptables(kernel, steps, goal)?;
    if kernel.leaves_something() {
        return Err(goal.needs_kvmnet(true));
    }
    Ok(())
}

fn require_iptables<K: Kernel>(_: &K, steps: &[Step], goal: Goal<'_>) -> Result<(), Error> {
    let mut of_iptables = steps.iter().filter(|step| step.is_of_iptables()).peekable();
    if K::HAS_IPTABLES || of_iptables.peek().is_none() {
        return Ok(());
    }
    // A guest is worth more than its way through another firewall.
    let is_optional = of_iptables.all(|step| matches!(step, Step::Accepts(_)));
    Err(goal.needs_kvmnet(is_optional))
}

fn look<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    known: &[NetworkName],
) -> Result<ReleaseView, Error> {
    kernel.release_view(Some(tap), known).map_err(|source| Goal::Release(tap).failed(source))
}

fn apply_release<K: Kernel>(
    kernel: &mut K,
    tap: &InterfaceName,
    plan: ReleasePlan,
) -> Result<ReleasePlan, Error> {
    Goal::Release(tap).done_unless(apply_all(kernel, &plan.steps))?;
    Ok(plan)
}

/// A guest is worth more than its way through another firewall: what fails there is told.
fn apply_until_one_fails<K: Kernel>(
    kernel: &mut K,
    steps: &[Step],
    notes: &mut Vec<Note>,
) -> Result<(), KernelError> {
    for step in steps {
        debug!("{step}");
        match (kernel.apply(step), step) {
            (Ok(()), _) => {}
            (Err(error), Step::Accepts(_)) => {
                notes.retain(|note| !matches!(note, Note::Accepts { .. }));
                notes.push(Note::NotAccepted { why: Chain(&error).to_string() });
            }
            (Err(error), Step::Zone(_)) => {
                notes.retain(|note| !matches!(note, Note::InZone { .. }));
                notes.push(Note::NotInZone { why: Chain(&error).to_string() });
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(())
}

/// Taking down goes on past what fails: the less is left, the better. But a bridge whose name
/// firewalld still has stays, so that the next run finds what is left to do.
fn apply_all<K: Kernel>(kernel: &mut K, steps: &[Step]) -> Vec<KernelError> {
    let mut failures = Vec::new();
    let mut in_zones = Vec::new();
    for step in steps {
        if deletes_one_of(step, &in_zones) {
            continue;
        }
        debug!("{step}");
        if let Err(error) = kernel.apply(step) {
            failures.push(error);
            if let Step::Zone(change) = step {
                in_zones.push(change.bridge.as_str());
            }
        }
    }
    failures
}

fn deletes_one_of(step: &Step, bridges: &[&str]) -> bool {
    let deletes = |change: &LinkChange| match change {
        LinkChange::DeleteBridge { name, .. } => bridges.contains(&name.as_str()),
        _ => false,
    };
    matches!(step, Step::Links(changes) if changes.iter().any(deletes))
}

/// Undoing is the second thing that went wrong; the first is what the run answers.
fn report_failure<T>(undone: Result<T, Error>) {
    if let Err(failure) = undone {
        error!("{}", Chain(&failure));
    }
}

fn released(plan: ReleasePlan) -> Report {
    Report::Released { from: plan.released_from, taken_down: plan.taken_down }
}
