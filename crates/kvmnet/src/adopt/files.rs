//! Files put in place and taken away: whole or not at all, and never another's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::state::{Identity, backup_of};

/// What is behind the name of a file that is being written.
const UNFINISHED: &str = ".kvmnet-adopt";

/// Where a file is written before it takes its place: beside it, hidden, so that no reader of the
/// directory takes it for what it isn't.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}{UNFINISHED}"))
}

/// Takes away what a run that was killed has left beside a path.
///
/// # Errors
/// Those of removing it.
pub fn clean(path: &Path) -> io::Result<()> {
    remove(&beside(path))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The same for all files of a directory.
///
/// # Errors
/// Those of removing them.
pub fn clean_directory(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(UNFINISHED) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Writes a file beside `path`, down to the disk.
fn write_beside(path: &Path, text: &str, mode: u32) -> io::Result<PathBuf> {
    let beside = beside(path);
    remove(&beside)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(text.as_bytes())?;
    // Whatever the umask is.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    Ok(beside)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Writes a new file. One that is there stays as it is, and that is an error.
///
/// # Errors
/// Those of writing.
pub fn create(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
            Ok(()) => {
                fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
                sync_directory(directory)?;
            }
        }
    }
    let beside = write_beside(path, text, 0o644)?;
    let linked = fs::hard_link(&beside, path);
    remove(&beside)?;
    linked?;
    sync_directory(path)
}

/// Puts `text` in the place of the script that was read as `identity`; that goes beside it. At any
/// moment either of them is at `path`, whole.
///
/// # Errors
/// Those of the files; one of kind `ResourceBusy` where the script is another by now.
pub fn replace(path: &Path, identity: Identity, text: &str) -> io::Result<()> {
    let backup = backup_of(path);
    let written = write_beside(path, text, 0o755)?;
    let result = set_aside(path, &backup, identity).and_then(|()| fs::rename(&written, path));
    if result.is_err() {
        let _ = remove(&written);
    }
    result?;
    sync_directory(path)
}

/// A link, so that everything about the file stays; a name for what is at `path` now.
fn set_aside(path: &Path, backup: &Path, identity: Identity) -> io::Result<()> {
    match fs::hard_link(path, backup) {
        // From a run that was killed, or somebody's: that is seen now.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let now = Identity::at(path)?;
    if Identity::at(backup)? != now || !now.is_some_and(|now| now.is_unchanged_since(identity)) {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "it was changed while it was read; try again",
        ));
    }
    Ok(())
}

/// Puts the script back in its place, in one step.
///
/// # Errors
/// Those of renaming.
pub fn put_back(path: &Path) -> io::Result<()> {
    fs::rename(backup_of(path), path)?;
    sync_directory(path)
}

/// Takes away a file.
///
/// # Errors
/// Those of removing it.
pub fn take_away(path: &Path) -> io::Result<()> {
    remove(path)?;
    sync_directory(path)
}
