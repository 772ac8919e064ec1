//! What a guest is to be.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// A guest: its addresses, and QEMU's arguments for its network.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    pub(crate) name: String,
    pub(crate) args: Vec<OsString>,
    pub(crate) parameters: Vec<String>,
    pub(crate) programs: Vec<PathBuf>,
    pub(crate) limit: Duration,
    /// What is run before systemd starts, in a guest that has it.
    pub(crate) systemd: Option<String>,
    cards: usize,
}

impl GuestSpec {
    /// A guest without a network.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            args: Vec::new(),
            parameters: Vec::new(),
            programs: Vec::new(),
            // A boot takes three seconds alone, several times that among others.
            limit: Duration::from_secs(90),
            systemd: None,
            cards: 0,
        }
    }

    /// A guest that is a host: a distribution's kernel with its modules, systemd, udev, the
    /// firewalls as services that are not enabled, and kvmnet as it is installed. Without a network.
    #[must_use]
    pub fn with_systemd(name: &str) -> Self {
        // A boot takes a quarter of a minute alone, and four times that on a machine that is busy.
        Self { systemd: Some(String::new()), ..Self::new(name).limit(Duration::from_secs(300)) }
    }

    /// Runs a shell script before systemd starts, as if it had been run before the last reboot.
    #[must_use]
    pub fn before_boot(mut self, script: &str) -> Self {
        let scripts = self.systemd.as_mut().expect("the guest is one with systemd");
        *scripts += &format!("{script}\n");
        self
    }

    /// Adds arguments of QEMU as they are.
    #[must_use]
    pub fn args<S: Into<OsString>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds arguments of QEMU from one line, split at blanks.
    #[must_use]
    pub fn line(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// Adds a virtio card on a tap with the two scripts, as a user of kvmnet writes it. An empty
    /// path leaves that script to QEMU's default. The first netdev is `n0`, its device `d0`.
    #[must_use]
    pub fn tap(mut self, tap: &str, script: &str, downscript: &str) -> Self {
        let card = self.cards;
        self.cards += 1;
        let id = format!("n{card}");
        let mut netdev = format!("tap,id={id},ifname={tap}");
        for (option, value) in [("script", script), ("downscript", downscript)] {
            if !value.is_empty() {
                netdev += &format!(",{option}={value}");
            }
        }
        let device = format!("virtio-net-pci,id=d{card},netdev={id},mac={}", mac(tap));
        self.args(["-netdev", &netdev, "-device", &device])
    }

    /// Adds a virtio card on the NAT network.
    #[must_use]
    pub fn nat(self, tap: &str) -> Self {
        self.tap(tap, "/usr/libexec/kvmnet-natup", "/usr/libexec/kvmnet-natdown")
    }

    /// Adds a virtio card on the bridge.
    #[must_use]
    pub fn bridged(self, tap: &str) -> Self {
        self.tap(tap, "/usr/libexec/kvmnet-ifup", "/usr/libexec/kvmnet-ifdown")
    }

    /// The address of the guest's first card, with its prefix length.
    #[must_use]
    pub fn ip(self, address: &str) -> Self {
        self.parameter("ip0", address)
    }

    /// The guest's default gateway, by its first card.
    #[must_use]
    pub fn gateway(self, address: &str) -> Self {
        self.parameter("gw0", address)
    }

    /// A setting of the guest's init: `ip1`, `gw1` and so on.
    #[must_use]
    pub fn parameter(mut self, name: &str, value: &str) -> Self {
        self.parameters.push(format!("kvmnet.{name}={value}"));
        self
    }

    /// Puts a static program into the guest's `/bin`.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.programs.push(path.into());
        self
    }

    /// QEMU starts and runs its scripts, but the guest doesn't boot.
    #[must_use]
    pub fn paused(self) -> Self {
        self.line("-S")
    }

    /// How long its boot may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

/// A MAC address made from the tap's name: QEMU gives the same one to each guest.
fn mac(tap: &str) -> String {
    let hash = tap
        .bytes()
        .fold(0xcbf2_9ce4_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, _] = hash.to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}
