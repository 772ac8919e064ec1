//! Makes a tap a port of a NAT network; installed as `kvmnet-natup`.

#![no_main]

kvmnet_helpers::program!(Natup);
