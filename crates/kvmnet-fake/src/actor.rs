//! A run of a helper that can be stopped before any of its calls to the kernel and gone on with.
//!
//! kvmnet's operations are deterministic in what the kernel answers. So a run is its answers so
//! far: to learn its next call, the real code runs from its beginning, is given those answers, and
//! is unwound when it asks for one more.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use kvmnet_core::kernel::{Kernel, KernelError};
use kvmnet_core::model::{
    BridgedNetwork, BridgedView, InterfaceName, ManagedNetwork, ManagedView, Network, NetworkName,
    ReleaseView, Step, Table,
};
use kvmnet_core::ops;
use kvmnet_core::{Error, LockError, Report, config};
use nix::errno::Errno;

use crate::bug::{Bug, Mistaken};

/// What a helper does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `kvmnet-ifup`
    Ifup,
    /// `kvmnet-ifdown`
    Ifdown,
    /// `kvmnet-natup`
    Natup,
    /// `kvmnet-natdown`
    Natdown,
    /// `kvmnet up`
    Up,
    /// `kvmnet down`
    Down,
    /// `kvmnet gc`
    Gc,
    /// `kvmnet reload`, of this network
    Reload,
}

/// One run of a helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// What it does.
    pub verb: Verb,
    /// To which tap.
    pub tap: InterfaceName,
    /// The network that natup is asked for.
    pub network: Network,
    /// What other networks there are files of.
    pub others: Vec<NetworkName>,
    /// A mistake that the program is to have, so that it can be found.
    pub bug: Option<Bug>,
}

/// A call to the kernel.
#[derive(Clone)]
pub(crate) enum Call {
    Lock,
    BridgedView(InterfaceName, BridgedNetwork),
    ManagedView(Option<InterfaceName>, ManagedNetwork, Option<Table>),
    ReleaseView(Option<InterfaceName>, Vec<NetworkName>),
    Apply(Step),
}

/// As a line of a history.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock => f.write_str("Lock"),
            Self::BridgedView(tap, network) => write!(f, "Look at {tap} and {}", network.bridge),
            Self::ManagedView(tap, network, _) => {
                let tap = tap.as_ref().map_or("no tap", InterfaceName::as_str);
                write!(f, "Look at {tap} and network {}", network.name)
            }
            Self::ReleaseView(tap, _) => {
                let tap = tap.as_ref().map_or("no tap", InterfaceName::as_str);
                write!(f, "Look at {tap} and all networks")
            }
            Self::Apply(step) => write!(f, "Apply: {step}"),
        }
    }
}

/// What the kernel answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Locked,
    Bridged(Box<BridgedView>),
    Managed(Box<ManagedView>),
    Release(Box<ReleaseView>),
    Applied,
    /// With this error number.
    Failed(i32),
}

/// How far a run has come.
pub(crate) enum Progress {
    /// It waits for the kernel; `locked`: it holds the lock meanwhile.
    Calls { call: Call, locked: bool },
    /// It has returned.
    Returned { succeeded: bool },
}

impl Actor {
    /// Runs the real operation on `kernel`.
    ///
    /// # Errors
    /// Those of [`ops`].
    pub fn run<K: Kernel>(&self, kernel: &mut K) -> Result<Report, Error> {
        match self.bug {
            Some(bug) => self.act(&mut Mistaken::new(kernel, bug, &self.network)),
            None => self.act(kernel),
        }
    }

    fn act<K: Kernel>(&self, kernel: &mut K) -> Result<Report, Error> {
        let mut known = self.others.clone();
        if let Network::Managed(managed) = &self.network {
            known.push(managed.name.clone());
        }
        match self.verb {
            Verb::Ifup => {
                let network = Network::Bridged(config::default_bridged());
                ops::up(kernel, &self.tap, &network, &known)
            }
            Verb::Ifdown => ops::down_from_any(kernel, &self.tap, &known),
            Verb::Natup => ops::up(kernel, &self.tap, &self.network, &known),
            Verb::Natdown => ops::down(kernel, &self.tap, || vec![self.network.clone()], &known),
            Verb::Gc => ops::collect(kernel, &known),
            Verb::Up | Verb::Down | Verb::Reload => self.command(kernel, &known),
        }
    }

    fn command<K: Kernel>(&self, kernel: &mut K, known: &[NetworkName]) -> Result<Report, Error> {
        let Network::Managed(network) = &self.network else {
            panic!("{:?} of a network that isn't kvmnet's", self.verb)
        };
        match self.verb {
            Verb::Up => ops::pin(kernel, network, known),
            Verb::Down => ops::unpin(kernel, &network.name, known),
            _ => {
                let nothing = || Report::Repaired { steps: vec![], notes: vec![] };
                Ok(ops::repair(kernel, network)?.unwrap_or_else(nothing))
            }
        }
    }

    /// What the run does after these answers.
    pub(crate) fn after(&self, answers: &[Answer]) -> Progress {
        let mut replay = Replay {
            answers: answers.iter(),
            locked: Rc::new(Cell::new(false)),
            next: Rc::new(RefCell::new(None)),
        };
        let next = Rc::clone(&replay.next);
        match panic::catch_unwind(AssertUnwindSafe(|| self.run(&mut replay))) {
            Ok(result) => Progress::Returned { succeeded: result.is_ok() },
            Err(payload) => match next.take() {
                Some((call, locked)) => Progress::Calls { call, locked },
                None => panic::resume_unwind(payload),
            },
        }
    }
}

struct Replay<'a> {
    answers: std::slice::Iter<'a, Answer>,
    locked: Rc<Cell<bool>>,
    next: Rc<RefCell<Option<(Call, bool)>>>,
}

/// Notes when the operation lets go of the lock.
pub(crate) struct ReplayLock(Rc<Cell<bool>>);

impl Drop for ReplayLock {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Replay<'_> {
    fn answer(&mut self, call: impl FnOnce() -> Call) -> Answer {
        if let Some(answer) = self.answers.next() {
            return answer.clone();
        }
        *self.next.borrow_mut() = Some((call(), self.locked.get()));
        panic::resume_unwind(Box::new("the run waits for the kernel"))
    }
}

fn refused(errno: i32) -> KernelError {
    let errno = Errno::from_raw(errno);
    KernelError::Refused { what: "do so".to_owned(), errno, message: None }
}

fn mismatch(answer: &Answer) -> ! {
    panic!("the run isn't deterministic: {answer:?} answers another call")
}

impl Kernel for Replay<'_> {
    type Lock = ReplayLock;
    const HAS_IPTABLES: bool = true;

    fn lock(&mut self) -> Result<ReplayLock, LockError> {
        match self.answer(|| Call::Lock) {
            Answer::Locked => {
                self.locked.set(true);
                Ok(ReplayLock(Rc::clone(&self.locked)))
            }
            other => mismatch(&other),
        }
    }

    fn bridged_view(
        &mut self,
        tap: &InterfaceName,
        network: &BridgedNetwork,
    ) -> Result<BridgedView, KernelError> {
        match self.answer(|| Call::BridgedView(tap.clone(), network.clone())) {
            Answer::Bridged(view) => Ok(*view),
            Answer::Failed(errno) => Err(refused(errno)),
            other => mismatch(&other),
        }
    }

    fn managed_view(
        &mut self,
        tap: Option<&InterfaceName>,
        network: &ManagedNetwork,
        table: Option<&Table>,
    ) -> Result<ManagedView, KernelError> {
        match self.answer(|| Call::ManagedView(tap.cloned(), network.clone(), table.cloned())) {
            Answer::Managed(view) => Ok(*view),
            Answer::Failed(errno) => Err(refused(errno)),
            other => mismatch(&other),
        }
    }

    fn release_view(
        &mut self,
        tap: Option<&InterfaceName>,
        known: &[NetworkName],
    ) -> Result<ReleaseView, KernelError> {
        match self.answer(|| Call::ReleaseView(tap.cloned(), known.to_vec())) {
            Answer::Release(view) => Ok(*view),
            Answer::Failed(errno) => Err(refused(errno)),
            other => mismatch(&other),
        }
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        match self.answer(|| Call::Apply(step.clone())) {
            Answer::Applied => Ok(()),
            Answer::Failed(errno) => Err(refused(errno)),
            other => mismatch(&other),
        }
    }
}
