//! `kvmnet adopt`: old scripts become kvmnet's programs, under their old paths; and back.

mod choice;
mod files;
mod meaning;
mod network;
mod plan;
mod reading;
mod show;
mod state;
#[cfg(test)]
mod tests;
mod undo;
mod undoing;
mod wrapper;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use kvmnet_core::config::Files;
use kvmnet_core::model::NetworkName;
use kvmnet_core::output;
use log::Level;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::error::Error;
use crate::print;
use plan::{Circumstances, Outcome, Plan};
use state::Observed;

/// What is behind the name of a script that lies beside its wrapper.
const BACKUP: &str = ".before-kvmnet";
const NAME_OF_UNDO: &str = "kvmnet adopt --undo --yes";
/// kvmnet's own programs.
const HELPERS: [&str; 4] = ["kvmnet-ifup", "kvmnet-ifdown", "kvmnet-natup", "kvmnet-natdown"];
/// Where QEMU's packages and how-tos have put scripts.
const USUAL: [&str; 12] = [
    "/etc/qemu-ifup",
    "/etc/qemu-ifdown",
    "/etc/qemu-natup",
    "/etc/qemu-natdown",
    "/etc/qemu/qemu-ifup",
    "/etc/qemu/qemu-ifdown",
    "/etc/kvm/kvm-ifup",
    "/etc/kvm/kvm-ifdown",
    "/etc/kvm/qemu-ifup",
    "/etc/kvm/qemu-ifdown",
    "/etc/kvm-ifup",
    "/etc/kvm-ifdown",
];

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    /// Whether to do it.
    pub yes: bool,
    /// Whether to go back.
    pub undo: bool,
    /// The network that is named.
    pub network: Option<NetworkName>,
    /// The scripts; none for those at the usual places.
    pub scripts: Vec<PathBuf>,
}

/// Adopts scripts, or undoes that; without `yes` it only tells what it would do.
///
/// # Errors
/// [`Error`]. Each script is either adopted or as it was.
pub fn run(directory: &Path, options: &Options) -> Result<ExitCode, Error> {
    if options.yes && !geteuid().is_root() {
        return Err(Error::NotRoot { uid: geteuid().as_raw() });
    }
    let _lock = options.yes.then(lock).transpose()?;
    if options.undo { undoing::run(directory, options) } else { adopt(directory, options) }
}

/// One run at a time. The program itself is what all of them have, and what nobody else locks.
fn lock() -> Result<Flock<File>, Error> {
    let path = Path::new("/proc/self/exe");
    let failed = |source| Error::File { path: path.to_owned(), what: "locked", source };
    let file = File::open(path).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))
}

fn adopt(directory: &Path, options: &Options) -> Result<ExitCode, Error> {
    let (networks, mistakes) = Files::list(directory).survey();
    if let Some(mistake) = mistakes.into_iter().next() {
        return Err(mistake.into());
    }
    let scripts = observe(&options.scripts)?;
    if scripts.is_empty() {
        return say(&format!("no script at any of {}; name yours\n", USUAL.join(", ")));
    }
    let circumstances = Circumstances {
        directory,
        networks,
        host: host(),
        helper: &helper,
        named: options.network.clone(),
    };
    let plan = plan::plan(&scripts, &circumstances);
    let adopts =
        plan.scripts.iter().any(|script| matches!(script.outcome, Outcome::Adopted { .. }));
    let mut text = show::describe(&plan);
    if !options.yes && adopts {
        text += &format!(
            "\n{}\nNothing is changed yet; kvmnet adopt --yes does it.\n",
            show::diffs(&plan)
        );
    }
    say(&text)?;
    if options.yes {
        act(directory, &plan)?;
    }
    let stays = staying(&plan);
    if stays.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Error::NotAdopted(stays.join("; "))) }
}

/// The scripts that stay, each with the first reason.
fn staying(plan: &Plan) -> Vec<String> {
    let stays = plan.scripts.iter().filter_map(|script| {
        let Outcome::Stays(reasons) = &script.outcome else { return None };
        let path = script.path.display();
        let why = reasons.first().map_or("", String::as_str);
        let reading = script.reading.as_ref();
        let by_line =
            reading.is_some_and(|read| !read.problems.is_empty() || !read.dhcp.is_empty());
        let remedy = if by_line {
            format!("; as network NAME all the same: kvmnet adopt --network NAME {path}")
        } else {
            String::new()
        };
        Some(format!("{path} ({why}{remedy})"))
    });
    stays.collect()
}

fn act(directory: &Path, plan: &Plan) -> Result<(), Error> {
    files::clean_directory(directory).map_err(failed(directory, "cleared up"))?;
    // First what a wrapper names.
    for file in &plan.files {
        files::create(&file.path, &file.written.text()).map_err(failed(&file.path, "written"))?;
        done(&format!("{}: written, for {}", file.path.display(), file.written.script.display()))?;
    }
    for script in &plan.scripts {
        let path = &script.path;
        if let Outcome::Adopted { wrapper, identity, .. } = &script.outcome {
            files::replace(path, *identity, &wrapper.text()).map_err(failed(path, "replaced"))?;
            let backup = state::backup_of(path);
            done(&format!(
                "{}: runs {} now; the script is {}",
                path.display(),
                wrapper.helper.display(),
                backup.display()
            ))?;
        }
    }
    Ok(())
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, what, source }
}

/// Says what was done, to who is here and to the log.
fn done(line: &str) -> Result<(), Error> {
    let line = output::printable(line);
    output::to_syslog("kvmnet", Level::Info, &line);
    // It is done, whoever takes the line.
    let _ = print::whole(&mut io::stdout().lock(), format!("{line}\n").as_bytes());
    Ok(())
}

fn say(text: &str) -> Result<ExitCode, Error> {
    print::whole(&mut io::stdout().lock(), text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The scripts that are named, or those at the usual places; each with its other half.
fn observe(named: &[PathBuf]) -> Result<Vec<Observed>, Error> {
    let mut scripts: Vec<Observed> = Vec::new();
    let mut add = |script: Observed| {
        if !scripts.iter().any(|known| known.path == script.path) {
            scripts.push(script);
        }
    };
    if named.is_empty() {
        let usual = USUAL.iter().map(|path| Observed::at(Path::new(path)));
        usual.filter(|script| script.state != state::State::Absent).for_each(&mut add);
        return Ok(scripts);
    }
    for path in named {
        let path = absolute(path)?;
        let half = plan::other_half(&path).map(|path| Observed::at(&path));
        add(Observed::at(&path));
        if let Some(half) = half.filter(|half| half.state != state::State::Absent) {
            add(half);
        }
    }
    Ok(scripts)
}

/// Its directory's real path with its own name: the name may be a link that is to be replaced.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    let nameless = || io::Error::new(io::ErrorKind::InvalidInput, "it has no name");
    let name = path.file_name().ok_or_else(nameless).map_err(failed(path, "adopted"))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = fs::canonicalize(parent).map_err(failed(path, "found"))?;
    Ok(parent.join(name))
}

fn host() -> meaning::Host {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default_route = routes.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000"))
            .then(|| words.first().map(|&name| name.to_owned()))
            .flatten()
    });
    meaning::Host { has_br0: Path::new("/sys/class/net/br0").exists(), default_route }
}

/// Where a helper is: in this installation, or where one was built for, or usually.
fn helper(name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().and_then(Path::parent).map(|prefix| prefix.join("libexec"));
    let built = option_env!("KVMNET_LIBEXECDIR").map(PathBuf::from);
    let usual = ["/usr/libexec", "/usr/local/libexec"].map(PathBuf::from);
    let directories = beside.into_iter().chain(built).chain(usual);
    directories.map(|directory| directory.join(name)).find(|path| {
        wrapper::can_name(path) && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
    })
}
