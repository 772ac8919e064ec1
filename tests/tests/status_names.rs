//! `kvmnet status --json`: which networks it shows, to whom, what it does with files that are wrong; and
//! the schema.

mod status_json;

use std::time::Duration;

use kvmnet_tests::{Host, Output, Process, wait_until};
use serde_json::{Value, json};
use status_json::{SCHEMA, assert_true, mistakes, network, status, validated};

const LAB: &str = "address = \"192.168.150.1/24\"\n";

fn names(status: &Value) -> Vec<&str> {
    let networks = status["networks"].as_array().expect("the schema says so");
    networks.iter().map(|network| network["name"].as_str().unwrap_or("-")).collect()
}

#[track_caller]
fn without_file(host: &Host, network: &str) -> Output {
    let output = host.kvmnet(&["status", "--json", network]);
    assert_eq!((output.code, output.stdout.as_str()), (1, ""), "{output:?}");
    output
}

/// A program that holds a tap on a network.
#[track_caller]
fn holder(host: &Host, network: &str, tap: &str) -> Process {
    let process = host.spawn(host.command(env!("CARGO_BIN_EXE_hold")).arg(tap));
    assert!(wait_until(Duration::from_secs(10), || process.written().0.contains("held")));
    host.helper_on(network, "natup", tap);
    process
}

#[test]
fn names_choose_networks() {
    let host = Host::bare();
    host.describe("lab", LAB);
    host.describe("cell", "mode = \"isolated\"\n");
    let chosen = |names_given: &[&str]| {
        let text = host.kvmnet_ok(&[&["status", "--json"], names_given].concat());
        let status = validated(&text);
        assert_true(&host, &status);
        names(&status).join(" ")
    };
    assert_eq!(chosen(&["lab"]), "lab");
    assert_eq!(chosen(&["lab", "cell", "lab"]), "cell lab");
    assert_eq!(chosen(&["default"]), "default");
    let unknown = "kvmnet: network nope: there is no /etc/kvmnet/nope.toml; kvmnet status shows \
                   the networks that there are\n";
    assert_eq!(without_file(&host, "nope").stderr, unknown);
    for form in [&["status", "lab", "nope"][..], &["status", "--tree", "nope", "lab"]] {
        let output = host.kvmnet(form);
        assert_eq!((output.code, &*output.stdout, &*output.stderr), (1, "", unknown));
    }
    // It has a file, and that is what is wrong.
    host.describe("zoo", "mode = zoo\n");
    let broken = "kvmnet: /etc/kvmnet/zoo.toml:1: a word without quotes; write it in quotes: mode = \
                  \"nat\"\n";
    assert_eq!(without_file(&host, "zoo").stderr, broken);
    host.ok("rm /etc/kvmnet/zoo.toml");
    // A bridge without a file is a network that can be named.
    let _tap = host.tap_on("lab", "t0");
    host.ok("rm /etc/kvmnet/lab.toml");
    assert_eq!(chosen(&["lab"]), "lab");
}

#[test]
fn a_broken_file_hides_nothing_else() {
    let host = Host::bare();
    host.describe("lab", LAB);
    host.describe("cell", "mode = \"isolated\"\n");
    let _tap = host.tap_on("cell", "t0");
    host.describe("zoo", "mode = zoo\n");
    host.describe("cell", "mode = \"isolated\"\nmtu = \"big\"\n");
    let output = host.kvmnet(&["status", "--json"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            1,
            "kvmnet: /etc/kvmnet/cell.toml:2: mtu is of type string; write it so: mtu = 1500\n\
             kvmnet: /etc/kvmnet/zoo.toml:1: a word without quotes; write it in quotes: mode = \
             \"nat\"\n"
        )
    );
    let status = validated(&output.stdout);
    assert_true(&host, &status);
    assert_eq!(names(&status), ["cell", "default", "lab"]);
    let cell = network(&status, "cell");
    assert_eq!((&cell["file"], &cell["mode"]), (&Value::Null, &json!("isolated")));
    assert_eq!((&cell["state"], &cell["rules"]["state"]), (&json!("up"), &json!("unknown")));
    host.ok("chmod 777 /etc/kvmnet");
    let output = host.kvmnet(&["status", "--json"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.starts_with("kvmnet: /etc/kvmnet: "), "{output:?}");
    assert_eq!(names(&validated(&output.stdout)), ["cell", "default"]);
}

#[test]
fn a_user_without_privileges_sees_what_it_may() {
    let host = Host::new();
    host.describe("lab", LAB);
    let _tap = host.tap_on("lab", "t0");
    let mut held = holder(&host, "lab", "t1");
    let output = host.kvmnet_unprivileged(&["status", "--json"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    let seen = validated(&output.stdout);
    assert_eq!(network(&seen, "lab")["rules"]["state"], "unknown");
    assert_eq!(network(&seen, "default")["rules"]["state"], "none");
    // All else is as root sees it, but for other firewalls, and whoever holds the taps.
    let mut wanted = status(&host);
    let lab = wanted["networks"][1]["ports"][1]["holders"].take();
    assert_eq!(lab[0]["pid"], held.pid().unwrap());
    wanted["networks"][1]["ports"][1]["holders"] = json!([]);
    wanted["networks"][1]["rules"]["state"] = "unknown".into();
    assert_eq!(wanted["host"]["dropping_chains"].take(), json!([]));
    assert_eq!(seen, wanted);
    host.ok("rm /etc/kvmnet/lab.toml");
    let output = host.kvmnet_unprivileged(&["status", "--json"]);
    assert_eq!(network(&validated(&output.stdout), "lab")["rules"]["state"], "unknown");
    // A file that only root reads.
    host.describe("lab", LAB);
    host.ok("chmod 600 /etc/kvmnet/lab.toml");
    let output = host.kvmnet_unprivileged(&["status", "--json"]);
    let why = "kvmnet: /etc/kvmnet/lab.toml: cannot be read: Permission denied (os error 13)\n";
    assert_eq!((output.code, output.stderr.as_str()), (1, why));
    validated(&output.stdout);
    held.kill();
}

/// The schema refuses what it should: each member renamed, left out, or of another type.
#[test]
fn the_schema_can_refuse() {
    assert!(jsonschema::draft202012::meta::is_valid(&SCHEMA));
    let host = Host::new();
    let _tap = host.tap_on("default", "t0");
    let mut hold = holder(&host, "default", "t1");
    let good = status(&host);
    hold.kill();
    let mut count = 0;
    for path in [
        "",
        "/host",
        "/networks/0",
        "/networks/0/bridge",
        "/networks/0/rules",
        "/networks/0/forwarding",
        "/networks/0/ports/0",
        "/networks/0/ports/1/holders/0",
    ] {
        let object = good.pointer(path).and_then(Value::as_object).expect(path);
        for (member, value) in object {
            let with = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
                let mut bad = good.clone();
                change(bad.pointer_mut(path).and_then(Value::as_object_mut).expect(path));
                assert!(!mistakes(&bad).is_empty(), "{path}/{member}: {bad:#}");
            };
            with(&|object| drop(object.remove(member)));
            with(&|object| drop(object.insert(format!("{member}s"), value.clone())));
            with(&|object| drop(object.insert(member.clone(), json!({"other": 1}))));
            count += 3;
        }
    }
    assert!(count > 90, "{count}");
    // Every member is described.
    for (name, definition) in SCHEMA["$defs"].as_object().unwrap() {
        for (member, text) in definition["properties"].as_object().into_iter().flatten() {
            let reference = text["$ref"].as_str().and_then(|at| SCHEMA.pointer(&at[1..]));
            let words = text["description"]
                .as_str()
                .or(reference.and_then(|to| to["description"].as_str()));
            assert!(words.is_some_and(|words| words.len() > 5), "{name}.{member}");
        }
    }
}
