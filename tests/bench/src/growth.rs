//! How cost grows with what else is on the host: kvmnet beside the floor, on the same network in turn.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::io;
use std::process::Command;
use std::time::Duration;

use kvmnet_tests::Tap;

use crate::figures::Spread;
use crate::programs::{Floor, Kvmnet, tap, tap_of};
use crate::results::{Growth, Verb};
use crate::run;
use crate::world::{PRIVATE, World};

const WARM_UP: usize = 1;
/// The link group of what there is a thousand of.
const GROUP: u32 = 7;

type Starter = fn(Verb, &str) -> Command;
const KVMNET: (&str, Starter) = ("kvmnet, nftables", Kvmnet::run);
const FLOOR: (&str, Starter) = ("the floor", Floor::run);

/// Something there can be more and more of.
struct Axis {
    what: &'static str,
    numbers: [u32; 3],
    /// What it returns stays for as long as is measured.
    prepare: fn(u32) -> io::Result<Vec<Tap>>,
    programs: &'static [(&'static str, Starter)],
    /// Whether the bridge stands before the first guest comes.
    on_standing_bridge: bool,
}

const BOTH: &[(&str, Starter)] = &[KVMNET, FLOOR];
const AXES: [Axis; 5] = [
    Axis {
        what: "foreign nftables rules",
        numbers: [0, 1_000, 10_000],
        prepare: nftables_rules,
        programs: BOTH,
        on_standing_bridge: false,
    },
    Axis {
        what: "foreign iptables-legacy rules",
        numbers: [0, 1_000, 10_000],
        prepare: legacy_rules,
        programs: BOTH,
        on_standing_bridge: false,
    },
    Axis {
        what: "ports of the bridge",
        numbers: [10, 200, 1_000],
        prepare: ports,
        programs: BOTH,
        on_standing_bridge: true,
    },
    Axis {
        what: "other links",
        numbers: [0, 500, 1_000],
        prepare: links,
        programs: BOTH,
        on_standing_bridge: false,
    },
    Axis {
        what: "network files",
        numbers: [1, 50, 200],
        prepare: files,
        programs: &[KVMNET],
        on_standing_bridge: false,
    },
];

/// Everything that grows.
pub fn measure(base: &World, rounds: usize) -> io::Result<Vec<Growth>> {
    let mut found = Vec::new();
    for axis in &AXES {
        eprintln!("bench: {} {:?}", axis.what, axis.numbers);
        let mut lines = Lines::default();
        for number in axis.numbers {
            base.enter()?;
            let _world = World::new()?;
            (axis.prepare)(number)
                .and_then(|taps| {
                    measure_at(axis, number, rounds, &mut lines)?;
                    // At once, which closing one after the other isn't.
                    run::sh(&format!("ip link delete group {GROUP} 2>/dev/null || :"))?;
                    drop(taps);
                    Ok(())
                })
                .map_err(|error| io::Error::other(format!("{number} {}: {error}", axis.what)))?;
            base.enter()?;
        }
        found.extend(lines.of(axis.what));
    }
    let mut lines = Lines::default();
    for number in [1, 8, 64] {
        eprintln!("bench: {number} starts at once");
        base.enter()?;
        let _world = World::new()?;
        at_once(number, rounds, &mut lines)?;
        base.enter()?;
    }
    found.extend(lines.of("starts at once"));
    Ok(found)
}

/// The points of each program and verb.
#[derive(Default)]
struct Lines(BTreeMap<(&'static str, Verb), Vec<(u32, Spread)>>);

impl Lines {
    fn add(&mut self, program: &'static str, verb: Verb, number: u32, times: Vec<Duration>) {
        let point = (number, Spread::of(times));
        self.0.entry((program, verb)).or_default().push(point);
    }

    fn of(self, what: &str) -> impl Iterator<Item = Growth> {
        self.0.into_iter().map(move |((program, verb), points)| Growth {
            what: what.to_owned(),
            program: program.to_owned(),
            verb,
            points,
        })
    }
}

fn measure_at(axis: &Axis, number: u32, rounds: usize, lines: &mut Lines) -> io::Result<()> {
    let verbs: &[Verb] =
        if axis.on_standing_bridge { &[Verb::Next, Verb::NotLast] } else { &Verb::NAT };
    let mut times: BTreeMap<(&'static str, Verb), Vec<Duration>> = BTreeMap::new();
    for round in 0..WARM_UP + rounds {
        for (name, start) in axis.programs {
            let _taps: Vec<_> = verbs
                .iter()
                .filter(|verb| verb.is_up())
                .map(|verb| Tap::here(&tap(*verb)))
                .collect();
            for verb in verbs {
                let sample = run::timed(&mut start(*verb, &tap(*verb)))?;
                if round >= WARM_UP {
                    times.entry((name, *verb)).or_default().push(sample.wall);
                }
            }
        }
    }
    for ((program, verb), times) in times {
        lines.add(program, verb, number, times);
    }
    Ok(())
}

/// So many starts on a network that is up, from the first start to the last end.
fn at_once(number: u32, rounds: usize, lines: &mut Lines) -> io::Result<()> {
    let first = tap_of(number as usize);
    let _first = Tap::here(&first);
    run::untimed(&mut Kvmnet::run(Verb::First, &first))?;
    let names: Vec<_> = (0..number as usize).map(tap_of).collect();
    let _taps: Vec<_> = names.iter().map(|name| Tap::here(name)).collect();
    let mut times: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
    for round in 0..WARM_UP + rounds {
        for (program, start) in BOTH {
            let mut commands: Vec<_> = names.iter().map(|name| start(Verb::Next, name)).collect();
            let wall = run::timed_at_once(&mut commands)?;
            if round >= WARM_UP {
                times.entry(program).or_default().push(wall);
            }
            for name in &names {
                run::untimed(&mut Floor::run(Verb::NotLast, name))?;
            }
        }
    }
    for (program, times) in times {
        lines.add(program, Verb::Next, number, times);
    }
    Ok(())
}

/// Half of them where kvmnet has to look, in the way of what is forwarded, half elsewhere.
fn nftables_rules(count: u32) -> io::Result<Vec<Tap>> {
    let mut rules = String::from(
        "table inet others {\nchain forward { type filter hook forward priority 0; }\n\
         chain input { type filter hook input priority 0; }\n}\n",
    );
    for n in 0..count {
        let chain = ["forward", "input"][n as usize % 2];
        writeln!(rules, "add rule inet others {chain} ip saddr {} tcp dport 80 drop", address(n))
            .expect("memory takes all");
    }
    let file = format!("{PRIVATE}/rules");
    fs::write(&file, rules)?;
    run::sh(&format!("nft -f {file}"))?;
    Ok(Vec::new())
}

fn legacy_rules(count: u32) -> io::Result<Vec<Tap>> {
    let mut rules = String::from("*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n");
    for n in 0..count {
        let chain = ["FORWARD", "INPUT"][n as usize % 2];
        writeln!(rules, "-A {chain} -s {}/32 -p tcp --dport 80 -j DROP", address(n))
            .expect("memory takes all");
    }
    rules.push_str("COMMIT\n");
    let file = format!("{PRIVATE}/rules");
    fs::write(&file, rules)?;
    run::sh(&format!("iptables-legacy-restore <{file}"))?;
    Ok(Vec::new())
}

/// Of a network for documentation's sake: no guest has one.
fn address(n: u32) -> String {
    format!("198.18.{}.{}", n / 250, n % 250 + 1)
}

/// The network is up already, with as many guests.
fn ports(count: u32) -> io::Result<Vec<Tap>> {
    let names: Vec<_> = (0..count).map(|n| format!("p{n}")).collect();
    let taps = names.iter().map(|name| Tap::here(name)).collect();
    run::untimed(&mut Kvmnet::run(Verb::First, &names[0]))?;
    batch(
        names
            .iter()
            .map(|name| format!("link set {name} group {GROUP} addrgenmode none master br0 up")),
    )?;
    Ok(taps)
}

/// Taps that nobody holds open: not every kernel has dummy links, but each that runs guests has these.
fn links(count: u32) -> io::Result<Vec<Tap>> {
    batch((0..count).flat_map(|n| {
        [
            format!("tuntap add p{n} mode tap"),
            format!("link set p{n} group {GROUP} addrgenmode none up"),
        ]
    }))?;
    Ok(Vec::new())
}

fn batch(lines: impl Iterator<Item = String>) -> io::Result<()> {
    let file = format!("{PRIVATE}/batch");
    fs::write(&file, lines.map(|line| line + "\n").collect::<String>())?;
    run::sh(&format!("ip -batch {file}"))
}

fn files(count: u32) -> io::Result<Vec<Tap>> {
    for n in 0..count {
        let text = format!("address = \"172.20.{n}.1/24\"\ntaps = [\"vm{n}-*\"]\n");
        fs::write(format!("/etc/kvmnet/net{n}.toml"), text)?;
    }
    Ok(Vec::new())
}
