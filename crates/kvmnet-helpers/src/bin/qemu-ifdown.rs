//! Releases a tap from its bridge; installed as `kvmnet-ifdown`.

#![no_main]

kvmnet_helpers::program!(Ifdown);
