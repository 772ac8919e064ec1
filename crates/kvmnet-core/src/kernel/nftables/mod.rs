//! nf_tables over netlink (`linux/netfilter/nf_tables.h`), without the `nft` program.

mod expression;
mod lower;
mod message;
mod read;
mod write;

pub(super) use read::{reserved_tables, table_state};
pub(super) use write::{delete_table, install_table};
