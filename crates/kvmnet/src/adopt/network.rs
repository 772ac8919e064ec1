//! The file of a network that a script has made: its text, and whether it still is as it was written.

use std::fmt::Write;
use std::path::{Path, PathBuf};

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
        let rest = format!(
            "# As it is, kvmnet adopt --undo takes this file away; once you have changed it, it stays.\n{}",
            self.settings.keys()
        );
        format!("{SIGN}{} {:016x}\n{rest}", self.script.display(), sum(&rest))
    }

    /// The script that a file was written for, and whether it is as it was written; none where it was
    /// written by somebody else.
    #[must_use]
    pub fn read(text: &str) -> Option<(PathBuf, bool)> {
        let (sign, rest) = text.split_once('\n')?;
        let (script, written) = sign.strip_prefix(SIGN)?.split_once(' ')?;
        let untouched = written == format!("{:016x}", sum(rest));
        Path::new(script).is_absolute().then(|| (script.into(), untouched))
    }
}

/// A checksum (FNV-1a) against a change by hand, not against one that is meant to go unseen.
fn sum(text: &str) -> u64 {
    let step = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use ipnet::Ipv4Net;
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
            let text = written.text();
            assert_eq!(Written::read(&text), Some(("/etc/qemu-natup".into(), true)));
            let changed = text.replacen("mode", "Mode", 1);
            assert_eq!(Written::read(&changed), Some(("/etc/qemu-natup".into(), false)));
            let name = NetworkName::parse("lab").unwrap();
            let file = config::parse(Path::new("lab.toml"), &written.text(), &name).unwrap();
            assert_eq!(Settings::of(&file.network), written.settings);
        }
    }

    #[test]
    fn what_is_none() {
        for text in [
            "mode = \"nat\"\n",
            "# kvmnet adopt: /a\n",
            "# kvmnet adopt: a 0123456789abcdef\n",
            "# kvmnet adopt: /a 0123456789abcdef",
        ] {
            assert_eq!(Written::read(text), None, "{text}");
        }
    }
}
