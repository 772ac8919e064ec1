//! What `kvmnet status --json` says, held to its schema and to what ip, nft and the settings say.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use kvmnet_tests::Host;
use serde_json::{Value, json};

/// The schema that users are promised.
pub static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../docs/status.schema.json");
    serde_json::from_str(text).expect("the schema is JSON")
});

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
    jsonschema::draft202012::new(&SCHEMA).expect("the schema is one of JSON Schema 2020-12")
});

/// What the schema finds wrong.
pub fn mistakes(status: &Value) -> Vec<String> {
    let at =
        |path: &dyn std::fmt::Display, error: &dyn std::fmt::Display| format!("{path}: {error}");
    VALIDATOR.iter_errors(status).map(|error| at(&error.instance_path(), &error)).collect()
}

/// The JSON, which must follow the schema.
#[track_caller]
pub fn validated(text: &str) -> Value {
    let status = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mistakes = mistakes(&status);
    assert!(mistakes.is_empty(), "{mistakes:#?}\n{text}");
    status
}

/// What root is shown of all networks. It must be what the host itself says.
#[track_caller]
pub fn status(host: &Host) -> Value {
    let status = validated(&host.kvmnet_ok(&["status", "--json"]));
    assert_true(host, &status);
    status
}

/// One of the networks.
#[track_caller]
pub fn network<'a>(status: &'a Value, name: &str) -> &'a Value {
    let networks = status["networks"].as_array().expect("the schema says so");
    let mut found = networks.iter().filter(|network| network["name"] == name);
    let (first, second) = (found.next(), found.next());
    assert!(second.is_none(), "{name} is there twice: {status:#}");
    first.unwrap_or_else(|| panic!("{name} is not there: {status:#}"))
}

/// Compares every fact with what ip, nft and the settings say.
#[track_caller]
pub fn assert_true(host: &Host, status: &Value) {
    let links = host.links();
    let alias = |link: &Value| link["ifalias"].as_str().unwrap_or_default().to_owned();
    let turned_on: BTreeSet<String> = links
        .iter()
        .map(alias)
        .filter_map(|alias| alias.strip_suffix(":forwarding").map(str::to_owned))
        .filter_map(|mark| mark.split(':').nth(1).map(str::to_owned))
        .collect();
    let netfilter = host.sh("cat /proc/sys/net/bridge/bridge-nf-call-iptables");
    let netfilter = netfilter.success().then(|| netfilter.stdout.trim() == "1");
    let uplinks = host.ok("ip -4 route show default | sed 's/metric //' | awk '{ for (n = 1; n < NF; n++) if ($n == \"dev\") print ($(n + 2) + 0), $(n + 1) }' | sort -sn | cut -d' ' -f2");
    let forwards = |path: &str| host.sysctl(&format!("net/ipv4/{path}")) == "1";
    let shown = &status["host"];
    assert_eq!(shown["ipv4_forwarding"], forwards("ip_forward"));
    assert_eq!(shown["ipv4_forwarding_turned_on_for"], json!(turned_on));
    assert_eq!(shown["bridge_netfilter"], json!(netfilter));
    assert_eq!(shown["uplinks"], json!(uplinks.lines().collect::<Vec<_>>()));

    let networks = status["networks"].as_array().expect("the schema says so");
    for network in networks {
        let bridge = &network["bridge"];
        let name = bridge["name"].as_str().expect("the schema says so");
        let link = links.iter().find(|link| link["ifname"] == name);
        if let Some(link) = link.filter(|_| !bridge["ifindex"].is_null()) {
            assert_bridge(host, network, link);
        } else {
            assert_eq!(network["state"], "down", "{network:#}");
            assert_eq!((&bridge["managed"], &bridge["up"]), (&Value::Null, &json!(false)));
            assert_eq!((&bridge["mac"], &bridge["mtu"]), (&Value::Null, &Value::Null));
            assert_eq!((&bridge["addresses"], &network["ports"]), (&json!([]), &json!([])));
        }
        if let Some(command) = network["rules"]["command"].as_str() {
            let is_there =
                !["none", "missing"].map(Value::from).contains(&network["rules"]["state"]);
            assert_eq!(host.sh(command).success(), is_there, "{network:#}");
        }
        if !network["forwarding"].is_null() {
            let by_bridge = link.is_some() && forwards(&format!("conf/{name}/forwarding"));
            assert_eq!(network["forwarding"]["on"], by_bridge || forwards("ip_forward"));
        }
    }
    // None is left out.
    for link in links.iter().filter(|link| alias(link).starts_with("kvmnet:")) {
        let is_shown = |network: &Value| network["bridge"]["ifindex"] == link["ifindex"];
        assert!(networks.iter().any(is_shown), "{link} is not in {status:#}");
    }
}

#[track_caller]
fn assert_bridge(host: &Host, network: &Value, link: &Value) {
    let bridge = &network["bridge"];
    let name = link["ifname"].as_str().expect("ip prints it");
    let alias = link["ifalias"].as_str().unwrap_or_default();
    let mac = link["address"].as_str().expect("ip prints it");
    assert_eq!(bridge["ifindex"], link["ifindex"]);
    assert_eq!(bridge["mac"], mac);
    assert_eq!(bridge["mtu"], link["mtu"]);
    assert_eq!(bridge["up"], has_flag(link, "UP"));
    assert_eq!(bridge["addresses"], json!(host.addresses(name)));
    let is_ours = alias.starts_with("kvmnet:") || mac.starts_with("02:6b:76:");
    assert_eq!(bridge["managed"], is_ours, "{network:#}");
    if network["mode"] != "bridged" {
        assert_eq!(network["state"] == "pinned", alias.contains(":pinned"), "{network:#}");
    }
    let ports = network["ports"].as_array().expect("the schema says so");
    let names: Vec<_> = ports.iter().filter_map(|port| port["name"].as_str()).collect();
    assert_eq!(names, host.ports(name));
    for port in ports {
        let link = host.link(port["name"].as_str().expect("just seen")).expect("it is a port");
        let info = &link["linkinfo"];
        let kind = match info["info_kind"].as_str() {
            Some("tun") => info["info_data"]["type"].as_str().expect("ip prints it"),
            Some(kind) => kind,
            None => "nic",
        };
        assert_eq!(port["kind"], kind);
        assert_eq!(port["up"], has_flag(&link, "UP"));
        // ip doesn't show it of a port that is down.
        if has_flag(&link, "UP") {
            assert_eq!(port["carrier"], has_flag(&link, "LOWER_UP"), "{link}");
        }
    }
}

fn has_flag(link: &Value, flag: &str) -> bool {
    link["flags"].as_array().is_some_and(|flags| flags.iter().any(|found| found == flag))
}
