//! Medians and spread.

use serde::{Deserialize, Serialize};
use statrs::statistics::{Data, OrderStatistics};

use std::time::Duration;

/// The middle of all rounds, and between which two figures half of them are.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Spread {
    pub fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let times: Vec<f64> = times.into_iter().map(|time| time.as_secs_f64() * 1e3).collect();
        let mut data = Data::new(times);
        Self { median: data.median(), lower: data.lower_quartile(), upper: data.upper_quartile() }
    }
}
