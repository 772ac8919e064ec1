//! A program that isn't QEMU and holds taps open, each with one queue, until it is killed.
//!
//! ```text
//! hold TAP...
//! ```

use std::thread;

use kvmnet_tests::Tap;

fn main() {
    let taps: Vec<Tap> = std::env::args().skip(1).map(|name| Tap::here(&name)).collect();
    println!("held: {}", taps.len());
    loop {
        thread::park();
    }
}
