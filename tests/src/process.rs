//! Processes inside a host, and waits that always end.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a command may take that isn't given a limit of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code, or 128 + the signal that ended it, as a shell says it.
    pub code: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Output {
    /// Whether the exit code is 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.code == 0
    }

    /// Standard output of a command that must succeed; panics with everything when it didn't.
    #[track_caller]
    pub fn expect(self, what: &str) -> String {
        assert!(
            self.success(),
            "`{what}` exited with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.code,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// A command that was started by way of `nsenter`, which forks: the two have different pids.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Process {
    /// Starts it with both outputs in files, so that nobody has to read along.
    pub(crate) fn start(command: &mut Command) -> Self {
        let [stdout, stderr] =
            [0; 2].map(|_| tempfile::tempfile().expect("a temporary file can be made"));
        let [to_stdout, to_stderr] = [&stdout, &stderr]
            .map(|file| Stdio::from(file.try_clone().expect("a file can be duplicated")));
        let child = command
            .stdout(to_stdout)
            .stderr(to_stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} didn't start: {error}"));
        Self { child, stdout, stderr }
    }

    /// The pid of the command itself as the test sees it; `None` when it has ended.
    #[must_use]
    pub fn outer_pid(&self) -> Option<i32> {
        let nsenter = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{nsenter}/task/{nsenter}/children"));
        children.ok()?.split_whitespace().next()?.parse().ok()
    }

    /// The pid of the command itself as the host sees it; `None` when it has ended.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.outer_pid()?)).ok()?;
        let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        pids.split_whitespace().next_back()?.parse().ok()
    }

    /// Sends the command a signal; one that has ended already is left alone.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.outer_pid() {
            // It may end in between, which is what was wanted or will be seen by the wait.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, `None` when it hasn't come in time.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        poll(limit, || self.child.try_wait().expect("our own child can be waited for"))
    }

    /// Waits for its end and takes what it wrote; kills it and panics when it takes too long.
    #[track_caller]
    pub fn output(mut self, limit: Duration) -> Output {
        let status = self.wait(limit);
        if status.is_none() {
            self.kill();
        }
        let (stdout, stderr) = self.written();
        let status = status.unwrap_or_else(|| {
            panic!("still running after {limit:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
        });
        Output { code: exit_code(status), stdout, stderr }
    }

    /// What it has written to standard output and standard error up to now.
    #[must_use]
    pub fn written(&self) -> (String, String) {
        (contents(&self.stdout), contents(&self.stderr))
    }

    /// Kills it with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        if self.wait(Duration::from_secs(5)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.kill();
        }
    }
}

/// The exit code as a shell says it.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// All of a file that somebody else may still be writing: their offset is ours, too, and stays.
fn contents(file: &File) -> String {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = vec![0; usize::try_from(length).expect("outputs fit into memory")];
    let read = file.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

/// Asks again until there is an answer or the time is over.
pub(crate) fn poll<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(10));
    }
}

/// Waits until the condition holds; false when it didn't in time.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    poll(limit, || condition().then_some(())).is_some()
}
