//! The scenes that everything is tried on: a host, and three runs.

use std::collections::BTreeMap;

use ipnet::Ipv4Net;
use kvmnet_core::model::{ManagedNetwork, Mode, Network, NetworkName, Variant};
use kvmnet_fake::{FakeHost, Verb};

use super::behind::managed;
use super::filters::dropping;
use super::{clean, default, isolated, name};

fn routed() -> Network {
    let dmz = NetworkName::parse("dmz").unwrap();
    let address: Ipv4Net = "192.168.160.1/24".parse().unwrap();
    Network::Managed(ManagedNetwork::new(dmz, name("br-dmz"), Mode::Routed(address)))
}

/// The host that the scenes begin on: with firewalld, and with filters of others that let through only what
/// they name.
fn beside_firewalls() -> FakeHost {
    let mut host = clean();
    host.zones = Some(BTreeMap::new());
    host.filters = vec![
        dropping(Variant::Nft, libc::NFPROTO_IPV4, "DOCKER-USER"),
        dropping(Variant::Legacy, libc::NFPROTO_IPV4, "FORWARD"),
    ];
    (host.bridge_netfilter, host.default_route) = (true, Some(2));
    host
}

/// The number of the network whose file is changed.
pub const CHANGED: usize = 2;

/// Where three runs begin, and which they are.
pub struct Scene {
    pub name: &'static str,
    pub host: fn() -> FakeHost,
    pub networks: [Network; 2],
    /// What the second one's file says by the time of the runs, where it was changed.
    pub changed: Option<Network>,
    /// Who is on which of the two before.
    pub before: &'static [(&'static str, usize)],
    pub runs: [(Verb, &'static str, usize); 3],
}

pub fn scenes() -> Vec<Scene> {
    let scene = |name, second: Network, before, runs| Scene {
        name,
        host: clean,
        networks: [default(), second],
        changed: None,
        before,
        runs,
    };
    vec![
        scene(
            "first guests of two networks",
            routed(),
            &[],
            [(Verb::Natup, "a", 0), (Verb::Natup, "b", 1), (Verb::Natup, "c", 0)],
        ),
        scene(
            "last guests of two networks, and a new one",
            isolated(),
            &[("a", 0), ("b", 1)],
            [(Verb::Natdown, "a", 0), (Verb::Natdown, "b", 1), (Verb::Natup, "c", 0)],
        ),
        scene(
            "gc and reload beside a guest that comes",
            routed(),
            &[("b", 1)],
            [(Verb::Gc, "gone", 0), (Verb::Reload, "gone", 1), (Verb::Natup, "a", 0)],
        ),
        scene(
            "up, down and a guest that leaves",
            isolated(),
            &[("a", 0), ("b", 1)],
            [(Verb::Up, "gone", 1), (Verb::Down, "gone", 1), (Verb::Natdown, "a", 0)],
        ),
        Scene {
            changed: Some(Network::Managed(ManagedNetwork {
                bridge: name("br-new"),
                ..managed(&isolated()).clone()
            })),
            ..scene(
                "the file of a guest's network is changed",
                isolated(),
                &[("b", 1)],
                [
                    (Verb::Natdown, "b", CHANGED),
                    (Verb::Reload, "gone", CHANGED),
                    (Verb::Natup, "c", 0),
                ],
            )
        },
        Scene {
            host: beside_firewalls,
            ..scene(
                "beside firewalld and filters that drop",
                routed(),
                &[("a", 0)],
                [(Verb::Natdown, "a", 0), (Verb::Natup, "b", 1), (Verb::Reload, "gone", 0)],
            )
        },
    ]
}
