//! What there is at a script's path, and beside it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::reading::LARGEST;
use super::wrapper::Wrapper;
use super::{BACKUP, HELPERS};

/// Which file it is, as long as nobody changes it. Two names of one file have all of this in common, down
/// to the nanosecond of the last change. Its number would not do: on overlayfs, as in a container, a new
/// name for a file shows another than the old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    size: u64,
    names: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(found: &Metadata) -> Self {
        Self {
            size: found.size(),
            names: found.nlink(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// Whether the content is the same, as far as that can be seen: it may have got another name.
    #[must_use]
    pub fn is_unchanged_since(self, before: Self) -> bool {
        (self.size, self.written) == (before.size, before.written)
    }

    /// That of what is at a path, be it a link; none where nothing is.
    ///
    /// # Errors
    /// Those of looking.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(found) => Ok(Some(Self::of(&found))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What is at a script's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Absent,
    /// A script.
    Script {
        /// Its text; what isn't UTF-8 in it can't be shown.
        text: String,
        /// Which file it was then.
        identity: Identity,
    },
    /// Something that can't be adopted, and why.
    Unusable(String),
    /// A link to a program of kvmnet's.
    Link,
    /// A wrapper, with its text.
    Wrapper(Wrapper, String),
}

/// A script's path, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The path.
    pub path: PathBuf,
    /// What is there.
    pub state: State,
    /// Where the script goes, and which file is there already.
    pub backup: Option<Identity>,
}

impl Observed {
    /// Looks.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        let (state, backup) = match Identity::at(&backup_of(path)) {
            Ok(backup) => (state(path), backup),
            Err(error) => (State::Unusable(format!("cannot be looked at: {error}")), None),
        };
        Self { path: path.to_owned(), state, backup }
    }

    /// Whether the script is its own backup: adopting was cut short.
    #[must_use]
    pub fn is_its_backup(&self) -> bool {
        matches!(&self.state, State::Script { identity, .. } if Some(*identity) == self.backup)
    }
}

/// Where the script goes.
#[must_use]
pub fn backup_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BACKUP);
    name.into()
}

fn state(path: &Path) -> State {
    let identity = match Identity::at(path) {
        Ok(None) => return State::Absent,
        Ok(Some(identity)) => identity,
        Err(error) => return State::Unusable(format!("cannot be looked at: {error}")),
    };
    let leads_to = fs::canonicalize(path).unwrap_or_default();
    if leads_to.file_name().is_some_and(|name| HELPERS.iter().any(|helper| name == *helper)) {
        return State::Link;
    }
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            State::Unusable("is a link that leads nowhere".to_owned())
        }
        Err(error) => State::Unusable(format!("cannot be read: {error}")),
        Ok((found, _)) if found.is_dir() => State::Unusable("is a directory".to_owned()),
        Ok((found, _)) if !found.is_file() => State::Unusable("is no file".to_owned()),
        Ok((found, bytes)) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            match Wrapper::read(&text) {
                Some(wrapper) => State::Wrapper(wrapper, text),
                None if found.mode() & 0o111 == 0 => State::Unusable(
                    "is not executable, so that QEMU cannot run it: chmod +x, if it should"
                        .to_owned(),
                ),
                None => State::Script { text, identity },
            }
        }
    }
}

/// What it is and, of a file, the text: a byte more than a script may have is enough.
fn read(path: &Path) -> io::Result<(Metadata, Vec<u8>)> {
    // Without O_NONBLOCK opening a FIFO would wait for a writer.
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    let mut bytes = Vec::new();
    if found.is_file() {
        file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    }
    Ok((found, bytes))
}
