//! The same random story on the fake kernel and on the real one: after each line of it both show the
//! same, so that what is explored on the fake is true.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kvmnet_core::config;
use kvmnet_core::model::{
    InterfaceName, LinkKind, Mac, ManagedNetwork, Mark, Mode, Network, NetworkName, TableId,
};
use kvmnet_fake::{Actor, FakeHost, TableContent, Verb, run};
use kvmnet_tests::{Host, Tally, Tap, amount};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestCaseError, TestRunner};

/// Two on each network.
const TAPS: [&str; 4] = ["vnet0", "vnet1", "lab0", "lab1"];
/// What the same are called once somebody has renamed them.
const RENAMED: [&str; 4] = ["gone0", "gone1", "gone2", "gone3"];
/// The bridges of the networks `default` (nat) and `lab` (isolated).
const BRIDGES: [&str; 2] = ["br0", "lab"];

/// Of a bridge that isn't kvmnet's.
const STRANGERS_MAC: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];

/// A line of the story.
#[derive(Debug, Clone, Copy)]
enum Line {
    Natup(usize),
    Natdown(usize),
    Ifdown(usize),
    UpLab,
    DownLab,
    Gc,
    Reload,
    /// The guest's program is gone, and another one opens a tap of that name.
    TapMadeAnew(usize),
    TapRenamed(usize),
    PortTakenOut(usize),
    BridgeDeleted(usize),
    /// Somebody makes one of that name.
    StrangersBridge(usize),
    BridgeDown(usize),
    AliasCleared(usize),
    MacChanged(usize),
    AddressRemoved,
    TableEmptied,
    RulesetFlushed,
    ForwardingOff,
}

fn line() -> impl Strategy<Value = Line> {
    let tap = 0..TAPS.len();
    let bridge = 0..BRIDGES.len();
    prop_oneof![
        8 => tap.clone().prop_map(Line::Natup),
        5 => tap.clone().prop_map(Line::Natdown),
        1 => tap.clone().prop_map(Line::Ifdown),
        1 => Just(Line::UpLab),
        1 => Just(Line::DownLab),
        1 => Just(Line::Gc),
        2 => Just(Line::Reload),
        1 => tap.clone().prop_map(Line::TapMadeAnew),
        1 => tap.clone().prop_map(Line::TapRenamed),
        1 => tap.prop_map(Line::PortTakenOut),
        1 => bridge.clone().prop_map(Line::BridgeDeleted),
        1 => bridge.clone().prop_map(Line::StrangersBridge),
        1 => bridge.clone().prop_map(Line::BridgeDown),
        1 => bridge.clone().prop_map(Line::AliasCleared),
        1 => bridge.prop_map(Line::MacChanged),
        1 => Just(Line::AddressRemoved),
        1 => Just(Line::TableEmptied),
        1 => Just(Line::RulesetFlushed),
        1 => Just(Line::ForwardingOff),
    ]
}

fn name(text: &str) -> InterfaceName {
    InterfaceName::parse(text.as_ref()).expect("it is a name")
}

fn lab() -> ManagedNetwork {
    let lab = NetworkName::parse("lab").expect("it is a name");
    ManagedNetwork::new(lab, name("lab"), Mode::Isolated)
}

fn actor(verb: Verb, tap: usize) -> Actor {
    let lab = lab();
    let others = vec![config::default_name(), lab.name.clone()];
    let network = Network::Managed(if tap < 2 { config::default_nat() } else { lab });
    Actor { verb, tap: name(TAPS[tap]), network, others, bug: None }
}

struct Fake {
    host: FakeHost,
    /// The index of the next tap.
    next: u32,
}

impl Fake {
    fn new() -> Self {
        let mut fake = Self { host: FakeHost::default(), next: 10 };
        TAPS.iter().for_each(|tap| fake.add_tap(tap));
        fake
    }

    fn add_tap(&mut self, tap: &str) {
        self.host.add_tap(&name(tap), self.next);
        self.next += 1;
    }

    fn index(&self, link: &str) -> Option<u32> {
        self.host.link(link).map(|link| link.index)
    }

    fn runs(&mut self, actors: &[Actor]) -> bool {
        let runs = actors.iter().map(|actor| run(&mut self.host, actor).0.is_ok());
        // Each is run, also behind one that fails.
        runs.filter(|succeeded| !succeeded).count() == 0
    }

    /// Whether it succeeds, where it is a run of kvmnet's.
    fn live(&mut self, line: Line) -> bool {
        let bridge = |fake: &Self, number: usize| fake.index(BRIDGES[number]);
        match line {
            Line::Natup(tap) => return self.runs(&[actor(Verb::Natup, tap)]),
            Line::Natdown(tap) => return self.runs(&[actor(Verb::Natdown, tap)]),
            Line::Ifdown(tap) => return self.runs(&[actor(Verb::Ifdown, tap)]),
            Line::UpLab => return self.runs(&[actor(Verb::Up, 2)]),
            Line::DownLab => return self.runs(&[actor(Verb::Down, 2)]),
            Line::Gc => return self.runs(&[actor(Verb::Gc, 0)]),
            Line::Reload => {
                return self.runs(&[actor(Verb::Reload, 0), actor(Verb::Reload, 2)]);
            }
            Line::TapMadeAnew(tap) => {
                for name in [TAPS[tap], RENAMED[tap]] {
                    self.remove(name);
                }
                self.add_tap(TAPS[tap]);
            }
            Line::TapRenamed(tap) => {
                if let Some(link) =
                    self.index(TAPS[tap]).and_then(|at| self.host.links.get_mut(&at))
                {
                    RENAMED[tap].clone_into(&mut link.name);
                }
            }
            Line::PortTakenOut(tap) => {
                if let Some(link) =
                    self.index(TAPS[tap]).and_then(|at| self.host.links.get_mut(&at))
                {
                    link.master = None;
                    link.forwarded_groups = 0;
                }
            }
            Line::BridgeDeleted(number) => self.remove(BRIDGES[number]),
            Line::StrangersBridge(number) => {
                self.remove(BRIDGES[number]);
                let kind = LinkKind::Bridge { stp: false, forward_delay: 1500 };
                let bridge = self.host.add_link(BRIDGES[number], self.next, kind);
                bridge.mac = Some(Mac(STRANGERS_MAC));
                self.next += 1;
            }
            Line::BridgeDown(number) => self.change(number, |link| link.up = false),
            Line::AliasCleared(number) => self.change(number, |link| link.alias.clear()),
            Line::MacChanged(number) => self.change(number, |link| {
                link.mac = Some(Mac([0x52, 0x54, 0, 1, 2, 3]));
            }),
            Line::AddressRemoved => {
                if let Some(index) = bridge(self, 0) {
                    self.host.addresses.remove(&index);
                }
            }
            Line::TableEmptied => {
                let table = |id: &&TableId| id.name == "kvmnet-default";
                if let Some(table) = self.host.tables.keys().find(table).cloned() {
                    self.host.tables.insert(table, TableContent::Other("emptied"));
                }
            }
            Line::RulesetFlushed => self.host.flush_ruleset(),
            Line::ForwardingOff => self.host.ip_forward = false,
        }
        true
    }

    fn remove(&mut self, link: &str) {
        if let Some(index) = self.index(link) {
            self.host.remove_link(index);
        }
    }

    fn change(&mut self, bridge: usize, change: impl FnOnce(&mut kvmnet_core::model::Link)) {
        let index = self.index(BRIDGES[bridge]);
        if let Some(link) = index.and_then(|index| self.host.links.get_mut(&index)) {
            change(link);
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for link in self.host.links.values() {
            let master = link.master.and_then(|master| self.host.links.get(&master));
            let is_bridge = BRIDGES.contains(&link.name.as_str());
            let addresses = self.host.addresses.get(&link.index);
            let described = Described {
                master: master.map(|master| master.name.clone()).unwrap_or_default(),
                up: link.up,
                noarp: link.noarp,
                group: link.group.to_string(),
                mac: link.mac.filter(|_| is_bridge).map(|mac| mac.to_string()).unwrap_or_default(),
                alias: alias(&link.alias),
                addresses: addresses.into_iter().flatten().map(ToString::to_string).collect(),
            };
            snapshot.insert(link.name.clone(), format!("{described:?}"));
        }
        for (table, content) in &self.host.tables {
            let is_empty = matches!(content, TableContent::Other(_));
            let what = if is_empty { "without rules" } else { "as it should be" };
            snapshot.insert(format!("table {}", table.name), what.to_owned());
        }
        snapshot.insert("ip_forward".to_owned(), u8::from(self.host.ip_forward).to_string());
        snapshot
    }
}

/// What is compared: each link, table and sysctl.
type Snapshot = BTreeMap<String, String>;

#[derive(Debug)]
#[allow(dead_code, reason = "for its Debug")]
struct Described {
    master: String,
    up: bool,
    noarp: bool,
    group: String,
    mac: String,
    alias: String,
    addresses: Vec<String>,
}

/// Without whose start turned forwarding on: that is the first one's, and which that is depends on what
/// was off.
fn alias(alias: &str) -> String {
    Mark::parse(alias)
        .map_or_else(|| alias.to_owned(), |mark| Mark { forwarding: false, ..mark }.to_string())
}

struct Real<'a> {
    host: Host,
    taps: BTreeMap<usize, Tap>,
    /// What is in each table that nobody has touched.
    wanted: &'a BTreeMap<String, String>,
}

/// The tables of both networks as they are made, by their names.
fn wanted_tables() -> BTreeMap<String, String> {
    let nothing = BTreeMap::new();
    let mut real = Real::new(&nothing);
    assert!([0, 2].into_iter().all(|tap| real.live(Line::Natup(tap))));
    let tables = real.host.nft_tables();
    let listed = tables.iter().map(|table| {
        let (family, name) = table.split_once(' ').expect("a family and a name");
        (name.to_owned(), real.host.nft(family, name).expect("it is listed"))
    });
    listed.collect()
}

impl<'a> Real<'a> {
    fn new(wanted: &'a BTreeMap<String, String>) -> Self {
        let host = Host::bare();
        host.ok("sysctl -w net.ipv4.ip_forward=0");
        host.describe("lab", "mode = \"isolated\"\ntaps = [\"lab*\"]\n");
        let taps = TAPS.iter().enumerate().map(|(number, tap)| (number, host.tap(tap))).collect();
        Self { host, taps, wanted }
    }

    fn live(&mut self, line: Line) -> bool {
        let helper = |name, tap: usize| self.host.helper(name, &[TAPS[tap]]).success();
        // What isn't there can't be changed, which is no mistake.
        let change = |script: String| {
            self.host.sh(&script);
            true
        };
        match line {
            Line::Natup(tap) => helper("natup", tap),
            Line::Natdown(tap) => helper("natdown", tap),
            Line::Ifdown(tap) => helper("ifdown", tap),
            Line::UpLab => self.host.sh("kvmnet up lab").success(),
            Line::DownLab => self.host.sh("kvmnet down lab").success(),
            Line::Gc => self.host.sh("kvmnet gc").success(),
            Line::Reload => self.host.sh("kvmnet reload").success(),
            Line::TapMadeAnew(tap) => {
                self.taps.remove(&tap);
                self.taps.insert(tap, self.host.tap(TAPS[tap]));
                true
            }
            Line::TapRenamed(tap) => {
                change(format!("ip link set {} name {}", TAPS[tap], RENAMED[tap]))
            }
            Line::PortTakenOut(tap) => change(format!("ip link set {} nomaster", TAPS[tap])),
            Line::BridgeDeleted(bridge) => change(format!("ip link del {}", BRIDGES[bridge])),
            Line::StrangersBridge(bridge) => change(format!(
                "ip link del {0}; ip link add {0} address {1} type bridge; ip link set {0} up",
                BRIDGES[bridge],
                Mac(STRANGERS_MAC)
            )),
            Line::BridgeDown(bridge) => change(format!("ip link set {} down", BRIDGES[bridge])),
            Line::AliasCleared(bridge) => {
                change(format!("ip link set {} alias ''", BRIDGES[bridge]))
            }
            Line::MacChanged(bridge) => {
                change(format!("ip link set {} address 52:54:00:01:02:03", BRIDGES[bridge]))
            }
            Line::AddressRemoved => change("ip -4 address flush dev br0".to_owned()),
            Line::TableEmptied => change("nft flush table ip kvmnet-default".to_owned()),
            Line::RulesetFlushed => change("nft flush ruleset".to_owned()),
            Line::ForwardingOff => change("sysctl -w net.ipv4.ip_forward=0".to_owned()),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::new();
        for link in self.host.links() {
            let name = link["ifname"].as_str().unwrap_or_default().to_owned();
            if name == "lo" {
                continue;
            }
            let has = |flag: &str| {
                let flags = link["flags"].as_array();
                flags.is_some_and(|flags| flags.iter().any(|found| found == flag))
            };
            let text = |key: &str| link[key].as_str().unwrap_or_default().to_owned();
            let is_bridge = BRIDGES.contains(&name.as_str());
            let group = text("group");
            let described = Described {
                master: text("master"),
                up: has("UP"),
                noarp: has("NOARP"),
                group: if group == "default" { "0".to_owned() } else { group },
                mac: if is_bridge { text("address") } else { String::new() },
                alias: alias(&text("ifalias")),
                addresses: self.host.addresses(&name),
            };
            snapshot.insert(name, format!("{described:?}"));
        }
        for table in self.host.nft_tables() {
            let (family, name) = table.split_once(' ').expect("a family and a name");
            let listed = self.host.nft(family, name).unwrap_or_default();
            let what = match self.wanted.get(name) {
                Some(wanted) if *wanted == listed => "as it should be".to_owned(),
                _ if listed.contains("policy drop") || listed.contains("masquerade") => listed,
                _ => "without rules".to_owned(),
            };
            snapshot.insert(format!("table {name}"), what);
        }
        snapshot.insert("ip_forward".to_owned(), self.host.sysctl("net/ipv4/ip_forward"));
        snapshot
    }
}

fn play(story: &[Line], wanted: &BTreeMap<String, String>) -> Result<(), String> {
    let (mut fake, mut real) = (Fake::new(), Real::new(wanted));
    for (number, &line) in story.iter().enumerate() {
        let succeeded = (fake.live(line), real.live(line));
        let (wanted, found) = (fake.snapshot(), real.snapshot());
        if succeeded.0 != succeeded.1 || wanted != found {
            let differ = |one: &Snapshot, other: &Snapshot| -> Vec<String> {
                let differs = |(key, value): &(&String, &String)| other.get(*key) != Some(value);
                one.iter().filter(differs).map(|(key, value)| format!("{key}: {value}")).collect()
            };
            return Err(format!(
                "line {number}, {line:?}: succeeds on the fake: {}, on the kernel: {}\n\
                 the fake: {:#?}\nthe kernel: {:#?}",
                succeeded.0,
                succeeded.1,
                differ(&wanted, &found),
                differ(&found, &wanted)
            ));
        }
    }
    Ok(())
}

#[test]
fn the_fake_is_true() {
    let config = ProptestConfig {
        cases: amount(40, 300),
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    let mut tally = Tally::new("random stories, on the fake and on the kernel");
    let count = RefCell::new((0, &mut tally));
    let wanted = wanted_tables();
    let stories = prop::collection::vec(line(), 1..=12);
    let result = TestRunner::new(config).run(&stories, |story| {
        play(&story, &wanted).map_err(TestCaseError::fail)?;
        let mut count = count.borrow_mut();
        count.0 += story.len();
        count.1.converged();
        Ok(())
    });
    let (lines, _) = count.into_inner();
    if let Err(error) = result {
        tally.leaked(error);
    }
    tally.remark(format!("{lines} lines"));
    tally.finish();
}
