//! Helpers in random order and many at once, on five networks, some of them killed, with gc and reload
//! between them; at every quiet point the kernel shows what a model says.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use kvmnet_tests::{Foreign, Host, Tally, Tap, amount, is_torture};
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::test_runner::{FileFailurePersistence, TestCaseError, TestRunner};

/// Each network with its bridge, whether it masquerades, and its file.
const NETWORKS: [(&str, &str, bool, &str); 5] = [
    ("default", "br0", true, ""),
    ("lab", "lab", true, "address = \"192.168.150.1/24\"\ntaps = [\"lab*\"]\n"),
    ("dmz", "dmz", false, "mode = \"routed\"\naddress = \"192.168.160.1/24\"\ntaps = [\"dmz*\"]\n"),
    ("iso", "iso", false, "mode = \"isolated\"\ntaps = [\"iso*\"]\n"),
    ("lan", "br1", false, "mode = \"bridged\"\nbridge = \"br1\"\ntaps = [\"lan*\"]\n"),
];
/// Taps of each network.
const TAPS: usize = 13;
/// Runs that may be under way at once.
const AT_ONCE: usize = 64;
/// Each nat network has one rule for TCP, one for UDP, and one for all else.
const MASQUERADES: usize = 3;

/// What one run is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Up,
    Down,
    Gc,
    Reload,
}

/// A run; `tap` counts through all networks' taps, and the time is that after which it is killed, in
/// microseconds.
#[derive(Clone, Copy)]
struct Run {
    verb: Verb,
    tap: usize,
    killed_after: Option<u32>,
}

/// Runs that start at once, no two for one tap.
fn batch() -> impl Strategy<Value = Vec<Run>> {
    let all: Vec<usize> = (0..TAPS * NETWORKS.len()).collect();
    let taps = subsequence(all, 1..=AT_ONCE).prop_shuffle();
    taps.prop_flat_map(|taps| {
        let run = |tap| {
            let verb = prop_oneof![
                12 => Just(Verb::Up),
                12 => Just(Verb::Down),
                1 => Just(Verb::Gc),
                1 => Just(Verb::Reload),
            ];
            let killed_after = prop::option::weighted(0.2, 500..6000u32);
            (verb, killed_after).prop_map(move |(verb, killed_after)| Run {
                verb,
                tap,
                killed_after,
            })
        };
        taps.into_iter().map(run).collect::<Vec<_>>()
    })
}

struct Scene {
    host: Host,
    /// Held open, as by QEMU.
    _taps: Vec<Tap>,
    before: Foreign,
    /// The taps that are attached, by the model.
    attached: BTreeSet<usize>,
    /// The kills that were in time.
    killed: usize,
}

fn network_of(tap: usize) -> usize {
    tap / TAPS
}

fn name_of(tap: usize) -> String {
    let prefix = ["vnet", "lab", "dmz", "iso", "lan"][network_of(tap)];
    format!("{prefix}{}", tap % TAPS)
}

/// A failing case is a list of commands to read.
impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.command())
    }
}

impl Run {
    fn command(self) -> String {
        let tap = name_of(self.tap);
        let program = match (self.verb, NETWORKS[network_of(self.tap)].0 == "lan") {
            (Verb::Gc, _) => "kvmnet gc".to_owned(),
            (Verb::Reload, _) => "kvmnet reload".to_owned(),
            (Verb::Up, false) => format!("/usr/libexec/kvmnet-natup {tap}"),
            (Verb::Down, false) => format!("/usr/libexec/kvmnet-natdown {tap}"),
            (Verb::Up, true) => format!("/usr/libexec/kvmnet-ifup {tap}"),
            (Verb::Down, true) => format!("/usr/libexec/kvmnet-ifdown {tap}"),
        };
        match self.killed_after {
            Some(micros) => format!("timeout -s KILL {}e-6 {program}", micros),
            None => program,
        }
    }
}

impl Scene {
    fn set() -> Self {
        let host = Host::new();
        host.ok("iptables -t nat -A POSTROUTING -s 10.1.0.0/24 -j ACCEPT; sysctl -w net.ipv4.ip_forward=1
             ip link add br1 type bridge && ip link set br1 up && ip addr add 10.1.0.1/24 dev br1");
        for (name, _, _, file) in NETWORKS.iter().filter(|network| !network.3.is_empty()) {
            host.describe(name, file);
        }
        let taps = (0..TAPS * NETWORKS.len()).map(|tap| host.tap(&name_of(tap))).collect();
        let mut scene = Self {
            before: host.foreign(),
            host,
            _taps: taps,
            attached: BTreeSet::new(),
            killed: 0,
        };
        scene.before = scene.foreign();
        scene
    }

    /// All that isn't kvmnet's, without the taps and what their coming and going does to `br1`.
    fn foreign(&self) -> Foreign {
        let taps = (0..TAPS * NETWORKS.len()).map(name_of);
        taps.fold(self.host.foreign(), |foreign, tap| foreign.without_link(&tap))
            .without_link("br1")
    }

    /// Starts all at once; whatever isn't killed has to succeed.
    fn run(&mut self, runs: &[Run]) -> Result<(), String> {
        let mut script = String::new();
        for (number, run) in runs.iter().enumerate() {
            let _ = writeln!(
                script,
                "{{ {} >/tmp/{number} 2>&1; echo {number} $?; }} &",
                run.command()
            );
        }
        let log = self.host.ok(&format!("{script} wait"));
        for line in log.lines() {
            let (number, code) = line.split_once(' ').ok_or(line)?;
            let run = runs[number.parse::<usize>().map_err(|error| error.to_string())?];
            let is_killed = code == "137" && run.killed_after.is_some();
            self.killed += usize::from(is_killed);
            if code != "0" && !is_killed {
                let why = self.host.ok(&format!("cat /tmp/{number}"));
                return Err(format!("{}: exit {code}: {why}", run.command()));
            }
            match run.verb {
                Verb::Up => self.attached.insert(run.tap),
                Verb::Down => self.attached.remove(&run.tap),
                Verb::Gc | Verb::Reload => false,
            };
        }
        // What was killed may have come to either end: once more, and it is settled.
        let mut killed = runs.iter().filter(|run| run.killed_after.is_some());
        killed.try_for_each(|run| {
            let command = Run { killed_after: None, ..*run }.command();
            let output = self.host.sh(&command);
            if output.success() { Ok(()) } else { Err(format!("{command}, again: {output:?}")) }
        })
    }

    /// Compares the kernel with the model.
    fn check(&self) -> Result<(), String> {
        let mut wanted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for &tap in &self.attached {
            wanted.entry(NETWORKS[network_of(tap)].1).or_default().push(name_of(tap));
        }
        let mut masquerades = 0;
        for (name, bridge, masquerade, _) in NETWORKS {
            let mut ports = wanted.get(bridge).cloned().unwrap_or_default();
            ports.sort_unstable();
            let is_up = self.host.link(bridge).is_some();
            if is_up != (name == "lan" || !ports.is_empty()) {
                return Err(format!("{bridge} is there: {is_up}, with the ports {ports:?}"));
            }
            let found = if is_up { self.host.ports(bridge) } else { vec![] };
            if found != ports {
                return Err(format!("{bridge} has {found:?} and should have {ports:?}"));
            }
            masquerades += usize::from(masquerade && is_up) * MASQUERADES;
        }
        let found = self.host.count_rules("masquerade");
        if found != masquerades {
            return Err(format!("{found} rules masquerade, and {masquerades} should"));
        }
        Ok(())
    }

    /// Everybody leaves; nothing is left, and nothing of others has changed.
    fn end(&mut self) -> Result<(), String> {
        let left: Vec<Run> = self
            .attached
            .iter()
            .map(|&tap| Run { verb: Verb::Down, tap, killed_after: None })
            .collect();
        self.run(&left)?;
        self.check()?;
        let mut tables = self.host.nft_tables();
        tables.retain(|table| table.contains("kvmnet"));
        if !tables.is_empty() {
            return Err(format!("left: {tables:?}"));
        }
        let difference = self.before.diff(&self.foreign());
        if difference.is_empty() { Ok(()) } else { Err(format!("not kvmnet's:\n{difference}")) }
    }
}

/// The whole sequence on a host of its own; how many runs were killed in it.
fn play(batches: &[Vec<Run>]) -> Result<usize, String> {
    let mut scene = Scene::set();
    for (number, runs) in batches.iter().enumerate() {
        scene
            .run(runs)
            .and_then(|()| scene.check())
            .map_err(|error| format!("batch {number}: {error}"))?;
    }
    scene.end()?;
    Ok(scene.killed)
}

#[test]
fn runs_in_random_order_come_to_what_the_model_says() {
    let batches = amount(1..=4usize, 1..=8);
    let config = ProptestConfig {
        cases: amount(6, 60),
        // Each try is a host of its own, and takes seconds.
        max_shrink_iters: amount(20, 200),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    let mut tally = Tally::new("random runs, up to 64 at once, on 5 networks");
    let count = RefCell::new((0, 0, &mut tally));
    let result = TestRunner::new(config).run(&prop::collection::vec(batch(), batches), |batches| {
        let killed = play(&batches).map_err(TestCaseError::fail)?;
        let mut count = count.borrow_mut();
        count.0 += batches.iter().map(Vec::len).sum::<usize>();
        count.1 += killed;
        batches.iter().for_each(|_| count.2.converged());
        Ok(())
    });
    let (runs, killed, _) = count.into_inner();
    if let Err(error) = result {
        tally.leaked(error);
    }
    assert!(!is_torture() || runs >= 1000, "{runs} runs");
    tally.remark(format!("{runs} runs, {killed} of them killed"));
    tally.finish();
}
