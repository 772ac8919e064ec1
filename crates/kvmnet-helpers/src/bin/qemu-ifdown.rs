//! Releases a tap from its bridge; installed as `kvmnet-ifdown`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    kvmnet_core::helper::main(kvmnet_core::helper::Verb::Ifdown)
}
