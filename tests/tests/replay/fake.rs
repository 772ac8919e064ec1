//! A story on the fake kernel.

use kvmnet_core::config;
use kvmnet_core::model::{
    InterfaceName, Link, LinkKind, Mac, ManagedNetwork, Mode, Network, NetworkName, TableId,
};
use kvmnet_fake::{Actor, FakeHost, TableContent, Verb, run};

use crate::snapshot::{Described, Snapshot, alias};
use crate::story::{BRIDGES, Line, RENAMED, STRANGERS_MAC, TAPS};

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

pub struct Fake {
    host: FakeHost,
    /// The index of the next tap.
    next: u32,
}

impl Fake {
    pub fn new() -> Self {
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
    pub fn live(&mut self, line: Line) -> bool {
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

    fn change(&mut self, bridge: usize, change: impl FnOnce(&mut Link)) {
        let index = self.index(BRIDGES[bridge]);
        if let Some(link) = index.and_then(|index| self.host.links.get_mut(&index)) {
            change(link);
        }
    }

    pub fn snapshot(&self) -> Snapshot {
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
