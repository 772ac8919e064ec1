//! What the rule for udev asks: whether a tap is a port by kvmnet's doing. It only reads, and never
//! takes the lock; what goes wrong is a no. It is between the two, and no subcommand for people.

use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use kvmnet_core::kernel::System;
use kvmnet_core::model::LinkKind;
use kvmnet_core::plan::{PortOf, port_of};
use kvmnet_core::{Lock, Namespace, helper};

use crate::print;

/// The subcommand: `udev look IFINDEX [KVMNET]`, or `udev wait IFINDEX` for a tap that was just made.
pub const SUBCOMMAND: &str = "udev";
/// What the rule imports.
const PORT: &str = "KVMNET=port\n";

/// QEMU runs its script some milliseconds after it has made the tap. A run that waits for others, for
/// firewalld or for modules of the kernel takes longer.
const PATIENCE: Patience =
    Patience { usual: Duration::from_millis(250), with_runs: Duration::from_secs(10) };
/// How often it is looked for runs then.
const BETWEEN_RUNS: Duration = Duration::from_millis(30);
/// How the name of a helper's file begins, wherever links to it lead from.
const HELPERS: &str = "kvmnet-";
const PROGRAM: &str = "kvmnet";
const PAUSE: Duration = Duration::from_millis(4);

/// How long a tap that was just made may take to become a port.
#[derive(Clone, Copy)]
struct Patience {
    usual: Duration,
    /// While helpers run.
    with_runs: Duration,
}

/// Answers by the exit code, and for a yes prints the property; none where this isn't the question.
pub fn answer(mut arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let verb = arguments.next()?;
    let index = arguments.next()?.to_str()?.parse().ok()?;
    let was_ours = arguments.next().is_some_and(|property| property == "port");
    let may_wait = match verb.to_str()? {
        "look" => false,
        "wait" => true,
        _ => return None,
    };
    let Ok(mut kernel) = System::open() else {
        return Some(ExitCode::FAILURE);
    };
    let namespace = kernel.namespace();
    let mut look = || look(&mut kernel, index, was_ours);
    let is_ours = if may_wait {
        wait(PATIENCE, look, || is_run_under_way(namespace))
    } else {
        look() == PortOf::Kvmnet
    };
    let is_said = is_ours && print::whole(&mut io::stdout().lock(), PORT.as_bytes()).is_ok();
    Some(if is_said { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look(kernel: &mut System, index: u32, was_ours: bool) -> PortOf {
    match kernel.port(index) {
        Ok(Some((link, master))) => match port_of(&link, master.as_ref(), was_ours) {
            // Whoever keeps a tap may make it a port in a moment or next week.
            PortOf::Nobody if link.kind == (LinkKind::Tap { persistent: true }) => PortOf::Others,
            port => port,
        },
        Ok(None) | Err(_) => PortOf::Others,
    }
}

/// Whether a helper runs, or has begun to: on a busy machine it takes a while to get to the lock.
fn is_run_under_way(namespace: Namespace) -> bool {
    let is_helper =
        |process: io::Result<DirEntry>| process.is_ok_and(|process| is_helper(&process.path()));
    Lock::is_held(namespace) || fs::read_dir("/proc").is_ok_and(|mut all| all.any(is_helper))
}

/// Whether a process is a helper, or this program in the place of one.
fn is_helper(process: &Path) -> bool {
    let Ok(exe) = fs::read_link(process.join("exe")) else { return false };
    let name = exe.file_name().unwrap_or_default().as_encoded_bytes();
    if name != PROGRAM.as_bytes() {
        return name.starts_with(HELPERS.as_bytes());
    }
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).nth(1) == Some(helper::SUBCOMMAND.as_bytes())
}

/// Waits until it is a port, of whomever; a little, or longer while helpers run.
fn wait(
    patience: Patience,
    mut look: impl FnMut() -> PortOf,
    is_run_under_way: impl Fn() -> bool,
) -> bool {
    let start = Instant::now();
    let mut until = patience.usual;
    loop {
        match look() {
            PortOf::Kvmnet => return true,
            PortOf::Others => return false,
            PortOf::Nobody => {}
        }
        let passed = start.elapsed();
        if passed >= until {
            if passed >= patience.with_runs {
                return false;
            }
            if !is_run_under_way() {
                // The run may have ended since the look.
                return look() == PortOf::Kvmnet;
            }
            until = passed + BETWEEN_RUNS;
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const SHORT: Patience =
        Patience { usual: Duration::from_millis(50), with_runs: Duration::from_millis(400) };

    #[test]
    fn a_decision_ends_the_wait() {
        for (decided, wanted) in [(PortOf::Kvmnet, true), (PortOf::Others, false)] {
            let mut looks = [PortOf::Nobody, PortOf::Nobody, decided].into_iter();
            assert_eq!(wait(PATIENCE, || looks.next().expect("it was decided"), || true), wanted);
        }
    }

    #[test]
    fn it_waits_a_little_and_longer_while_helpers_run() {
        let start = Instant::now();
        assert!(!wait(SHORT, || PortOf::Nobody, || false));
        assert!(start.elapsed() >= SHORT.usual && start.elapsed() < SHORT.with_runs);

        let start = Instant::now();
        let late = 4 * SHORT.usual;
        let look = || if start.elapsed() > late { PortOf::Kvmnet } else { PortOf::Nobody };
        assert!(wait(SHORT, look, || true));

        let start = Instant::now();
        assert!(!wait(SHORT, || PortOf::Nobody, || true));
        assert!(start.elapsed() >= SHORT.with_runs);
    }

    #[test]
    fn a_run_that_ends_between_look_and_question_is_seen() {
        let is_done = Cell::new(false);
        let look = || if is_done.get() { PortOf::Kvmnet } else { PortOf::Nobody };
        let ends = || {
            is_done.set(true);
            false
        };
        assert!(wait(SHORT, look, ends));
    }

    #[test]
    fn other_words_are_not_for_it() {
        for words in [&[][..], &["look"], &["look", "x"], &["look", "-1"], &["take", "1"]] {
            assert_eq!(answer(words.iter().map(OsString::from)), None, "{words:?}");
        }
    }
}
