//! MAC addresses, and the ones kvmnet derives.

use std::fmt;

use super::{InterfaceName, NetworkName};

/// How the address of every bridge of kvmnet's begins: locally administered, then "kv". The rule for
/// udev knows it, too.
pub const BRIDGE_PREFIX: [u8; 3] = [0x02, 0x6b, 0x76];

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of a network's bridge: locally administered, fixed, and the same at every build,
    /// so that it can be told from anybody else's and doesn't follow the lowest port.
    #[must_use]
    pub fn of_bridge(network: &NetworkName) -> Self {
        let hash = fnv1a(network.as_str().as_bytes()).to_be_bytes();
        let [a, b, c] = BRIDGE_PREFIX;
        Self([a, b, c, hash[5], hash[6], hash[7]])
    }

    /// The host's side of a tap: 0xFE is the highest locally administered first octet, so a bridge
    /// that takes its address from its lowest port never takes the tap's.
    #[must_use]
    pub fn of_tap(tap: &InterfaceName) -> Self {
        let hash = fnv1a(tap.as_str().as_bytes()).to_be_bytes();
        Self([0xfe, hash[3], hash[4], hash[5], hash[6], hash[7]])
    }

    /// Whether it begins like every address of [`Mac::of_bridge`], whatever the network.
    #[must_use]
    pub fn is_like_of_bridge(self) -> bool {
        self.0.starts_with(&BRIDGE_PREFIX)
    }

    /// Whether a bridge would never choose this address over a real port's.
    #[must_use]
    pub fn is_high(self) -> bool {
        self.0[0] == 0xfe
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>): stable over releases and
/// machines, which std's hashers don't promise.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_test_vectors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    /// An installed version must know the bridges that an earlier one made.
    #[test]
    fn the_derived_addresses_never_change() {
        let network = NetworkName::parse("default").unwrap();
        assert_eq!(Mac::of_bridge(&network).to_string(), "02:6b:76:20:c5:fe");
        let tap = InterfaceName::parse("vnet0".as_ref()).unwrap();
        assert_eq!(Mac::of_tap(&tap).to_string(), "fe:8d:10:39:9d:e4");
    }
}
