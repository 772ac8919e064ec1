//! A host with firewalld, which forgets with each reload what it was told.

use std::collections::BTreeMap;

use kvmnet_core::config;
use kvmnet_core::model::{ManagedNetwork, Network, ZoneName};
use kvmnet_fake::{Explorer, FakeHost, Verb, run};

use crate::{FULL, actor_on, clean, report};

fn zone_of(host: &FakeHost) -> Option<&str> {
    host.zones.as_ref()?.get("br0").map(String::as_str)
}

/// The bridge is in its zone while there are guests, and its name in none afterwards.
#[test]
fn guests_beside_firewalld() {
    let mut host = clean();
    host.zones = Some(BTreeMap::new());
    for (zone, wanted) in [(None, "kvmnet"), (ZoneName::parse("mine"), "mine")] {
        let network = Network::Managed(ManagedNetwork { zone, ..config::default_nat() });
        for (verb, tap) in [(Verb::Natdown, "a"), (Verb::Reload, "a")] {
            let actors = [actor_on(&network, Verb::Natup, "a"), actor_on(&network, verb, tap)];
            let statistics = Explorer::explore(&host, &actors, FULL, |moment| {
                let mut up = moment.host.clone();
                if up.link("probe").is_some() {
                    let probe = actor_on(&network, Verb::Natup, "probe");
                    assert!(run(&mut up, &probe).0.is_ok(), "{}", moment.history());
                    assert_eq!(zone_of(&up), Some(wanted), "natup\n{}", moment.history());
                    assert_eq!(run(&mut up, &probe).1, 0, "a second run\n{}", moment.history());
                }
                let mut down = moment.host.clone();
                for tap in ["a", "b", "gone"] {
                    let natdown = actor_on(&network, Verb::Natdown, tap);
                    assert!(run(&mut down, &natdown).0.is_ok(), "{}", moment.history());
                }
                assert_eq!(zone_of(&down), None, "natdown\n{}", moment.history());
            });
            report(&actors, statistics);
            assert!(statistics.states > 20, "nothing was explored: {statistics:?}");
        }
    }
}
