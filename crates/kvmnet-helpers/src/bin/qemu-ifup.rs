//! Makes a tap a port of the administrator's bridge; installed as `kvmnet-ifup`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    kvmnet_core::helper::main(kvmnet_core::helper::Verb::Ifup)
}
