//! Networks of their own: each program gets one, with the mounts that show it, so that nobody finds what
//! somebody else has left.

use std::fs::{self, File};
use std::io;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::run;

/// For what is only this world's.
pub const PRIVATE: &str = "/run/bench/world";
const PRIVATE_DIRECTORIES: [&str; 3] = [PRIVATE, "/etc/kvmnet", "/run/netns"];

/// A network namespace and a mount namespace. This process is in one of them at a time, and has one
/// thread, as the kernel wants it of who changes its mounts.
#[derive(Debug)]
pub struct World {
    network: File,
    mounts: File,
}

impl World {
    /// The one that this process is in.
    pub fn here() -> io::Result<Self> {
        Ok(Self {
            network: File::open("/proc/self/ns/net")?,
            mounts: File::open("/proc/self/ns/mnt")?,
        })
    }

    /// Makes one with nothing but `lo`, and enters it.
    pub fn new() -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        // sysfs shows the network of whoever has mounted it.
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
        for directory in PRIVATE_DIRECTORIES {
            fs::create_dir_all(directory)?;
            mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
        }
        run::sh("ip link set lo up")?;
        Self::here()
    }

    pub fn enter(&self) -> io::Result<()> {
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        setns(&self.mounts, CloneFlags::CLONE_NEWNS)?;
        Ok(())
    }
}
