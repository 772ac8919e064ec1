//! Opening network files: root's own and nobody else's to write, checked on what was opened.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::stat::lstat;

use super::ConfigError;

/// No network file comes near this size, in bytes.
const LARGEST: u64 = 64 * 1024;

/// Opens the directory and checks it; `None` where there is none.
///
/// # Errors
/// [`ConfigError`] where it can't be read or trusted.
pub(super) fn open_directory(path: &Path) -> Result<Option<File>, ConfigError> {
    let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
    let directory = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(directory) => directory,
        Err(error) if is_absent(&error, path) => return Ok(None),
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    check(path, &metadata(path, &directory)?)?;
    Ok(Some(directory))
}

/// Reads a file whole; `None` where there is none.
///
/// # Errors
/// [`ConfigError`] where it can't be read or trusted, or isn't a text file of sensible size.
pub(super) fn read(path: &Path) -> Result<Option<String>, ConfigError> {
    // Without O_NONBLOCK opening a FIFO would wait for a writer.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if is_absent(&error, path) => return Ok(None),
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    let found = metadata(path, &file)?;
    if !found.is_file() {
        return Err(not_a_file(path, "is not a file; a network's file is text (TOML)"));
    }
    check(path, &found)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > LARGEST {
        return Err(not_a_file(path, "is larger than 64 KiB; a network's file is a few lines"));
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| not_a_file(path, "is not UTF-8; a network's file is text (TOML)"))
}

/// Whether nothing is there. A link that leads nowhere was put there by somebody for something, and
/// without what it should lead to a tap could land on another network.
fn is_absent(error: &io::Error, path: &Path) -> bool {
    error.kind() == io::ErrorKind::NotFound && lstat(path).is_err()
}

fn not_a_file(path: &Path, problem: &'static str) -> ConfigError {
    ConfigError::NotAFile { path: path.to_owned(), problem }
}

fn metadata(path: &Path, file: &File) -> Result<Metadata, ConfigError> {
    file.metadata().map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn check(path: &Path, found: &Metadata) -> Result<(), ConfigError> {
    let untrusted =
        |problem, remedy| Err(ConfigError::Untrusted { path: path.to_owned(), problem, remedy });
    if found.uid() != 0 {
        untrusted("belongs to a user other than root", "chown root")
    } else if found.mode() & 0o022 != 0 {
        untrusted("others than root can write to it", "chmod go-w")
    } else {
        Ok(())
    }
}
