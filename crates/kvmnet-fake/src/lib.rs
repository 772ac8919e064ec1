//! For tests alone: a kernel made of plain data behind kvmnet's seam, and an explorer that runs
//! kvmnet's real operations on it in every order, with crashes, errors and events in between.

#![forbid(unsafe_code)]

mod actor;
mod bug;
mod explorer;
mod host;
mod kernel;
mod view;

pub use actor::{Actor, Verb};
pub use bug::Bug;
pub use explorer::{Bounds, Event, Explorer, Happenings, Moment, Outcome, Statistics};
pub use host::{FakeHost, TableContent};
pub use kernel::{FakeKernel, run};
