//! The file of a network that a script has made: its text, and whether it still is as it was written.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use kvmnet_core::model::{InterfaceName, ManagedNetwork, Mode, Network};

use super::wrapper::SIGN;

/// What a script's network is: as much of it as scripts say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The mode; none for a bridge of the administrator's.
    pub mode: Option<Mode>,
    /// The bridge.
    pub bridge: InterfaceName,
    /// The MTU, where one is set.
    pub mtu: Option<u32>,
}

impl Settings {
    /// Those of a network.
    #[must_use]
    pub fn of(network: &Network) -> Self {
        match network {
            Network::Managed(ManagedNetwork { bridge, mode, mtu, .. }) => {
                Self { mode: Some(*mode), bridge: bridge.clone(), mtu: *mtu }
            }
            Network::Bridged(bridged) => {
                Self { mode: None, bridge: bridged.bridge.clone(), mtu: None }
            }
        }
    }

    /// The keys of a network's file, a line each.
    #[must_use]
    pub fn keys(&self) -> String {
        let mut keys = format!("mode = \"{}\"\nbridge = \"{}\"\n", self.word(), self.bridge);
        if let Some(address) = self.mode.and_then(Mode::address) {
            let _ = writeln!(keys, "address = \"{address}\"");
        }
        if let Some(mtu) = self.mtu {
            let _ = writeln!(keys, "mtu = {mtu}");
        }
        keys
    }

    fn word(&self) -> String {
        self.mode.map_or("bridged".to_owned(), |mode| mode.to_string())
    }

    /// The same in a line.
    #[must_use]
    pub fn describe(&self) -> String {
        let address = self.mode.and_then(Mode::address).map(|address| format!(", {address}"));
        let mtu = self.mtu.map(|mtu| format!(", MTU {mtu}"));
        format!(
            "{} on {}{}{}",
            self.word(),
            self.bridge,
            address.unwrap_or_default(),
            mtu.unwrap_or_default()
        )
    }
}

/// A file that adopting a script writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The script.
    pub script: PathBuf,
    /// What it says.
    pub settings: Settings,
}

impl Written {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut sign =
            format!("{} {} {}", self.script.display(), self.settings.word(), self.settings.bridge);
        if let Some(address) = self.settings.mode.and_then(Mode::address) {
            let _ = write!(sign, " {address}");
        }
        if let Some(mtu) = self.settings.mtu {
            let _ = write!(sign, " mtu={mtu}");
        }
        format!(
            "{SIGN}{sign}\n\
             # As it is, kvmnet adopt --undo takes this file away; once you have changed it, it stays.\n{}",
            self.settings.keys()
        )
    }

    /// The script that a file was written for, and what it said then; none where it wasn't.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let sign = text.lines().next()?.strip_prefix(SIGN)?;
        let mut words = sign.split(' ');
        let (script, mode, bridge) = (words.next()?, words.next()?, words.next()?);
        let mut words = words.peekable();
        let mode = match mode {
            "bridged" => None,
            "isolated" => Some(Mode::Isolated),
            "nat" => Some(Mode::Nat(words.next()?.parse::<Ipv4Net>().ok()?)),
            "routed" => Some(Mode::Routed(words.next()?.parse::<Ipv4Net>().ok()?)),
            _ => return None,
        };
        let mtu = match words.next() {
            None => None,
            Some(word) => Some(word.strip_prefix("mtu=")?.parse().ok()?),
        };
        let bridge = InterfaceName::parse(bridge.as_ref()).ok()?;
        Path::new(script)
            .is_absolute()
            .then(|| Self { script: script.into(), settings: Settings { mode, bridge, mtu } })
    }
}

#[cfg(test)]
mod tests {
    use kvmnet_core::config;
    use kvmnet_core::model::NetworkName;

    use super::*;

    #[test]
    fn text_and_back() {
        let address: Ipv4Net = "192.168.150.1/24".parse().unwrap();
        let bridge = InterfaceName::parse("br-lab".as_ref()).unwrap();
        for (mode, mtu) in [
            (Some(Mode::Nat(address)), None),
            (Some(Mode::Nat(address)), Some(1400)),
            (Some(Mode::Routed(address)), Some(9000)),
            (Some(Mode::Isolated), None),
            (Some(Mode::Isolated), Some(1400)),
            (None, None),
        ] {
            let settings = Settings { mode, bridge: bridge.clone(), mtu };
            let written = Written { script: "/etc/qemu-natup".into(), settings };
            assert_eq!(Written::read(&written.text()), Some(written.clone()));
            let name = NetworkName::parse("lab").unwrap();
            let file = config::parse(Path::new("lab.toml"), &written.text(), &name).unwrap();
            assert_eq!(Settings::of(&file.network), written.settings);
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "mode = \"nat\"\n",
            "# kvmnet adopt: /a nat br0\n",
            "# kvmnet adopt: /a nat br0 x\n",
            "# kvmnet adopt: a bridged br0\n",
            "# kvmnet adopt: /a bridged br0 mtu=x\n",
        ] {
            assert_eq!(Written::read(text), None, "{text}");
        }
    }
}
