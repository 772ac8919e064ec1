//! The real NetworkManager.

use crate::host::Host;
use crate::process::{PATIENCE, Process, wait_until};

/// Without polkit to ask, and with the keyfiles alone. Where `/sys` is read-only, it takes itself to be in
/// a container, and doesn't wait for udev.
const SET_UP: &str = "
    mkdir -p /run/dbus /run/NetworkManager /var/lib/NetworkManager
    printf '[main]\\nauth-polkit=root-only\\nplugins=keyfile\\n' >/etc/NetworkManager/NetworkManager.conf
    grep -q ^messagebus: /etc/passwd || echo messagebus:x:100:100::/:/usr/sbin/nologin >>/etc/passwd
    mount -o remount,bind,ro /sys";

/// NetworkManager and its bus; dropped, they are killed.
#[derive(Debug)]
pub struct NetworkManager {
    _bus: Process,
    _daemon: Process,
}

impl Host {
    /// Starts NetworkManager, and waits until it knows of the uplink. The host is one with managers.
    #[track_caller]
    #[must_use]
    pub fn network_manager(&self) -> NetworkManager {
        self.ok(SET_UP);
        let bus = ["--system", "--nofork", "--nopidfile", "--nosyslog"];
        let bus = self.spawn(self.command("dbus-daemon").args(bus));
        let listens = || self.path("/run/dbus/system_bus_socket").exists();
        assert!(wait_until(PATIENCE, listens), "dbus-daemon: {:?}", bus.written());
        let daemon = self.spawn(self.command("NetworkManager").arg("--no-daemon"));
        let knows = || self.sh("nmcli device | grep '^eno1 .* connected'").success();
        assert!(wait_until(PATIENCE, knows), "NetworkManager: {:?}", daemon.written());
        NetworkManager { _bus: bus, _daemon: daemon }
    }
}
