//! The kernel with rules in iptables: all else is the kernel's own.

use std::path::Path;
use std::time::{Duration, Instant};

use kvmnet_core::LockError;
use kvmnet_core::kernel::{Kernel, KernelError, System};
use kvmnet_core::model::{
    AcceptsChange, BridgedNetwork, BridgedView, FILTER, FORWARD, Firewall, ForwardChain, HostView,
    InterfaceName, Link, LinkChange, ManagedNetwork, ManagedView, Match, NetworkName, ReleaseView,
    RulesState, Step, Table, TableId, TableState, Variant, owner_of,
};
use kvmnet_core::plan::{self, Surroundings};
use kvmnet_core::process;

use crate::accepts;
use crate::listing::Listing;
use crate::look::{BRIEFLY, Look};
use crate::programs::{Family, Program};
use crate::script::script;
use crate::wanted::{Wanted, wanted};

/// How often a change of accepts is tried on a table that others keep changing.
const ATTEMPTS: usize = 4;
/// For how long it is tried again.
const RETRIES: Duration = Duration::from_secs(1);
/// The network namespace that the process is in, with the tables of iptables.
pub struct Iptables {
    system: System,
    /// The last look.
    look: Look,
    /// What makes of a network's rules what they should be, by the last look for that network.
    prepared: Option<(NetworkName, Vec<(Program, String)>)>,
    /// kvmnet's bridges, and the networks whose rules could not be taken away.
    bridges: Vec<(NetworkName, u32)>,
    stuck: Vec<NetworkName>,
}

impl Iptables {
    /// Opens the network namespace that the process is in.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel has no rtnetlink to offer.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self {
            system: System::open_for_netlink_alone()?,
            look: Look::default(),
            prepared: None,
            bridges: Vec::new(),
            stuck: Vec::new(),
        })
    }

    /// Decides what a file leaves to the kernel: nftables where it has that, else iptables.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    pub fn settle(&mut self, network: &mut ManagedNetwork) -> Result<(), KernelError> {
        if network.firewall != Firewall::Auto {
            return Ok(());
        }
        // Whoever may not look may not change anything either.
        let has_nftables = !process::may_change_network() || self.system.has_nftables()?;
        network.firewall = if has_nftables { Firewall::Nftables } else { Firewall::Iptables };
        Ok(())
    }

    /// [`System::host_view`], with the filters of iptables-legacy.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    pub fn host_view(&mut self) -> Result<HostView, KernelError> {
        let mut view = self.system.host_view()?;
        if !process::may_change_network() {
            return Ok(view);
        }
        self.look = Look::at_legacy_filters();
        view.legacy_unread = self.look.unread.take();
        let dropping = self.look.legacy_filters().filter(|(_, listing)| listing.drops());
        let chains = dropping.map(|(family, listing)| ForwardChain {
            variant: Variant::Legacy,
            table: TableId { family: family.number(), name: FILTER.to_owned() },
            chain: FORWARD.to_owned(),
            by_policy: listing.drops_by_policy(),
        });
        view.dropping_chains.get_or_insert_default().extend(chains);
        view.filters.get_or_insert_default().extend(self.look.legacy_views());
        Ok(view)
    }

    /// Compares the rules of a network that is up on this bridge with what they should be.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    pub fn rules_state(
        &mut self,
        network: &ManagedNetwork,
        bridge: Option<&Link>,
    ) -> Result<RulesState, KernelError> {
        if network.firewall != Firewall::Iptables {
            return self.system.rules_state(plan::table_of(network).as_ref());
        }
        if !process::may_change_network() {
            return Ok(RulesState::Unknown);
        }
        match self.prepare(network, bridge) {
            Ok(TableState::Absent) => Ok(RulesState::Missing),
            Ok(TableState::AsWanted) => Ok(RulesState::InPlace),
            Ok(TableState::Different) => Ok(RulesState::Changed),
            Err(KernelError::Iptables { .. }) => Ok(RulesState::Unknown),
            Err(error) => Err(error),
        }
    }

    /// The networks that have chains in iptables.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    pub fn networks(&mut self) -> Result<Vec<NetworkName>, KernelError> {
        self.look = Look::at_chains(&mut self.system, false)?;
        let mut networks: Vec<NetworkName> = self.look.networks().collect();
        networks.sort_unstable();
        networks.dedup();
        Ok(networks)
    }

    /// What a network's guests have to get past in iptables-legacy as well; and where they need
    /// nothing, since chains of the network's own have it.
    fn add_legacy(
        &mut self,
        view: &mut ManagedView,
        network: &ManagedNetwork,
    ) -> Result<(), KernelError> {
        let was_dropped = view.filters.iter().any(|filter| filter.drops);
        view.filters.extend(self.look.legacy_views());
        if network.firewall == Firewall::Iptables {
            for filter in &mut view.filters {
                let chosen = Program::chosen(Family::of_number(filter.family));
                filter.has_own_chains =
                    chosen.is_ok_and(|program| program.variant == filter.variant);
            }
        }
        if !was_dropped && view.filters.iter().any(|filter| filter.drops) {
            view.uplinks = self.system.uplinks()?;
            view.bridge_netfilter = self.system.filters_frames(view.bridge.as_ref())?;
        }
        Ok(())
    }

    /// Changes rules of ours in iptables-legacy, all or nothing. Others don't wait for our lock, so
    /// what is there is looked at once more; and again, where it has changed meanwhile.
    fn change_accepts(&self, change: &AcceptsChange) -> Result<(), KernelError> {
        for (_, rule) in &change.insert {
            for condition in &rule.matches {
                if let Match::Input(name) | Match::InputOther(name) | Match::Output(name) =
                    condition
                {
                    require_plain(name)?;
                }
            }
        }
        let family = Family::of_number(change.family);
        let program = Program::of(family, Variant::Legacy)?;
        let mut result = Ok(());
        let begin = Instant::now();
        for _ in 0..ATTEMPTS {
            if !family.has_legacy(FILTER)? {
                return Ok(());
            }
            let Some(script) = accepts::script(change, &program.list_within(FILTER, BRIEFLY)?)
            else {
                return Ok(());
            };
            result = program.restore(&script);
            // One that has waited for the tables' lock in vain is not to wait again.
            if result.is_ok() || begin.elapsed() > RETRIES {
                break;
            }
        }
        result
    }

    /// Compares a network's rules with what they should be, and prepares what that takes.
    fn prepare(
        &mut self,
        network: &ManagedNetwork,
        bridge: Option<&Link>,
    ) -> Result<TableState, KernelError> {
        require_plain(&network.bridge)?;
        let mut chosen = vec![Program::chosen(Family::Ipv4)?];
        if Path::new("/proc/net/if_inet6").try_exists().unwrap_or(true) {
            match Program::chosen(Family::Ipv6) {
                Ok(program) => chosen.push(program),
                // IPv6 is off on the bridge; the rules are what keeps guests from it that is on.
                Err(error) if network.mode.address().is_none() => return Err(error),
                Err(_) => {}
            }
        }
        let by_nft = chosen.iter().find(|program| program.variant == Variant::Nft);
        if let Some(program) = by_nft {
            if !self.system.has_nftables()? {
                return Err(program.without_nf_tables());
            }
        }
        self.look = Look::at_chains(&mut self.system, true)?;
        let filter = |program: &Program| {
            let listing = self.look.listing(program, FILTER).cloned().unwrap_or_default();
            (program.family, listing)
        };
        let filters: Vec<(Family, Listing)> = chosen.iter().map(filter).collect();
        let is_dropped = filters.iter().any(|(_, filter)| filter.drops());
        let mut uplinks = if is_dropped { self.system.uplinks()? } else { Vec::new() };
        uplinks.retain(is_plain);
        let bridge_netfilter = is_dropped && self.system.filters_frames(bridge)?;
        let surroundings = Surroundings { uplinks: &uplinks, bridge_netfilter };
        let all = wanted(network, &filters, &surroundings);

        let name = &network.name;
        let mut scripts: Vec<(Program, String)> = Vec::new();
        let mut add = |program: &Program, script: Option<String>| {
            let Some(script) = script else { return };
            match scripts.iter_mut().find(|(its, _)| its == program) {
                Some((_, text)) => text.push_str(&script),
                None => scripts.push((program.clone(), script)),
            }
        };
        let of = |program: &Program, table: &str| -> Option<&Wanted> {
            let fits = |wanted: &&Wanted| wanted.family == program.family && wanted.table == table;
            all.iter().find(fits).filter(|_| chosen.contains(program))
        };
        for program in &chosen {
            for &table in program.family.tables() {
                let found = self.look.listing(program, table).cloned().unwrap_or_default();
                add(program, script(name, table, &found, of(program, table)));
            }
        }
        for found in self.look.found.iter().filter(|found| !chosen.contains(&found.program)) {
            add(&found.program, script(name, found.table, &found.listing, None));
        }
        let state = match (scripts.is_empty(), self.look.has(name)) {
            (true, _) => TableState::AsWanted,
            (false, true) => TableState::Different,
            (false, false) => TableState::Absent,
        };
        self.prepared = Some((name.clone(), scripts));
        Ok(state)
    }

    fn install(&self, id: &TableId) -> Result<(), KernelError> {
        let network = id.network();
        match &self.prepared {
            Some((name, scripts)) if Some(name) == network.as_ref() => {
                scripts.iter().try_for_each(|(program, script)| program.restore(script))
            }
            _ => Ok(()),
        }
    }

    fn remove(&mut self, id: &TableId) -> Result<(), KernelError> {
        let Some(network) = id.network() else { return Ok(()) };
        let result = self.remove_of(&network);
        if result.is_err() {
            self.stuck.push(network);
        }
        result
    }

    fn remove_of(&mut self, network: &NetworkName) -> Result<(), KernelError> {
        if self.look.may_hide(network) {
            // What kept it from being seen may have passed.
            self.look = Look::at_chains(&mut self.system, false)?;
        }
        let mut result = Ok(());
        for found in &self.look.found {
            if let Some(script) = script(network, found.table, &found.listing, None) {
                result = result.and(found.program.restore(&script));
            }
        }
        if self.look.may_hide(network) {
            result = result.and(Look::fault());
        }
        result
    }

    /// A bridge whose rules are still there says so by its mark, and stays.
    fn require_rules_gone(&self, changes: &[LinkChange]) -> Result<(), KernelError> {
        for change in changes {
            let LinkChange::DeleteBridge { index, .. } = change else { continue };
            let is_stuck =
                |(network, its): &(NetworkName, u32)| its == index && self.stuck.contains(network);
            if self.bridges.iter().any(is_stuck) {
                return Err(KernelError::Refused {
                    what: change.to_string(),
                    errno: nix::errno::Errno::EBUSY,
                    message: Some("its rules are still in iptables".to_owned()),
                });
            }
        }
        Ok(())
    }
}

impl Kernel for Iptables {
    type Lock = <System as Kernel>::Lock;
    const HAS_IPTABLES: bool = true;

    fn unread(&self) -> Option<String> {
        self.look.unread.clone()
    }

    fn lock(&mut self) -> Result<Self::Lock, LockError> {
        self.system.lock()
    }

    fn bridged_view(
        &mut self,
        tap: &InterfaceName,
        network: &BridgedNetwork,
    ) -> Result<BridgedView, KernelError> {
        let mut view = self.system.bridged_view(tap, network)?;
        // Only frames that come to iptables can be dropped by it.
        let bridge = view.named.as_ref().or(view.default_route.as_ref());
        if self.system.filters_frames(bridge)? {
            self.look = Look::at_legacy_filters();
            view.filters.extend(self.look.legacy_views());
        }
        Ok(view)
    }

    fn managed_view(
        &mut self,
        tap: Option<&InterfaceName>,
        network: &ManagedNetwork,
        table: Option<&Table>,
    ) -> Result<ManagedView, KernelError> {
        let is_here = table.is_some_and(|table| table.id.is_in_iptables());
        let mut view = self.system.managed_view(tap, network, table.filter(|_| !is_here))?;
        let known = std::slice::from_ref(&network.name);
        let is_foreign =
            view.bridge.as_ref().is_some_and(|bridge| owner_of(bridge, known).is_none());
        // Where no rules are added, it doesn't matter what iptables has to say.
        if is_foreign || tap.is_some() && view.tap.link.is_none() {
            return Ok(view);
        }
        if is_here {
            view.table = self.prepare(network, view.bridge.as_ref())?;
        } else if view.other_tables.iter().any(TableId::is_in_iptables) {
            self.look = Look::at_chains(&mut self.system, false)?;
        } else {
            self.look = Look::at_legacy_filters();
        }
        self.add_legacy(&mut view, network)?;
        Ok(view)
    }

    fn release_view(
        &mut self,
        tap: Option<&InterfaceName>,
        known: &[NetworkName],
    ) -> Result<ReleaseView, KernelError> {
        self.look = Look::at_chains(&mut self.system, false)?;
        let mut view = self.system.release_view_with(tap, known, self.look.legacy_views())?;
        self.stuck.clear();
        self.bridges = view
            .bridges
            .iter()
            .filter_map(|bridge| Some((owner_of(&bridge.link, known)?.network, bridge.link.index)))
            .collect();
        // A mark says what may be there, the look what is.
        let may_be_unseen = !self.look.unlisted.is_empty();
        view.tables.retain(|table| !table.is_in_iptables() || may_be_unseen);
        for network in self.look.networks() {
            let id = TableId::in_iptables(&network);
            if !view.tables.contains(&id) {
                view.tables.push(id);
            }
        }
        Ok(view)
    }

    fn apply(&mut self, step: &Step) -> Result<(), KernelError> {
        match step {
            Step::InstallTable { table, .. } if table.id.is_in_iptables() => {
                self.install(&table.id)
            }
            Step::DeleteTable(id) if id.is_in_iptables() => self.remove(id),
            Step::Accepts(change) if change.variant == Variant::Legacy => {
                self.change_accepts(change)
            }
            Step::Links(changes) => {
                self.require_rules_gone(changes)?;
                self.system.apply(step)
            }
            _ => self.system.apply(step),
        }
    }
}

/// To iptables a `+` at a name's end stands for any ending, and other marks have meanings of theirs.
fn is_plain(name: &InterfaceName) -> bool {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "._-@:".contains(character);
    name.as_str().chars().all(is_plain)
}

fn require_plain(bridge: &InterfaceName) -> Result<(), KernelError> {
    if is_plain(bridge) {
        return Ok(());
    }
    Err(KernelError::Iptables {
        what: format!("make rules for {bridge}"),
        program: "iptables".to_owned(),
        problem:
            "gives a name like this another meaning; choose one of letters, digits and . _ - @ \
                  for the bridge"
                .to_owned(),
    })
}
