//! What is compared.

use std::collections::BTreeMap;

use kvmnet_core::model::Mark;

/// Each link, table and sysctl.
pub type Snapshot = BTreeMap<String, String>;

/// A link.
#[derive(Debug)]
#[allow(dead_code, reason = "for its Debug")]
pub struct Described {
    pub master: String,
    pub up: bool,
    pub noarp: bool,
    pub group: String,
    pub mac: String,
    pub alias: String,
    pub addresses: Vec<String>,
}

/// Without whose start turned forwarding on: that is the first one's, and which that is depends on what
/// was off.
pub fn alias(alias: &str) -> String {
    Mark::parse(alias)
        .map_or_else(|| alias.to_owned(), |mark| Mark { forwarding: false, ..mark }.to_string())
}
