//! Between networks: what each file allows, and two together don't. Files that conflict are
//! mistakes already when they are read; here is what only may go wrong.

use std::ffi::OsStr;

use kvmnet_core::config;
use kvmnet_core::model::{InterfaceName, Network};
use wildmatch::WildMatch;

use super::Finding;
use crate::gather::{Described, Gathered};

/// Looks at the built-in network against the files, and at the taps that are there.
pub fn find(seen: &Gathered) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (built_in, described): (Vec<&Described>, Vec<&Described>) =
        seen.networks.iter().partition(|network| network.file.is_none());
    for (one, other) in
        built_in.iter().flat_map(|one| described.iter().map(move |other| (one, other)))
    {
        // A bridge that is the administrator's is found on the host, where it is one.
        let what = match other.network {
            Network::Managed(_) => config::conflict(&one.network, &other.network),
            Network::Bridged(_) => None,
        };
        if let Some(what) = what {
            findings.push(Finding::Warning(format!(
                "network {} and the built-in network {}: both {what}; while one is up, a guest \
                 of the other is refused: give one another, or describe {} in a file of its own",
                other.name, one.name, one.name
            )));
        }
    }
    findings.extend(taps_of_two(seen));
    findings
}

/// Taps that match the patterns of several networks.
fn taps_of_two(seen: &Gathered) -> Vec<Finding> {
    let taps = seen.host.links.iter().filter(|link| link.is_tap());
    taps.filter_map(|tap| InterfaceName::parse(OsStr::new(&tap.name)).ok())
        .filter_map(|tap| {
            let fits = |network: &&Described| {
                network.taps.iter().any(|pattern| WildMatch::new(pattern).matches(tap.as_str()))
            };
            let matching: Vec<&Described> = seen.networks.iter().filter(fits).collect();
            let [one, other, ..] = matching[..] else {
                return None;
            };
            Some(Finding::Mistake(format!(
                "{tap}: matches taps= of network {} and of network {}; change one of them, or \
                 choose with kvmnet-natup@NAME",
                one.name, other.name
            )))
        })
        .collect()
}
