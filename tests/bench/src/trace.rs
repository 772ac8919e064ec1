//! What a program asks of the kernel, counted under ptrace(2), in a run that isn't timed.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::run;

/// Of a program and all its descendants.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    pub system_calls: u64,
    pub processes: u64,
    /// Of the one that had most.
    pub peak_rss_kib: u64,
}

/// Runs a program to its end.
pub fn count(command: &mut Command) -> io::Result<Counts> {
    run::redirect(command)?;
    // SAFETY: ptrace is a plain system call, as what runs between fork and exec has to be.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(Into::into)) };
    let program = Pid::from_raw(command.spawn()?.id() as i32);
    // It stops when it has been executed.
    waitpid(program, Some(WaitPidFlag::__WALL))?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(program, options)?;
    ptrace::syscall(program, None)?;
    let mut trace = Trace { counts: Counts::default(), known: HashSet::from([program]) };
    let mut end = None;
    while !trace.known.is_empty() {
        let status = waitpid(None, Some(WaitPidFlag::__WALL))?;
        if let (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..), true) =
            (status, status.pid() == Some(program))
        {
            end = Some(match status {
                WaitStatus::Exited(_, code) => ExitStatus::from_raw(code << 8),
                _ => ExitStatus::from_raw(libc::SIGKILL),
            });
            trace.known.remove(&pid);
            continue;
        }
        trace.stopped(status)?;
    }
    run::require_success(command, end.unwrap_or_default())?;
    Ok(trace.counts)
}

struct Trace {
    counts: Counts,
    known: HashSet<Pid>,
}

impl Trace {
    fn stopped(&mut self, status: WaitStatus) -> io::Result<()> {
        let (pid, signal) = match status {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                self.known.remove(&pid);
                return Ok(());
            }
            WaitStatus::PtraceSyscall(pid) => {
                let info = ptrace::syscall_info(pid)?;
                self.counts.system_calls += u64::from(info.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                self.event(pid, event)?;
                (pid, None)
            }
            // The first stop of one that has just been made is ptrace's own doing.
            WaitStatus::Stopped(pid, Signal::SIGSTOP) if self.known.insert(pid) => (pid, None),
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => return Ok(()),
        };
        match ptrace::syscall(pid, signal) {
            // Killed meanwhile, by another of its threads.
            Err(nix::Error::ESRCH) => Ok(()),
            done => done.map_err(Into::into),
        }
    }

    fn event(&mut self, pid: Pid, event: i32) -> io::Result<()> {
        if event == Event::PTRACE_EVENT_EXIT as i32 {
            let peak = of_status(pid, "VmHWM:").unwrap_or_default();
            self.counts.peak_rss_kib = self.counts.peak_rss_kib.max(peak);
        } else if event != Event::PTRACE_EVENT_EXEC as i32 {
            let new = Pid::from_raw(ptrace::getevent(pid)? as i32);
            let is_process = of_status(new, "Tgid:") == u64::try_from(new.as_raw()).ok();
            self.counts.processes += u64::from(is_process);
        }
        Ok(())
    }
}

/// A number of `/proc/PID/status`.
fn of_status(pid: Pid, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    value.split_whitespace().next()?.parse().ok()
}
