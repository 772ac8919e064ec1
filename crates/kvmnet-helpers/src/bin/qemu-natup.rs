//! Makes a tap a port of a NAT network; installed as `kvmnet-natup`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    kvmnet_core::helper::main(kvmnet_core::helper::Verb::Natup)
}
