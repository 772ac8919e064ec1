//! What the programs print about a host, without that which changes by itself: timers, counters,
//! handles, dates, and empty tables that iptables left.

use serde_json::Value;

use crate::flatten::{flatten, strip};

/// Whose a line of a snapshot is, where it is somebody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody's in particular.
    Host,
    /// A link's, by its name.
    Link(String),
    /// An nf_tables table's, by its name in whichever family.
    Table(String),
}

/// One line of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) owner: Owner,
    pub(crate) text: String,
}

impl Line {
    fn new(owner: Owner, text: String) -> Self {
        Self { owner, text }
    }
}

/// The tables that iptables works in, which it makes by looking and then leaves.
const IPTABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// Lines of `ip -details -json link`.
pub(crate) fn links(links: &[Value]) -> Vec<Line> {
    by_link(links, |key| {
        // A bridge's limit follows its ports' and stays when they go.
        key.ends_with("_timer") || key.starts_with("stats") || key == "tso_max_size"
    })
}

/// Lines of `ip -json address`.
pub(crate) fn addresses(addresses: &[Value]) -> Vec<Line> {
    by_link(addresses, |key| key.ends_with("_life_time") || key == "tentative")
}

fn by_link(entries: &[Value], volatile: impl Fn(&str) -> bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for entry in entries {
        let mut entry = entry.clone();
        // The kernel passes on what becomes of a carrier up to a second later (linkwatch).
        strip(&mut entry, &|key| volatile(key) || key == "operstate");
        remove_flag(&mut entry, "NO-CARRIER");
        forget_history(&mut entry);
        let name = text(&entry, "ifname");
        for line in flatten(&entry) {
            lines.push(Line::new(Owner::Link(name.clone()), format!("{name}: {line}")));
        }
    }
    lines
}

fn remove_flag(entry: &mut Value, flag: &str) {
    if let Some(flags) = entry["flags"].as_array_mut() {
        flags.retain(|found| found != flag);
    }
}

/// Whose start turned forwarding on is told by the mark it made, and not put back with another.
fn forget_history(entry: &mut Value) {
    let alias = entry["ifalias"].as_str().and_then(|alias| alias.strip_suffix(":forwarding"));
    if let Some(mark) = alias.map(str::to_owned) {
        entry["ifalias"] = mark.into();
    }
}

/// Lines of `ip -json route show table all`, sorted: the kernel promises no order.
pub(crate) fn routes(routes: &[Value]) -> Vec<Line> {
    let mut lines: Vec<_> = routes
        .iter()
        .map(|route| {
            let mut route = route.clone();
            strip(&mut route, &|key| matches!(key, "expires" | "age" | "used"));
            remove_flag(&mut route, "linkdown");
            Line::new(Owner::Link(text(&route, "dev")), route.to_string())
        })
        .collect();
    lines.sort_by(|a, b| a.text.cmp(&b.text));
    lines
}

/// Lines of `nft -json list ruleset`.
pub(crate) fn ruleset(ruleset: &Value) -> Vec<Line> {
    let objects: Vec<Value> = ruleset["nftables"].as_array().cloned().unwrap_or_default();
    objects
        .iter()
        .filter(|object| object.get("metainfo").is_none())
        .filter(|object| !left_by_iptables(&table_of(object), &objects))
        .map(|object| {
            let mut object = object.clone();
            strip(&mut object, &|key| matches!(key, "handle" | "expires"));
            forget_counts(&mut object);
            Line::new(Owner::Table(table_of(&object).1), object.to_string())
        })
        .collect()
}

/// The family and name of the table that an object of the ruleset is or belongs to.
fn table_of(object: &Value) -> (String, String) {
    let Some((kind, inner)) = object.as_object().and_then(|entries| entries.iter().next()) else {
        return Default::default();
    };
    let key = if kind == "table" { "name" } else { "table" };
    (text(inner, "family"), text(inner, key))
}

/// Whether a table is one of iptables' and does nothing: base chains that accept, no more.
fn left_by_iptables(table: &(String, String), objects: &[Value]) -> bool {
    let (family, name) = table;
    IPTABLES.contains(&name.as_str())
        && ["ip", "ip6"].contains(&family.as_str())
        && objects
            .iter()
            .filter(|object| table_of(object) == *table && object.get("table").is_none())
            .all(|object| object["chain"]["policy"] == "accept")
}

/// Sets what was counted to nothing, and leaves that there is a counter.
fn forget_counts(value: &mut Value) {
    match value {
        Value::Object(entries) => {
            for (key, inner) in entries.iter_mut() {
                if let (true, Some(counted)) =
                    (matches!(key.as_str(), "counter" | "quota"), inner.as_object_mut())
                {
                    let only_set = key == "quota";
                    counted.retain(|key, _| {
                        !(matches!(key.as_str(), "packets" | "used")
                            || (key == "bytes" && !only_set))
                    });
                }
                forget_counts(inner);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(forget_counts),
        _ => {}
    }
}

/// Lines of `iptables-save`, each with the table it is in.
pub(crate) fn saved(text: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut table = String::new();
    let mut pending: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        } else if line == "COMMIT" {
            let idle =
                pending.iter().all(|line| line.starts_with(':') && line.ends_with(" ACCEPT"));
            let table = std::mem::take(&mut table);
            let pending = std::mem::take(&mut pending);
            if !idle {
                let text = |line| format!("{table}: {line}");
                lines.extend(pending.into_iter().map(|line| Line::new(Owner::Host, text(line))));
            }
        } else if line.starts_with(':') {
            // ":INPUT ACCEPT [12:34]"
            let chain = line.rsplit_once(" [").map_or(line, |(chain, _)| chain);
            pending.push(chain.to_owned());
        } else if !line.is_empty() && !line.starts_with('#') {
            pending.push(line.to_owned());
        }
    }
    lines
}

/// Lines of `grep -r . conf…` below `/proc/sys/net`: `ipv4/conf/eno1/forwarding:0`.
pub(crate) fn sysctls(text: &str) -> Vec<Line> {
    let mut lines: Vec<_> = text
        .lines()
        .filter_map(|line| {
            // From the end: the name of a link may hold a colon, none of the values does.
            let (path, value) = line.rsplit_once(':')?;
            let owner = match path.split('/').collect::<Vec<_>>()[..] {
                [_, "conf", link, _] if link != "all" && link != "default" => {
                    Owner::Link(link.to_owned())
                }
                _ => Owner::Host,
            };
            Some(Line::new(owner, format!("{path} = {value}")))
        })
        .collect();
    lines.sort_by(|a, b| a.text.cmp(&b.text));
    lines
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn timers_of_links_go_and_settings_stay() {
        let link = |timer: &str, mtu: u32| {
            json!({"ifname": "br9", "mtu": mtu,
                "linkinfo": {"info_data": {"gc_timer": timer, "ageing_time": 30000}}})
        };
        assert_eq!(links(&[link("1.5", 1500)]), links(&[link("7.0", 1500)]));
        assert_ne!(links(&[link("1.5", 1500)]), links(&[link("1.5", 1400)]));
    }

    #[test]
    fn lifetimes_of_addresses_go() {
        let address = |left: u32, local: &str| {
            json!({"ifname": "eno1",
                "addr_info": [{"local": local, "valid_life_time": left}]})
        };
        assert_eq!(addresses(&[address(1, "10.0.0.11")]), addresses(&[address(2, "10.0.0.11")]));
        assert_ne!(addresses(&[address(1, "10.0.0.11")]), addresses(&[address(1, "10.0.0.12")]));
    }

    #[test]
    fn order_of_routes_is_nothing() {
        let (a, b) = (
            json!({"dst": "default", "dev": "eno1"}),
            json!({"dst": "10.0.0.0/24", "dev": "eno1"}),
        );
        assert_eq!(routes(&[a.clone(), b.clone()]), routes(&[b, a.clone()]));
        assert_ne!(routes(&[a]), routes(&[]));
    }

    fn rule(table: &str, handle: u32, packets: u32, verdict: &str) -> Value {
        json!({"rule": {"family": "ip", "table": table, "chain": "c", "handle": handle,
            "expr": [{"counter": {"packets": packets, "bytes": packets}}, {verdict: null}]}})
    }

    #[test]
    fn handles_and_counts_of_rules_go_and_verdicts_stay() {
        let of = |rule| ruleset(&json!({"nftables": [{"metainfo": {"version": "1"}}, rule]}));
        assert_eq!(of(rule("t", 1, 2, "drop")), of(rule("t", 3, 4, "drop")));
        assert_ne!(of(rule("t", 1, 2, "drop")), of(rule("t", 1, 2, "accept")));
        assert_eq!(of(rule("t", 1, 2, "drop"))[0].owner, Owner::Table("t".into()));
    }

    #[test]
    fn idle_tables_of_iptables_are_nobodys() {
        let table = |name: &str| json!({"table": {"family": "ip", "name": name, "handle": 1}});
        let chain = |policy: &str| {
            json!({"chain": {"family": "ip", "table": "nat",
                "name": "c", "policy": policy}})
        };
        let of = |objects: &[Value]| ruleset(&json!({"nftables": objects}));
        assert_eq!(of(&[table("nat"), chain("accept")]), []);
        assert_eq!(of(&[table("nat"), chain("drop")]).len(), 2);
        assert_eq!(of(&[table("nat"), chain("accept"), rule("nat", 1, 0, "drop")]).len(), 3);
        assert_eq!(of(&[table("mine")]).len(), 1);
    }

    #[test]
    fn dates_and_counts_of_saved_tables_go() {
        let saved = |date: &str, count: u32, rule: &str| {
            saved(&format!(
                "# Generated on {date}\n*nat\n:POSTROUTING ACCEPT [{count}:9]\n{rule}\nCOMMIT\n"
            ))
        };
        let rule = "-A POSTROUTING -j MASQUERADE";
        assert_eq!(saved("Mon", 1, rule), saved("Tue", 2, rule));
        assert_eq!(
            texts(&saved("Mon", 1, rule)),
            ["nat: :POSTROUTING ACCEPT", "nat: -A POSTROUTING -j MASQUERADE"]
        );
        assert_eq!(saved("Mon", 1, ""), []);
        assert_ne!(saved("Mon", 1, rule), saved("Mon", 1, "-A POSTROUTING -j ACCEPT"));
    }

    #[test]
    fn rules_that_end_in_accept_are_kept() {
        let text = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n";
        assert_eq!(saved(text).len(), 2);
    }

    #[test]
    fn sysctls_belong_to_their_link() {
        let lines = sysctls(
            "ipv4/ip_forward:0\nipv4/conf/vnet0.0/forwarding:1\nipv4/conf/all/forwarding:0\n",
        );
        let owners: Vec<_> = lines.iter().map(|line| &line.owner).collect();
        assert_eq!(owners, [&Owner::Host, &Owner::Link("vnet0.0".into()), &Owner::Host]);
        assert_eq!(lines[1].text, "ipv4/conf/vnet0.0/forwarding = 1");
    }
}
