//! Releases a tap, and takes its network down with the last one; installed as `kvmnet-natdown`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    kvmnet_core::helper::main(kvmnet_core::helper::Verb::Natdown)
}
