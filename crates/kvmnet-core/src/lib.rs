//! kvmnet
