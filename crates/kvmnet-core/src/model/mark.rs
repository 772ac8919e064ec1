//! How a bridge says that it is kvmnet's: by its `ifalias` (`ip link`, `IFLA_IFALIAS`), never by
//! its name.

use std::fmt;

use super::{Link, LinkKind, Mac, NetworkName};

const PREFIX: &str = "kvmnet:";
const PINNED: &str = ":pinned";
const FORWARDING: &str = ":forwarding";
const IPTABLES: &str = ":iptables";
const ZONE: &str = ":zone";

/// The mark that a bridge of ours carries as its alias: `kvmnet:NAME`, and behind that `:pinned`
/// where an administrator brought the network up and only the administrator takes it down, and
/// `:forwarding` where IPv4 forwarding was turned on for it, and `:iptables` where its rules are in
/// the tables of iptables, and `:zone` where kvmnet put it into a zone of firewalld's other than its
/// own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The network whose bridge it is.
    pub network: NetworkName,
    /// Whether it stays when nobody uses it.
    pub pinned: bool,
    /// Whether `net.ipv4.ip_forward` was turned on for it; for people, nothing is judged by it.
    pub forwarding: bool,
    /// Whether its rules are in the tables of iptables, or may be.
    pub iptables: bool,
    /// Whether kvmnet put it into a zone of firewalld's that the network's file names, or was about
    /// to; of those that kvmnet brings along the name says enough.
    pub zone: bool,
}

impl Mark {
    /// The mark of a network that goes with its last guest.
    #[must_use]
    pub fn of(network: &NetworkName) -> Self {
        Self {
            network: network.clone(),
            pinned: false,
            forwarding: false,
            iptables: false,
            zone: false,
        }
    }

    /// Reads an alias; `None` where it is somebody else's.
    #[must_use]
    pub fn parse(alias: &str) -> Option<Self> {
        let rest = alias.strip_prefix(PREFIX)?;
        let (rest, zone) = strip(rest, ZONE);
        let (rest, iptables) = strip(rest, IPTABLES);
        let (rest, forwarding) = strip(rest, FORWARDING);
        let (name, pinned) = strip(rest, PINNED);
        let network = NetworkName::parse(name)?;
        Some(Self { network, pinned, forwarding, iptables, zone })
    }
}

/// The text without that ending, and whether it had it.
fn strip<'a>(text: &'a str, ending: &str) -> (&'a str, bool) {
    text.strip_suffix(ending).map_or((text, false), |rest| (rest, true))
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pinned = if self.pinned { PINNED } else { "" };
        let forwarding = if self.forwarding { FORWARDING } else { "" };
        let iptables = if self.iptables { IPTABLES } else { "" };
        let zone = if self.zone { ZONE } else { "" };
        write!(f, "{PREFIX}{}{pinned}{forwarding}{iptables}{zone}", self.network)
    }
}

/// Whose bridge `link` is: a mark decides; a bridge without one is ours where it carries exactly the
/// address derived from one of the `known` networks (somebody cleared the alias, or wrote one).
#[must_use]
pub fn owner_of(link: &Link, known: &[NetworkName]) -> Option<Mark> {
    if !matches!(link.kind, LinkKind::Bridge { .. }) {
        return None;
    }
    if let Some(mark) = Mark::parse(&link.alias) {
        return Some(mark);
    }
    let mac = link.mac?;
    known.iter().find(|network| Mac::of_bridge(network) == mac).map(Mark::of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NetworkName {
        NetworkName::parse(text).unwrap()
    }

    #[test]
    fn marks_read_as_they_were_written() {
        for (text, network, words) in [
            ("kvmnet:default", "default", [false, false, false, false]),
            ("kvmnet:lab-2:pinned", "lab-2", [true, false, false, false]),
            ("kvmnet:lab-2:forwarding", "lab-2", [false, true, false, false]),
            ("kvmnet:lab-2:iptables", "lab-2", [false, false, true, false]),
            ("kvmnet:lab-2:pinned:forwarding", "lab-2", [true, true, false, false]),
            ("kvmnet:lab-2:pinned:forwarding:iptables", "lab-2", [true, true, true, false]),
            ("kvmnet:lab-2:iptables:zone", "lab-2", [false, false, true, true]),
            ("kvmnet:zone:zone", "zone", [false, false, false, true]),
            ("kvmnet:pinned", "pinned", [false, false, false, false]),
            ("kvmnet:forwarding", "forwarding", [false, false, false, false]),
            ("kvmnet:iptables:iptables", "iptables", [false, false, true, false]),
        ] {
            let mark = Mark::parse(text).unwrap();
            let found =
                (mark.network.as_str(), [mark.pinned, mark.forwarding, mark.iptables, mark.zone]);
            assert_eq!(found, (network, words));
            assert_eq!(mark.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_somebody_elses() {
        for text in [
            "",
            "kvmnet",
            "kvmnet:",
            "kvmnet:A",
            "kvmnet:a:b",
            " kvmnet:a",
            "office LAN",
            "kvmnet:a:forwarding:pinned",
            "kvmnet:a:iptables:forwarding",
            "kvmnet:a:zone:iptables",
            "kvmnet:a:iptables:iptables",
        ] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_mark_decides_and_the_address_only_without_one() {
        let known = [name("default")];
        let mut link = Link::test_bridge("br0", 7);
        link.mac = Some(Mac::of_bridge(&known[0]));
        assert_eq!(owner_of(&link, &known), Some(Mark::of(&known[0])));
        assert_eq!(owner_of(&link, &[]), None);
        // An administrator's own words don't take a network from under its guests.
        link.alias = "VM net".to_owned();
        assert_eq!(owner_of(&link, &known), Some(Mark::of(&known[0])));
        assert_eq!(owner_of(&link, &[]), None);
        link.alias = "kvmnet:lab".to_owned();
        assert_eq!(owner_of(&link, &known), Some(Mark::of(&name("lab"))));
        link.kind = LinkKind::Other("veth".to_owned());
        assert_eq!(owner_of(&link, &known), None);
    }
}
