//! Runs several helpers in every interleaving of their calls to the kernel, with crashes, errors
//! and events in between, and shows every state on the way to a check.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::rc::Rc;

use kvmnet_core::model::{LinkKind, Step};
use nix::errno::Errno;

use crate::actor::{Answer, Call, Progress};
use crate::{Actor, FakeHost};

/// How many disturbances one history may have. Every interleaving is explored in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Runs that are killed.
    pub crashes: u8,
    /// Calls that fail, with or without having been carried out.
    pub errors: u8,
    /// Things that happen from outside.
    pub events: u8,
}

/// What happens from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The program that holds a tap is gone, and the tap with it.
    TapVanishes,
    /// `nft flush ruleset`.
    RulesetFlushed,
    /// `firewall-cmd --reload`.
    FirewalldReloaded,
}

/// One state on the way.
pub struct Moment<'a> {
    /// The network namespace.
    pub host: &'a FakeHost,
    /// How far each run has come.
    pub outcomes: Vec<Outcome>,
    /// The disturbances so far.
    pub disturbances: Bounds,
    /// Whether somebody has flushed the ruleset.
    pub flushed: bool,
    /// What else has happened.
    pub happened: &'a [&'static str],
    trail: &'a Trail,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has not ended.
    UnderWay,
    /// It returned success.
    Succeeded,
    /// It returned an error.
    Failed,
    /// It was killed.
    Killed,
}

impl Moment<'_> {
    /// Whether every run has ended.
    #[must_use]
    pub fn quiet(&self) -> bool {
        !self.outcomes.contains(&Outcome::UnderWay)
    }

    /// Whether nothing has been killed, failed or happened from outside.
    #[must_use]
    pub fn undisturbed(&self) -> bool {
        self.disturbances == Bounds::default()
    }

    /// How this state came about, a line a call.
    #[must_use]
    pub fn history(&self) -> String {
        let mut lines = Vec::new();
        let mut at = self.trail.0.as_deref();
        while let Some((line, before)) = at {
            lines.push(format!("  {line}"));
            at = before.0.as_deref();
        }
        lines.reverse();
        lines.join("\n")
    }
}

#[derive(Clone, Default)]
struct Trail(Option<Rc<(String, Trail)>>);

impl Trail {
    fn then(&self, line: String) -> Self {
        Self(Some(Rc::new((line, self.clone()))))
    }
}

/// How much was explored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Different states.
    pub states: usize,
    /// Ways from one state to another.
    pub transitions: usize,
    /// The longest history, in calls, crashes and events.
    pub depth: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Run {
    UnderWay(Vec<Answer>),
    Returned(bool),
    Killed,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    host: FakeHost,
    locked_by: Option<usize>,
    runs: Vec<Run>,
    used: Bounds,
    flushed: bool,
    happened: Vec<&'static str>,
}

/// What can happen to a host from outside: each with what the host is then.
pub type Happenings<'a> = &'a dyn Fn(&FakeHost) -> Vec<(&'static str, FakeHost)>;

/// Explores what several runs can do to a host.
pub struct Explorer<'a> {
    actors: &'a [Actor],
    bounds: Bounds,
    happenings: Option<Happenings<'a>>,
    seen: HashSet<u128>,
    todo: Vec<(State, Trail, usize)>,
    statistics: Statistics,
}

impl<'a> Explorer<'a> {
    /// Visits every state that `actors` can bring `host` to, and shows each to `check`.
    pub fn explore(
        host: &FakeHost,
        actors: &'a [Actor],
        bounds: Bounds,
        mut check: impl FnMut(&Moment<'_>),
    ) -> Statistics {
        Self::explore_until(host, actors, bounds, None, |moment| {
            check(moment);
            ControlFlow::Continue(())
        })
    }

    /// The same, until `check` breaks it off; where there are `happenings`, these are what happens from
    /// outside, in place of the usual.
    pub fn explore_until(
        host: &FakeHost,
        actors: &'a [Actor],
        bounds: Bounds,
        happenings: Option<Happenings<'a>>,
        mut check: impl FnMut(&Moment<'_>) -> ControlFlow<()>,
    ) -> Statistics {
        let mut explorer = Self {
            actors,
            bounds,
            happenings,
            seen: HashSet::new(),
            todo: Vec::new(),
            statistics: Statistics::default(),
        };
        let start = State {
            host: host.clone(),
            locked_by: None,
            runs: actors.iter().map(|_| Run::UnderWay(Vec::new())).collect(),
            used: Bounds::default(),
            flushed: false,
            happened: Vec::new(),
        };
        explorer.visit(start, Trail::default(), 0);
        while let Some((state, trail, depth)) = explorer.todo.pop() {
            if check(&state.moment(&trail)).is_break() {
                break;
            }
            explorer.successors(&state, &trail, depth + 1);
        }
        explorer.statistics
    }

    fn visit(&mut self, state: State, trail: Trail, depth: usize) {
        self.statistics.transitions += usize::from(depth > 0);
        if self.seen.insert(fingerprint(&state)) {
            self.statistics.states += 1;
            self.statistics.depth = self.statistics.depth.max(depth);
            self.todo.push((state, trail, depth));
        }
    }

    fn successors(&mut self, state: &State, trail: &Trail, depth: usize) {
        for actor in 0..self.actors.len() {
            if let Run::UnderWay(answers) = &state.runs[actor] {
                self.advance(state, trail, depth, actor, answers);
            }
        }
        if state.used.events < self.bounds.events {
            self.events(state, trail, depth);
        }
    }

    fn advance(
        &mut self,
        state: &State,
        trail: &Trail,
        depth: usize,
        actor: usize,
        answers: &[Answer],
    ) {
        let who = &self.actors[actor];
        let name = format!("{:?} {}", who.verb, who.tap);
        let (call, locked) = match who.after(answers) {
            Progress::Calls { call, locked } => (call, locked),
            Progress::Returned { succeeded } => {
                let mut next = state.clone();
                next.end(actor, Run::Returned(succeeded));
                let line = format!("{name}: returns, {}", if succeeded { "0" } else { "1" });
                return self.visit(next, trail.then(line), depth);
            }
        };
        let mut state = state.clone();
        if !locked && state.locked_by == Some(actor) {
            state.locked_by = None;
        }
        if state.used.crashes < self.bounds.crashes {
            let mut next = state.clone();
            next.used.crashes += 1;
            next.end(actor, Run::Killed);
            self.visit(next, trail.then(format!("{name}: killed before {call:?}")), depth);
        }
        if matches!(call, Call::Lock) && state.locked_by.is_some() {
            return;
        }
        let mut next = state.clone();
        let answer = next.carry_out(&call, actor);
        next.answer(actor, answer);
        self.visit(next, trail.then(format!("{name}: {call:?}")), depth);
        if state.used.errors < self.bounds.errors && !matches!(call, Call::Lock) {
            self.fail(&state, trail, depth, actor, &call);
        }
    }

    /// The call fails, once without effect and once with its whole effect.
    fn fail(&mut self, state: &State, trail: &Trail, depth: usize, actor: usize, call: &Call) {
        let who = &self.actors[actor];
        for carried_out in [false, true] {
            if carried_out && !matches!(call, Call::Apply(_)) {
                continue;
            }
            let mut next = state.clone();
            next.used.errors += 1;
            if carried_out {
                next.carry_out(call, actor);
            }
            next.answer(actor, Answer::Failed(Errno::ENOBUFS as i32));
            let how = if carried_out { "fails, though carried out" } else { "fails" };
            let line = format!("{:?} {}: {call:?} {how}", who.verb, who.tap);
            self.visit(next, trail.then(line), depth);
        }
    }

    fn events(&mut self, state: &State, trail: &Trail, depth: usize) {
        if let Some(happenings) = self.happenings {
            for (what, host) in happenings(&state.host) {
                let mut next = State { host, ..state.clone() };
                next.used.events += 1;
                next.happened.push(what);
                self.visit(next, trail.then(what.to_owned()), depth);
            }
            return;
        }
        let taps =
            state.host.links.values().filter(|link| matches!(link.kind, LinkKind::Tap { .. }));
        for tap in taps {
            let mut next = state.clone();
            next.used.events += 1;
            next.host.remove_link(tap.index);
            self.visit(next, trail.then(format!("{:?}: {}", Event::TapVanishes, tap.name)), depth);
        }
        if !state.host.tables.is_empty() {
            let mut next = state.clone();
            next.used.events += 1;
            next.flushed = true;
            next.host.flush_ruleset();
            self.visit(next, trail.then(format!("{:?}", Event::RulesetFlushed)), depth);
        }
        if state.host.zones.as_ref().is_some_and(|zones| !zones.is_empty()) {
            let mut next = state.clone();
            next.used.events += 1;
            next.host.reload_firewalld();
            self.visit(next, trail.then(format!("{:?}", Event::FirewalldReloaded)), depth);
        }
    }
}

impl Run {
    fn outcome(&self) -> Outcome {
        match self {
            Self::UnderWay(_) => Outcome::UnderWay,
            Self::Returned(true) => Outcome::Succeeded,
            Self::Returned(false) => Outcome::Failed,
            Self::Killed => Outcome::Killed,
        }
    }
}

impl State {
    fn carry_out(&mut self, call: &Call, actor: usize) -> Answer {
        match call {
            Call::Lock => {
                self.locked_by = Some(actor);
                Answer::Locked
            }
            Call::BridgedView(tap, network) => {
                Answer::Bridged(Box::new(self.host.bridged_view(tap, network)))
            }
            Call::ManagedView(tap, network, table) => Answer::Managed(Box::new(
                self.host.managed_view(tap.as_ref(), network, table.as_ref()),
            )),
            Call::ReleaseView(tap, known) => {
                Answer::Release(Box::new(self.host.release_view(tap.as_ref(), known)))
            }
            Call::Apply(step) => self.apply(step),
        }
    }

    fn apply(&mut self, step: &Step) -> Answer {
        match self.host.apply(step) {
            Ok(()) => Answer::Applied,
            Err(errno) => Answer::Failed(errno as i32),
        }
    }

    fn answer(&mut self, actor: usize, answer: Answer) {
        if let Run::UnderWay(answers) = &mut self.runs[actor] {
            answers.push(answer);
        }
    }

    /// However a run ends, the kernel frees its lock.
    fn end(&mut self, actor: usize, run: Run) {
        self.runs[actor] = run;
        if self.locked_by == Some(actor) {
            self.locked_by = None;
        }
    }

    fn moment<'a>(&'a self, trail: &'a Trail) -> Moment<'a> {
        Moment {
            host: &self.host,
            outcomes: self.runs.iter().map(Run::outcome).collect(),
            disturbances: self.used,
            flushed: self.flushed,
            happened: &self.happened,
            trail,
        }
    }
}

/// Two independent 64-bit hashes: with a million states the odds that two share both are below
/// one in 10^26.
fn fingerprint(state: &State) -> u128 {
    let half = |seed: u64| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        state.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    (half(1) << 64) | half(2)
}
