//! `bench FLOOR`: kvmnet, the floor and what others have for the same purpose, side by side in one run.
//!
//! The first process makes a private host, and runs itself in there (`bench inside`), where each program
//! gets networks of its own. Times are taken around spawn and wait of the program itself.
//!
//! `KVMNET_BENCH_DIR`: where results and plots go (default: target/bench in the repository).

mod figures;
mod growth;
mod inside;
mod others;
mod plot;
mod programs;
mod results;
mod run;
mod side;
mod start;
mod table;
mod trace;
mod world;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use kvmnet_tests::{Host, require_root};

use results::Results;

/// Where the programs are in the private host: on a tmpfs, so that none is slower for where it lies.
const DIRECTORY: &str = "/run/bench";
const RESULTS: &str = "/run/bench/results.json";
const ROUNDS: &str = "30";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["inside", rounds] => rounds.parse().map_err(Into::into).and_then(inside::run),
        [floor] => outside(Path::new(floor), ROUNDS),
        [floor, rounds] => outside(Path::new(floor), rounds),
        _ => Err("usage: bench FLOOR [ROUNDS]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes the host, has everything measured in it, and shows what came of it.
fn outside(floor: &Path, rounds: &str) -> Result<(), Box<dyn Error>> {
    require_root();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let stage = std::env::var_os("KVMNET_STAGE")
        .map_or_else(|| repository.join("target/stage"), PathBuf::from);
    let builder = Host::builder().without_uplink();
    // Without the others' packages they are named as what couldn't be measured.
    let has_peers = repository.join("target/peers/stamp").exists();
    let host = if has_peers { builder.with_peers() } else { builder }.build();
    let install = |from: &Path, to: &str| -> Result<(), Box<dyn Error>> {
        let program = fs::read(from).map_err(|error| format!("{}: {error}", from.display()))?;
        host.write_program(Path::new(DIRECTORY).join(to), program);
        Ok(())
    };
    install(floor, "floor")?;
    // A helper finds the command in ../bin.
    install(&stage.join("usr/bin/kvmnet"), "bin/kvmnet")?;
    for verb in ["ifup", "ifdown", "natup", "natdown"] {
        let name = format!("libexec/kvmnet-{verb}");
        install(&stage.join("usr").join(&name), &name)?;
    }
    let this = std::env::current_exe()?;
    let mut command = host.command(this.to_str().ok_or("the path of bench is not UTF-8")?);
    command.args(["inside", rounds]).stdout(Stdio::inherit()).stderr(Stdio::inherit());
    if !command.status()?.success() {
        return Err("measuring failed".into());
    }
    let results: Results = serde_json::from_slice(&fs::read(host.path(RESULTS))?)?;
    drop(host);

    print!("{}", table::text(&results));
    let directory = std::env::var_os("KVMNET_BENCH_DIR")
        .map_or_else(|| repository.join("target/bench"), PathBuf::from);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("bench.json"), serde_json::to_vec_pretty(&results)?)?;
    plot::side_by_side(&results, &directory.join("side-by-side.svg"))?;
    plot::growth(&results, &directory.join("growth.svg"))?;
    println!("\n{}: bench.json, side-by-side.svg, growth.svg", directory.display());
    Ok(())
}
