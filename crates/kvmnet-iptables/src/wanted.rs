//! What a network should have in the tables of iptables: the same rules as in nf_tables, in the form
//! in which `iptables -S` prints them.

use ipnet::Ipv4Net;
use kvmnet_core::model::{
    AcceptOwner, Hook, ManagedNetwork, Match, NetworkName, Protocol, Rule, Verdict,
};
use kvmnet_core::plan::{self, Surroundings};

use crate::listing::{Listing, Purpose};
use crate::programs::Family;

/// What a network should have in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Whose table.
    pub family: Family,
    /// The table.
    pub table: &'static str,
    /// The network's own chains with their rules.
    pub chains: Vec<(String, Vec<String>)>,
    /// The rules that lead to them.
    pub jumps: Vec<Jump>,
}

/// A rule that leads to a network's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jump {
    /// The chain that it stands in.
    pub from: &'static str,
    /// The rule.
    pub rule: String,
    /// Whether nothing but other networks' jumps may stand before it: a filter must not be passed by.
    pub first: bool,
}

/// What `network` should have, next to the `filter` tables of these families as they are.
#[must_use]
pub fn wanted(
    network: &ManagedNetwork,
    filters: &[(Family, Listing)],
    surroundings: &Surroundings<'_>,
) -> Vec<Wanted> {
    let Some(table) = plan::table_of(network) else {
        return Vec::new();
    };
    let name = &network.name;
    let comment = AcceptOwner::Network(name.clone()).to_string();
    let mut all = Vec::new();
    for (family, filter) in filters {
        let mut wanted =
            Wanted { family: *family, table: "filter", chains: Vec::new(), jumps: Vec::new() };
        let mut forward = Vec::new();
        // Where the host's own filter drops what nobody names, an accept is needed; else what is let
        // through goes on to the administrator's own rules.
        if filter.drops() {
            let accepts = plan::accepts_of(network, family.number(), surroundings);
            forward.extend(accepts.iter().map(|rule| text(&comment, rule, "ACCEPT")));
        }
        for chain in &table.chains {
            match &chain.hook {
                Hook::Forward if *family == Family::Ipv4 => {
                    forward.extend(chain.rules.iter().map(|rule| text(&comment, rule, "RETURN")));
                }
                // Not in PREROUTING: with br_netfilter frames from guest to guest come by there, and
                // can't be told from those for the host.
                Hook::Ingress { device } => {
                    let (from, to) = (Match::Input(device.clone()), Match::Output(device.clone()));
                    let rule = |matches, verdict| Rule { matches, verdict };
                    let drop_from = rule(vec![from.clone()], Verdict::Drop);
                    let between = rule(vec![from, to.clone()], Verdict::Accept);
                    let drop_to = rule(vec![to], Verdict::Drop);
                    forward.extend(
                        [&between, &drop_from, &drop_to].map(|rule| text(&comment, rule, "RETURN")),
                    );
                    let chain = Purpose::Input.chain(name);
                    wanted.chains.push((chain, vec![text(&comment, &drop_from, "RETURN")]));
                    wanted.jumps.push(jump(name, "INPUT", Purpose::Input, ""));
                }
                _ => {}
            }
        }
        if !forward.is_empty() {
            wanted.chains.push((Purpose::Forward.chain(name), forward));
            wanted.jumps.push(jump(name, filter.forward_chain(), Purpose::Forward, ""));
        }
        all.extend((!wanted.chains.is_empty()).then_some(wanted));
    }
    for chain in table.chains.iter().filter(|chain| chain.hook == Hook::Postrouting) {
        let rules = chain.rules.iter().map(|rule| text(&comment, rule, "RETURN")).collect();
        let subnet = network.mode.address().map(|address| format!("-s {} ", address.trunc()));
        let jump = jump(name, "POSTROUTING", Purpose::Postrouting, &subnet.unwrap_or_default());
        all.push(Wanted {
            family: Family::Ipv4,
            table: "nat",
            chains: vec![(Purpose::Postrouting.chain(name), rules)],
            jumps: vec![Jump { first: false, ..jump }],
        });
    }
    all
}

fn jump(network: &NetworkName, from: &'static str, to: Purpose, matches: &str) -> Jump {
    let chain = to.chain(network);
    // Not the comment of the accept rules in other firewalls' chains: those are looked for by it.
    let rule = format!("{matches}-m comment --comment kvmnet:{network} -j {chain}");
    Jump { from, rule, first: true }
}

/// A rule with a comment, as `iptables -S` prints it; `accept` is what becomes of what may pass.
#[must_use]
pub fn text(comment: &str, rule: &Rule, accept: &str) -> String {
    let mut parts: Vec<(u8, String)> = rule.matches.iter().map(condition).collect();
    // The order of print; those of one kind stay as they are.
    parts.sort_by_key(|(order, _)| *order);
    let mut text: String = parts.into_iter().map(|(_, part)| part + " ").collect();
    let quote = if comment.contains(' ') { "\"" } else { "" };
    text.push_str(&format!("-m comment --comment {quote}{comment}{quote} -j "));
    text.push_str(match rule.verdict {
        Verdict::Accept => accept,
        Verdict::Drop => "DROP",
        Verdict::Return => "RETURN",
        Verdict::Masquerade { unprivileged_ports: true } => "MASQUERADE --to-ports 1024-65535",
        Verdict::Masquerade { unprivileged_ports: false } => "MASQUERADE",
    });
    text
}

fn condition(condition: &Match) -> (u8, String) {
    let net = |prefix: &Ipv4Net| prefix.trunc();
    match condition {
        Match::Source(prefix) => (0, format!("-s {}", net(prefix))),
        Match::Destination(prefix) => (1, format!("-d {}", net(prefix))),
        Match::DestinationOutside(prefix) => (1, format!("! -d {}", net(prefix))),
        Match::Input(name) => (2, format!("-i {name}")),
        Match::InputOther(name) => (2, format!("! -i {name}")),
        Match::Output(name) => (3, format!("-o {name}")),
        Match::Protocol(Protocol::Tcp) => (4, "-p tcp".to_owned()),
        Match::Protocol(Protocol::Udp) => (4, "-p udp".to_owned()),
        Match::InputGroup(group) => (5, format!("-m devgroup --src-group {group:#x}")),
        Match::Answering => (5, "-m conntrack --ctstate RELATED,ESTABLISHED".to_owned()),
        Match::DestinationTranslated => (5, "-m conntrack --ctstate DNAT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use kvmnet_core::model::{Firewall, InterfaceName, Mode};

    use super::*;
    use crate::script::script;

    fn network(mode: Mode) -> ManagedNetwork {
        let bridge = InterfaceName::parse("br0".as_ref()).unwrap();
        let name = NetworkName::parse("lab").unwrap();
        ManagedNetwork { firewall: Firewall::Iptables, ..ManagedNetwork::new(name, bridge, mode) }
    }

    /// All that is written where nothing is there but these filters.
    fn scripts(mode: Mode, filter: &str) -> String {
        let uplinks = [InterfaceName::parse("eno1".as_ref()).unwrap()];
        let surroundings = Surroundings { uplinks: &uplinks, bridge_netfilter: true };
        let filters = [Family::Ipv4, Family::Ipv6].map(|family| (family, Listing::parse(filter)));
        let network = network(mode);
        let all = wanted(&network, &filters, &surroundings);
        let each = all.iter().map(|wanted| {
            let found = Listing::parse(if wanted.table == "filter" { filter } else { "" });
            let script = script(&network.name, wanted.table, &found, Some(wanted)).unwrap();
            format!("{:?}\n{script}", wanted.family)
        });
        each.collect()
    }

    fn address() -> Ipv4Net {
        "192.168.150.1/24".parse().unwrap()
    }

    const OPEN: &str = "-P FORWARD ACCEPT";
    const DOCKER: &str = "-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER";

    #[test]
    fn nat() {
        assert_eq!(
            scripts(Mode::Nat(address()), OPEN),
            "\
Ipv4
*filter
:KVMNET-lab-FWD - [0:0]
-A KVMNET-lab-FWD -i br0 -o br0 -m comment --comment kvmnet-lab -j RETURN
-A KVMNET-lab-FWD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment kvmnet-lab -j RETURN
-A KVMNET-lab-FWD -o br0 -m conntrack --ctstate DNAT -m comment --comment kvmnet-lab -j RETURN
-A KVMNET-lab-FWD -o br0 -m comment --comment kvmnet-lab -j DROP
-I FORWARD 1 -m comment --comment kvmnet:lab -j KVMNET-lab-FWD
COMMIT
Ipv4
*nat
:KVMNET-lab-POST - [0:0]
-A KVMNET-lab-POST -s 192.168.150.0/24 -d 224.0.0.0/24 -m comment --comment kvmnet-lab -j RETURN
-A KVMNET-lab-POST -s 192.168.150.0/24 -d 255.255.255.255/32 -m comment --comment kvmnet-lab -j RETURN
-A KVMNET-lab-POST -s 192.168.150.0/24 ! -d 192.168.150.0/24 -p tcp -m comment --comment kvmnet-lab -j MASQUERADE --to-ports 1024-65535
-A KVMNET-lab-POST -s 192.168.150.0/24 ! -d 192.168.150.0/24 -p udp -m comment --comment kvmnet-lab -j MASQUERADE --to-ports 1024-65535
-A KVMNET-lab-POST -s 192.168.150.0/24 ! -d 192.168.150.0/24 -m comment --comment kvmnet-lab -j MASQUERADE
-I POSTROUTING 1 -s 192.168.150.0/24 -m comment --comment kvmnet:lab -j KVMNET-lab-POST
COMMIT
"
        );
    }

    #[test]
    fn routed_behind_docker() {
        assert_eq!(
            scripts(Mode::Routed(address()), DOCKER),
            "\
Ipv4
*filter
:KVMNET-lab-FWD - [0:0]
-A KVMNET-lab-FWD -s 192.168.150.0/24 -i br0 -o eno1 -m comment --comment kvmnet-lab -j ACCEPT
-A KVMNET-lab-FWD -d 192.168.150.0/24 -i eno1 -o br0 -m comment --comment kvmnet-lab -j ACCEPT
-A KVMNET-lab-FWD -i br0 -o br0 -m comment --comment kvmnet-lab -j ACCEPT
-A KVMNET-lab-FWD -i br0 -o br0 -m comment --comment kvmnet-lab -j RETURN
-A KVMNET-lab-FWD -o br0 -m devgroup --src-group 0x6b76 -m comment --comment kvmnet-lab -j DROP
-I DOCKER-USER 1 -m comment --comment kvmnet:lab -j KVMNET-lab-FWD
COMMIT
Ipv6
*filter
:KVMNET-lab-FWD - [0:0]
-A KVMNET-lab-FWD -i br0 -o br0 -m comment --comment kvmnet-lab -j ACCEPT
-I DOCKER-USER 1 -m comment --comment kvmnet:lab -j KVMNET-lab-FWD
COMMIT
"
        );
    }

    #[test]
    fn isolated() {
        let of_family = "\
*filter
:KVMNET-lab-IN - [0:0]
:KVMNET-lab-FWD - [0:0]
-A KVMNET-lab-IN -i br0 -m comment --comment kvmnet-lab -j DROP
-A KVMNET-lab-FWD -i br0 -o br0 -m comment --comment kvmnet-lab -j RETURN
-A KVMNET-lab-FWD -i br0 -m comment --comment kvmnet-lab -j DROP
-A KVMNET-lab-FWD -o br0 -m comment --comment kvmnet-lab -j DROP
-I INPUT 1 -m comment --comment kvmnet:lab -j KVMNET-lab-IN
-I FORWARD 1 -m comment --comment kvmnet:lab -j KVMNET-lab-FWD
COMMIT
";
        let wanted = format!("Ipv4\n{of_family}Ipv6\n{of_family}");
        assert_eq!(scripts(Mode::Isolated, OPEN), wanted);
    }

    #[test]
    fn the_administrators_own_rules() {
        let none = ManagedNetwork { firewall: Firewall::None, ..network(Mode::Isolated) };
        let surroundings = Surroundings { uplinks: &[], bridge_netfilter: false };
        let filters = [(Family::Ipv4, Listing::default())];
        assert_eq!(wanted(&none, &filters, &surroundings), []);
    }
}
