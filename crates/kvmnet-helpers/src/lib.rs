//! How a helper starts.
//!
//! Not by std's own `main`: what that does first (a handler for stack overflows, which reads
//! `/proc/self/maps`; SIGPIPE; names) is a fifth of a helper's system calls, and nothing of it is needed in a
//! process that lives for a millisecond.

use std::process::ExitCode;

pub use kvmnet_core::helper::Verb;

/// The program for a [`Verb`], as the C library calls it. `#![no_main]` goes with it.
#[macro_export]
macro_rules! program {
    ($verb:ident) => {
        /// As the C library calls it; std has found the arguments by itself (`.init_array`).
        // SAFETY: it is the only `main` of the program, and of the type that the C library calls.
        #[unsafe(no_mangle)]
        extern "C" fn main() -> std::ffi::c_int {
            $crate::start($crate::Verb::$verb)
        }
    };
}

/// Runs a helper from what it inherits to its exit status.
#[must_use]
pub fn start(verb: Verb) -> std::ffi::c_int {
    kvmnet_core::process::fill_standard_streams();
    let code = kvmnet_core::helper::main(verb);
    std::ffi::c_int::from(code != ExitCode::SUCCESS)
}
