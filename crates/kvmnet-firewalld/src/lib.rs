//! firewalld's zones: it rejects what comes from an interface that is in no zone that allows it, and
//! is told over D-Bus alone. Only `kvmnet` links this.

#![forbid(unsafe_code)]

mod bus;
mod kernel;
mod zones;

pub use kernel::Firewalld;
