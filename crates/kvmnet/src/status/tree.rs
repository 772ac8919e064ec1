//! `kvmnet status --tree`: host, networks, ports and VMs as they hang together.

use termtree::Tree;

use super::model::{NetworkStatus, PortStatus, RulesWord, Status};
use super::table::{addresses, filtering, forwarding, plain, state, unheld};
use crate::print::{BAD, FAINT, HEAD, styled};

/// Draws the tree.
pub fn draw(status: &Status) -> String {
    let uplinks = &status.host.uplinks;
    let root = if uplinks.is_empty() {
        format!("{} without a default route", styled(HEAD, "host"))
    } else {
        format!(
            "{} with its default route over {}",
            styled(HEAD, "host"),
            plain(&uplinks.join(", "))
        )
    };
    let mut tree = Tree::new(root);
    tree.extend(status.networks.iter().map(network));
    format!("{tree}{}{}", forwarding(&status.host), filtering(&status.host))
}

fn network(network: &NetworkStatus) -> Tree<String> {
    let name = match &network.name {
        Some(name) => format!("{}: ", styled(HEAD, name)),
        None => String::new(),
    };
    let mode = network.mode.unwrap_or("of unknown mode, without a file that can be read,");
    let mut line = format!("{name}{mode} on {}", plain(&network.bridge.name));
    if let Some(addresses) = addresses(network) {
        line.push_str(&format!(", {addresses}"));
    }
    line.push_str(&format!(", {}", state(network.state)));
    let rules = match network.rules.state {
        RulesWord::Missing => Some("its rules are missing"),
        RulesWord::Changed => Some("its rules are changed"),
        RulesWord::None | RulesWord::InPlace | RulesWord::Unknown => None,
    };
    line.extend(rules.map(|rules| format!(", {}", styled(BAD, rules))));
    let mut tree = Tree::new(line);
    tree.extend(network.ports.iter().map(port));
    tree
}

fn port(port: &PortStatus) -> Tree<String> {
    let holders: Vec<String> = port
        .holders
        .iter()
        .map(|holder| {
            let name = holder.vm.as_deref().unwrap_or(&holder.program);
            let pid = styled(FAINT, &format!("(pid {})", holder.pid));
            format!("{} {pid}", plain(name))
        })
        .collect();
    let holders = if holders.is_empty() { unheld(port) } else { holders.join(", ") };
    Tree::new(format!("{}  {holders}", plain(&port.name)))
}
