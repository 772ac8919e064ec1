//! A story on the real one.

use std::collections::BTreeMap;

use kvmnet_core::model::Mac;
use kvmnet_tests::{Host, Tap};

use crate::snapshot::{Described, Snapshot, alias};
use crate::story::{BRIDGES, Line, RENAMED, STRANGERS_MAC, TAPS};

pub struct Real<'a> {
    host: Host,
    taps: BTreeMap<usize, Tap>,
    /// What is in each table that nobody has touched.
    wanted: &'a BTreeMap<String, String>,
}

/// The tables of both networks as they are made, by their names.
pub fn wanted_tables() -> BTreeMap<String, String> {
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
    pub fn new(wanted: &'a BTreeMap<String, String>) -> Self {
        let host = Host::bare();
        host.ok("sysctl -w net.ipv4.ip_forward=0");
        host.describe("lab", "mode = \"isolated\"\ntaps = [\"lab*\"]\n");
        let taps = TAPS.iter().enumerate().map(|(number, tap)| (number, host.tap(tap))).collect();
        Self { host, taps, wanted }
    }

    pub fn live(&mut self, line: Line) -> bool {
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

    pub fn snapshot(&self) -> Snapshot {
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
