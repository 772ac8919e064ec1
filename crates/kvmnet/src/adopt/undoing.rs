//! `kvmnet adopt --undo`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::network::Written;
use super::state::{Observed, State};
use super::undo::{self, Found, Step};
use super::{BACKUP, Options, USUAL, absolute, done, failed, files, plan, say, show, state};
use crate::error::Error;

/// Puts scripts back, or tells what it would do.
///
/// # Errors
/// [`Error`], where something stays that isn't as it was left.
pub fn run(directory: &Path, options: &Options) -> Result<ExitCode, Error> {
    let written = written_files(directory);
    let steps: Vec<(Observed, Step)> = scripts(&options.scripts, &written)?
        .into_iter()
        .map(|script| {
            let step = undo::of(&script);
            (script, step)
        })
        .collect();
    let stays: Vec<String> = steps
        .iter()
        .filter_map(|(script, step)| match step {
            Step::Stays(why, _) => Some(format!("{} ({why})", script.path.display())),
            _ => None,
        })
        .collect();
    let (mut untouched, mut changed, mut used) = (Vec::new(), Vec::new(), Vec::new());
    let all = scripts(&[], &written)?;
    for found in &written {
        let (users, leavers): (Vec<&Path>, Vec<&Path>) = all
            .iter()
            .chain(steps.iter().map(|(script, _)| script))
            .filter(|script| uses(script, found))
            .map(|script| script.path.as_path())
            .partition(|path| !steps.iter().any(|(script, step)| goes(&script.path, path, step)));
        let named = steps.iter().any(|(script, step)| goes(&script.path, &found.script, step));
        match users.first() {
            // A file goes where its script does, and with the last that needs it.
            _ if !named && leavers.is_empty() => {}
            Some(user) => {
                used.push(format!("{}: stays, for {}\n", found.path.display(), user.display()))
            }
            None if found.untouched => untouched.push(found),
            None => changed.push(found),
        }
    }
    let nothing = steps.iter().all(|(_, step)| *step == Step::Nothing) && untouched.is_empty();
    let mut text = String::new();
    for (script, step) in &steps {
        text += &describe(script, step, options.yes);
    }
    for found in &changed {
        text += &format!("{}: was changed since it was written, and stays\n", found.path.display());
    }
    text.extend(used);
    if !options.yes {
        for found in &untouched {
            text += &show::diff(&found.path, Some(&found.text), None);
        }
    }
    if nothing {
        text += "nothing is adopted\n";
    } else if !options.yes && stays.len() < steps.len() {
        text += &format!("\nNothing is changed yet; {} does it.\n", super::NAME_OF_UNDO);
    }
    say(&text)?;
    if options.yes {
        act(directory, &steps, &untouched)?;
    }
    if stays.is_empty() { Ok(ExitCode::SUCCESS) } else { Err(Error::NotUndone(stays.join("; "))) }
}

/// Whether that path is this one, and nobody's wrapper is there afterwards.
fn goes(script: &Path, path: &Path, step: &Step) -> bool {
    script == path && !matches!(step, Step::Stays(..))
}

/// Whether a wrapper puts taps on the network that a file describes.
fn uses(script: &Observed, found: &Found) -> bool {
    let State::Wrapper(wrapper, _) = &script.state else { return false };
    let name = found.path.file_stem();
    match &wrapper.network {
        Some(network) => name == Some(network.as_str().as_ref()),
        None => name == Some("default".as_ref()) && wrapper.helper.ends_with("kvmnet-natup"),
    }
}

fn act(directory: &Path, steps: &[(Observed, Step)], untouched: &[&Found]) -> Result<(), Error> {
    for (script, step) in steps {
        let path = &script.path;
        match step {
            Step::PutBack { .. } => {
                files::put_back(path).map_err(failed(path, "put back"))?;
                done(&format!("{}: is the script from before kvmnet again", path.display()))?;
            }
            Step::Forget => {
                let backup = state::backup_of(path);
                files::take_away(&backup).map_err(failed(&backup, "taken away"))?;
                done(&format!(
                    "{}: taken away; {} is that script",
                    backup.display(),
                    path.display()
                ))?;
            }
            Step::Nothing | Step::Stays(..) => {}
        }
        // What a run that was killed has left.
        files::clean(path).map_err(failed(path, "cleared up beside"))?;
    }
    files::clean_directory(directory).map_err(failed(directory, "cleared up"))?;
    for found in untouched {
        let path = &found.path;
        files::take_away(path).map_err(failed(path, "taken away"))?;
        done(&format!("{}: taken away", path.display()))?;
    }
    Ok(())
}

fn describe(script: &Observed, step: &Step, yes: bool) -> String {
    let path = &script.path;
    let backup = state::backup_of(path);
    match step {
        Step::Nothing => String::new(),
        Step::Forget if yes => String::new(),
        Step::Forget => format!("{}: goes; {} is that script\n", backup.display(), path.display()),
        Step::PutBack { .. } if yes => String::new(),
        Step::PutBack { wrapper } => {
            let text = |path: &Path| {
                fs::read(path).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
            };
            format!(
                "{}: {} comes back, with its mode, owner and times\n{}",
                path.display(),
                backup.display(),
                show::diff(path, wrapper.as_deref(), text(&backup).as_deref())
            )
        }
        Step::Stays(why, difference) => {
            let difference = difference.as_ref().map(|(should_be, is)| {
                format!(
                    "The wrapper as it was, and as it is:\n{}",
                    show::diff(path, Some(should_be), Some(is))
                )
            });
            format!("{}: stays: {why}\n{}", path.display(), difference.unwrap_or_default())
        }
    }
}

/// The network files that adopting has written.
fn written_files(directory: &Path) -> Vec<Found> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.sort();
    let read = |path: PathBuf| {
        let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
        let text = is_file.then(|| fs::read_to_string(&path).ok()).flatten()?;
        let (script, untouched) = Written::read(&text)?;
        Some(Found { path, text, script, untouched })
    };
    paths.into_iter().filter_map(read).collect()
}

/// The scripts that are named, or all that can be found: at the usual places and in their
/// directories, and those that network files name.
fn scripts(named: &[PathBuf], written: &[Found]) -> Result<Vec<Observed>, Error> {
    let mut paths: Vec<PathBuf> = Vec::new();
    if named.is_empty() {
        paths.extend(USUAL.iter().map(PathBuf::from));
        for directory in ["/etc", "/etc/qemu", "/etc/kvm"] {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                paths.extend(name.strip_suffix(BACKUP).map(|name| Path::new(directory).join(name)));
            }
        }
        paths.extend(written.iter().map(|found| found.script.clone()));
        let mut seen = std::collections::BTreeSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        return Ok(paths.iter().map(|path| Observed::at(path)).collect());
    }
    for path in named {
        let path = absolute(path)?;
        let half = plan::other_half(&path);
        // Its other half was adopted with it.
        let adopted = half.filter(|half| {
            let half = Observed::at(half);
            matches!(half.state, State::Wrapper(..)) || half.backup.is_some()
        });
        for path in [Some(path), adopted].into_iter().flatten() {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    Ok(paths.iter().map(|path| Observed::at(path)).collect())
}
