//! Which network a script's taps join: the built-in one, one that has a file, or a new one.

use std::path::Path;

use kvmnet_core::config::{self, Configured};
use kvmnet_core::model::{Mode, Network, NetworkName};

use super::meaning::{self, Joined};
use super::network::{Settings, Written};
use super::plan::{Circumstances, NewFile};

/// A network for a script's taps.
#[derive(Debug)]
pub struct Chosen {
    /// Its name; none for the bridge that `kvmnet-ifup` finds by itself.
    pub name: Option<NetworkName>,
    /// Whether kvmnet makes it.
    pub managed: bool,
    /// What it is, in words.
    pub words: String,
    /// Its file, where that is new.
    pub file: Option<NewFile>,
    /// How it differs from the script's.
    pub note: Option<String>,
}

impl Chosen {
    fn existing(existing: &Configured) -> Self {
        let settings = Settings::of(&existing.file.network);
        Self {
            name: Some(existing.name.clone()),
            managed: settings.mode.is_some(),
            words: format!(
                "network {}, {} ({})",
                existing.name,
                settings.describe(),
                existing.path.display()
            ),
            file: None,
            note: None,
        }
    }

    fn built_in(network: &Network) -> Self {
        let (name, settings) = (config::default_name(), Settings::of(network));
        Self {
            words: format!("network {name}, {} (built in)", settings.describe()),
            name: Some(name),
            managed: true,
            file: None,
            note: None,
        }
    }
}

/// The network that was named: it is taken as its file says, or its file is written.
///
/// # Errors
/// Why there is none.
pub fn named(
    script: &Path,
    name: &NetworkName,
    joined: Option<&Joined>,
    circumstances: &Circumstances,
) -> Result<Chosen, Vec<String>> {
    let settings = joined.map(settings_of);
    let differs = |network: &Network| {
        settings.as_ref().filter(|wanted| !meaning::is_the_same(network, wanted))
    };
    if let Some(existing) = circumstances.networks.iter().find(|network| network.name == *name) {
        let note = differs(&existing.file.network).map(|settings| {
            format!(
                "the script is for {}, and {} for {}",
                settings.describe(),
                existing.path.display(),
                Settings::of(&existing.file.network).describe()
            )
        });
        return Ok(Chosen { note, ..Chosen::existing(existing) });
    }
    let built_in = Network::Managed(config::default_nat());
    if *name == config::default_name() && differs(&built_in).is_none() {
        return Ok(Chosen::built_in(&built_in));
    }
    match settings {
        Some(settings) => new_file(script, name.clone(), settings, circumstances),
        None => {
            let path = config::path_of(circumstances.directory, name);
            let path = path.display();
            Err(vec![format!("there is no {path}, and the script does not say enough to write it")])
        }
    }
}

/// The network that does what the script does.
///
/// # Errors
/// Why there is none.
pub fn found(
    script: &Path,
    joined: &Joined,
    circumstances: &Circumstances,
) -> Result<Chosen, Vec<String>> {
    let Joined::Network(settings) = joined else {
        return Ok(Chosen {
            name: None,
            managed: false,
            words: "bridged on br0, or else on the bridge with a default route (built in)".into(),
            file: None,
            note: None,
        });
    };
    let networks = &circumstances.networks;
    let same = |network: &&Configured| meaning::is_the_same(&network.file.network, settings);
    if let Some(existing) = networks.iter().find(same) {
        return Ok(Chosen::existing(existing));
    }
    let has_default = networks.iter().any(|network| network.name == config::default_name());
    let built_in = Network::Managed(config::default_nat());
    if !has_default && meaning::is_the_same(&built_in, settings) {
        return Ok(Chosen::built_in(&built_in));
    }
    let is_nat = matches!(settings.mode, Some(Mode::Nat(_)));
    let name = if is_nat && !has_default {
        Some(config::default_name())
    } else {
        name_of_bridge(settings.bridge.as_str())
    };
    match name {
        Some(name) => new_file(script, name, settings.clone(), circumstances),
        None => Err(vec![format!("no network can be called {}", settings.bridge)]),
    }
}

fn new_file(
    script: &Path,
    name: NetworkName,
    settings: Settings,
    circumstances: &Circumstances,
) -> Result<Chosen, Vec<String>> {
    let path = config::path_of(circumstances.directory, &name);
    let written = Written { script: script.to_owned(), settings };
    let (same, others): (Vec<_>, Vec<_>) =
        circumstances.networks.iter().partition(|other| other.name == name);
    let mut problems: Vec<String> = same
        .iter()
        .map(|other| {
            format!(
                "{} is there, and says {}, not {}",
                path.display(),
                Settings::of(&other.file.network).describe(),
                written.settings.describe()
            )
        })
        .collect();
    // The same reader as at a guest's start.
    match config::parse(&path, &written.text(), &name) {
        Err(error) => problems.push(format!("its network cannot be: {error}")),
        Ok(parsed) => problems.extend(others.iter().filter_map(|other| {
            let what = config::conflict(&parsed.network, &other.file.network)?;
            Some(format!(
                "it is for {}, and {} for {}: both {what}",
                written.settings.describe(),
                other.path.display(),
                Settings::of(&other.file.network).describe()
            ))
        })),
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let words = format!("network {name}, {}", written.settings.describe());
    let managed = written.settings.mode.is_some();
    let file = Some(NewFile { name: name.clone(), path, written });
    Ok(Chosen { name: Some(name), managed, words, file, note: None })
}

fn settings_of(joined: &Joined) -> Settings {
    match joined {
        Joined::BuiltInBridge => {
            Settings { mode: None, bridge: config::default_bridged().bridge, mtu: None }
        }
        Joined::Network(settings) => settings.clone(),
    }
}

/// A network's name from a bridge's.
fn name_of_bridge(bridge: &str) -> Option<NetworkName> {
    let plain = |c: char| {
        let c = c.to_ascii_lowercase();
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' }
    };
    NetworkName::parse(&bridge.chars().map(plain).collect::<String>())
}
