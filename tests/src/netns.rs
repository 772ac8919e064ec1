//! A network namespace that a thread of the test can enter.

use std::fs::File;
use std::path::PathBuf;
use std::thread;

use nix::sched::{CloneFlags, setns};

/// One network namespace of a host: its own, or that of a machine on its wires.
#[derive(Debug, Clone)]
pub struct Netns {
    path: PathBuf,
}

impl Netns {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file that stands for it.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Runs a function inside. Sockets and taps that it makes belong there for good, whichever
    /// thread uses them later; `/sys` and `/proc/sys` stay those of the machine.
    pub fn enter<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(&self.path)
            .unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
        // A thread of its own, since there is no sure way back out.
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET)
                    .expect("root may enter the namespaces it made");
                function()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}
