//! What a guest is to be.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::stage::test_program;

/// What a guest is made of, and what is run before it is ready.
#[derive(Debug, Clone)]
pub(crate) enum Machine {
    /// A kernel and an initrd with busybox.
    Small,
    /// The root file system with systemd.
    Systemd { before_boot: String },
    /// The same without systemd, on the kernel of that version, with those test programs.
    Kernel { version: &'static str, before_boot: String, tests: Vec<(String, PathBuf)> },
}

/// A guest: its addresses, and QEMU's arguments for its network.
#[derive(Debug, Clone)]
pub struct GuestSpec {
    pub(crate) name: String,
    pub(crate) args: Vec<OsString>,
    pub(crate) parameters: Vec<String>,
    pub(crate) programs: Vec<PathBuf>,
    pub(crate) limit: Duration,
    pub(crate) machine: Machine,
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
            machine: Machine::Small,
            cards: 0,
        }
    }

    /// A guest that is a host: a distribution's kernel with its modules, systemd, udev, the
    /// firewalls as services that are not enabled, and kvmnet as it is installed. Without a network.
    #[must_use]
    pub fn with_systemd(name: &str) -> Self {
        // A boot takes a quarter of a minute alone, and four times that on a machine that is busy.
        let machine = Machine::Systemd { before_boot: String::new() };
        Self { machine, ..Self::new(name).limit(Duration::from_secs(300)) }
    }

    /// A guest that is a host with the kernel of that version, one of `tests/kernels`, which loads its
    /// modules as they are asked for. kvmnet is installed in it; no service runs, and udev neither.
    #[must_use]
    pub fn on_kernel(name: &str, version: &'static str) -> Self {
        let machine = Machine::Kernel { version, before_boot: String::new(), tests: Vec::new() };
        Self { machine, ..Self::new(name).limit(Duration::from_secs(300)) }
    }

    /// Runs a shell script before the guest is ready, in one with systemd before that starts, as if it
    /// had been run before the last reboot.
    #[must_use]
    pub fn before_boot(mut self, script: &str) -> Self {
        let scripts = match &mut self.machine {
            Machine::Small => panic!("the guest has nothing to run it with"),
            Machine::Systemd { before_boot } | Machine::Kernel { before_boot, .. } => before_boot,
        };
        *scripts += &format!("{script}\n");
        self
    }

    /// Brings a program of this crate's tests: `modes` is `/tests/modes` in a guest made by
    /// [`GuestSpec::on_kernel`].
    #[must_use]
    pub fn test_program(mut self, name: &str) -> Self {
        let Machine::Kernel { tests, .. } = &mut self.machine else {
            panic!("the guest is one of those with a kernel of its own")
        };
        tests.push((name.to_owned(), test_program(name)));
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

    /// A parameter of the kernel's own.
    #[must_use]
    pub fn kernel_parameter(mut self, parameter: &str) -> Self {
        self.parameters.push(parameter.to_owned());
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
