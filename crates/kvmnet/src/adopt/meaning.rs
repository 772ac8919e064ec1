//! What a script is for: the network that behaves as what it does, or why there is none.

use ipnet::Ipv4Net;
use kvmnet_core::config;
use kvmnet_core::model::{InterfaceName, Mode, Network};

use super::network::Settings;
use super::reading::{Masquerade, ROUTE, Reading, UNKNOWN};

/// What of the host decides, besides the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Whether there is an interface `br0`.
    pub has_br0: bool,
    /// The interface that holds a default route.
    pub default_route: Option<String>,
}

/// The network that a script's taps join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// What `kvmnet-ifup` takes without a file: `br0`, or else the bridge with a default route.
    BuiltInBridge,
    /// One with these settings.
    Network(Settings),
}

/// What a script is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meaning {
    /// The network, as far as it can be told.
    pub joined: Option<Joined>,
    /// Why it can't be adopted without more ado.
    pub reasons: Vec<String>,
    /// What is different then, and to be known.
    pub notes: Vec<String>,
}

/// What a script is for that is run for a tap that comes.
#[must_use]
pub fn of_up(reading: &Reading, host: &Host) -> Meaning {
    let mut meaning = Meaning::default();
    // What a line says is shown with it.
    let lines = reading.problems.len();
    match reading.joins.as_slice() {
        [] if lines == 0 => meaning.reasons.push("it puts the tap on no bridge".to_owned()),
        [] => {}
        [bridge] => meaning.joined = joined(bridge, reading, host, &mut meaning),
        several => {
            let several = several.join(", ").replace(ROUTE, "the bridge with the default route");
            meaning.reasons.push(format!("it puts taps on several bridges: {several}"));
        }
    }
    meaning
}

/// Why a script can't be adopted that is run for a tap that goes; `up` is its other half.
#[must_use]
pub fn of_down(reading: &Reading, up: Option<&Reading>) -> Vec<String> {
    let mut reasons = Vec::new();
    if !reading.joins.is_empty() {
        reasons.push("it is called down, and puts taps on a bridge".to_owned());
    }
    let (own, others) = (reading.bridges(), up.map(Reading::bridges).unwrap_or_default());
    let fits = own.iter().all(|bridge| others.is_empty() || others.contains(bridge));
    if !fits {
        let name =
            |names: &[&str]| names.join(", ").replace(ROUTE, "the bridge with the default route");
        reasons.push(format!(
            "it is about {}, and its other half about {}",
            name(&own),
            name(&others)
        ));
    }
    reasons
}

fn joined(bridge: &str, reading: &Reading, host: &Host, meaning: &mut Meaning) -> Option<Joined> {
    if reading.leaves.iter().any(|left| left != bridge && left != UNKNOWN) {
        meaning.reasons.push("it takes taps off another bridge".to_owned());
    }
    if !reading.deletes.is_empty() {
        meaning.reasons.push("it deletes a bridge".to_owned());
    }
    let makes_network = !reading.makes.is_empty()
        || !reading.addresses.is_empty()
        || !reading.masquerades.is_empty();
    if bridge == ROUTE {
        if makes_network {
            let why = "it makes a network of the bridge with the default route";
            meaning.reasons.push(why.to_owned());
            return None;
        }
        return by_route(reading, host, meaning);
    }
    let name = match InterfaceName::parse(bridge.as_ref()) {
        Ok(name) => name,
        Err(reason) => {
            meaning.reasons.push(format!("no bridge can be called {bridge:?}: {reason}"));
            return None;
        }
    };
    if makes_network {
        return managed(name, reading, meaning);
    }
    bridged_settings(reading, meaning);
    if name == config::default_bridged().bridge {
        return Some(Joined::BuiltInBridge);
    }
    Some(Joined::Network(Settings { mode: None, bridge: name, mtu: None }))
}

fn bridged_settings(reading: &Reading, meaning: &mut Meaning) {
    if reading.forwards {
        meaning.reasons.push(
            "it turns forwarding on, and kvmnet-ifup does not: net.ipv4.ip_forward = 1 is for a file \
             in /etc/sysctl.d"
                .to_owned(),
        );
    }
    if !reading.mtus.is_empty() {
        let why = "it sets an MTU, and kvmnet-ifup gives taps that of their bridge";
        meaning.reasons.push(why.to_owned());
    }
}

fn by_route(reading: &Reading, host: &Host, meaning: &mut Meaning) -> Option<Joined> {
    bridged_settings(reading, meaning);
    if host.has_br0 && host.default_route.as_deref() != Some("br0") {
        let route = host.default_route.as_deref().unwrap_or("no interface");
        meaning.reasons.push(format!(
            "its bridge is the one with the default route, which {route} has, and kvmnet-ifup takes \
             br0, which is there, too"
        ));
    }
    meaning.notes.push(
        "where no bridge has the default route, and there is no br0, kvmnet-ifup refuses and the guest does \
         not start, as with some of these scripts; Debian's lets it start, on no bridge"
            .to_owned(),
    );
    Some(Joined::BuiltInBridge)
}

fn managed(bridge: InterfaceName, reading: &Reading, meaning: &mut Meaning) -> Option<Joined> {
    let mtu = match reading.mtus.as_slice() {
        [] => None,
        [first, others @ ..] if others.iter().all(|mtu| mtu == first) => Some(*first),
        _ => {
            meaning.reasons.push("it sets several MTUs".to_owned());
            None
        }
    };
    let mut addresses: Vec<_> = reading.addresses.iter().map(|(_, address)| *address).collect();
    addresses.dedup();
    let [address] = addresses.as_slice() else {
        meaning.reasons.push(if addresses.is_empty() && reading.masquerades.is_empty() {
            "it makes a bridge without an address: whether guests are to be among themselves or on a \
             bridge of the host's cannot be told from it"
                .to_owned()
        } else if addresses.is_empty() {
            "it gives its bridge no address, and a network of kvmnet's needs one".to_owned()
        } else {
            "it gives its bridge several addresses".to_owned()
        });
        return None;
    };
    let sources: Vec<_> = reading.masquerades.iter().map(source).collect();
    let of_rules = sources.iter().filter_map(|source| source.as_ref().ok().copied().flatten());
    let around = of_rules.clone().find(|net| net.contains(&address.address));
    let Some(prefix) = address.prefix.or_else(|| around.map(|net| net.prefix_len())) else {
        let why = format!("how long the prefix of {} is it does not say", address.address);
        meaning.reasons.push(why);
        return None;
    };
    if address.prefix.is_none() {
        meaning.notes.push(format!(
            "it gives the bridge {} without a prefix length; that of whom it masquerades is taken, \
             /{prefix}",
            address.address
        ));
    }
    let Ok(address) = Ipv4Net::new(address.address, prefix) else { return None };
    for (masquerade, source) in reading.masquerades.iter().zip(&sources) {
        masquerades(masquerade, source, address, meaning);
    }
    let mode = if !reading.masquerades.is_empty() {
        Mode::Nat(address)
    } else if reading.forwards {
        Mode::Routed(address)
    } else {
        meaning.reasons.push(
            "its guests reach the host and nothing else, which no mode of kvmnet's is".to_owned(),
        );
        return None;
    };
    Some(Joined::Network(Settings { mode: Some(mode), bridge, mtu }))
}

/// The subnet that a rule is for; an error where that is no subnet.
fn source(masquerade: &Masquerade) -> Result<Option<Ipv4Net>, ()> {
    let Some(text) = &masquerade.source else { return Ok(None) };
    let (address, prefix) = text.split_once('/').unwrap_or((text, "32"));
    let prefix = super::reading::prefix_of(prefix).ok_or(())?;
    let net = Ipv4Net::new(address.parse().map_err(|_| ())?, prefix).map_err(|_| ())?;
    Ok(Some(net.trunc()))
}

fn masquerades(
    masquerade: &Masquerade,
    source: &Result<Option<Ipv4Net>, ()>,
    address: Ipv4Net,
    meaning: &mut Meaning,
) {
    let subnet = address.trunc();
    match source {
        Ok(Some(net)) if *net == subnet => {}
        Ok(Some(net)) if net.contains(&subnet) => meaning.notes.push(format!(
            "it masquerades all of {net}, and kvmnet its own network only, {subnet}"
        )),
        Ok(None) => meaning.notes.push(format!(
            "it masquerades everybody{}, and kvmnet its own network only; who else relies on it needs a \
             rule of the host's own",
            masquerade.over.as_ref().map(|name| format!(" who leaves by {name}")).unwrap_or_default()
        )),
        Ok(Some(_)) | Err(()) => meaning.reasons.push(format!(
            "it masquerades {}, and its bridge is in {subnet}",
            masquerade.source.as_deref().unwrap_or_default()
        )),
    }
    if let (Some(_), Some(over)) = (&masquerade.source, &masquerade.over) {
        meaning.notes.push(format!("it masquerades by {over} only, and kvmnet by any interface"));
    }
}

/// Whether a network's file says what a script does, as far as scripts say anything.
#[must_use]
pub fn is_the_same(network: &Network, settings: &Settings) -> bool {
    Settings::of(network) == *settings
}
