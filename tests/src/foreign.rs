//! Snapshots of a host's state, to show that what isn't ours stays as it was.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use crate::host::Host;
use crate::normalise::{self, Line, Owner};
use crate::process::wait_until;

/// The state of a host's network and firewalls, without what changes by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    sections: BTreeMap<String, Vec<Line>>,
}

/// The commands that show rules, where they are installed. What plain `iptables-save` is depends
/// on the distribution's alternatives: it is one of these.
const SAVERS: [&str; 4] =
    ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"];

/// How long the kernel may still be busy with the last change: a carrier is passed on within a second,
/// and duplicate address detection takes two.
const SETTLING: Duration = Duration::from_secs(5);

impl Host {
    /// Takes a snapshot, when the kernel is done with what it does later and by itself.
    #[track_caller]
    #[must_use]
    pub fn foreign(&self) -> Foreign {
        let mut sections = BTreeMap::new();
        let mut addresses = Vec::new();
        wait_until(SETTLING, || {
            addresses = self.json(&["ip", "-json", "address"]);
            let is_done = |link| is_settled(link) && has_carrier_of_ports(link, &addresses);
            addresses.iter().all(is_done) && {
                let local = self.json(&["ip", "-6", "-json", "route", "show", "table", "local"]);
                addresses.iter().all(|link| has_routes(link, &local))
            }
        });
        let links = self.links();
        sections.insert("ip link".to_owned(), normalise::links(&links));
        sections.insert("ip address".to_owned(), normalise::addresses(&addresses));
        for family in ["-4", "-6"] {
            let routes = self.json(&["ip", family, "-json", "route", "show", "table", "all"]);
            sections.insert(format!("ip {family} route"), normalise::routes(&routes));
        }
        let ruleset = self.ok("nft -j list ruleset");
        let ruleset = serde_json::from_str(&ruleset).expect("nft prints JSON");
        sections.insert("nft ruleset".to_owned(), normalise::ruleset(&ruleset));
        for saver in SAVERS {
            // A rule of nft's own makes these two print a remark and go on.
            let saved = self.ok(&format!("! command -v {saver} >/dev/null || {saver}"));
            sections.insert(saver.to_owned(), normalise::saved(&saved));
        }
        // Some settings can be written only, so grep's exit code says nothing.
        let settings =
            "cd /proc/sys/net; grep -rsH . ipv4/ip_forward ipv4/conf ipv6/conf bridge; :";
        sections.insert("sysctl".to_owned(), normalise::sysctls(&self.ok(settings)));
        Foreign { sections }
    }
}

fn has_flag(link: &Value, flag: &str) -> bool {
    link["flags"].as_array().is_some_and(|flags| flags.iter().any(|found| found == flag))
}

/// Whether a bridge has the carrier that a port of its has: it is passed on within a second.
fn has_carrier_of_ports(bridge: &Value, all: &[Value]) -> bool {
    let brings = |port: &Value| port["master"] == bridge["ifname"] && has_flag(port, "LOWER_UP");
    !has_flag(bridge, "UP") || has_flag(bridge, "LOWER_UP") || !all.iter().any(brings)
}

/// Whether a link has the addresses and routes that its carrier brings. An address of IPv6 comes when
/// the carrier is passed on, and its route when nobody else was found to have it.
fn is_settled(link: &Value) -> bool {
    let is = |flag: &str| has_flag(link, flag);
    if !is("UP") {
        return true;
    }
    let known = !matches!(link["operstate"].as_str(), Some("DOWN" | "LOWERLAYERDOWN"));
    let asks = |address: &Value| address["tentative"] == true && address["dadfailed"] != true;
    is("LOWER_UP") == known && !awaited_addresses(link).any(asks)
}

/// The addresses of a link that it may still ask others about. Without a carrier nobody can be asked. But a
/// link-local address comes with a carrier only, and goes on asking when that is lost.
fn awaited_addresses(link: &Value) -> impl Iterator<Item = &Value> {
    let addresses = link["addr_info"].as_array().map_or(&[][..], Vec::as_slice);
    let has_carrier = has_flag(link, "LOWER_UP");
    addresses.iter().filter(move |address| has_carrier || address["scope"] == "link")
}

/// Whether the kernel has given each address of IPv6 the route to itself, which it does last.
fn has_routes(link: &Value, local: &[Value]) -> bool {
    let has_route = |address: &Value| {
        let is_its =
            |route: &Value| route["dev"] == link["ifname"] && route["dst"] == address["local"];
        address["family"] != "inet6" || address["dadfailed"] == true || local.iter().any(is_its)
    };
    awaited_addresses(link).all(has_route)
}

impl Foreign {
    /// Leaves out what belongs to a link: itself, its addresses, routes and settings.
    #[must_use]
    pub fn without_link(self, name: &str) -> Self {
        self.without(|line| line.owner == Owner::Link(name.to_owned()))
    }

    /// Leaves out an nf_tables table of whichever family.
    #[must_use]
    pub fn without_table(self, name: &str) -> Self {
        self.without(|line| line.owner == Owner::Table(name.to_owned()))
    }

    /// Leaves out what the kernel changes when `net.ipv4.ip_forward` is turned on: the one thing
    /// that kvmnet may leave behind.
    #[must_use]
    pub fn without_forwarding(self) -> Self {
        self.without(|line| {
            let path = line.text.split(" = ").next().unwrap_or_default();
            path == "ipv4/ip_forward"
                || path == "ipv4/conf/all/accept_redirects"
                || (path.starts_with("ipv4/conf/") && path.ends_with("/forwarding"))
        })
    }

    fn without(mut self, unwanted: impl Fn(&Line) -> bool) -> Self {
        for lines in self.sections.values_mut() {
            lines.retain(|line| !unwanted(line));
        }
        self
    }

    /// How a later snapshot differs, empty when it doesn't.
    #[must_use]
    pub fn diff(&self, after: &Self) -> String {
        let mut text = String::new();
        for (section, before) in &self.sections {
            let after = &after.sections[section];
            if before == after {
                continue;
            }
            let _ = writeln!(text, "{section}:");
            let (gone, new) = (missing(before, after), missing(after, before));
            if gone.is_empty() && new.is_empty() {
                let _ = writeln!(text, "    the same lines in another order");
            }
            for (sign, lines) in [('-', gone), ('+', new)] {
                for line in lines {
                    let _ = writeln!(text, "  {sign} {line}");
                }
            }
        }
        text
    }
}

/// The lines that are in one list and not, or less often, in the other.
fn missing<'lines>(list: &'lines [Line], other: &[Line]) -> Vec<&'lines str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in other {
        *counts.entry(&line.text).or_default() += 1;
    }
    list.iter()
        .map(|line| line.text.as_str())
        .filter(|text| match counts.get_mut(text) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        })
        .collect()
}

/// Panics with the differences when there are any.
#[track_caller]
pub fn assert_same(before: &Foreign, after: &Foreign) {
    let diff = before.diff(after);
    assert!(diff.is_empty(), "foreign state has changed:\n{diff}");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(lines: &[(&str, Owner)]) -> Foreign {
        let lines = lines
            .iter()
            .map(|(text, owner)| Line { owner: owner.clone(), text: (*text).to_owned() })
            .collect();
        Foreign { sections: [("sysctl".to_owned(), lines)].into() }
    }

    #[test]
    fn what_a_carrier_brings_is_waited_for() {
        let link = |flags: &[&str], operstate: &str, address: Value| {
            is_settled(&json!({"flags": flags, "operstate": operstate, "addr_info": [address]}))
        };
        let (asked, asks) = (json!({}), json!({"tentative": true}));
        let up = ["UP", "LOWER_UP"];
        assert!(link(&up, "UP", asked.clone()) && link(&up, "UNKNOWN", asked.clone()));
        assert!(!link(&up, "DOWN", asked.clone()) && !link(&up, "UP", asks.clone()));
        assert!(!link(&["UP", "NO-CARRIER"], "UP", asked.clone()));
        assert!(link(&["UP", "NO-CARRIER"], "DOWN", asks.clone()) && link(&[], "DOWN", asks));
        assert!(link(&up, "UP", json!({"tentative": true, "dadfailed": true})));
        let lost = json!({"tentative": true, "scope": "link"});
        assert!(!link(&["UP", "NO-CARRIER"], "DOWN", lost));
    }

    #[test]
    fn the_carrier_of_a_port_is_waited_for() {
        let link = |name: &str, master: &str, flags: &[&str]| json!({"ifname": name, "master": master, "flags": flags});
        let port = link("t6", "br1", &["UP", "LOWER_UP"]);
        let idle = link("veth0", "br1", &["UP", "NO-CARRIER"]);
        let bridge = |flags: &[&str]| json!({"ifname": "br1", "flags": flags});
        let waits = bridge(&["UP", "NO-CARRIER"]);
        assert!(!has_carrier_of_ports(&waits, &[waits.clone(), idle.clone(), port.clone()]));
        assert!(has_carrier_of_ports(&waits, &[waits.clone(), idle]));
        assert!(has_carrier_of_ports(
            &waits,
            &[waits.clone(), link("t6", "br2", &["UP", "LOWER_UP"])]
        ));
        for flags in [&["UP", "LOWER_UP"][..], &[]] {
            assert!(has_carrier_of_ports(&bridge(flags), std::slice::from_ref(&port)));
        }
    }

    #[test]
    fn the_route_of_an_address_is_waited_for() {
        let address = json!({"family": "inet6", "local": "fe80::1"});
        let link =
            |flags: &[&str]| json!({"ifname": "br1", "flags": flags, "addr_info": [address]});
        let route = |dev: &str| json!({"dev": dev, "dst": "fe80::1", "type": "local"});
        assert!(!has_routes(&link(&["UP", "LOWER_UP"]), &[route("br0")]));
        assert!(has_routes(&link(&["UP", "LOWER_UP"]), &[route("br0"), route("br1")]));
        assert!(has_routes(&link(&["UP", "NO-CARRIER"]), &[]));
    }

    #[test]
    fn a_diff_names_what_went_and_what_came() {
        let (a, b) = (("a", Owner::Host), ("b", Owner::Host));
        let before = state(&[a.clone(), a.clone()]);
        assert_eq!(before.diff(&state(&[a.clone(), b.clone()])), "sysctl:\n  - a\n  + b\n");
        assert_eq!(before.diff(&before.clone()), "");
        assert_eq!(
            state(&[a.clone(), b.clone()]).diff(&state(&[b, a])),
            "sysctl:\n    the same lines in another order\n"
        );
    }

    #[test]
    fn leaving_out_leaves_the_rest() {
        let all = state(&[
            ("ipv4/conf/br0/rp_filter = 0", Owner::Link("br0".into())),
            ("ipv4/conf/eno1/forwarding = 1", Owner::Link("eno1".into())),
            ("{}", Owner::Table("br0".into())),
        ]);
        let left = all.without_link("br0").without_forwarding();
        assert_eq!(left, state(&[("{}", Owner::Table("br0".into()))]));
        assert_eq!(left.without_table("br0"), state(&[]));
    }

    #[test]
    #[should_panic(expected = "+ b")]
    fn a_difference_fails() {
        assert_same(&state(&[]), &state(&[("b", Owner::Host)]));
    }
}
