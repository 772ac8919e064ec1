//! A host whose own firewall lets through only what it names.

use kvmnet_core::model::{FilterView, Variant};
use kvmnet_fake::{Explorer, FakeHost, Verb, run};

use crate::{FULL, actor, clean, report};

/// A filter as Docker or ufw makes it.
pub fn dropping(variant: Variant, family: i32, chain: &str) -> FilterView {
    FilterView {
        variant,
        family: family as u8,
        chain: chain.to_owned(),
        drops: true,
        has_own_chains: false,
        accepts: vec![],
    }
}

/// Docker or ufw has made FORWARD drop: the guests have their accepts, and those go with them.
#[test]
fn guests_behind_a_filter_that_drops() {
    let mut host = clean();
    // Of both variants: what one lets through, the other may drop.
    host.filters = vec![
        dropping(Variant::Nft, libc::NFPROTO_IPV4, "DOCKER-USER"),
        dropping(Variant::Nft, libc::NFPROTO_IPV6, "FORWARD"),
        dropping(Variant::Legacy, libc::NFPROTO_IPV4, "FORWARD"),
    ];
    (host.bridge_netfilter, host.default_route) = (true, Some(2));
    let accepts = |host: &FakeHost| -> Vec<usize> {
        host.filters.iter().map(|filter| filter.accepts.len()).collect()
    };
    for verbs in [[Verb::Natup, Verb::Natup], [Verb::Natup, Verb::Natdown]] {
        let actors = [
            actor(verbs[0], "a"),
            actor(verbs[1], if verbs[1] == Verb::Natup { "b" } else { "a" }),
        ];
        let statistics = Explorer::explore(&host, &actors, FULL, |moment| {
            let mut up = moment.host.clone();
            if up.link("probe").is_some() {
                let probe = actor(Verb::Natup, "probe");
                assert!(run(&mut up, &probe).0.is_ok(), "{}", moment.history());
                let wanted = if moment.flushed { vec![4] } else { vec![4, 1, 4] };
                assert_eq!(accepts(&up), wanted, "natup\n{}", moment.history());
                assert_eq!(run(&mut up, &probe).1, 0, "a second run\n{}", moment.history());
            }
            let mut down = moment.host.clone();
            for tap in ["a", "b", "gone"] {
                assert!(run(&mut down, &actor(Verb::Natdown, tap)).0.is_ok());
            }
            let wanted = if moment.flushed { vec![0] } else { vec![0, 0, 0] };
            assert_eq!(accepts(&down), wanted, "natdown\n{}", moment.history());
        });
        report(&actors, statistics);
        assert!(statistics.states > 20, "nothing was explored: {statistics:?}");
    }
}
