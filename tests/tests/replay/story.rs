//! What can happen, line by line.

use proptest::prelude::*;

/// Two on each network.
pub const TAPS: [&str; 4] = ["vnet0", "vnet1", "lab0", "lab1"];
/// What the same are called once somebody has renamed them.
pub const RENAMED: [&str; 4] = ["gone0", "gone1", "gone2", "gone3"];
/// The bridges of the networks `default` (nat) and `lab` (isolated).
pub const BRIDGES: [&str; 2] = ["br0", "lab"];

/// Of a bridge that isn't kvmnet's.
pub const STRANGERS_MAC: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];

/// A line of the story.
#[derive(Debug, Clone, Copy)]
pub enum Line {
    Natup(usize),
    Natdown(usize),
    Ifdown(usize),
    UpLab,
    DownLab,
    Gc,
    Reload,
    /// The guest's program is gone, and another one opens a tap of that name.
    TapMadeAnew(usize),
    TapRenamed(usize),
    PortTakenOut(usize),
    BridgeDeleted(usize),
    /// Somebody makes one of that name.
    StrangersBridge(usize),
    BridgeDown(usize),
    AliasCleared(usize),
    MacChanged(usize),
    AddressRemoved,
    TableEmptied,
    RulesetFlushed,
    ForwardingOff,
}

pub fn line() -> impl Strategy<Value = Line> {
    let tap = 0..TAPS.len();
    let bridge = 0..BRIDGES.len();
    prop_oneof![
        8 => tap.clone().prop_map(Line::Natup),
        5 => tap.clone().prop_map(Line::Natdown),
        1 => tap.clone().prop_map(Line::Ifdown),
        1 => Just(Line::UpLab),
        1 => Just(Line::DownLab),
        1 => Just(Line::Gc),
        2 => Just(Line::Reload),
        1 => tap.clone().prop_map(Line::TapMadeAnew),
        1 => tap.clone().prop_map(Line::TapRenamed),
        1 => tap.prop_map(Line::PortTakenOut),
        1 => bridge.clone().prop_map(Line::BridgeDeleted),
        1 => bridge.clone().prop_map(Line::StrangersBridge),
        1 => bridge.clone().prop_map(Line::BridgeDown),
        1 => bridge.clone().prop_map(Line::AliasCleared),
        1 => bridge.prop_map(Line::MacChanged),
        1 => Just(Line::AddressRemoved),
        1 => Just(Line::TableEmptied),
        1 => Just(Line::RulesetFlushed),
        1 => Just(Line::ForwardingOff),
    ]
}
