//! Side by side: every program does the same, in turn, round after round.

use std::collections::BTreeMap;
use std::io;

use kvmnet_tests::Tap;

use crate::figures::Spread;
use crate::programs::{self, Program, tap_of};
use crate::results::{Measured, Program as Found, Verb};
use crate::run::{self, Sample};
use crate::trace::{self, Counts};
use crate::world::World;

/// Rounds before those that count: files are read from the disk, modules of the kernel loaded.
const WARM_UP: usize = 2;
/// How often one that only waits is run.
const SLOW_ROUNDS: usize = 5;

/// A program, and where it is run.
struct Contender {
    program: Box<dyn Program>,
    /// A network that begins empty, and one with the administrator's bridge.
    nat: World,
    bridged: World,
    samples: BTreeMap<Verb, Vec<Sample>>,
    counts: BTreeMap<Verb, Counts>,
}

/// What came of it, and what could not be run, with the reason.
pub fn measure(base: &World, rounds: usize) -> io::Result<(Vec<Found>, BTreeMap<String, String>)> {
    let mut contenders = Vec::new();
    let mut left_out = BTreeMap::new();
    for program in programs::all() {
        let name = program.name();
        let ready = Contender::new(base, program).and_then(|mut contender| {
            contender.round(&mut Contender::counted)?;
            Ok(contender)
        });
        match ready {
            Ok(contender) => contenders.push(contender),
            Err(why) => {
                eprintln!("bench: {name} can't be measured: {why}");
                left_out.insert(name.to_owned(), why.to_string());
            }
        }
    }
    for round in 0..WARM_UP + rounds {
        if round == WARM_UP {
            contenders.iter_mut().for_each(|contender| contender.samples.clear());
        }
        let mut failed = None;
        for n in turns(&contenders, round) {
            let contender = &mut contenders[n];
            if contender.program.is_slow() && round >= WARM_UP + SLOW_ROUNDS.min(rounds) {
                continue;
            }
            if let Err(why) = contender.round(&mut Contender::timed) {
                failed = Some((n, why));
                break;
            }
        }
        // One that fails once is out, and the others go on without it.
        if let Some((n, why)) = failed {
            let name = contenders.remove(n).program.name();
            eprintln!("bench: {name} failed in round {round}: {why}");
            left_out.insert(name.to_owned(), why.to_string());
        }
    }
    base.enter()?;
    Ok((contenders.into_iter().map(Contender::found).collect(), left_out))
}

/// Who has a turn in a round, one after the other. Of the two that lie close together each comes first
/// as often as the other, and behind every other program.
fn turns(contenders: &[Contender], round: usize) -> Vec<usize> {
    let (mut close, others): (Vec<_>, Vec<_>) =
        (0..contenders.len()).partition(|&n| contenders[n].program.is_close());
    let mut turns = Vec::new();
    if round % 2 == 1 {
        close.reverse();
    }
    for other in others {
        turns.push(other);
        turns.extend(&close);
        close.reverse();
    }
    turns
}

impl Contender {
    fn new(base: &World, mut program: Box<dyn Program>) -> io::Result<Self> {
        base.enter()?;
        let bridged = World::new()?;
        run::sh("ip link add br0 type bridge; ip link set br0 up")?;
        base.enter()?;
        let nat = World::new()?;
        program.set_up()?;
        Ok(Self { program, nat, bridged, samples: BTreeMap::new(), counts: BTreeMap::new() })
    }

    /// Each verb once, with taps that are new, as QEMU's are.
    fn round(&mut self, run: &mut impl FnMut(&mut Self, Verb) -> io::Result<()>) -> io::Result<()> {
        let supported = self.program.verbs();
        for nat in [false, true] {
            let verbs: Vec<_> =
                supported.iter().copied().filter(|verb| verb.is_nat() == nat).collect();
            if verbs.is_empty() {
                continue;
            }
            if nat { &self.nat } else { &self.bridged }.enter()?;
            let guests = if self.program.wants_tap() { 1 + usize::from(nat) } else { 0 };
            let taps: Vec<_> = (0..guests).map(|guest| Tap::here(&tap_of(guest))).collect();
            for verb in verbs {
                run(self, verb)?;
            }
            drop(taps);
            self.program.clean()?;
        }
        Ok(())
    }

    fn timed(&mut self, verb: Verb) -> io::Result<()> {
        let sample = run::timed(&mut self.program.command(verb)?)?;
        self.samples.entry(verb).or_default().push(sample);
        Ok(())
    }

    fn counted(&mut self, verb: Verb) -> io::Result<()> {
        let counts = trace::count(&mut self.program.command(verb)?)?;
        self.counts.insert(verb, counts);
        Ok(())
    }

    fn found(self) -> Found {
        let measured = |(verb, samples): (&Verb, &Vec<Sample>)| {
            let counts = self.counts[verb];
            let measured = Measured {
                rounds: samples.len(),
                wall: Spread::of(samples.iter().map(|sample| sample.wall)),
                cpu: Spread::of(samples.iter().map(|sample| sample.cpu)),
                system_calls: counts.system_calls,
                child_processes: counts.processes,
                peak_rss_kib: counts.peak_rss_kib,
            };
            (*verb, measured)
        };
        Found {
            name: self.program.name().to_owned(),
            note: self.program.note().to_owned(),
            verbs: self.samples.iter().map(measured).collect(),
        }
    }
}
