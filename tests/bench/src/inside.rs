//! The whole of a run, in the private host.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::results::{Machine, Results};
use crate::world::World;
use crate::{DIRECTORY, RESULTS, growth, side, start};

/// How many files may be open. QEMU closes as many at each start of a script, one by one.
const FILES: libc::rlim_t = 4096;

pub fn run(rounds: usize) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    // For a thousand taps that are held open.
    let limit = libc::rlimit { rlim_cur: FILES, rlim_max: FILES };
    // SAFETY: the pointer is to a whole rlimit.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let load_before = load();
    let base = World::here()?;
    fs::create_dir_all("/etc/kvmnet")?;
    fs::create_dir_all("/run/netns")?;
    fs::create_dir_all(crate::world::PRIVATE)?;
    eprintln!("bench: side by side, {rounds} rounds");
    let (programs, left_out) = side::measure(&base, rounds)?;
    for required in ["the floor", "kvmnet, nftables", "kvmnet, iptables"] {
        if let Some(why) = left_out.get(required) {
            return Err(format!("{required}: {why}").into());
        }
    }
    let growth = growth::measure(&base, rounds.div_ceil(3))?;
    let starts = start::measure(&base, rounds.div_ceil(6))?;
    let results = Results {
        machine: Machine {
            processor: processor(),
            processors: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: [load_before, load()],
            seconds: begin.elapsed().as_secs_f64(),
        },
        programs,
        growth,
        starts,
        sizes: sizes()?,
        left_out,
    };
    fs::write(RESULTS, serde_json::to_vec(&results)?)?;
    Ok(())
}

fn sizes() -> std::io::Result<BTreeMap<String, u64>> {
    let mut sizes = BTreeMap::new();
    for path in [
        "floor",
        "bin/kvmnet",
        "libexec/kvmnet-ifup",
        "libexec/kvmnet-ifdown",
        "libexec/kvmnet-natup",
        "libexec/kvmnet-natdown",
    ] {
        let size = fs::metadata(Path::new(DIRECTORY).join(path))?.len();
        let name = path.rsplit('/').next().unwrap_or(path);
        sizes.insert(name.to_owned(), size);
    }
    Ok(sizes)
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    model.map(|rest| rest.trim_start_matches(['\t', ' ', ':']).to_owned()).unwrap_or_default()
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
