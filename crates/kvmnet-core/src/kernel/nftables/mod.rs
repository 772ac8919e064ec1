//! nf_tables over netlink (`linux/netfilter/nf_tables.h`), without the `nft` program.

mod expression;
mod filter;
mod iptables_form;
mod lower;
mod message;
mod read;
mod write;

pub(super) use filter::{change_accepts, dropping_chains, filter_view};
pub(super) use read::{FoundTable, chain_names, table_state, tables};
pub(super) use write::{delete_table, install_table};
