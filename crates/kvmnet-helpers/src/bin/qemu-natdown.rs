//! Releases a tap, and takes its network down with the last one; installed as `kvmnet-natdown`.

#![no_main]

kvmnet_helpers::program!(Natdown);
