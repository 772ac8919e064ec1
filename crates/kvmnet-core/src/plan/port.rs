//! Whether a tap is a port by kvmnet's doing, as udev asks: nobody else should manage such a one.

use crate::model::{InterfaceName, Link, LinkKind, Mac, Mark};

/// Whose doing it is that a tap is a port, as far as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortOf {
    /// A helper of kvmnet's made it one.
    Kvmnet,
    /// It is none yet.
    Nobody,
    /// Somebody else made it one; or it can't become one, not being a tap.
    Others,
}

/// Judges a link by its master. `was_ours` says that it was a port of kvmnet's before: a tap on an
/// administrator's bridge is known by its address, which is made of the name, and may get another name.
///
/// Address and master are set in one message, so that who sees a master sees the address.
#[must_use]
pub fn port_of(link: &Link, master: Option<&Link>, was_ours: bool) -> PortOf {
    let (LinkKind::Tap { .. }, Some(mac)) = (&link.kind, link.mac) else {
        return PortOf::Others;
    };
    let Some(master) = master.filter(|master| Some(master.index) == link.master) else {
        return PortOf::Nobody;
    };
    let is_bridge = matches!(master.kind, LinkKind::Bridge { .. });
    if is_bridge && (is_marked(master) || (mac.is_high() && was_ours) || is_named_by(mac, link)) {
        return PortOf::Kvmnet;
    }
    PortOf::Others
}

/// Network files aren't read for this: an address that begins so is sign enough, where its alias was
/// cleared.
fn is_marked(bridge: &Link) -> bool {
    Mark::parse(&bridge.alias).is_some() || bridge.mac.is_some_and(Mac::is_like_of_bridge)
}

fn is_named_by(mac: Mac, link: &Link) -> bool {
    InterfaceName::parse(link.name.as_ref()).is_ok_and(|name| Mac::of_tap(&name) == mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NetworkName;

    const OWN: u32 = 7;

    fn bridge(alias: &str) -> Link {
        let mut bridge = Link::test_bridge("br0", OWN);
        bridge.alias = alias.to_owned();
        bridge
    }

    fn port(name: &str, mac: Mac) -> Link {
        let mut tap = Link::test_tap(name, 8);
        tap.master = Some(OWN);
        tap.mac = Some(mac);
        tap
    }

    fn helpers(name: &str) -> Mac {
        Mac::of_tap(&InterfaceName::parse(name.as_ref()).unwrap())
    }

    #[test]
    fn a_port_of_a_bridge_of_kvmnets_is_known_by_the_bridge() {
        let tap = port("vnet0", Mac([0x52, 0x54, 0, 1, 2, 3]));
        assert_eq!(
            port_of(&tap, Some(&bridge("kvmnet:default:forwarding")), false),
            PortOf::Kvmnet
        );
        let mut cleared = bridge("");
        assert_eq!(port_of(&tap, Some(&cleared), false), PortOf::Others);
        cleared.mac = Some(Mac::of_bridge(&NetworkName::parse("default").unwrap()));
        assert_eq!(port_of(&tap, Some(&cleared), false), PortOf::Kvmnet);
    }

    #[test]
    fn a_port_of_an_administrators_bridge_is_known_by_its_address() {
        let lan = bridge("office LAN");
        assert_eq!(port_of(&port("vnet0", helpers("vnet0")), Some(&lan), false), PortOf::Kvmnet);
        // As libvirt makes it: high, too, but of the guest's address.
        let libvirts = port("vnet0", Mac([0xfe, 0x54, 0, 1, 2, 3]));
        assert_eq!(port_of(&libvirts, Some(&lan), false), PortOf::Others);
        // It was renamed.
        assert_eq!(port_of(&port("web", helpers("vnet0")), Some(&lan), false), PortOf::Others);
        assert_eq!(port_of(&port("web", helpers("vnet0")), Some(&lan), true), PortOf::Kvmnet);
        // It was renamed, released, and made a port by somebody else.
        let others = port("web", Mac([0x52, 0x54, 0, 1, 2, 3]));
        assert_eq!(port_of(&others, Some(&lan), true), PortOf::Others);
    }

    #[test]
    fn what_is_no_port_may_become_one_and_what_is_no_tap_may_not() {
        let mut tap = port("vnet0", helpers("vnet0"));
        // The master has gone since.
        assert_eq!(port_of(&tap, None, true), PortOf::Nobody);
        tap.master = None;
        assert_eq!(port_of(&tap, None, true), PortOf::Nobody);
        let mut veth = port("g0", helpers("g0"));
        veth.kind = LinkKind::Other("veth".to_owned());
        assert_eq!(port_of(&veth, Some(&bridge("kvmnet:default")), true), PortOf::Others);
        let mut bond = bridge("kvmnet:default");
        bond.kind = LinkKind::Other("bond".to_owned());
        assert_eq!(port_of(&port("t", helpers("t")), Some(&bond), true), PortOf::Others);
    }
}
