//! What is measured: kvmnet, the floor, the scripts that kvmnet replaces, and QEMU's own helper.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::DIRECTORY;
use crate::others::{Cni, Libvirt, Netavark};
use crate::results::Verb;

/// One that is measured.
pub trait Program {
    /// As it stands in the tables.
    fn name(&self) -> &'static str;

    /// What has to be known to compare it.
    fn note(&self) -> &'static str {
        ""
    }

    fn verbs(&self) -> &'static [Verb];

    /// Whether it is run less often, since it only waits.
    fn is_slow(&self) -> bool {
        false
    }

    /// Whether it is one of the two that lie close together: these have a turn after each of the others.
    fn is_close(&self) -> bool {
        false
    }

    /// Gets ready what it needs, in a world of its own. An error says what is missing.
    fn set_up(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// What is run for a verb, as QEMU or whoever calls it does.
    fn command(&mut self, verb: Verb) -> io::Result<Command>;

    /// Whether it wants a tap that its caller holds open.
    fn wants_tap(&self) -> bool {
        true
    }

    /// Removes what a round leaves behind.
    fn clean(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All of them, in the order of the tables.
pub fn all() -> Vec<Box<dyn Program>> {
    vec![
        Box::new(Floor),
        Box::new(Kvmnet { iptables: false }),
        Box::new(Kvmnet { iptables: true }),
        Box::new(Scripts { sleeps: false }),
        Box::new(Scripts { sleeps: true }),
        Box::new(BridgeHelper { wire: None }),
        Box::new(Cni),
        Box::new(Netavark),
        Box::new(Libvirt { daemon: None }),
    ]
}

/// The name of the tap of a verb's guest.
pub fn tap(verb: Verb) -> String {
    tap_of(verb.guest())
}

pub fn tap_of(guest: usize) -> String {
    format!("vnet{guest}")
}

/// A command with nothing on its standard input.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.stdin(Stdio::null());
    command
}

/// The name of a verb as kvmnet's helpers and the scripts have it.
fn word(verb: Verb) -> &'static str {
    match (verb.is_nat(), verb.is_up()) {
        (false, true) => "ifup",
        (false, false) => "ifdown",
        (true, true) => "natup",
        (true, false) => "natdown",
    }
}

pub struct Floor;

impl Floor {
    pub fn run(verb: Verb, tap: &str) -> Command {
        let mut command = command(Path::new(DIRECTORY).join("floor"));
        command.args([word(verb), tap]);
        command
    }
}

impl Program for Floor {
    fn name(&self) -> &'static str {
        "the floor"
    }

    fn note(&self) -> &'static str {
        "the kernel's own work: tests/floor"
    }

    fn is_close(&self) -> bool {
        true
    }

    fn verbs(&self) -> &'static [Verb] {
        &Verb::ALL
    }

    fn command(&mut self, verb: Verb) -> io::Result<Command> {
        Ok(Self::run(verb, &tap(verb)))
    }
}

pub struct Kvmnet {
    pub iptables: bool,
}

impl Kvmnet {
    pub fn run(verb: Verb, tap: &str) -> Command {
        let mut command = command(format!("{DIRECTORY}/libexec/kvmnet-{}", word(verb)));
        command.arg(tap);
        command
    }
}

impl Program for Kvmnet {
    fn name(&self) -> &'static str {
        if self.iptables { "kvmnet, iptables" } else { "kvmnet, nftables" }
    }

    fn note(&self) -> &'static str {
        if self.iptables { "firewall = \"iptables\"" } else { "as installed" }
    }

    fn is_close(&self) -> bool {
        !self.iptables
    }

    fn verbs(&self) -> &'static [Verb] {
        if self.iptables { &Verb::NAT } else { &Verb::ALL }
    }

    fn set_up(&mut self) -> io::Result<()> {
        if self.iptables {
            let network = "bridge = \"br0\"\naddress = \"192.168.100.1/24\"\n";
            let text = format!("{network}firewall = \"iptables\"\n");
            fs::write("/etc/kvmnet/default.toml", text)?;
        }
        Ok(())
    }

    fn command(&mut self, verb: Verb) -> io::Result<Command> {
        Ok(Self::run(verb, &tap(verb)))
    }
}

/// The old scripts, from tests/legacy.
pub struct Scripts {
    pub sleeps: bool,
}

impl Scripts {
    /// Where a script is, as they write it.
    pub fn path(verb: Verb, sleeps: bool) -> PathBuf {
        let directory = if sleeps { "legacy" } else { "legacy-without-sleep" };
        Path::new(DIRECTORY).join(directory).join(format!("qemu-{}", word(verb)))
    }

    pub fn install(sleeps: bool) -> io::Result<()> {
        for (verb, script) in [
            (Verb::Ifup, include_str!("../../legacy/qemu-ifup")),
            (Verb::First, include_str!("../../legacy/qemu-natup")),
            (Verb::Last, include_str!("../../legacy/qemu-natdown")),
        ] {
            let path = Self::path(verb, sleeps);
            let script = if sleeps { script.to_owned() } else { script.replace("sleep 1\n", "") };
            fs::create_dir_all(path.parent().expect("it is in a directory"))?;
            fs::write(&path, script)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}

impl Program for Scripts {
    fn name(&self) -> &'static str {
        if self.sleeps { "the old scripts" } else { "the old scripts, no sleep" }
    }

    fn note(&self) -> &'static str {
        if self.sleeps {
            "tests/legacy as it is; only qemu-ifup sleeps"
        } else {
            "without the `sleep 1` of qemu-ifup"
        }
    }

    fn verbs(&self) -> &'static [Verb] {
        if self.sleeps {
            &[Verb::Ifup]
        } else {
            &[Verb::Ifup, Verb::First, Verb::Next, Verb::NotLast, Verb::Last]
        }
    }

    fn is_slow(&self) -> bool {
        self.sleeps
    }

    fn set_up(&mut self) -> io::Result<()> {
        Self::install(self.sleeps)
    }

    fn command(&mut self, verb: Verb) -> io::Result<Command> {
        let mut command = command(Self::path(verb, self.sleeps));
        command.arg(tap(verb));
        Ok(command)
    }
}

/// `qemu-bridge-helper`: QEMU's own for bridged guests of users without privileges.
struct BridgeHelper {
    /// What the tap comes by, and what keeps it.
    wire: Option<[UnixStream; 2]>,
}

const BRIDGE_HELPERS: [&str; 2] =
    ["/usr/lib/qemu/qemu-bridge-helper", "/usr/libexec/qemu-bridge-helper"];

impl BridgeHelper {
    fn path() -> io::Result<&'static str> {
        let missing =
            || io::Error::other("qemu-bridge-helper isn't installed (qemu-system-common)");
        BRIDGE_HELPERS.into_iter().find(|path| Path::new(path).exists()).ok_or_else(missing)
    }
}

impl Program for BridgeHelper {
    fn name(&self) -> &'static str {
        "qemu-bridge-helper"
    }

    fn note(&self) -> &'static str {
        "makes the tap, too, which QEMU does for the others"
    }

    fn verbs(&self) -> &'static [Verb] {
        &[Verb::Ifup]
    }

    fn set_up(&mut self) -> io::Result<()> {
        Self::path()?;
        fs::create_dir_all("/etc/qemu")?;
        fs::write("/etc/qemu/bridge.conf", "allow br0\n")
    }

    fn command(&mut self, _: Verb) -> io::Result<Command> {
        let wire = UnixStream::pair()?;
        let inherited = wire.1.as_raw_fd();
        fcntl(&wire.1, FcntlArg::F_SETFD(FdFlag::empty()))?;
        self.wire = Some([wire.0, wire.1]);
        let mut command = command(Self::path()?);
        command.args(["--use-vnet", "--br=br0", &format!("--fd={inherited}")]);
        Ok(command)
    }

    fn wants_tap(&self) -> bool {
        false
    }

    /// With the socket the tap in it is closed, and so gone.
    fn clean(&mut self) -> io::Result<()> {
        self.wire = None;
        Ok(())
    }
}
