//! What a run found, as it is written to bench.json. Times are milliseconds.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::figures::Spread;

/// What is measured of each program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    Ifup,
    Ifdown,
    First,
    Next,
    NotLast,
    Last,
}

impl Verb {
    pub const ALL: [Self; 6] =
        [Self::Ifup, Self::Ifdown, Self::First, Self::Next, Self::NotLast, Self::Last];
    /// From nothing to nothing, with two guests.
    pub const NAT: [Self; 4] = [Self::First, Self::Next, Self::NotLast, Self::Last];

    /// Which guest it is for.
    pub fn guest(self) -> usize {
        usize::from(matches!(self, Self::Next | Self::NotLast))
    }

    pub fn is_up(self) -> bool {
        matches!(self, Self::Ifup | Self::First | Self::Next)
    }

    pub fn is_nat(self) -> bool {
        !matches!(self, Self::Ifup | Self::Ifdown)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ifup => "ifup",
            Self::Ifdown => "ifdown",
            Self::First => "nat up, first",
            Self::Next => "nat up, next",
            Self::NotLast => "nat down, not last",
            Self::Last => "nat down, last",
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    pub programs: Vec<Program>,
    pub growth: Vec<Growth>,
    pub starts: Vec<Start>,
    /// Bytes by program.
    pub sizes: BTreeMap<String, u64>,
    /// What could not be measured, and why.
    pub left_out: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub processors: usize,
    pub kernel: String,
    /// Of the minute before the first measurement, and of the one before the end.
    pub load: [f64; 2],
    pub seconds: f64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Program {
    pub name: String,
    pub note: String,
    pub verbs: BTreeMap<Verb, Measured>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    pub rounds: usize,
    pub wall: Spread,
    pub cpu: Spread,
    pub system_calls: u64,
    pub child_processes: u64,
    pub peak_rss_kib: u64,
}

/// What one verb of one program costs as something grows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Growth {
    pub what: String,
    pub program: String,
    pub verb: Verb,
    pub points: Vec<(u32, Spread)>,
}

/// From QEMU's exec to the guest's first frame.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    pub script: String,
    pub rounds: usize,
    pub wall: Spread,
}
