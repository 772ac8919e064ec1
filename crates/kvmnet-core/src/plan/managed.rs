//! natup: what is missing of a network that kvmnet builds, and the tap as its port.

use super::accepts::{self, Surroundings};
use super::bridged::require_bridge;
use super::tap::{Target, attach, attachable};
use super::zone::{self, ZonePlan};
use super::{AttachPlan, Note, Refusal, table_of};
use crate::model::{
    AcceptOwner, BRIDGE_GROUP, BridgeRepair, Firewall, Forwarding, InterfaceName, Link, LinkChange,
    LinkKind, Mac, ManagedNetwork, ManagedView, Mark, Mode, Step, Sysctl, TableState, owner_of,
    runs_as_isolated,
};

/// MTU of a bridge that is about to be made, in bytes: the kernel's default for Ethernet.
const NEW_BRIDGE_MTU: u32 = 1500;

/// What a network is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// A tap is to become its port.
    Guest(&'a InterfaceName),
    /// An administrator wants it up, whoever uses it, until an administrator takes it down.
    Pinned,
    /// Nobody's new wish: what is there is to be as it should be.
    Repair,
}

impl<'a> Purpose<'a> {
    /// The tap, where there is one.
    #[must_use]
    pub fn tap(self) -> Option<&'a InterfaceName> {
        match self {
            Self::Guest(tap) => Some(tap),
            Self::Pinned | Self::Repair => None,
        }
    }
}

/// Whether the network is up, by whatever name its bridge has now.
#[must_use]
pub fn is_up(view: &ManagedView, network: &ManagedNetwork) -> bool {
    let known = std::slice::from_ref(&network.name);
    let is_its = |bridge| owner_of(bridge, known).is_some_and(|mark| mark.network == network.name);
    view.namesake.is_some() || view.bridge.as_ref().is_some_and(is_its)
}

/// Plans to build or repair `network`, and what its purpose asks for on top.
///
/// The order: rules before there is anything to let through (those of an isolated network hang on
/// its bridge, and so come right behind it; those in iptables are found by its mark), IPv6 off before
/// the first guest can speak, and forwarding, the one thing that outlives the network, when all else
/// has succeeded.
///
/// # Errors
/// [`Refusal`] where the tap isn't fit for it, the bridge is somebody else's, the host uses the
/// subnet elsewhere, forwarding may not be turned on, or guests of an isolated network would be let
/// out.
pub fn attach_managed(
    view: &ManagedView,
    purpose: Purpose<'_>,
    network: &ManagedNetwork,
) -> Result<AttachPlan, Refusal> {
    let situation = Situation { view, purpose, network };
    let port = match purpose.tap() {
        Some(tap) => Some(attachable(&view.tap, tap)?),
        None => None,
    };
    match &view.bridge {
        None => situation.build(port),
        Some(bridge) => {
            let bridge = require_bridge(bridge, &network.bridge)?;
            match owner_of(bridge, std::slice::from_ref(&network.name)) {
                Some(mark) if mark.network == network.name => situation.repair(port, bridge, &mark),
                Some(mark) => Err(Refusal::BridgeOfAnother {
                    bridge: network.bridge.clone(),
                    network: network.name.clone(),
                    other: mark.network,
                }),
                None => situation.use_foreign(port, bridge),
            }
        }
    }
}

fn note_of(forward: &[Step]) -> Option<Note> {
    (!forward.is_empty()).then(|| Note::TurnedOnForwarding {
        everywhere: forward.contains(&Step::Sysctl(Sysctl::ForwardIpv4)),
    })
}

/// Whether nothing but a bridge's mark is to be set.
fn is_mark_alone(steps: &[Step]) -> bool {
    let sets_mark_alone = |change: &LinkChange| {
        matches!(change, LinkChange::RepairBridge { repair, .. }
            if *repair == BridgeRepair { mark: repair.mark.clone(), ..BridgeRepair::default() })
    };
    steps
        .iter()
        .all(|step| matches!(step, Step::Links(changes) if changes.iter().all(sets_mark_alone)))
}

fn is_ours_to_write(alias: &str) -> bool {
    alias.is_empty() || Mark::parse(alias).is_some()
}

struct Situation<'a> {
    view: &'a ManagedView,
    purpose: Purpose<'a>,
    network: &'a ManagedNetwork,
}

impl Situation<'_> {
    fn build(&self, port: Option<&Link>) -> Result<AttachPlan, Refusal> {
        let Self { view, network, .. } = *self;
        if let Some(found) = &view.namesake {
            return Err(Refusal::RunsElsewhere {
                network: network.name.clone(),
                bridge: network.bridge.clone(),
                found: found.clone(),
            });
        }
        self.refuse_conflict()?;
        let target = Target {
            index: view.free_index,
            name: network.bridge.as_str(),
            mtu: network.mtu.unwrap_or(NEW_BRIDGE_MTU),
            own: true,
        };
        let attach = self.attach(port, &target)?;
        let forward = self.forward()?;
        let unmarked = Mark::of(&network.name);
        let zone = zone::of_network(&view.zone, network, &unmarked);
        let bridge = Step::Links(vec![LinkChange::CreateBridge {
            name: network.bridge.clone(),
            index: view.free_index,
            mac: Mac::of_bridge(&network.name),
            mark: self.mark(unmarked, &forward, &zone),
            mtu: network.mtu,
            noarp: network.mode == Mode::Isolated,
        }]);
        let mut steps = self.delete_other_tables();
        if network.mode == Mode::Isolated || network.firewall == Firewall::Iptables {
            steps.extend([bridge, self.disable_ipv6()]);
            steps.extend(self.install_table());
        } else {
            steps.extend(self.install_table());
            steps.extend([bridge, self.disable_ipv6()]);
        }
        steps.extend(self.forget_predecessors());
        steps.extend(self.accepts());
        let mut opened = accepts::notes(&steps);
        opened.extend(accepts::no_uplink(view, network));
        opened.extend(zone.note);
        steps.extend(zone.step);
        let changes: Vec<_> = self.add_address(view.free_index).into_iter().chain(attach).collect();
        steps.extend((!changes.is_empty()).then_some(Step::Links(changes)));
        let turned_on = note_of(&forward);
        steps.extend(forward);
        let built = Note::Built {
            network: network.name.clone(),
            mode: network.mode,
            table: table_of(network).map(|table| table.id),
        };
        Ok(AttachPlan {
            steps,
            bridge: network.bridge.to_string(),
            was_done: false,
            notes: std::iter::once(built).chain(opened).chain(turned_on).collect(),
        })
    }

    /// Rules without a bridge: somebody deleted that, and no run saw its guests off.
    fn forget_predecessors(&self) -> Option<Step> {
        let Self { view, network, .. } = *self;
        let has_rules = table_of(network).is_some() && view.table != TableState::Absent;
        let address = network.mode.address().filter(|_| has_rules)?;
        Some(Step::ForgetConnections(vec![address.trunc()]))
    }

    fn repair(
        &self,
        port: Option<&Link>,
        bridge: &Link,
        mark: &Mark,
    ) -> Result<AttachPlan, Refusal> {
        let Self { view, network, .. } = *self;
        self.refuse_opening(port, bridge)?;
        let address = network.mode.address().filter(|address| !view.addresses.contains(address));
        if let Some(address) = address {
            self.refuse_conflict()?;
            if !view.addresses.is_empty() {
                return Err(Refusal::HasAnotherAddress {
                    bridge: network.bridge.clone(),
                    addresses: view.addresses.clone(),
                    network: network.name.clone(),
                    address,
                });
            }
        }
        if network.mode == Mode::Isolated && !view.addresses.is_empty() {
            return Err(Refusal::CarriesAddress {
                bridge: network.bridge.clone(),
                addresses: view.addresses.clone(),
                network: network.name.clone(),
            });
        }
        let mtu = network.mtu.unwrap_or(bridge.mtu);
        let target = Target { mtu, own: true, ..Target::of(bridge) };
        let attach = self.attach(port, &target)?;
        let forward = self.forward()?;

        let zone = zone::of_network(&view.zone, network, mark);
        let wanted = self.mark(mark.clone(), &forward, &zone);
        if (wanted.pinned || wanted.iptables) && !is_ours_to_write(&bridge.alias) {
            return Err(Refusal::AliasInTheWay {
                bridge: network.bridge.clone(),
                alias: bridge.alias.clone(),
            });
        }
        let repair = self.bridge_repair(bridge, &wanted).map(|repair| {
            Step::Links(vec![LinkChange::RepairBridge {
                index: bridge.index,
                name: bridge.name.clone(),
                repair,
            }])
        });
        let mut steps = self.delete_other_tables();
        steps.extend(self.install_table());
        // The mark comes before rules in iptables, and says so as long as there are any.
        let at = if wanted.iptables { 0 } else { steps.len() };
        steps.splice(at..at, repair);
        if bridge.inet6.is_some_and(|inet6| !inet6.disabled) {
            steps.push(self.disable_ipv6());
        }
        let accepts = self.accepts();
        let mut opened = accepts::notes(&accepts);
        opened.extend(accepts::no_uplink(view, network));
        opened.extend(zone.note);
        let address = address.and_then(|_| self.add_address(bridge.index));
        let turned_on = note_of(&forward);
        let pins = wanted.pinned && !mark.pinned;
        let repaired = address.is_some()
            || !forward.is_empty()
            || !(steps.is_empty() || (pins || wanted.zone != mark.zone) && is_mark_alone(&steps));
        // Another firewall that came later is no damage to this network.
        steps.extend(accepts);
        steps.extend(zone.step);
        let changes: Vec<LinkChange> = address.into_iter().chain(attach).collect();
        steps.extend((!changes.is_empty()).then_some(Step::Links(changes)));
        steps.extend(forward);
        Ok(AttachPlan {
            steps,
            bridge: bridge.name.clone(),
            was_done: match port {
                Some(port) => port.master == Some(bridge.index),
                None => !pins,
            },
            notes: repaired
                .then(|| Note::Repaired { network: network.name.clone() })
                .into_iter()
                .chain(opened)
                .chain(turned_on)
                .collect(),
        })
    }

    /// The old scripts' own `br0`: it has exactly the network's address, and its rules are theirs.
    fn use_foreign(&self, port: Option<&Link>, bridge: &Link) -> Result<AttachPlan, Refusal> {
        let Self { view, network, .. } = *self;
        let wanted = network.mode.address().filter(|_| port.is_some());
        let Some(address) = wanted.filter(|address| view.addresses == [*address]) else {
            return Err(Refusal::ForeignBridge {
                bridge: network.bridge.clone(),
                addresses: view.addresses.clone(),
                network: network.name.clone(),
            });
        };
        // The old script's bridge has nothing but taps. Anything else leads to some other network.
        if let Some(other) = view.ports.iter().find(|port| !port.is_tap()) {
            return Err(Refusal::LeadsElsewhere {
                bridge: network.bridge.clone(),
                port: other.name.clone(),
                network: network.name.clone(),
            });
        }
        let attach = self.attach(port, &Target::of(bridge))?;
        let mut notes = vec![Note::ForeignBridge { address }];
        notes.extend((!bridge.up).then_some(Note::BridgeIsDown));
        Ok(AttachPlan {
            steps: attach.map(|change| Step::Links(vec![change])).into_iter().collect(),
            bridge: bridge.name.clone(),
            was_done: port.is_some_and(|port| port.master == Some(bridge.index)),
            notes,
        })
    }

    fn attach(
        &self,
        port: Option<&Link>,
        target: &Target<'_>,
    ) -> Result<Option<LinkChange>, Refusal> {
        match (port, self.purpose.tap()) {
            (Some(port), Some(tap)) => attach(port, &self.view.tap, tap, target),
            _ => Ok(None),
        }
    }

    /// A network that was pinned stays so until an administrator takes it down.
    fn mark(&self, was: Mark, forward: &[Step], zone: &ZonePlan) -> Mark {
        Mark {
            pinned: was.pinned || self.purpose == Purpose::Pinned,
            forwarding: was.forwarding || forward.contains(&Step::Sysctl(Sysctl::ForwardIpv4)),
            iptables: self.network.firewall == Firewall::Iptables,
            zone: was.zone || zone.marks,
            ..was
        }
    }

    fn refuse_conflict(&self) -> Result<(), Refusal> {
        match (self.network.mode.address(), &self.view.conflict) {
            (Some(address), Some(route)) => Err(Refusal::SubnetInUse {
                subnet: address.trunc(),
                network: self.network.name.clone(),
                route: route.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Guests who were started on an isolated network must not find themselves on an open one.
    fn refuse_opening(&self, port: Option<&Link>, bridge: &Link) -> Result<(), Refusal> {
        let Self { view, network, .. } = *self;
        let attaching = port.map(|port| port.index);
        let is_guest = |other: &Link| Some(other.index) != attaching && other.keeps_alive();
        if !runs_as_isolated(network, bridge, &view.addresses, view.table, &view.other_tables)
            || !view.ports.iter().any(is_guest)
        {
            return Ok(());
        }
        Err(Refusal::RunsAsIsolated {
            bridge: network.bridge.clone(),
            network: network.name.clone(),
            mode: network.mode,
        })
    }

    fn delete_other_tables(&self) -> Vec<Step> {
        self.view.other_tables.iter().cloned().map(Step::DeleteTable).collect()
    }

    fn install_table(&self) -> Option<Step> {
        let table = table_of(self.network)?;
        let state = self.view.table;
        let replace = state == TableState::Different;
        (state != TableState::AsWanted).then_some(Step::InstallTable { table, replace })
    }

    fn accepts(&self) -> Vec<Step> {
        let Self { view, network, .. } = *self;
        let owner = AcceptOwner::Network(network.name.clone());
        let surroundings =
            Surroundings { uplinks: &view.uplinks, bridge_netfilter: view.bridge_netfilter };
        accepts::change(&view.filters, &owner, |filter| {
            accepts::of_network(network, filter, &surroundings)
        })
    }

    fn bridge_repair(&self, bridge: &Link, mark: &Mark) -> Option<BridgeRepair> {
        let mac = Mac::of_bridge(&self.network.name);
        let isolated = self.network.mode == Mode::Isolated;
        let forwards_at_once =
            matches!(bridge.kind, LinkKind::Bridge { stp: false, forward_delay: 0 });
        let repair = BridgeRepair {
            mac: (bridge.mac != Some(mac)).then_some(mac),
            // Words of the administrator's stay: the address does as a mark, too.
            mark: (is_ours_to_write(&bridge.alias) && bridge.alias != mark.to_string())
                .then(|| mark.clone()),
            mtu: self.network.mtu.filter(|&mtu| mtu != bridge.mtu),
            forward_at_once: !forwards_at_once,
            group: bridge.group != BRIDGE_GROUP,
            noarp: (bridge.noarp != isolated).then_some(isolated),
            up: !bridge.up,
        };
        (repair != BridgeRepair::default()).then_some(repair)
    }

    fn add_address(&self, index: u32) -> Option<LinkChange> {
        self.network.mode.address().map(|address| LinkChange::AddAddress {
            index,
            bridge: self.network.bridge.to_string(),
            address,
        })
    }

    fn disable_ipv6(&self) -> Step {
        Step::Sysctl(Sysctl::DisableIpv6 { interface: self.network.bridge.clone() })
    }

    /// What it takes for the host to forward; a network whose guests reach only each other needs
    /// nothing.
    fn forward(&self) -> Result<Vec<Step>, Refusal> {
        let view = &self.view.forwarding;
        if self.network.mode == Mode::Isolated || view.global {
            return Ok(Vec::new());
        }
        match self.network.forwarding {
            Forwarding::Global => Ok(vec![Step::Sysctl(Sysctl::ForwardIpv4)]),
            Forwarding::Interfaces => {
                let off = view.interfaces_off.iter().cloned();
                Ok(off
                    .map(|interface| Step::Sysctl(Sysctl::ForwardInterface { interface }))
                    .collect())
            }
            Forwarding::Never => {
                Err(Refusal::ForwardingIsOff { network: self.network.name.clone() })
            }
        }
    }
}
