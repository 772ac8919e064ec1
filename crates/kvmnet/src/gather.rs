//! What `status` and `check` look at: the files, the host, and who holds the taps.

use std::collections::BTreeMap;
use std::path::Path;

use kvmnet_core::config::{self, ConfigError, Files};
use kvmnet_core::kernel::System;
use kvmnet_core::model::{HostView, ManagedNetwork, Network, NetworkName, RulesState};
use kvmnet_core::plan;

use crate::error::Error;
use crate::holders::{self, Holders};

/// A network as a file describes it, or as it is built in.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its name.
    pub name: NetworkName,
    /// Its file; none of what is built in.
    pub file: Option<String>,
    /// What it is.
    pub network: Network,
    /// Patterns of the taps that belong to it.
    pub taps: Vec<String>,
}

/// All that was seen.
pub struct Gathered {
    /// The networks, in the order of their names.
    pub networks: Vec<Described>,
    /// What is wrong with files.
    pub mistakes: Vec<ConfigError>,
    /// Every network that may be up: also those whose files are wrong.
    pub known: Vec<NetworkName>,
    /// The host.
    pub host: HostView,
    /// How the rules of the networks that are up compare with what they should be.
    pub rules: BTreeMap<NetworkName, RulesState>,
    /// Who holds the taps.
    pub holders: Holders,
}

/// Looks at everything, and changes nothing.
///
/// # Errors
/// [`Error::Look`] where the kernel doesn't answer.
pub fn gather(directory: &Path) -> Result<Gathered, Error> {
    let files = Files::list(directory);
    let known = files.known();
    let (networks, mistakes) = described(files);
    let mut kernel = System::open()?;
    let host = kernel.host_view()?;
    let mut rules = BTreeMap::new();
    for network in &networks {
        if let Network::Managed(managed) = &network.network {
            if is_up(managed, &host) {
                let table = plan::table_of(managed);
                rules.insert(network.name.clone(), kernel.rules_state(table.as_ref())?);
            }
        }
    }
    let holders = holders::find(Path::new("/proc"));
    Ok(Gathered { networks, mistakes, known, host, rules, holders })
}

fn is_up(network: &ManagedNetwork, host: &HostView) -> bool {
    let known = std::slice::from_ref(&network.name);
    host.own_bridges(known).any(|(_, mark)| mark.network == network.name)
}

/// The networks, and what is wrong with files. What is built in is there as long as no file, good
/// or bad, has its name.
pub fn described(files: Files) -> (Vec<Described>, Vec<ConfigError>) {
    let default = config::default_name();
    let has_default = files.has(&default);
    let (configured, mistakes) = files.survey();
    let mut networks: Vec<Described> = configured
        .into_iter()
        .map(|network| Described {
            name: network.name,
            file: Some(network.path.display().to_string()),
            network: network.file.network,
            taps: network.file.taps,
        })
        .collect();
    if !has_default {
        networks.push(Described {
            name: default,
            file: None,
            network: Network::Managed(config::default_nat()),
            taps: Vec::new(),
        });
    }
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    (networks, mistakes)
}
