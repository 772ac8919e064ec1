//! All that somebody may do to a host behind our back.

use kvmnet_core::model::{LinkKind, Mac, Network, TableId};
use kvmnet_fake::{FakeHost, TableContent};

use crate::behind::managed;
use crate::name;

/// Beyond all that the scenes themselves make.
pub const STRANGERS_INDEX: u32 = 500;
pub const FLUSHED: &str = "ruleset flushed";
pub const STRANGERS_BRIDGE: &str = "a stranger's bridge has the name";
const DELETED: &str = "bridge deleted";
const INDEX_TAKEN: &str = "index taken by a stranger";
/// With these a bridge goes that is in a zone of firewalld's.
pub const DELETIONS: [&str; 3] = [DELETED, INDEX_TAKEN, STRANGERS_BRIDGE];

/// All that can happen to a host where these networks are.
pub fn all(networks: &[Network]) -> impl Fn(&FakeHost) -> Vec<(&'static str, FakeHost)> {
    let networks = networks.to_vec();
    move |host: &FakeHost| {
        let mut found = Vec::new();
        let mut add = |what: &'static str, change: &dyn Fn(&mut FakeHost)| {
            let mut after = host.clone();
            change(&mut after);
            if after != *host {
                found.push((what, after));
            }
        };
        add(FLUSHED, &FakeHost::flush_ruleset);
        add("forwarding off", &|host| host.ip_forward = false);
        add("iptables flushed", &FakeHost::flush_iptables);
        add("firewalld reloaded", &FakeHost::reload_firewalld);
        for network in &networks {
            let tables = TableId::all_of_network(&managed(network).name);
            let is_its = |id: &&TableId| tables.contains(id);
            if let Some(table) = host.tables.keys().find(is_its) {
                let other = TableContent::Other("emptied by hand");
                add("table emptied", &|host| {
                    host.tables.insert(table.clone(), other.clone());
                });
            } else {
                let other = TableContent::Other("restored from a file");
                add("table restored", &|host| {
                    host.tables.insert(tables[0].clone(), other.clone());
                });
            }
            let Some(bridge) = host.link(network.bridge().as_str()) else { continue };
            let at = bridge.index;
            if at == STRANGERS_INDEX {
                continue;
            }
            add(DELETED, &|host| host.remove_link(at));
            add("bridge down", &|host| host.links.get_mut(&at).unwrap().up = false);
            add("bridge's MAC changed", &|host| {
                host.links.get_mut(&at).unwrap().mac = Some(Mac([0x52, 0x54, 0, 1, 2, 3]));
            });
            add("alias cleared", &|host| host.links.get_mut(&at).unwrap().alias.clear());
            add("address removed", &|host| {
                host.addresses.remove(&at);
            });
            add(INDEX_TAKEN, &|host| {
                host.remove_link(at);
                host.add_link("stranger", at, LinkKind::Other("veth".to_owned()));
            });
            add(STRANGERS_BRIDGE, &|host| {
                host.remove_link(at);
                add_strangers_bridge(host, network.bridge().as_str());
            });
            for port in host.ports(at) {
                let tap = port.index;
                add("port taken out", &|host| host.links.get_mut(&tap).unwrap().master = None);
            }
        }
        for tap in ["a", "b", "c"] {
            let Some(link) = host.link(tap) else { continue };
            let at = link.index;
            add("tap vanishes", &|host| host.remove_link(at));
            add("tap renamed", &|host| {
                host.links.get_mut(&at).unwrap().name = format!("{tap}-renamed");
            });
            add("tap made anew", &|host| {
                host.remove_link(at);
                host.add_tap(&name(tap), at + 100);
            });
        }
        found
    }
}

/// Without an address, so that nothing but the missing signs tells it from one of kvmnet's.
pub fn add_strangers_bridge(host: &mut FakeHost, name: &str) {
    let kind = LinkKind::Bridge { stp: true, forward_delay: 1500 };
    host.add_link(name, STRANGERS_INDEX, kind);
}
