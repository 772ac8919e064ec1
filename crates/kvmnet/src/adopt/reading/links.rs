//! Links, addresses and bridges: `ip`, `brctl` and `ifconfig`.

use std::net::Ipv4Addr;

use super::values::{TAP, UNKNOWN};
use super::walk::Found;
use super::{Address, Reading, is_bridge, is_known};

const OWN_MAC: &str = "kvmnet gives its bridges an address, and leaves yours their own";
const AS_IT_IS: &str = "kvmnet's bridges have no spanning tree and no delay";
const PROMISCUOUS: &str = "a port of a bridge takes all frames";

fn unclear(what: &str) -> Found {
    Found::Problem(if what.contains('\0') {
        "which one that is cannot be told from the script".to_owned()
    } else {
        format!("does something to {what}, which is neither the tap nor its bridge")
    })
}

fn join(bridge: &str, reading: &mut Reading) -> Found {
    if !is_bridge(bridge) {
        return Found::problem("which bridge that is cannot be told from the script");
    }
    reading.joins.push(bridge.to_owned());
    Found::Understood
}

fn leave(bridge: &str, reading: &mut Reading) -> Found {
    if !is_bridge(bridge) && bridge != UNKNOWN {
        return Found::problem("which bridge that is cannot be told from the script");
    }
    reading.leaves.push(bridge.to_owned());
    Found::Understood
}

fn give(device: &str, address: Option<Address>, reading: &mut Reading) -> Found {
    match address {
        _ if device == TAP => Found::problem("gives the tap itself an address"),
        _ if !is_known(device) => unclear(device),
        None => Found::problem("which address that is cannot be told from the script"),
        Some(address) => {
            reading.touch(device);
            reading.addresses.push((device.to_owned(), address));
            Found::Understood
        }
    }
}

fn set_mtu(text: &str, reading: &mut Reading) -> Found {
    match text.parse() {
        Ok(mtu) => {
            reading.mtus.push(mtu);
            Found::Understood
        }
        Err(_) => Found::problem("which MTU that is cannot be told from the script"),
    }
}

fn address_of(text: &str) -> Option<Address> {
    let (address, prefix) = match text.split_once('/') {
        None => (text, None),
        Some((address, prefix)) => (address, Some(prefix_of(prefix)?)),
    };
    Some(Address { address: address.parse().ok()?, prefix })
}

/// A prefix length, or a netmask.
pub fn prefix_of(text: &str) -> Option<u8> {
    if let Ok(length) = text.parse::<u8>() {
        return (length <= 32).then_some(length);
    }
    let mask = u32::from(text.parse::<Ipv4Addr>().ok()?);
    (mask.leading_ones() + mask.trailing_zeros() == 32 || mask == 0)
        .then(|| u8::try_from(mask.leading_ones()).unwrap_or(32))
}

/// `ip`.
pub fn ip(arguments: &[&str], reading: &mut Reading) -> Found {
    let mut rest = arguments;
    while let Some((first, others)) = rest.split_first() {
        match *first {
            "-n" | "-netns" | "-batch" | "-b" | "-force" => {
                return Found::problem("is not known in this form");
            }
            "-6" => return six(others),
            "-f" | "-family" => rest = others.get(1..).unwrap_or_default(),
            option if option.starts_with('-') => rest = others,
            _ => break,
        }
    }
    let Some((&object, rest)) = rest.split_first() else { return Found::Understood };
    let is = |full: &str, least: usize| object.len() >= least && full.starts_with(object);
    let looks = |rest: &[&str]| {
        rest.first().is_none_or(|verb| ["show", "list", "ls", "get", "s", "sh", "l"].contains(verb))
    };
    if looks(rest) && !object.contains('\0') {
        return Found::Understood;
    }
    if is("link", 1) {
        link(rest, reading)
    } else if is("address", 1) {
        address(rest, reading)
    } else if is("tuntap", 2) {
        Found::LeftOut("QEMU makes the tap, and takes it away")
    } else {
        Found::problem("routes, rules and neighbours are for the host's own configuration")
    }
}

fn six(rest: &[&str]) -> Found {
    let looks = rest.get(1).is_none_or(|verb| ["show", "list", "ls"].contains(verb));
    if looks { Found::Understood } else { Found::problem("kvmnet's networks have no IPv6 yet") }
}

fn link(rest: &[&str], reading: &mut Reading) -> Found {
    let Some((&verb, rest)) = rest.split_first() else { return Found::Understood };
    match verb {
        "set" => set(rest, reading),
        "add" | "a" => add(rest, reading),
        "delete" | "del" | "d" => {
            let device = rest.iter().find(|word| **word != "dev").copied().unwrap_or_default();
            delete(device, reading)
        }
        _ => Found::problem("is not known in this form"),
    }
}

fn delete(device: &str, reading: &mut Reading) -> Found {
    if device == TAP {
        return Found::LeftOut("QEMU takes the tap away");
    }
    if !is_known(device) {
        return unclear(device);
    }
    reading.touch(device);
    reading.deletes.push(device.to_owned());
    Found::Understood
}

fn add(rest: &[&str], reading: &mut Reading) -> Found {
    let mut name = None;
    let mut words = rest.iter().copied();
    let mut found = Found::Understood;
    while let Some(word) = words.next() {
        match word {
            "name" | "dev" => name = words.next(),
            "address" => {
                words.next();
                found = Found::LeftOut(OWN_MAC);
            }
            "mtu" => {
                if let Found::Problem(why) = set_mtu(words.next().unwrap_or_default(), reading) {
                    found = Found::Problem(why);
                }
            }
            "up" => {}
            "type" => {
                if words.next() != Some("bridge") {
                    return Found::problem("makes something else than a bridge");
                }
                if let Some(option) = bridge_options(words.by_ref()) {
                    found = option;
                }
            }
            _ => name = Some(word),
        }
    }
    let Some(name) = name.filter(|name| is_known(name)) else {
        return Found::problem("which bridge that is cannot be told from the script");
    };
    reading.touch(name);
    reading.makes.push(name.to_owned());
    found
}

/// What stands behind `type bridge`.
fn bridge_options(words: &mut dyn Iterator<Item = &str>) -> Option<Found> {
    let mut found = None;
    while let Some(option) = words.next() {
        words.next();
        found = Some(match option {
            "stp_state" | "forward_delay" | "hello_time" | "max_age" | "priority" => {
                Found::LeftOut(AS_IT_IS)
            }
            _ => return Some(Found::problem("sets up the bridge in a way that kvmnet doesn't")),
        });
    }
    found
}

fn set(rest: &[&str], reading: &mut Reading) -> Found {
    let (mut device, mut found) = (None, Found::Understood);
    let mut words = rest.iter().copied();
    let mut worst = |other: Found| {
        if !matches!((&found, &other), (Found::Problem(_), _) | (_, Found::Understood)) {
            found = other;
        }
    };
    let mut master = None;
    while let Some(word) = words.next() {
        match word {
            "dev" => device = words.next(),
            "up" | "down" => {}
            "promisc" | "allmulticast" | "multicast" | "arp" => {
                words.next();
                worst(Found::LeftOut(PROMISCUOUS));
            }
            "master" => master = Some(words.next().unwrap_or_default()),
            "nomaster" => reading.leaves.push(UNKNOWN.to_owned()),
            "address" => {
                words.next();
                worst(Found::LeftOut(OWN_MAC));
            }
            "mtu" => worst(set_mtu(words.next().unwrap_or_default(), reading)),
            "type" if device != Some(TAP) => {
                words.next();
                if let Some(option) = bridge_options(words.by_ref()) {
                    worst(option);
                }
            }
            word if device.is_none() => device = Some(word),
            _ => worst(Found::problem("sets what kvmnet doesn't")),
        }
    }
    let device = device.unwrap_or_default();
    match master {
        Some(bridge) if device == TAP => worst(join(bridge, reading)),
        Some(_) => worst(unclear(device)),
        None if device != TAP && !is_bridge(device) => worst(unclear(device)),
        // It has to be the bridge; which that is a script may say only later.
        None if device != TAP => reading.touch(device),
        None => {}
    }
    found
}

fn address(rest: &[&str], reading: &mut Reading) -> Found {
    let Some((&verb, rest)) = rest.split_first() else { return Found::Understood };
    let (mut device, mut text) = ("", "");
    let mut words = rest.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "dev" => device = words.next().unwrap_or_default(),
            "brd" | "broadcast" | "label" | "scope" | "metric" => drop(words.next()),
            "local" => text = words.next().unwrap_or_default(),
            "peer" => return Found::problem("a point-to-point address is nothing that kvmnet has"),
            // `ip addr flush br0`
            word if text.is_empty() => text = word,
            word => device = word,
        }
    }
    match verb {
        "add" | "a" | "replace" | "change" => {
            if text.contains(':') && is_known(text) {
                return Found::problem("kvmnet's networks have no IPv6 yet");
            }
            give(device, address_of(text), reading)
        }
        "del" | "delete" | "d" | "flush" | "f" => {
            let device = if device.is_empty() { text } else { device };
            if device == TAP {
                Found::Understood
            } else if is_known(device) {
                reading.touch(device);
                Found::Understood
            } else {
                unclear(device)
            }
        }
        _ => Found::problem("is not known in this form"),
    }
}

/// `brctl`.
pub fn brctl(arguments: &[&str], reading: &mut Reading) -> Found {
    match arguments {
        [] | ["show" | "showmacs" | "showstp" | "--version" | "-V", ..] => Found::Understood,
        ["addbr", bridge] if is_known(bridge) => {
            reading.touch(bridge);
            reading.makes.push((*bridge).to_owned());
            Found::Understood
        }
        ["delbr", bridge] if is_known(bridge) => {
            reading.touch(bridge);
            reading.deletes.push((*bridge).to_owned());
            Found::Understood
        }
        ["addbr" | "delbr", _] => {
            Found::problem("which bridge that is cannot be told from the script")
        }
        ["addif", bridge, TAP] => join(bridge, reading),
        ["delif", bridge, TAP] => leave(bridge, reading),
        ["addif" | "delif", _, other] => unclear(other),
        ["stp", _, "off" | "no" | "0"] => Found::LeftOut(AS_IT_IS),
        ["stp", ..] => {
            Found::LeftOut("a tree of one bridge spans nothing; it would only delay guests")
        }
        [
            "setfd" | "sethello" | "setmaxage" | "setbridgeprio" | "setpathcost" | "setportprio",
            ..,
        ] => Found::LeftOut(AS_IT_IS),
        _ => Found::problem("sets up the bridge in a way that kvmnet doesn't"),
    }
}

/// `ifconfig`.
pub fn ifconfig(arguments: &[&str], reading: &mut Reading) -> Found {
    let Some((&device, rest)) = arguments.split_first() else { return Found::Understood };
    if device.starts_with('-') || rest.is_empty() {
        return Found::Understood;
    }
    let (mut text, mut mask, mut found) = (None, None, Found::Understood);
    let mut words = rest.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "up" | "down" | "inet" => {}
            "promisc" | "-promisc" | "multicast" | "allmulti" => {
                found = Found::LeftOut(PROMISCUOUS)
            }
            "netmask" => mask = words.next(),
            "broadcast" => drop(words.next()),
            "mtu" => {
                if let Found::Problem(why) = set_mtu(words.next().unwrap_or_default(), reading) {
                    return Found::Problem(why);
                }
            }
            "hw" => {
                words.next();
                words.next();
                found = Found::LeftOut(OWN_MAC);
            }
            "0.0.0.0" | "0" => {}
            word if text.is_none() => text = Some(word),
            _ => return Found::problem("is not known in this form"),
        }
    }
    let Some(text) = text else {
        if device == TAP {
            return found;
        }
        if !is_bridge(device) {
            return unclear(device);
        }
        reading.touch(device);
        return found;
    };
    let mut address = address_of(text);
    if let (Some(address), Some(mask)) = (&mut address, mask) {
        address.prefix = prefix_of(mask);
        if address.prefix.is_none() {
            return Found::problem("which netmask that is cannot be told from the script");
        }
    }
    give(device, address, reading)
}
