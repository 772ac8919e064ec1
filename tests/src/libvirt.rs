//! The real libvirt, with a guest that has no card yet.

use crate::host::Host;
use crate::process::{PATIENCE, Process, wait_until};

/// libvirt's own user, whom its package would have made. What it would do to the mounts and cgroups of the
/// guest isn't there to be done in a host of ours.
const SET_UP: &str = "
    grep -q ^libvirt-qemu: /etc/passwd || {
        echo libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin >>/etc/passwd
        echo libvirt-qemu:x:64055: >>/etc/group
    }
    mkdir -p /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt
    printf 'namespaces = []\\ncgroup_controllers = []\\n' >/etc/libvirt/qemu.conf
    cat >/run/web.xml <<'END'
<domain type='qemu'>
  <name>web</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>
</domain>
END";

/// libvirtd and the one that keeps its guests' logs; dropped, they are killed.
#[derive(Debug)]
pub struct Libvirt {
    _log: Process,
    _daemon: Process,
}

impl Host {
    /// Starts libvirtd, and defines the guest `web`, which is off, where it isn't known yet. The host is one with managers.
    #[track_caller]
    #[must_use]
    pub fn libvirt(&self) -> Libvirt {
        self.ok(SET_UP);
        let start = |name: &str| self.spawn(&mut self.command(&format!("/usr/sbin/{name}")));
        let (log, daemon) = (start("virtlogd"), start("libvirtd"));
        let answers = || self.sh("virsh version").success();
        assert!(wait_until(PATIENCE, answers), "libvirtd: {:?}", daemon.written());
        self.ok("virsh dominfo web || virsh define /run/web.xml");
        Libvirt { _log: log, _daemon: daemon }
    }
}
