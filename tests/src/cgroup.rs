//! Cgroups for a host's containers. The kernel knows no owner of theirs, so they don't go by
//! themselves with the host's processes.

use std::process::{Child, ChildStdin, Command, Stdio};

/// Waits until the test lets go of the pipe, whatever ended it, then removes the cgroup. It can be
/// removed only when no process is left in it, which may still be ending.
const JANITOR: &str = "mount -t cgroup2 cgroup2 /sys/fs/cgroup || exit
    cat >/dev/null
    for _ in $(seq 500); do
        [ -d /sys/fs/cgroup/$1 ] || exit 0
        find /sys/fs/cgroup/$1 -depth -type d -exec rmdir {} + 2>/dev/null && exit
        sleep 0.02
    done";

/// A cgroup of version 2 and all below it, which are gone with this value or with the test.
#[derive(Debug)]
pub(crate) struct Cgroup {
    name: String,
    pipe: Option<ChildStdin>,
    janitor: Child,
}

impl Cgroup {
    /// The one of a host. Whoever needs it has to make it.
    pub(crate) fn of(keeper: i32) -> Self {
        let name = format!("kvmnet-test-{keeper}");
        // In its own session: Ctrl-C ends the test, and not what cleans up behind it.
        let mut janitor = Command::new("setsid")
            .args(["unshare", "--mount", "--propagation", "private", "sh", "-c", JANITOR])
            .args(["janitor", &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("setsid and unshare are installed");
        Self { name, pipe: janitor.stdin.take(), janitor }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.janitor.wait();
    }
}
