//! Makes a tap a port of the administrator's bridge; installed as `kvmnet-ifup`.

#![no_main]

kvmnet_helpers::program!(Ifup);
