//! Makes a host and waits to be killed: a test looks at what is left then.

use std::thread;
use std::time::Duration;

use kvmnet_tests::{Host, wait_until};

fn main() {
    let host = Host::builder().without_kvmnet().build();
    let sleeper = host.spawn(host.command("setsid").args(["sleep", "600"]));
    assert!(wait_until(Duration::from_secs(10), || sleeper.outer_pid().is_some()));
    println!("pids {} {}", host.keeper(), sleeper.outer_pid().expect("it sleeps"));
    thread::sleep(Duration::from_secs(600));
}
