//! Looking at nf_tables and x_tables: our own tables, and the filters of others.

use log::{debug, warn};
use neli::consts::socket::NlFamily;
use nix::errno::Errno;

use super::nftables::FoundTable;
use super::socket::Socket;
use super::{KernelError, System, legacy_table, legacy_tables, nftables};
use crate::model::{FILTER, FilterView, ManagedNetwork, Table, TableId, TableState};

/// Those whose forward filters iptables works on.
const FAMILIES: [u8; 2] = [libc::NFPROTO_IPV4 as u8, libc::NFPROTO_IPV6 as u8];
/// Tables of iptables-legacy, by their family.
type LegacyTables<'a> = [&'a [&'a str]; FAMILIES.len()];
/// Those that hold rules of kvmnet's, and those of them that forward.
pub(super) const LEGACY_TABLES: LegacyTables<'_> = [&[FILTER, "nat"], &[FILTER]];
pub(super) const LEGACY_FILTERS: LegacyTables<'_> = [&[FILTER]; 2];

/// What is there of a network's rules.
pub(super) struct RulesView {
    /// How its table compares with the wanted one.
    pub table: TableState,
    /// Tables that it should not have.
    pub other_tables: Vec<TableId>,
    /// The filters of others that leave room for rules of ours.
    pub filters: Vec<FilterView>,
}

impl RulesView {
    /// Of a network whose rules don't matter.
    pub fn none() -> Self {
        Self { table: TableState::AsWanted, other_tables: Vec::new(), filters: Vec::new() }
    }
}

impl System {
    pub(super) fn netfilter(&mut self) -> Result<&mut Socket, KernelError> {
        match &mut self.netfilter {
            Some(socket) => Ok(socket),
            empty => {
                let socket = Socket::open(NlFamily::Netfilter).map_err(|error| {
                    match error.raw_os_error().map(Errno::from_raw) {
                        Some(Errno::EPROTONOSUPPORT) => KernelError::NoNftables,
                        _ => KernelError::system("open a netfilter socket", error),
                    }
                })?;
                Ok(empty.insert(socket))
            }
        }
    }

    /// Whether the kernel has nf_tables.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    pub fn has_nftables(&mut self) -> Result<bool, KernelError> {
        match self.existing_tables() {
            Err(KernelError::NoNftables) => Ok(false),
            tables => tables.map(|_| true),
        }
    }

    /// The nftables chains of this family, each with its table's name before its own; none where the
    /// kernel has no nf_tables.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    pub fn chain_names(&mut self, family: u8) -> Result<Vec<(String, String)>, KernelError> {
        if !self.has_nftables()? {
            return Ok(Vec::new());
        }
        nftables::chain_names(self.netfilter()?, family)
    }

    /// Every nftables table; a host without nf_tables has none.
    pub(super) fn tables(&mut self) -> Result<Vec<FoundTable>, KernelError> {
        match self.existing_tables() {
            Err(KernelError::NoNftables) => Ok(Vec::new()),
            tables => tables,
        }
    }

    fn existing_tables(&mut self) -> Result<Vec<FoundTable>, KernelError> {
        self.netfilter().and_then(|socket| nftables::tables(socket).map_err(without_nftables))
    }

    /// What is there of the network's rules. Where none are wanted, a host without nf_tables does
    /// as well as any.
    pub(super) fn rules_view(
        &mut self,
        network: &ManagedNetwork,
        wanted: Option<&Table>,
    ) -> Result<RulesView, KernelError> {
        let tables = match wanted {
            Some(_) => self.existing_tables()?,
            None => self.tables()?,
        };
        let others: Vec<TableId> = TableId::all_of_network(&network.name)
            .into_iter()
            .filter(|id| wanted.is_none_or(|wanted| wanted.id != *id))
            .filter(|id| tables.iter().any(|table| table.id == *id))
            .collect();
        let table = match wanted {
            Some(wanted) => nftables::table_state(self.netfilter()?, wanted, &tables)?,
            None => TableState::AsWanted,
        };
        let filters = self.filters_of(&tables, LEGACY_FILTERS)?;
        Ok(RulesView { table, other_tables: others, filters })
    }

    /// The forward filters that iptables works on.
    pub(super) fn filters(&mut self) -> Result<Vec<FilterView>, KernelError> {
        let tables = self.tables()?;
        self.filters_of(&tables, LEGACY_FILTERS)
    }

    /// Those of them whose tables are among these of nf_tables, or by these names in iptables-legacy.
    pub(super) fn filters_of(
        &mut self,
        tables: &[FoundTable],
        legacy: LegacyTables<'_>,
    ) -> Result<Vec<FilterView>, KernelError> {
        self.met_firewalld |= tables.iter().any(|table| table.id.is_firewalld());
        let mut filters = Vec::new();
        for family in FAMILIES {
            let is_filter =
                |table: &FoundTable| table.id.family == family && table.id.name == FILTER;
            if !tables.iter().any(is_filter) {
                continue;
            }
            // One that is never still, or that can't be understood, stops nobody's guest.
            match nftables::filter_view(self.netfilter()?, family) {
                Ok(filter) => filters.extend(filter),
                Err(error) => warn!("{error}"),
            }
        }
        filters.extend(self.look_at_legacy(legacy)?);
        Ok(filters)
    }

    /// Of iptables-legacy's tables by these names those in use: the forward filters among them. Where one
    /// can't be read, or has chains of kvmnet's, this is not the program to deal with it. Nor is any
    /// looked at where another has done so.
    fn look_at_legacy(&mut self, tables: LegacyTables<'_>) -> Result<Vec<FilterView>, KernelError> {
        let mut filters = Vec::new();
        if self.leaves_others {
            return Ok(filters);
        }
        for (family, tables) in FAMILIES.into_iter().zip(tables) {
            let in_use = legacy_tables(family)?;
            for table in in_use.iter().filter(|table| tables.contains(&&***table)) {
                match legacy_table(family, table) {
                    Ok(found) => {
                        self.met_legacy |= found.has_own_chains;
                        filters.extend(found.filter);
                    }
                    Err(error) => {
                        debug!("{error}");
                        self.met_legacy = true;
                    }
                }
            }
        }
        Ok(filters)
    }
}

/// What the kernel says to nf_tables messages when it has none.
pub(super) fn without_nftables(error: KernelError) -> KernelError {
    match error.errno() {
        Some(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT) => KernelError::NoNftables,
        _ => error,
    }
}
