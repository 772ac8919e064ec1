//! Makes a host and waits to be killed: a test looks at what is left then. With the argument
//! `docker` it is a host with a container.

use std::thread;
use std::time::Duration;

use kvmnet_tests::{Host, wait_until};

fn main() {
    if std::env::args().nth(1).as_deref() == Some("docker") {
        docker();
    }
    let host = Host::builder().without_kvmnet().build();
    let sleeper = host.spawn(host.command("setsid").args(["sleep", "600"]));
    assert!(wait_until(Duration::from_secs(10), || sleeper.outer_pid().is_some()));
    println!("pids {} {}", host.keeper(), sleeper.outer_pid().expect("it sleeps"));
    thread::sleep(Duration::from_secs(600));
}

fn docker() {
    let host = Host::builder().without_kvmnet().with_firewalls().build();
    let docker = host.docker();
    let _ = docker.run("sleeper", &[]);
    println!("keeper {}", host.keeper());
    thread::sleep(Duration::from_secs(600));
}
