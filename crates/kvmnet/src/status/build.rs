//! From what was seen to what is shown. Pure.

use kvmnet_core::model::{
    AcceptOwner, Firewall, ForwardChain, Forwarding, HostView, Link, LinkKind, ManagedNetwork,
    Mark, Mode, Network, RulesState, TableId,
};

use super::model::{
    BridgeStatus, ChainStatus, ForwardingStatus, HolderStatus, HostStatus, NetworkStatus,
    PortStatus, RulesStatus, RulesWord, State, Status, VERSION,
};
use crate::gather::{Described, Gathered};
use crate::holders::Holders;

/// Puts together what is shown.
pub fn build(seen: &Gathered) -> Status {
    let own: Vec<(&Link, Mark)> = seen.host.own_bridges(&seen.known).collect();
    let mut networks: Vec<NetworkStatus> =
        seen.networks.iter().map(|network| of_network(network, &own, seen)).collect();
    // Their files are gone or wrong, or speak of another bridge by now.
    let shown = indexes(&networks);
    let others = own.iter().filter(|(bridge, _)| !shown.contains(&bridge.index));
    networks.extend(others.map(|(bridge, mark)| without_file(bridge, mark, seen)));
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    let shown = indexes(&networks);
    networks.extend(other_bridges(&shown, seen));
    let turned_on = own.iter().filter(|(_, mark)| mark.forwarding);
    Status {
        version: VERSION,
        host: HostStatus {
            ipv4_forwarding: seen.host.forwarding.global,
            ipv4_forwarding_turned_on_for: turned_on
                .map(|(_, mark)| mark.network.to_string())
                .collect(),
            uplinks: seen.host.uplinks.clone(),
            dropping_chains: dropping_chains(&seen.host),
            bridge_netfilter: seen.host.bridge_netfilter,
        },
        networks,
    }
}

fn dropping_chains(host: &HostView) -> Option<Vec<ChainStatus>> {
    let chains = host.dropping_chains.as_ref()?.iter();
    Some(
        chains
            .filter(|chain| !chain.table.is_reserved())
            .map(|chain| ChainStatus {
                firewall: chain.variant.firewall(),
                chain: format!("{} {}", chain.table, chain.chain),
                opened_for: opened_for(chain, host),
            })
            .collect(),
    )
}

fn opened_for(chain: &ForwardChain, host: &HostView) -> Vec<String> {
    let filters = host.filters.iter().flatten();
    let own = filters.filter(|filter| {
        let is_its = (filter.variant, filter.family) == (chain.variant, chain.table.family);
        chain.is_iptables() && is_its
    });
    let mut names: Vec<String> = own
        .flat_map(|filter| &filter.accepts)
        .map(|found| match &found.owner {
            AcceptOwner::Network(name) => name.to_string(),
            AcceptOwner::Bridge(name) => format!("bridge {name}"),
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn of_network(described: &Described, own: &[(&Link, Mark)], seen: &Gathered) -> NetworkStatus {
    let name = Some(described.name.to_string());
    let file = described.file.clone();
    match &described.network {
        Network::Managed(managed) => {
            let found = own.iter().find(|(_, mark)| mark.network == described.name);
            let link = found.map(|(link, _)| *link);
            let state = found.map_or(State::Down, |(link, mark)| state_of(link, mark, &seen.host));
            NetworkStatus {
                name,
                mode: Some(mode(managed.mode)),
                file,
                state,
                address: managed.mode.address(),
                bridge: bridge(managed.bridge.as_str(), link, link.map(|_| true), &seen.host),
                rules: rules(managed, seen.rules.get(&described.name)),
                forwarding: forwarding(managed, link, &seen.host),
                ports: ports(link, seen),
            }
        }
        Network::Bridged(bridged) => {
            let link = seen
                .host
                .link(&bridged.bridge)
                .filter(|link| matches!(link.kind, LinkKind::Bridge { .. }));
            let managed = link.map(|link| own.iter().any(|(own, _)| own.index == link.index));
            NetworkStatus {
                name,
                mode: Some("bridged"),
                file,
                state: state_of_bridge(link),
                address: None,
                bridge: bridge(bridged.bridge.as_str(), link, managed, &seen.host),
                rules: no_rules(),
                forwarding: None,
                ports: ports(link, seen),
            }
        }
    }
}

/// A bridge of kvmnet's that no good file describes. What it is can be seen only in part.
fn without_file(link: &Link, mark: &Mark, seen: &Gathered) -> NetworkStatus {
    let candidates = TableId::all_of_network(&mark.network);
    let tables = seen.host.tables.as_ref();
    let table = tables.and_then(|tables| tables.iter().find(|table| candidates.contains(table)));
    let in_iptables = TableId::in_iptables(&mark.network);
    let (backend, table) = match mark.iptables {
        true => ("iptables", Some(&in_iptables)),
        false => ("nftables", table),
    };
    let state = match (tables, table) {
        (None, _) => RulesWord::Unknown,
        (Some(_), None) => RulesWord::Missing,
        // There is nothing to compare them with.
        (Some(_), Some(_)) => RulesWord::Unknown,
    };
    NetworkStatus {
        name: Some(mark.network.to_string()),
        mode: link.noarp.then_some("isolated"),
        file: None,
        state: state_of(link, mark, &seen.host),
        address: None,
        bridge: bridge(&link.name, Some(link), Some(true), &seen.host),
        rules: RulesStatus { backend, state, command: table.map(|table| table.command(false)) },
        forwarding: None,
        ports: ports(Some(link), seen),
    }
}

/// The bridges that are there. Not their names: that of a network that is down can be the
/// administrator's bridge's.
fn indexes(networks: &[NetworkStatus]) -> Vec<u32> {
    networks.iter().filter_map(|network| network.bridge.ifindex).collect()
}

/// Bridges of the administrator's that guests are on without a network file: by kvmnet-ifup.
fn other_bridges(shown: &[u32], seen: &Gathered) -> Vec<NetworkStatus> {
    let is_shown = |link: &Link| shown.contains(&link.index);
    let has_taps = |link: &Link| seen.host.ports_of(link).iter().any(|port| port.is_tap());
    let is_bridge = |link: &Link| matches!(link.kind, LinkKind::Bridge { .. });
    let links = seen.host.links.iter();
    let mut others: Vec<NetworkStatus> = links
        .filter(|link| is_bridge(link) && !is_shown(link) && has_taps(link))
        .map(|link| NetworkStatus {
            name: None,
            mode: Some("bridged"),
            file: None,
            state: state_of_bridge(Some(link)),
            address: None,
            bridge: bridge(&link.name, Some(link), Some(false), &seen.host),
            rules: no_rules(),
            forwarding: None,
            ports: ports(Some(link), seen),
        })
        .collect();
    others.sort_by(|one, other| one.bridge.name.cmp(&other.bridge.name));
    others
}

/// Of a bridge that is the administrator's to set up.
fn state_of_bridge(link: Option<&Link>) -> State {
    if link.is_some_and(|link| link.up) { State::Up } else { State::Down }
}

fn state_of(link: &Link, mark: &Mark, host: &HostView) -> State {
    if mark.pinned {
        State::Pinned
    } else if host.ports_of(link).iter().any(|port| port.keeps_alive()) {
        State::Up
    } else {
        State::Unused
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Nat(_) => "nat",
        Mode::Routed(_) => "routed",
        Mode::Isolated => "isolated",
    }
}

fn bridge(name: &str, link: Option<&Link>, managed: Option<bool>, host: &HostView) -> BridgeStatus {
    BridgeStatus {
        // It may have been renamed since.
        name: link.map_or_else(|| name.to_owned(), |link| link.name.clone()),
        managed,
        ifindex: link.map(|link| link.index),
        mac: link.and_then(|link| link.mac).map(|mac| mac.to_string()),
        mtu: link.map(|link| link.mtu),
        up: link.is_some_and(|link| link.up),
        addresses: link.map(|link| host.addresses_of(link)).unwrap_or_default(),
    }
}

fn no_rules() -> RulesStatus {
    RulesStatus { backend: "none", state: RulesWord::None, command: None }
}

fn rules(network: &ManagedNetwork, state: Option<&RulesState>) -> RulesStatus {
    if network.firewall == Firewall::None {
        return no_rules();
    }
    let word = match state {
        None | Some(RulesState::NotOurs) => RulesWord::None,
        Some(RulesState::InPlace) => RulesWord::InPlace,
        Some(RulesState::Missing) => RulesWord::Missing,
        Some(RulesState::Changed) => RulesWord::Changed,
        Some(RulesState::Unknown) => RulesWord::Unknown,
    };
    let backend = if network.firewall == Firewall::Iptables { "iptables" } else { "nftables" };
    let command = network.table().command(matches!(network.mode, Mode::Nat(_)));
    RulesStatus { backend, state: word, command: Some(command) }
}

fn forwarding(
    network: &ManagedNetwork,
    link: Option<&Link>,
    host: &HostView,
) -> Option<ForwardingStatus> {
    network.mode.address()?;
    let policy = match network.forwarding {
        Forwarding::Global => "global",
        Forwarding::Interfaces => "interfaces",
        Forwarding::Never => "never",
    };
    let by_bridge = link.is_some_and(|link| host.forwarding.bridges.contains(&link.name));
    Some(ForwardingStatus { policy, on: host.forwarding.global || by_bridge })
}

fn ports(link: Option<&Link>, seen: &Gathered) -> Vec<PortStatus> {
    let ports = link.map(|link| seen.host.ports_of(link)).unwrap_or_default();
    ports.into_iter().map(|port| of_port(port, &seen.holders)).collect()
}

fn of_port(port: &Link, holders: &Holders) -> PortStatus {
    let kind = match &port.kind {
        LinkKind::Tap { .. } => "tap",
        LinkKind::Tun => "tun",
        LinkKind::Bridge { .. } => "bridge",
        LinkKind::Other(kind) if kind.is_empty() => "nic",
        LinkKind::Other(kind) => kind,
    };
    let its_own = holders.get(&port.name).into_iter().flatten();
    PortStatus {
        name: port.name.clone(),
        kind: kind.to_owned(),
        up: port.up,
        carrier: port.carrier,
        holders: its_own
            .map(|holder| HolderStatus {
                pid: holder.pid,
                program: holder.program.clone(),
                vm: holder.vm.clone(),
            })
            .collect(),
    }
}
