//! Changes to links and their addresses, as rtnetlink messages.

use linux_raw_sys::netlink as raw;
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Ifla, IflaInfo, Rtm};
use neli::rtnl::{Ifinfomsg, IfinfomsgBuilder, Rtattr};
use neli::types::Buffer;
use nix::errno::Errno;

use super::address;
use super::link::{ADDR_GEN_MODE_NONE, attribute, message, nested};
use super::socket::Batch;
use crate::model::{LinkChange, Mac};

/// Adds the messages of one change.
pub(super) fn push(batch: &mut Batch, change: &LinkChange) {
    match change {
        LinkChange::CreateBridge { name, index, mac, mark } => {
            create_bridge(batch, name.as_str(), *index, *mac, &mark.to_string());
        }
        LinkChange::RepairBridge { index, name, mac, mark, forwarding, up } => {
            let mut attributes = Vec::new();
            attributes.extend(mac.map(|mac| attribute(Ifla::Address, mac.0)));
            attributes.extend(
                mark.as_ref().map(|mark| attribute(Ifla::Ifalias, mark.to_string().as_bytes())),
            );
            if *forwarding {
                // The kernel reads the delay first, and refuses 0 (ERANGE) while STP is on.
                turn_off_stp(batch, *index, name);
                attributes.push(forwarding_bridge());
            }
            let builder = by_index(*index);
            let builder = if *up { builder.up() } else { builder };
            let message = message(builder, attributes);
            batch.change(Rtm::Newlink, NlmF::empty(), message, format!("repair bridge {name}"));
        }
        LinkChange::AddAddress { index, bridge, address } => {
            address::push_add(batch, *index, bridge, *address);
        }
        LinkChange::AttachTap { index, tap, master, bridge, mac, mtu, no_inet6_address } => {
            if *no_inet6_address {
                forbid_inet6_address(batch, *index, tap.as_str());
            }
            // All in one message: a port that is there before its address and MTU are set would
            // change the bridge's.
            let mut attributes = Vec::new();
            attributes.extend(mac.map(|mac| attribute(Ifla::Address, mac.0)));
            attributes.extend(mtu.map(|mtu| attribute(Ifla::Mtu, mtu)));
            attributes.push(attribute(Ifla::Master, *master));
            let message = message(by_index(*index).up(), attributes);
            let what = format!("make {tap} a port of {bridge}");
            batch.change(Rtm::Newlink, NlmF::empty(), message, what);
        }
        LinkChange::ReleaseTap { index, tap } => {
            let attributes = vec![attribute(Ifla::Master, 0u32)];
            let message = message(by_index(*index).down(), attributes);
            let what = format!("take {tap} out of its bridge");
            batch.change(Rtm::Newlink, NlmF::empty(), message, what);
            batch.tolerate(&[Errno::ENODEV]);
        }
        LinkChange::DeleteBridge { index, name } => {
            let message = message(by_index(*index), vec![]);
            batch.change(Rtm::Dellink, NlmF::empty(), message, format!("delete bridge {name}"));
            batch.tolerate(&[Errno::ENODEV]);
        }
    }
}

fn by_index(index: u32) -> IfinfomsgBuilder {
    IfinfomsgBuilder::default().ifi_index(index as libc::c_int)
}

/// Two messages, since the kernel ignores an alias in the creating one. The second goes by the
/// index that the first chose: where the first fails, it finds nothing to mark.
fn create_bridge(batch: &mut Batch, name: &str, index: u32, mac: Mac, mark: &str) {
    let create: Ifinfomsg = message(
        by_index(index).up(),
        vec![attribute(Ifla::Ifname, name), attribute(Ifla::Address, mac.0), forwarding_bridge()],
    );
    let flags = NlmF::CREATE | NlmF::EXCL;
    batch.change(Rtm::Newlink, flags, create, format!("make bridge {name}"));
    let alias = message(by_index(index), vec![attribute(Ifla::Ifalias, mark.as_bytes())]);
    batch.change(Rtm::Newlink, NlmF::empty(), alias, format!("mark bridge {name}"));
}

/// A bridge that forwards at once: no STP, and so no need for a delay either.
fn forwarding_bridge() -> Rtattr<Ifla, Buffer> {
    bridge_settings(vec![
        attribute(raw::IFLA_BR_FORWARD_DELAY as u16, 0u32),
        attribute(raw::IFLA_BR_STP_STATE as u16, 0u32),
    ])
}

fn turn_off_stp(batch: &mut Batch, index: u32, bridge: &str) {
    let settings = bridge_settings(vec![attribute(raw::IFLA_BR_STP_STATE as u16, 0u32)]);
    let message = message(by_index(index), vec![settings]);
    batch.change(Rtm::Newlink, NlmF::empty(), message, format!("turn off STP on {bridge}"));
}

fn bridge_settings(settings: Vec<Rtattr<u16, Buffer>>) -> Rtattr<Ifla, Buffer> {
    nested(
        Ifla::Linkinfo,
        vec![attribute(IflaInfo::Kind, "bridge"), nested(IflaInfo::Data, settings)],
    )
}

/// A message of its own, before the one that sets the tap up: in the same one the kernel makes the
/// address first.
fn forbid_inet6_address(batch: &mut Batch, index: u32, tap: &str) {
    let mode: Vec<Rtattr<u16, Buffer>> =
        vec![attribute(raw::IFLA_INET6_ADDR_GEN_MODE as u16, ADDR_GEN_MODE_NONE)];
    let family: Rtattr<u16, Buffer> = nested(libc::AF_INET6 as u16, mode);
    let message = message(by_index(index), vec![nested(Ifla::AfSpec, vec![family])]);
    let what = format!("let {tap} have no IPv6 address");
    batch.change(Rtm::Newlink, NlmF::empty(), message, what);
}
