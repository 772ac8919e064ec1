//! The benchmark works, from end to end: one round of everything. What it finds doesn't matter here.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

#[test]
fn one_round_of_everything() {
    let bench = Path::new(env!("CARGO_BIN_EXE_bench"));
    let floor = bench.with_file_name("floor");
    assert!(floor.exists(), "the floor is built by `cargo build -p kvmnet-floor`");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
    let output = Command::new(bench)
        .arg(floor)
        .arg("1")
        .env("KVMNET_BENCH_DIR", &directory)
        .output()
        .expect("it is a program");
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).expect("it is UTF-8");
    let results = fs::read(directory.join("bench.json")).expect("it was written");
    let results: Value = serde_json::from_slice(&results).expect("it is JSON");

    // Who needs a package that isn't there is named all the same.
    let measured = results["programs"].as_array().expect("a list");
    let left_out = results["left_out"].as_object().expect("a map");
    for name in [
        "the floor",
        "kvmnet, nftables",
        "kvmnet, iptables",
        "the old scripts, no sleep",
        "the old scripts",
        "qemu-bridge-helper",
        "CNI bridge plugin",
        "netavark",
        "libvirt network",
    ] {
        let is_measured = measured.iter().any(|program| program["name"] == name);
        assert!(is_measured != left_out.contains_key(name), "{name}: {table}");
        assert!(table.contains(&format!("{name} ")), "{name}: {table}");
    }
    for program in &measured[..2] {
        let verbs = program["verbs"].as_object().expect("a map");
        assert_eq!(verbs.len(), 6, "{program}");
        for measured in verbs.values() {
            let wall = measured["wall"]["median"].as_f64().expect("a number");
            assert!(wall > 0.0 && wall < 10_000.0, "{measured}");
            assert!(measured["system_calls"].as_u64() > Some(10), "{measured}");
            assert_eq!(measured["child_processes"], 0, "{measured}");
            assert!(measured["peak_rss_kib"].as_u64() > Some(100), "{measured}");
        }
    }
    assert_eq!(results["growth"].as_array().map(Vec::len), Some(8 + 8 + 4 + 8 + 4 + 2));
    assert_eq!(results["starts"].as_array().map(Vec::len), Some(4));
    for plot in ["side-by-side.svg", "growth.svg"] {
        let plot = fs::read_to_string(directory.join(plot)).expect("it was written");
        assert!(plot.starts_with("<svg") && plot.contains("kvmnet, nftables"), "{plot}");
    }
}
