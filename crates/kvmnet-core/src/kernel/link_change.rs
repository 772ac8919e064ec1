//! Changes to links and their addresses, as rtnetlink messages.

use linux_raw_sys::netlink as raw;
use neli::consts::nl::NlmF;
use neli::consts::rtnl::{Iff, Ifla, IflaInfo, Rtm};
use neli::rtnl::IfinfomsgBuilder;
use nix::errno::Errno;

use super::address;
use super::batch::Batch;
use super::link::{ADDR_GEN_MODE_NONE, message};
use super::payload::Payload;
use crate::model::{ALL_GROUPS, BRIDGE_GROUP, BridgeRepair, LinkChange, Mac};

/// `IPV6_MIN_MTU` (`linux/ipv6.h`).
const MIN_INET6_MTU: u32 = 1280;

/// Adds the messages of one change.
pub(super) fn push(batch: &mut Batch, change: &LinkChange) {
    match change {
        LinkChange::CreateBridge { name, index, mac, mark, mtu, noarp } => {
            let new = NewBridge { name: name.as_str(), index: *index, mac: *mac, mtu: *mtu };
            create_bridge(batch, &new, *noarp, &mark.to_string());
        }
        LinkChange::RepairBridge { index, name, repair } => {
            repair_bridge(batch, *index, name, repair);
        }
        LinkChange::AddAddress { index, bridge, address } => {
            address::push_add(batch, *index, bridge, *address);
        }
        LinkChange::AttachTap {
            index,
            tap,
            master,
            bridge,
            mac,
            mtu,
            no_inet6_address,
            forward_groups,
            was_up,
        } => {
            // The kernel makes the address when the tap comes up, and a tap loses it only by going down.
            // With too small an MTU there is no IPv6 to be told of.
            let at_once = *forward_groups && !was_up && mtu.is_none_or(|mtu| mtu >= MIN_INET6_MTU);
            if *no_inet6_address && !at_once {
                let mut forbid = message(by_index(*index).down());
                forbid_inet6_address(&mut forbid);
                let what = format!("let {tap} have no IPv6 address");
                batch.change(Rtm::Newlink, NlmF::empty(), forbid, what);
            }
            // A port's settings can't come before the port, so the tap stays down until then.
            let builder = by_index(*index);
            let builder = if *forward_groups { builder.down() } else { builder.up() };
            // All in one message: a port that is there before its address and MTU are set would
            // change the bridge's.
            let mut attach = message(builder);
            attach.put_any(Ifla::Address, mac.map(|mac| mac.0));
            attach.put_any(Ifla::Mtu, *mtu).put(Ifla::Master, *master);
            if *no_inet6_address && at_once {
                forbid_inet6_address(&mut attach);
            }
            let what = format!("make {tap} a port of {bridge}");
            batch.change(Rtm::Newlink, NlmF::empty(), attach, what);
            if *forward_groups {
                // The kernel takes a port's settings before it sets the port up.
                let mut up = message(by_index(*index).up());
                forward_groups_of_port(&mut up);
                let what = format!("let no frame of {tap} past the bridge, and set it up");
                batch.change(Rtm::Newlink, NlmF::empty(), up, what);
            }
        }
        LinkChange::ReleaseTap { index, tap } => {
            let mut release = message(by_index(*index).down());
            release.put(Ifla::Master, 0u32);
            let what = format!("take {tap} out of its bridge");
            batch.change(Rtm::Newlink, NlmF::empty(), release, what);
            batch.tolerate(&[Errno::ENODEV]);
        }
        LinkChange::DeleteBridge { index, name } => {
            let delete = message(by_index(*index));
            batch.change(Rtm::Dellink, NlmF::empty(), delete, format!("delete bridge {name}"));
            batch.tolerate(&[Errno::ENODEV]);
        }
    }
}

fn by_index(index: u32) -> IfinfomsgBuilder {
    IfinfomsgBuilder::default().ifi_index(index as libc::c_int)
}

struct NewBridge<'a> {
    name: &'a str,
    index: u32,
    mac: Mac,
    mtu: Option<u32>,
}

/// Two messages, since the kernel ignores an alias in the creating one. The second goes by the
/// index that the first chose: where the first fails, it finds nothing to mark.
fn create_bridge(batch: &mut Batch, new: &NewBridge<'_>, noarp: bool, mark: &str) {
    let mut flags = Iff::UP;
    flags.set(Iff::NOARP, noarp);
    let mut create = message(by_index(new.index).ifi_flags(flags).ifi_change(flags));
    create.put(Ifla::Ifname, new.name).put(Ifla::Address, new.mac.0);
    create.put(Ifla::Group, BRIDGE_GROUP);
    forward_at_once(&mut create);
    create.put_any(Ifla::Mtu, new.mtu);
    let exclusive = NlmF::CREATE | NlmF::EXCL;
    batch.change(Rtm::Newlink, exclusive, create, format!("make bridge {}", new.name));
    let mut alias = message(by_index(new.index));
    alias.put(Ifla::Ifalias, mark.as_bytes());
    batch.change(Rtm::Newlink, NlmF::empty(), alias, format!("mark bridge {}", new.name));
}

fn repair_bridge(batch: &mut Batch, index: u32, name: &str, repair: &BridgeRepair) {
    if repair.forward_at_once {
        // The kernel reads the delay first, and refuses 0 (ERANGE) while STP is on.
        turn_off_stp(batch, index, name);
    }
    let mut set = Iff::empty();
    set.set(Iff::UP, repair.up);
    set.set(Iff::NOARP, repair.noarp == Some(true));
    let mut change = set;
    change.set(Iff::NOARP, repair.noarp.is_some());
    let mut message = message(by_index(index).ifi_flags(set).ifi_change(change));
    message.put_any(Ifla::Address, repair.mac.map(|mac| mac.0));
    let mark = repair.mark.as_ref().map(ToString::to_string);
    message.put_any(Ifla::Ifalias, mark.as_ref().map(String::as_bytes));
    message.put_any(Ifla::Mtu, repair.mtu);
    message.put_any(Ifla::Group, repair.group.then_some(BRIDGE_GROUP));
    if repair.forward_at_once {
        forward_at_once(&mut message);
    }
    batch.change(Rtm::Newlink, NlmF::empty(), message, format!("repair bridge {name}"));
}

/// A bridge that forwards at once: no STP, and so no need for a delay either.
fn forward_at_once(message: &mut Payload) {
    bridge_settings(message, |settings| {
        settings.put(raw::IFLA_BR_FORWARD_DELAY as u16, 0u32);
        settings.put(raw::IFLA_BR_STP_STATE as u16, 0u32);
    });
}

fn turn_off_stp(batch: &mut Batch, index: u32, bridge: &str) {
    let mut message = message(by_index(index));
    bridge_settings(&mut message, |settings| {
        settings.put(raw::IFLA_BR_STP_STATE as u16, 0u32);
    });
    batch.change(Rtm::Newlink, NlmF::empty(), message, format!("turn off STP on {bridge}"));
}

fn bridge_settings(message: &mut Payload, fill: impl FnOnce(&mut Payload)) {
    message.nest(Ifla::Linkinfo, |info| {
        info.put(IflaInfo::Kind, "bridge").nest(IflaInfo::Data, fill);
    });
}

fn forward_groups_of_port(message: &mut Payload) {
    message.nest(Ifla::Linkinfo, |info| {
        info.put(IflaInfo::SlaveKind, "bridge").nest(IflaInfo::SlaveData, |port| {
            port.put(raw::IFLA_BRPORT_GROUP_FWD_MASK as u16, ALL_GROUPS);
        });
    });
}

/// In a message that leaves the link down: in one that sets it up the kernel makes the address first.
fn forbid_inet6_address(message: &mut Payload) {
    message.nest(Ifla::AfSpec, |families| {
        families.nest(libc::AF_INET6 as u16, |inet6| {
            inet6.put(raw::IFLA_INET6_ADDR_GEN_MODE as u16, ADDR_GEN_MODE_NONE);
        });
    });
}
