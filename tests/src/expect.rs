//! What the tests expect of a host again and again.

use crate::foreign::Foreign;
use crate::host::Host;

impl Host {
    /// A snapshot of all but what kvmnet builds for the default network, and of links that come
    /// and go with their VM.
    #[track_caller]
    #[must_use]
    pub fn foreign_to_kvmnet(&self, taps: &[&str]) -> Foreign {
        let all = self.foreign().without_link("br0").without_table("kvmnet-default");
        taps.iter().fold(all.without_forwarding(), |rest, tap| rest.without_link(tap))
    }

    /// The default network is there, whole, with exactly these ports (sorted).
    #[track_caller]
    pub fn assert_network(&self, ports: &[&str]) {
        assert_eq!(self.ports("br0"), ports);
        assert_eq!(self.addresses("br0"), ["192.168.100.1/24"]);
        let bridge = self.link("br0").expect("it has ports");
        let mark = bridge["ifalias"].as_str().unwrap_or_default();
        assert!(["kvmnet:default", "kvmnet:default:forwarding"].contains(&mark), "{bridge}");
        assert!(bridge["flags"].to_string().contains("\"UP\""), "{bridge}");
        let table = self.nft("ip", "kvmnet-default").expect("the network has its table");
        // For TCP, for UDP, and for all else.
        assert_eq!(table.matches("masquerade").count(), 3, "{table}");
        assert_eq!(table.matches(" drop").count(), 1, "{table}");
        assert_eq!(self.sysctl("net/ipv4/ip_forward"), "1");
    }

    /// Nothing is there of any network of kvmnet's.
    #[track_caller]
    pub fn assert_no_network(&self) {
        let bridge = self.link("br0");
        assert!(bridge.is_none(), "{bridge:?}");
        let tables = self.nft_tables();
        assert!(!tables.iter().any(|table| table.contains("kvmnet")), "{tables:?}");
    }
}
