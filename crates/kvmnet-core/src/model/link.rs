//! A network interface as the kernel shows it.

use super::Mac;

/// What kind of interface a link is (`IFLA_INFO_KIND`, with the facts that kvmnet judges by).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// An Ethernet-level interface of the tun driver.
    Tap {
        /// Whether it outlives the program that opened it (`TUNSETPERSIST`).
        persistent: bool,
    },
    /// An IP-level interface of the tun driver: it can't be a bridge port.
    Tun,
    /// An Ethernet bridge.
    Bridge {
        /// Whether the bridge runs the spanning tree protocol.
        stp: bool,
        /// Time a new port waits before it forwards, in hundredths of a second (`USER_HZ`).
        forward_delay: u32,
    },
    /// Any other kind by its name; empty for a physical NIC.
    Other(String),
}

/// IPv6 settings of an interface; absent where the kernel runs no IPv6 on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inet6 {
    /// `net.ipv6.conf.*.disable_ipv6`.
    pub disabled: bool,
    /// Whether the kernel makes a link-local address by itself (`addr_gen_mode` isn't none).
    pub generates_address: bool,
}

/// The interface group (`IFLA_GROUP`) that kvmnet's bridges are in, so that one rule can speak of
/// all of them.
pub const BRIDGE_GROUP: u32 = 0x6b76;

/// The reserved group addresses whose frames a port can be told to treat like any other: all but
/// 01:80:c2:00:00:01, MAC pause (`BR_GROUPFWD_MACPAUSE`, the kernel's `net/bridge/br_private.h`).
pub const ALL_GROUPS: u16 = 0xfffd;

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name; a lookup by an alternative name gives the real one.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// The index of the bridge (or bond) it is a port of.
    pub master: Option<u32>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Of a bridge port: which frames to reserved group addresses (01:80:c2:00:00:0X, a bit each) the
    /// bridge forwards like any other (`group_fwd_mask`).
    pub forwarded_groups: u16,
    /// Of a bridge: has br_netfilter filter the frames that it passes on, whatever the host's setting
    /// is (`nf_call_iptables`, `nf_call_ip6tables`).
    pub filters_frames: bool,
    /// Sends no ARP and takes none (`IFF_NOARP`).
    pub noarp: bool,
    /// Its interface group; 0 where none was set.
    pub group: u32,
    /// Has a carrier: of a tap, some program holds it open.
    pub carrier: bool,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Its Ethernet address, where it has one.
    pub mac: Option<Mac>,
    /// `ifalias`, empty where none was set.
    pub alias: String,
    /// IPv6 on it.
    pub inet6: Option<Inet6>,
}

impl Link {
    /// Whether this port keeps a network alive. Any port does, foreign ones too, except a
    /// persistent tap that no program holds open.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        !matches!(self.kind, LinkKind::Tap { persistent: true }) || self.carrier
    }

    /// Whether it is the tap of a guest that stays when the one with the index `leaving` goes.
    #[must_use]
    pub fn is_guest_besides(&self, leaving: Option<u32>) -> bool {
        self.is_tap() && self.keeps_alive() && Some(self.index) != leaving
    }

    /// Whether it is a tap.
    #[must_use]
    pub fn is_tap(&self) -> bool {
        matches!(self.kind, LinkKind::Tap { .. })
    }

    /// What the link is, for people.
    #[must_use]
    pub fn describe_kind(&self) -> String {
        match &self.kind {
            LinkKind::Tap { .. } => "a tap".to_owned(),
            LinkKind::Tun => "a tun, which carries IP and no Ethernet".to_owned(),
            LinkKind::Bridge { .. } => "a bridge".to_owned(),
            LinkKind::Other(kind) if kind.is_empty() => "a plain network device".to_owned(),
            LinkKind::Other(kind) => format!("of kind {kind}"),
        }
    }
}

#[cfg(test)]
impl Link {
    pub(crate) fn test(name: &str, index: u32, kind: LinkKind) -> Self {
        Self {
            index,
            name: name.to_owned(),
            kind,
            master: None,
            up: true,
            forwarded_groups: 0,
            filters_frames: false,
            noarp: false,
            group: 0,
            carrier: true,
            mtu: 1500,
            mac: Some(Mac([0x52, 0x54, 0, 0, 0, index as u8])),
            alias: String::new(),
            inet6: Some(Inet6 { disabled: false, generates_address: true }),
        }
    }

    pub(crate) fn test_bridge(name: &str, index: u32) -> Self {
        let kind = LinkKind::Bridge { stp: false, forward_delay: 1500 };
        Self::test(name, index, kind)
    }

    /// A tap as QEMU has just made it.
    pub(crate) fn test_tap(name: &str, index: u32) -> Self {
        let mut link = Self::test(name, index, LinkKind::Tap { persistent: false });
        link.up = false;
        link
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_idle_persistent_tap_keeps_nothing_alive() {
        for (persistent, carrier, alive) in
            [(false, true, true), (false, false, true), (true, true, true), (true, false, false)]
        {
            let mut link = Link::test("t", 1, LinkKind::Tap { persistent });
            link.carrier = carrier;
            assert_eq!(link.keeps_alive(), alive, "{persistent} {carrier}");
        }
        let mut nic = Link::test("eno1", 1, LinkKind::Other(String::new()));
        nic.carrier = false;
        assert!(nic.keeps_alive());
    }
}
