//! Looking at the tables of iptables, of both variants.

use kvmnet_core::kernel::{KernelError, System, legacy_table, legacy_tables};
use kvmnet_core::model::{FILTER, FilterView, NetworkName, Variant};

use crate::accepts;
use crate::listing::{Listing, network_of};
use crate::programs::{Family, Program};

/// How long to wait for others that work on iptables-legacy, in seconds: for both families less than
/// those wait that wait for our lock.
pub const BRIEFLY: u32 = 2;

/// What one look has found.
#[derive(Default)]
pub struct Look {
    /// The tables that were listed.
    pub found: Vec<Found>,
    /// The variants of those that may hold rules of kvmnet's and could not be.
    pub unlisted: Vec<Variant>,
    /// Why iptables-legacy's filter, which is in use, could not be.
    pub unread: Option<String>,
}

/// Whether the filter of iptables-legacy, which is in use, stops nothing that it doesn't name, and has no
/// rule of kvmnet's: it needs no program then.
fn is_idle(family: Family) -> bool {
    let filter = legacy_table(family.number(), FILTER).ok().and_then(|table| table.filter);
    filter.is_some_and(|filter| !filter.drops && filter.accepts.is_empty())
}

/// A table that was listed.
pub struct Found {
    /// By which program.
    pub program: Program,
    /// Its name.
    pub table: &'static str,
    /// What it holds.
    pub listing: Listing,
}

impl Look {
    /// Lists the tables that hold rules of kvmnet's, of either variant; `whole`: also those that the
    /// host's own programs work on, whatever they hold.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel, or the host's own program, doesn't answer.
    pub fn at_chains(system: &mut System, whole: bool) -> Result<Self, KernelError> {
        let mut look = Self::default();
        for family in Family::ALL {
            let chains = system.chain_names(family.number())?;
            let legacy = legacy_tables(family.number())?;
            let chosen = if whole { Program::chosen(family).ok() } else { None };
            for variant in Variant::ALL {
                let is_chosen = chosen.as_ref().is_some_and(|chosen| chosen.variant == variant);
                for &table in family.tables() {
                    let has_chain = |fits: fn(&str) -> bool| {
                        chains.iter().any(|(its, chain)| its == table && fits(chain))
                    };
                    let matters = match variant {
                        Variant::Nft => {
                            has_chain(|chain| network_of(chain).is_some())
                                || is_chosen && has_chain(|_| true)
                        }
                        Variant::Legacy => legacy.iter().any(|name| name == table),
                    };
                    if !matters {
                        continue;
                    }
                    let listed = Program::of(family, variant)
                        .and_then(|program| Ok((program.list(table)?, program)));
                    match listed {
                        Ok((listing, program)) => {
                            look.found.push(Found { program, table, listing });
                        }
                        Err(error) if is_chosen => return Err(error),
                        Err(error) => {
                            log::debug!("{error}");
                            look.unlisted.push(variant);
                            if (variant, table) == (Variant::Legacy, FILTER) {
                                look.unread = Some(error.to_string());
                            }
                        }
                    }
                }
            }
        }
        Ok(look)
    }

    /// Lists nothing but the filters of iptables-legacy, and of these those that matter to anybody: a
    /// host without any has no program started.
    #[must_use]
    pub fn at_legacy_filters() -> Self {
        let mut look = Self::default();
        for family in Family::ALL {
            let list = || -> Result<Option<Found>, KernelError> {
                if !family.has_legacy(FILTER)? || is_idle(family) {
                    return Ok(None);
                }
                let program = Program::of(family, Variant::Legacy)?;
                let listing = program.list_within(FILTER, BRIEFLY)?;
                Ok(Some(Found { program, table: FILTER, listing }))
            };
            match list() {
                Ok(found) => look.found.extend(found),
                // What can't be understood stops nobody's guest.
                Err(error) => look.unread = Some(error.to_string()),
            }
        }
        look
    }

    /// The filters of iptables-legacy that were found.
    pub fn legacy_filters(&self) -> impl Iterator<Item = (Family, &Listing)> {
        let is_legacy_filter =
            |found: &&Found| found.program.variant == Variant::Legacy && found.table == FILTER;
        let found = self.found.iter().filter(is_legacy_filter);
        found.map(|found| (found.program.family, &found.listing))
    }

    /// The same, as what accepts are planned by.
    #[must_use]
    pub fn legacy_views(&self) -> Vec<FilterView> {
        self.legacy_filters()
            .map(|(family, listing)| accepts::filter_view(family, listing))
            .collect()
    }

    /// What a program's table holds, where it was listed.
    #[must_use]
    pub fn listing(&self, program: &Program, table: &str) -> Option<&Listing> {
        let found = self.found.iter().find(|found| {
            found.program.family == program.family
                && found.program.variant == program.variant
                && found.table == table
        });
        found.map(|found| &found.listing)
    }

    /// The networks that have chains of their own, some more than once.
    pub fn networks(&self) -> impl Iterator<Item = NetworkName> {
        self.found.iter().flat_map(|found| found.listing.networks())
    }

    /// Whether a network has any.
    #[must_use]
    pub fn has(&self, network: &NetworkName) -> bool {
        self.networks().any(|name| name == *network)
    }

    /// Whether rules of the network's may be where they weren't seen: wherever that is where none were
    /// seen at all, else in a table beside those that have some.
    #[must_use]
    pub fn may_hide(&self, network: &NetworkName) -> bool {
        let is_beside = |found: &Found| {
            self.unlisted.contains(&found.program.variant)
                && found.listing.networks().any(|name| name == *network)
        };
        !self.unlisted.is_empty() && (!self.has(network) || self.found.iter().any(is_beside))
    }

    /// What keeps a look from being complete.
    ///
    /// # Errors
    /// [`KernelError::Iptables`]: that.
    pub fn fault() -> Result<(), KernelError> {
        for family in Family::ALL {
            for variant in Variant::ALL {
                let program = Program::of(family, variant)?;
                for table in family.tables() {
                    program.list(table)?;
                }
            }
        }
        Ok(())
    }
}
