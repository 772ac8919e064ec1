//! One network file: its keys, their values, and every mistake with its line.

use std::borrow::Cow;
use std::path::Path;

use ipnet::Ipv4Net;
use toml_span::value::{Table, Value, ValueInner};
use toml_span::{ErrorKind, Span};

use super::{ConfigError, default_name, default_nat};
use crate::model::{
    BridgedNetwork, Firewall, Forwarding, InterfaceName, ManagedNetwork, Mode, Network,
    NetworkName, ZoneName,
};

const KEYS: &str = "mode, bridge, address, taps, mtu, firewall, forwarding and zone";
/// The least that IPv4 works with (RFC 791), and the most a tap can have, in bytes.
const MTU: std::ops::RangeInclusive<i64> = 68..=65521;

/// What a network file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkFile {
    /// The network.
    pub network: Network,
    /// Patterns of the taps that belong to it, with `*` and `?`.
    pub taps: Vec<String>,
}

/// Reads the text of network `name`'s file.
///
/// # Errors
/// [`ConfigError::Text`] with the line, what is wrong, and what to write instead.
pub fn parse(path: &Path, text: &str, name: &NetworkName) -> Result<NetworkFile, ConfigError> {
    // Editors of another system put it there; it means nothing.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let reader = Reader { path, text };
    let mut document =
        toml_span::parse(text).map_err(|error| reader.error(error.span, describe(&error.kind)))?;
    // A document is a table; only the parser's type says that it could be something else.
    let mut table = match document.take() {
        ValueInner::Table(table) => table,
        other => {
            let wanted = ErrorKind::Wanted { expected: "table", found: other.type_str() };
            return Err(reader.error(document.span, describe(&wanted)));
        }
    };
    reader.network(&mut table, name)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

/// A value and where it stands.
struct Found<T> {
    value: T,
    span: Span,
}

impl Reader<'_> {
    fn error(&self, span: Span, problem: String) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        ConfigError::Text { path: self.path.to_owned(), line, problem }
    }

    fn network(
        &self,
        table: &mut Table<'_>,
        name: &NetworkName,
    ) -> Result<NetworkFile, ConfigError> {
        let mode = self.string(table, "mode", "\"nat\"")?;
        let bridge = self.bridge(table, name)?;
        let address = self.address(table)?;
        let mtu = self.mtu(table)?;
        let firewall = self.firewall(table)?;
        let forwarding = self.forwarding(table)?;
        let zone = self.zone(table)?;
        let taps = self.taps(table)?;
        self.refuse_unknown(table)?;
        let word = mode.as_ref().map_or("nat", |mode| mode.value.as_ref());
        let mode = match word {
            "nat" | "routed" => {
                let address = self.required(address, mode.as_ref().map(|mode| mode.span), word)?;
                Some(if word == "nat" { Mode::Nat(address) } else { Mode::Routed(address) })
            }
            "isolated" => {
                self.absent("address", &address, word)?;
                self.absent("forwarding", &forwarding, word)?;
                Some(Mode::Isolated)
            }
            "bridged" => {
                self.absent("address", &address, word)?;
                self.absent("mtu", &mtu, word)?;
                self.absent("firewall", &firewall, word)?;
                self.absent("forwarding", &forwarding, word)?;
                None
            }
            other => {
                let problem = format!(
                    "mode = {other:?} is none; write \"nat\", \"routed\", \"isolated\" or \"bridged\""
                );
                return Err(self.error(mode.map_or(Span::default(), |mode| mode.span), problem));
            }
        };
        let network = match mode {
            Some(mode) => Network::Managed(ManagedNetwork {
                name: name.clone(),
                bridge,
                mode,
                mtu: mtu.map(|found| found.value),
                firewall: firewall.map_or_else(Firewall::default, |found| found.value),
                forwarding: forwarding.map_or_else(Forwarding::default, |found| found.value),
                zone,
            }),
            None => Network::Bridged(BridgedNetwork { bridge, or_default_route: false, zone }),
        };
        Ok(NetworkFile { network, taps })
    }

    /// A key that a network of this mode has no use for.
    fn absent<T>(
        &self,
        key: &str,
        found: &Option<Found<T>>,
        word: &str,
    ) -> Result<(), ConfigError> {
        match found {
            None => Ok(()),
            Some(found) => {
                let problem =
                    format!("{key} means nothing to a network of mode {word}; take it out");
                Err(self.error(found.span, problem))
            }
        }
    }

    fn required(
        &self,
        address: Option<Found<Ipv4Net>>,
        mode: Option<Span>,
        word: &str,
    ) -> Result<Ipv4Net, ConfigError> {
        address.map(|found| found.value).ok_or_else(|| {
            let problem = format!(
                "a network of mode {word} needs the host's address and the subnet: \
                 address = \"192.168.150.1/24\""
            );
            self.error(mode.unwrap_or_default(), problem)
        })
    }

    /// What is left of the table when all keys are read. A key that is misspelt explains what is
    /// missing, so this comes before any judgement.
    fn refuse_unknown(&self, table: &Table<'_>) -> Result<(), ConfigError> {
        match table.keys().min_by_key(|key| key.span.start) {
            None => Ok(()),
            Some(key) => {
                let problem = format!("unknown key {}; the keys are {KEYS}", key.name);
                Err(self.error(key.span, problem))
            }
        }
    }

    /// A key's value as `convert` takes it from the table; `wanted` is an example of the right form.
    fn take<'de, T>(
        &self,
        table: &mut Table<'de>,
        key: &str,
        wanted: &str,
        convert: impl FnOnce(ValueInner<'de>) -> Option<T>,
    ) -> Result<Option<Found<T>>, ConfigError> {
        let Some(mut value) = table.remove(key) else {
            return Ok(None);
        };
        let span = value.span;
        let inner = value.take();
        let kind = inner.type_str();
        match convert(inner) {
            Some(value) => Ok(Some(Found { value, span })),
            None => {
                let problem = format!("{key} is of type {kind}; write it so: {key} = {wanted}");
                Err(self.error(span, problem))
            }
        }
    }

    fn string<'de>(
        &self,
        table: &mut Table<'de>,
        key: &str,
        wanted: &str,
    ) -> Result<Option<Found<Cow<'de, str>>>, ConfigError> {
        self.take(table, key, wanted, |value| match value {
            ValueInner::String(text) => Some(text),
            _ => None,
        })
    }

    fn bridge(
        &self,
        table: &mut Table<'_>,
        name: &NetworkName,
    ) -> Result<InterfaceName, ConfigError> {
        let Some(found) = self.string(table, "bridge", "\"br1\"")? else {
            if *name == default_name() {
                return Ok(default_nat().bridge);
            }
            return InterfaceName::parse(name.as_str().as_ref()).map_err(|reason| {
                let problem = format!(
                    "the bridge can't be called {name} ({reason}); give it another name: \
                     bridge = \"br-{name}\""
                );
                self.error(Span::default(), problem)
            });
        };
        InterfaceName::parse(found.value.as_ref().as_ref()).map_err(|reason| {
            let problem = format!("bridge = {:?} is no interface name: {reason}", found.value);
            self.error(found.span, problem)
        })
    }

    fn address(&self, table: &mut Table<'_>) -> Result<Option<Found<Ipv4Net>>, ConfigError> {
        let Some(found) = self.string(table, "address", "\"192.168.150.1/24\"")? else {
            return Ok(None);
        };
        match judge_address(&found.value) {
            Ok(value) => Ok(Some(Found { value, span: found.span })),
            Err(problem) => {
                let problem = format!("address = {:?} {problem}", found.value);
                Err(self.error(found.span, problem))
            }
        }
    }

    fn mtu(&self, table: &mut Table<'_>) -> Result<Option<Found<u32>>, ConfigError> {
        let found = self.take(table, "mtu", "1500", |value| match value {
            ValueInner::Integer(number) => Some(number),
            _ => None,
        })?;
        let Some(Found { value, span }) = found else {
            return Ok(None);
        };
        match u32::try_from(value).ok().filter(|_| MTU.contains(&value)) {
            Some(value) => Ok(Some(Found { value, span })),
            None => {
                let (least, most) = (MTU.start(), MTU.end());
                Err(self.error(span, format!("mtu = {value}: it lies between {least} and {most}")))
            }
        }
    }

    fn firewall(&self, table: &mut Table<'_>) -> Result<Option<Found<Firewall>>, ConfigError> {
        self.word(table, "firewall", "\"auto\"", |word| match word {
            "auto" => Ok(Firewall::Auto),
            "nftables" => Ok(Firewall::Nftables),
            "iptables" => Ok(Firewall::Iptables),
            "none" => Ok(Firewall::None),
            _ => Err("is none; write \"auto\", \"nftables\", \"iptables\" or \"none\""),
        })
    }

    fn forwarding(&self, table: &mut Table<'_>) -> Result<Option<Found<Forwarding>>, ConfigError> {
        self.word(table, "forwarding", "\"global\"", |word| match word {
            "global" => Ok(Forwarding::Global),
            "interfaces" => Ok(Forwarding::Interfaces),
            "never" => Ok(Forwarding::Never),
            _ => Err("is none; write \"global\", \"interfaces\" or \"never\""),
        })
    }

    fn zone(&self, table: &mut Table<'_>) -> Result<Option<ZoneName>, ConfigError> {
        let Some(found) = self.string(table, "zone", "\"trusted\"")? else {
            return Ok(None);
        };
        ZoneName::parse(&found.value).map(Some).ok_or_else(|| {
            let problem = format!(
                "zone = {:?} is no name of a zone of firewalld's: that has at most 17 characters, \
                 letters, digits, '-' and '_'; the zones there are: firewall-cmd --get-zones",
                found.value
            );
            self.error(found.span, problem)
        })
    }

    fn word<T>(
        &self,
        table: &mut Table<'_>,
        key: &str,
        wanted: &str,
        meaning: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Result<Option<Found<T>>, ConfigError> {
        let Some(found) = self.string(table, key, wanted)? else {
            return Ok(None);
        };
        match meaning(&found.value) {
            Ok(value) => Ok(Some(Found { value, span: found.span })),
            Err(problem) => {
                Err(self.error(found.span, format!("{key} = {:?} {problem}", found.value)))
            }
        }
    }

    fn taps(&self, table: &mut Table<'_>) -> Result<Vec<String>, ConfigError> {
        const WANTED: &str = "[\"lab*\", \"vm-web\"]";
        let found = self.take(table, "taps", WANTED, |value| match value {
            ValueInner::Array(list) => Some(list),
            _ => None,
        })?;
        let Some(Found { value: list, .. }) = found else {
            return Ok(Vec::new());
        };
        list.into_iter()
            .map(|value| match value.as_str() {
                Some(pattern) if is_pattern(pattern) => Ok(pattern.to_owned()),
                _ => Err(self.error(value.span, bad_pattern(&value, WANTED))),
            })
            .collect()
    }
}

fn bad_pattern(value: &Value<'_>, wanted: &str) -> String {
    match value.as_str() {
        Some(text) => {
            format!("taps: no interface name can match {text:?}; write it so: taps = {wanted}")
        }
        None => format!("taps holds something that is no string; write it so: taps = {wanted}"),
    }
}

/// What a pattern leaves once its wildcards stand for something has to be an interface name.
fn is_pattern(pattern: &str) -> bool {
    let least = pattern.replace('*', "").replace('?', "x");
    let least = if least.is_empty() && pattern.contains('*') { "x" } else { least.as_str() };
    InterfaceName::parse(least.as_ref()).is_ok()
}

/// The host's address with its subnet, or what is wrong with it.
fn judge_address(text: &str) -> Result<Ipv4Net, String> {
    const FORM: &str =
        "write the host's address and the subnet's prefix length: \"192.168.150.1/24\"";
    if text.contains(':') {
        return Err(format!("is IPv6, which kvmnet doesn't route yet; {FORM}"));
    }
    let net: Ipv4Net =
        text.parse().map_err(|_| format!("is no IPv4 address with a prefix; {FORM}"))?;
    if net.prefix_len() > 30 || net.prefix_len() < 8 {
        return Err(
            "leaves no sensible room for guests; its prefix lies between /8 and /30".to_owned()
        );
    }
    let first = net.hosts().next().unwrap_or(net.addr());
    let instead = Ipv4Net::new_assert(first, net.prefix_len());
    if net.addr() == net.network() {
        return Err(format!("is the subnet itself; write the host's address in it: \"{instead}\""));
    }
    if net.addr() == net.broadcast() {
        return Err(format!("is the subnet's broadcast address; write the host's: \"{instead}\""));
    }
    let [first, ..] = net.addr().octets();
    if first == 0 || first == 127 || first >= 224 {
        return Err(format!("is no address that a host can have on a network; {FORM}"));
    }
    Ok(net)
}

/// The parser's errors in plain words.
fn describe(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::DuplicateKey { key, .. } => format!("{key} stands here a second time; keep one"),
        ErrorKind::UnquotedString => {
            "a word without quotes; write it in quotes: mode = \"nat\"".to_owned()
        }
        ErrorKind::DuplicateTable { name, .. } => {
            format!("table [{name}] stands here a second time")
        }
        other => format!("is no TOML: {other}"),
    }
}
