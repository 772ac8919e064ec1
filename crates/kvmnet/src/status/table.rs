//! The tables of `kvmnet status`.

use kvmnet_core::model::Variant;

use super::model::{HolderStatus, HostStatus, NetworkStatus, PortStatus, RulesWord, State, Status};
use crate::print::{BAD, FAINT, GOOD, HEAD, WARNING, columns, styled};

const NOTHING: &str = "-";

/// Networks, then their ports, then what forwards.
pub fn draw(status: &Status) -> String {
    let mut rows = vec![head(&["NETWORK", "MODE", "BRIDGE", "ADDRESS", "STATE", "PORTS", "RULES"])];
    rows.extend(status.networks.iter().map(network));
    let mut text = columns(&rows);
    let ports: Vec<Vec<String>> = status
        .networks
        .iter()
        .flat_map(|network| network.ports.iter().flat_map(|port| port_rows(network, port)))
        .collect();
    if !ports.is_empty() {
        let mut rows = vec![head(&["PORT", "NETWORK", "VM", "PID", "PROGRAM"])];
        rows.extend(ports);
        text.push('\n');
        text.push_str(&columns(&rows));
    }
    text.push('\n');
    text.push_str(&forwarding(&status.host));
    text.push_str(&filtering(&status.host));
    text
}

fn head(titles: &[&str]) -> Vec<String> {
    titles.iter().map(|title| styled(HEAD, title)).collect()
}

/// Text that doesn't stand out, here and in the tree.
pub fn plain(text: &str) -> String {
    styled(anstyle::Style::new(), text)
}

/// A state in its colour, here and in the tree.
pub fn state(state: State) -> String {
    match state {
        State::Down => styled(FAINT, "down"),
        State::Up => styled(GOOD, "up"),
        State::Pinned => styled(GOOD, "pinned"),
        State::Unused => styled(WARNING, "unused"),
    }
}

/// The addresses that the bridge carries, or should.
pub fn addresses(network: &NetworkStatus) -> Option<String> {
    let carried: Vec<String> = network.bridge.addresses.iter().map(ToString::to_string).collect();
    if carried.is_empty() {
        return network.address.map(|address| address.to_string());
    }
    Some(carried.join(","))
}

fn network(network: &NetworkStatus) -> Vec<String> {
    vec![
        plain(network.name.as_deref().unwrap_or(NOTHING)),
        plain(network.mode.unwrap_or("?")),
        plain(&network.bridge.name),
        plain(addresses(network).as_deref().unwrap_or(NOTHING)),
        state(network.state),
        network.ports.len().to_string(),
        rules(network),
    ]
}

fn rules(network: &NetworkStatus) -> String {
    let command = network.rules.command.as_deref().unwrap_or(NOTHING);
    match network.rules.state {
        RulesWord::None => plain(NOTHING),
        RulesWord::InPlace => plain(command),
        RulesWord::Missing => styled(BAD, "missing"),
        RulesWord::Changed => format!("{} ({})", plain(command), styled(BAD, "changed")),
        RulesWord::Unknown => format!("{} (not checked)", plain(command)),
    }
}

/// A row for each program that holds the port, or one where none does.
fn port_rows(network: &NetworkStatus, port: &PortStatus) -> Vec<Vec<String>> {
    let row = |holder: Option<&HolderStatus>| {
        let program = match holder {
            Some(holder) => plain(&holder.program),
            None => unheld(port),
        };
        vec![
            plain(&port.name),
            plain(network.name.as_deref().unwrap_or(NOTHING)),
            plain(holder.and_then(|holder| holder.vm.as_deref()).unwrap_or(NOTHING)),
            holder.map_or_else(|| NOTHING.to_owned(), |holder| holder.pid.to_string()),
            program,
        ]
    };
    if port.holders.is_empty() {
        return vec![row(None)];
    }
    port.holders.iter().map(|holder| row(Some(holder))).collect()
}

/// What a port is that no program is seen to hold.
pub fn unheld(port: &PortStatus) -> String {
    match (port.kind.as_str(), port.carrier) {
        ("tap", false) => styled(FAINT, "(a tap that no program holds open)"),
        ("tap", true) => styled(FAINT, "(its program cannot be seen from here)"),
        (kind, _) => styled(FAINT, &format!("({kind})")),
    }
}

/// One line: whether the host forwards, and by whom.
pub fn forwarding(host: &HostStatus) -> String {
    let names = host.ipv4_forwarding_turned_on_for.join(", ");
    match (host.ipv4_forwarding, names.is_empty()) {
        (false, _) => "IPv4 forwarding is off for the host as a whole.\n".to_owned(),
        (true, true) => "IPv4 forwarding is on.\n".to_owned(),
        (true, false) => format!("IPv4 forwarding is on; kvmnet turned it on for {names}.\n"),
    }
}

/// A line for each firewall that lets through only what it names.
pub fn filtering(host: &HostStatus) -> String {
    let chains = host.dropping_chains.iter().flatten();
    chains
        .map(|chain| {
            // What nftables shows nothing of.
            let legacy = Variant::Legacy.firewall();
            let names = if chain.firewall == legacy {
                plain(&format!("{legacy} {}", chain.chain))
            } else {
                plain(&chain.chain)
            };
            match chain.opened_for.join(", ") {
                opened if opened.is_empty() => {
                    format!("{names} lets through only what it names.\n")
                }
                opened => format!(
                    "{names} lets through only what it names; kvmnet opened it for {}.\n",
                    plain(&opened)
                ),
            }
        })
        .collect()
}
