//! The core of kvmnet: what QEMU's network helpers do, over netlink.
//!
//! A run goes one way: arguments → [`config`] → the kernel's [`view`](model) → [`plan`] →
//! [`Step`](model::Step)s → netlink. [`ops`] is that sentence; [`plan`] decides and touches
//! nothing; [`kernel`] does what it is told and decides nothing.

#![deny(unsafe_code)]

pub mod config;
mod error;
pub mod helper;
pub mod kernel;
mod lock;
pub mod model;
pub mod ops;
pub mod output;
pub mod plan;
pub mod process;
mod report;

pub use error::{Chain, Error};
pub use lock::{Lock, LockError, Namespace};
pub use report::Report;
