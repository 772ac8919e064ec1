//! kvmnet on the real kernel: private hosts made of namespaces, taps, and real guests under QEMU.
//!
//! A test makes a [`Host`], which has its own network, processes and file systems, and does to
//! it what an administrator, QEMU or bad luck would do. Nothing reaches the machine the test runs
//! on, and everything is gone when the test is, however it ended.

mod campaign;
mod cgroup;
mod command;
mod docker;
mod expect;
mod firewalld;
mod flatten;
mod foreign;
mod guest;
mod host;
mod kernel_machine;
mod lab;
mod libvirt;
mod netns;
mod network_manager;
mod normalise;
mod packet;
mod process;
mod query;
mod serial;
mod servers;
mod spec;
mod stage;
mod syslog;
mod talk;
mod tap;
mod tap_machine;
mod ufw;

pub use campaign::{Tally, amount, is_torture};
pub use command::calls_in;
pub use docker::{Container, Docker};
pub use firewalld::Firewalld;
pub use foreign::{Foreign, assert_same};
pub use guest::{Guest, boot_all};
pub use host::{Builder, Host};
pub use lab::{Lab, ways};
pub use libvirt::Libvirt;
pub use netns::Netns;
pub use network_manager::NetworkManager;
pub use packet::PacketSocket;
pub use process::{Output, Process, wait_until};
pub use servers::{Conversation, TcpServer, UdpServer};
pub use spec::GuestSpec;
pub use stage::{HELPERS, fresh_root, packages, require_root};
pub use talk::seen;
pub use tap::Tap;
pub use tap_machine::TapMachine;
pub use ufw::Ufw;
