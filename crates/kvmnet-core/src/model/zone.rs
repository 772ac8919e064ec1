//! firewalld's zones: what comes from an interface passes where its zone lets it.

use std::fmt;

/// The longest name that firewalld takes: its chains' names are made of it.
const LONGEST: usize = 17;

/// The zones that kvmnet brings along, for networks whose files name none: `kvmnet`, and
/// `kvmnet-routed`, whose guests are reached from outside, too.
const PACKAGED: [&str; 2] = ["kvmnet", "kvmnet-routed"];

/// A zone's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneName(String);

impl ZoneName {
    /// Takes what firewalld takes on every version: letters, digits, `_` and `-`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let fits = !text.is_empty() && text.len() <= LONGEST && text.chars().all(is_fit);
        fits.then(|| Self(text.to_owned()))
    }

    /// The zone for guests who are reached by nobody outside.
    #[must_use]
    pub(crate) fn of_closed() -> Self {
        Self(PACKAGED[0].to_owned())
    }

    /// The zone for guests who are reached from outside.
    #[must_use]
    pub(crate) fn of_routed() -> Self {
        Self(PACKAGED[1].to_owned())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether kvmnet brings this zone along.
    #[must_use]
    pub fn is_packaged(&self) -> bool {
        PACKAGED.contains(&self.as_str())
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What firewalld has for a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ZoneView {
    /// It doesn't run here, or the bridge is none of its business.
    #[default]
    Absent,
    /// Its rules are there, and it wasn't asked.
    Unasked,
    /// Its rules are there, and it can't be asked.
    Silent {
        /// The reason, and the remedy.
        why: String,
    },
    /// It answers.
    Answered {
        /// The zone that the bridge is in; none where it is left to the default zone.
        current: Option<String>,
        /// Whether that is so by firewalld's permanent configuration: an administrator's doing.
        permanent: bool,
        /// Whether firewalld knows the zone that is wanted, if any is.
        is_known: bool,
    },
}

/// Puts a bridge into a zone, or out of the one it is in; until firewalld's next reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneChange {
    /// The bridge's name.
    pub bridge: String,
    /// What is done.
    pub kind: ZoneChangeKind,
}

/// What is done with a bridge's zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZoneChangeKind {
    /// The bridge is put into this zone, whatever zone it was in.
    Enter(ZoneName),
    /// The bridge is taken out of this zone.
    Leave(String),
}

impl fmt::Display for ZoneChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bridge = &self.bridge;
        match &self.kind {
            ZoneChangeKind::Enter(zone) => write!(f, "put {bridge} into firewalld's zone {zone}"),
            ZoneChangeKind::Leave(zone) => {
                write!(f, "take {bridge} out of firewalld's zone {zone}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_firewalld_takes() {
        for text in ["public", "kvmnet-routed", "my_zone", "DMZ2", "seventeen-letters"] {
            assert_eq!(ZoneName::parse(text).map(|zone| zone.to_string()), Some(text.to_owned()));
        }
        for text in ["", "eighteen-letters-x", "a b", "a/b", "ä", "a.b", "a\n"] {
            assert_eq!(ZoneName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_packaged_zones_have_names_that_can_be_written() {
        for zone in [ZoneName::of_closed(), ZoneName::of_routed()] {
            assert_eq!(ZoneName::parse(zone.as_str()), Some(zone.clone()));
            assert!(zone.is_packaged());
        }
    }
}
