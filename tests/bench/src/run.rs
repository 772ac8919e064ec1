//! One run of a program, from spawn to exit.

use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Where the program's output goes.
const SAID: &str = "/run/bench/said";

/// What a run took. CPU time is the program's and that of all its children it has waited for.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub wall: Duration,
    pub cpu: Duration,
}

/// Has what a program says written where [`require_success`] finds it.
pub fn redirect(command: &mut Command) -> io::Result<()> {
    let said = File::create(SAID)?;
    command.stdout(said.try_clone()?).stderr(said);
    Ok(())
}

/// Runs it; one that fails is an error with what it said.
pub fn timed(command: &mut Command) -> io::Result<Sample> {
    redirect(command)?;
    let start = Instant::now();
    // By posix_spawn, which shares this process's memory until the exec: nothing is copied.
    let pid = command.spawn()?.id();
    let (status, cpu) = wait(pid)?;
    let wall = start.elapsed();
    require_success(command, status)?;
    Ok(Sample { wall, cpu })
}

/// Starts them all, then waits for them all; the time from the first start to the last end.
pub fn timed_at_once(commands: &mut [Command]) -> io::Result<Duration> {
    for command in &mut *commands {
        command.stdin(Stdio::null());
        redirect(command)?;
    }
    let start = Instant::now();
    let pids: Vec<u32> = commands
        .iter_mut()
        .map(|command| command.spawn().map(|child| child.id()))
        .collect::<Result<_, _>>()?;
    let ends: Vec<_> = pids.into_iter().map(wait).collect::<Result<_, _>>()?;
    let wall = start.elapsed();
    for (command, (status, _)) in commands.iter().zip(ends) {
        require_success(command, status)?;
    }
    Ok(wall)
}

/// Runs one that isn't measured.
pub fn untimed(command: &mut Command) -> io::Result<()> {
    timed(command).map(drop)
}

pub fn sh(script: &str) -> io::Result<()> {
    untimed(Command::new("/bin/sh").args(["-ec", script]).stdin(Stdio::null()))
}

pub fn require_success(command: &Command, status: ExitStatus) -> io::Result<()> {
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read_to_string(SAID).unwrap_or_default();
    let why = said.trim().lines().collect::<Vec<_>>().join("; ");
    Err(io::Error::other(format!("{:?}: {status}: {why}", command.get_program())))
}

fn wait(pid: u32) -> io::Result<(ExitStatus, Duration)> {
    let mut status = 0;
    // SAFETY: all zeroes is a valid rusage.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: both pointers are to values of the types that are asked for.
    let waited = unsafe { libc::wait4(pid as libc::pid_t, &raw mut status, 0, &raw mut usage) };
    if waited < 0 {
        return Err(io::Error::last_os_error());
    }
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    let cpu = time(usage.ru_utime) + time(usage.ru_stime);
    Ok((ExitStatus::from_raw(status), cpu))
}
