//! How much of a fault campaign is run, and what became of it.
//!
//! `make test` runs a bounded part of each campaign. `make torture` names a file in
//! `KVMNET_TORTURE`: then all of it is run, and each campaign writes a line of JSON to that file, of
//! which the program `torture` makes the closing table.

use std::env;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The file for the figures; where there is one, campaigns are run whole.
fn report_file() -> Option<PathBuf> {
    env::var_os("KVMNET_TORTURE").filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// Whether this is `make torture`, which has the time to try everything.
#[must_use]
pub fn is_torture() -> bool {
    report_file().is_some()
}

/// What is to be run of something that has no natural end: `bounded` in `make test`.
pub fn amount<T>(bounded: T, whole: T) -> T {
    if is_torture() { whole } else { bounded }
}

/// What became of the faults of one campaign. It goes on past what isn't as promised, so that the
/// figures are true; [`Tally::finish`] then fails.
#[derive(Debug)]
pub struct Tally {
    campaign: String,
    converged: u64,
    leaked: Vec<String>,
    /// Among the leaked, those that changed something of others.
    foreign: u64,
    strangers: &'static [&'static str],
    remarks: Vec<String>,
    since: Instant,
}

impl Tally {
    /// Of the campaign of that name, as the table shows it: "natup killed, first guest, nftables".
    #[must_use]
    pub fn new(campaign: impl Into<String>) -> Self {
        Self {
            campaign: campaign.into(),
            converged: 0,
            leaked: Vec::new(),
            foreign: 0,
            strangers: &[],
            remarks: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Has [`Tally::judge`] take a line with one of these in it for something of others.
    #[must_use]
    pub fn with_strangers(mut self, strangers: &'static [&'static str]) -> Self {
        self.strangers = strangers;
        self
    }

    /// One fault more, after which all was as promised.
    pub fn converged(&mut self) {
        self.converged += 1;
    }

    /// One fault more, after which something of kvmnet's was missing, wrong or left over, or something
    /// of others was not as it had been.
    pub fn leaked(&mut self, what: impl Display) {
        self.leaked.push(what.to_string());
    }

    /// One fault more: converged where the two are equal, else leaked, with what differs.
    pub fn judge(&mut self, after: impl Display, found: &str, wanted: &str) {
        if found == wanted {
            return self.converged();
        }
        let only = |these: &str, those: &str, sign: char| -> String {
            let new = these.lines().filter(|line| !those.lines().any(|other| other == *line));
            new.map(|line| format!("\n  {sign} {line}")).collect()
        };
        let difference = only(wanted, found, '-') + &only(found, wanted, '+');
        self.foreign += u64::from(self.strangers.iter().any(|other| difference.contains(other)));
        self.leaked(format!("after {after}:{difference}"));
    }

    /// A figure of this campaign's own, for the table's last column: "690,000 states".
    pub fn remark(&mut self, remark: impl Display) {
        self.remarks.push(remark.to_string());
    }

    /// The faults up to now.
    #[must_use]
    pub fn tried(&self) -> u64 {
        self.converged + self.leaked.len() as u64
    }

    /// Reports the figures.
    ///
    /// # Panics
    /// When something leaked, or nothing was tried.
    #[track_caller]
    pub fn finish(self) {
        let line = self.line();
        println!("{line}");
        if let Some(file) = report_file() {
            let opened = OpenOptions::new().create(true).append(true).open(&file);
            // One write a line: tests of several processes may write at once.
            let written = opened.and_then(|mut to| to.write_all(format!("{line}\n").as_bytes()));
            written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        let campaign = &self.campaign;
        assert!(self.tried() > 0, "{campaign}: nothing was tried");
        let bad = &self.leaked;
        assert!(
            bad.is_empty(),
            "{campaign}: {} of {}:\n{}",
            bad.len(),
            self.tried(),
            bad.join("\n")
        );
    }

    fn line(&self) -> Value {
        json!({
            "campaign": self.campaign,
            "tried": self.tried(),
            "converged": self.converged,
            "leaked": self.leaked.len(),
            "foreign changes": self.foreign,
            "remarks": self.remarks.join(", "),
            "seconds": round(self.since.elapsed()),
        })
    }
}

fn round(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}
