//! A private host: its own network, processes, `/dev`, `/etc` and `/run`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::netns::Netns;
use crate::process::{Output, PATIENCE, Process, wait_until};
use crate::stage;
use crate::syslog::Syslog;

/// What programs inside find as their PATH; not the test's own, which may hold anything.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The old scripts, at the paths that the command lines of their time name.
const LEGACY: [(&str, &str); 3] = [
    ("etc/qemu-ifup", include_str!("../legacy/qemu-ifup")),
    ("etc/qemu-natup", include_str!("../legacy/qemu-natup")),
    ("etc/qemu-natdown", include_str!("../legacy/qemu-natdown")),
];

/// A host of the test's own. With its drop, or the test's death, all its processes are killed
/// and its namespaces go.
#[derive(Debug)]
pub struct Host {
    /// The pid, as the test sees it, of the process that keeps the namespaces.
    keeper: i32,
    // Dropped by hand: the keeper reads from it, and ends when it is closed.
    pipe: Option<ChildStdin>,
    unshare: Child,
    syslog: Option<Syslog>,
    cgroup: Option<Cgroup>,
}

/// How a host is to be.
#[derive(Debug, Clone)]
pub struct Builder {
    uplink: bool,
    kvmnet: bool,
    /// The tree of packages.
    packages: Option<&'static str>,
    root: bool,
}

impl Builder {
    /// Without `eno1` and the machine outside.
    #[must_use]
    pub fn without_uplink(mut self) -> Self {
        self.uplink = false;
        self
    }

    /// Without kvmnet installed.
    #[must_use]
    pub fn without_kvmnet(mut self) -> Self {
        self.kvmnet = false;
        self
    }

    /// With the real firewalls installed: dockerd, ufw and firewalld. None of them runs.
    #[must_use]
    pub fn with_firewalls(mut self) -> Self {
        self.packages = Some("firewalls");
        self
    }

    /// With what else manages a host's network or its guests: ifupdown, netplan and libvirt. None
    /// of them runs.
    #[must_use]
    pub fn with_managers(mut self) -> Self {
        self.packages = Some("managers");
        self
    }

    /// With what others have for the same purpose installed: the plugins of CNI, netavark and libvirt's
    /// networks. None of them runs.
    #[must_use]
    pub fn with_peers(mut self) -> Self {
        self.packages = Some("peers");
        self
    }

    /// In a root file system of the distribution's, as one that was just installed: without kvmnet,
    /// and without QEMU. The packages that were built and the guest's image are seen in it.
    #[must_use]
    pub fn on_fresh_root(mut self) -> Self {
        self.root = true;
        self.without_kvmnet()
    }

    /// Makes the host.
    #[must_use]
    pub fn build(self) -> Host {
        stage::require_root();
        let root = self.root.then(stage::fresh_root).unwrap_or_default();
        let seen = self.root.then(|| [stage::packages(), stage::guest_images()]);
        let stage = self.kvmnet.then(stage::staged_tree).unwrap_or_default();
        let packages = self.packages.map(stage::packages_tree).unwrap_or_default();
        let mut unshare = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child"])
            .args(["--propagation", "private", "--", "sh", "-c"])
            .arg(include_str!("host-init.sh"))
            .arg("host-init")
            .arg(stage)
            .arg(if self.uplink { "uplink" } else { "bare" })
            .arg(packages)
            .arg(root)
            .args(seen.into_iter().flatten())
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("unshare is installed");
        let mut answer = String::new();
        let stdout = unshare.stdout.take().expect("it was piped");
        BufReader::new(stdout).read_line(&mut answer).expect("a pipe can be read");
        let keeper = answer.strip_prefix("ready ").and_then(|pid| pid.trim().parse().ok());
        let Some(keeper) = keeper else {
            let mut stderr = String::new();
            let _ = unshare.stderr.take().expect("it was piped").read_to_string(&mut stderr);
            let _ = unshare.wait();
            panic!("no host could be made: {stderr}");
        };
        let cgroup = self.packages.map(|_| Cgroup::of(keeper));
        let pipe = unshare.stdin.take();
        let mut host = Host { keeper, pipe, unshare, syslog: None, cgroup };
        host.syslog = Some(Syslog::listen(&host.path("/dev/log")));
        host
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host with kvmnet installed and an uplink: `eno1`, 10.0.0.11/24, default route by
    /// 10.0.0.1, which is `lan0` of the machine outside, which is 203.0.113.1, too.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A host with kvmnet installed and nothing but `lo`.
    #[must_use]
    pub fn bare() -> Self {
        Self::builder().without_uplink().build()
    }

    /// A host that is to be different.
    #[must_use]
    pub fn builder() -> Builder {
        Builder { uplink: true, kvmnet: true, packages: None, root: false }
    }

    /// The pid, as the test sees it, of the process that keeps the namespaces alive.
    #[must_use]
    pub fn keeper(&self) -> i32 {
        self.keeper
    }

    /// The cgroup for what runs in containers, as a path below the host's `/sys/fs/cgroup`.
    #[must_use]
    pub(crate) fn cgroup(&self) -> &str {
        let cgroup = self.cgroup.as_ref().expect("made by Builder::with_firewalls");
        cgroup.name()
    }

    /// A path of the host as a path that the test can open. Not for `/proc/sys/net` and `/sys`:
    /// these show the network of whoever opens them.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        let relative = path.strip_prefix("/").unwrap_or(path);
        Path::new(&format!("/proc/{}/root", self.keeper)).join(relative)
    }

    /// Writes a file of the host, with the directories above it. Only `/etc`, `/run`, `/tmp` and
    /// `/dev` take any: the rest is the machine's, and read-only.
    pub fn write(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file is in a directory"))
            .and_then(|()| fs::write(&path, contents))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Writes a program of the host.
    pub fn write_program(&self, path: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
        self.write(&path, contents);
        fs::set_permissions(self.path(&path), fs::Permissions::from_mode(0o755))
            .expect("root may set the mode of what it wrote");
    }

    /// Has plain `iptables` and its fellows be of that variant, `nft` or `legacy`.
    #[track_caller]
    pub fn use_iptables(&self, variant: &str) {
        self.ok(&format!(
            "for program in iptables ip6tables; do for ending in '' -save -restore; do
                 ln -sf /usr/sbin/$program-{variant}$ending /etc/alternatives/$program$ending
             done; done"
        ));
    }

    /// Has plain `iptables` be the older variant, on a host with firewalls.
    pub fn use_iptables_legacy(&self) {
        self.ok("for name in iptables ip6tables; do
                 update-alternatives --set $name /usr/sbin/$name-legacy; done");
    }

    /// Puts the old scripts where they used to be: `/etc/qemu-ifup`, `-natup`, `-natdown`.
    pub fn install_legacy(&self) {
        for (path, script) in LEGACY {
            self.write_program(path, script);
        }
    }

    /// A command that runs inside, to be completed by the caller.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.command_in(None, program)
    }

    fn command_in(&self, netns: Option<&Netns>, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.to_string(), "--mount", "--pid", "--ipc"]);
        match netns {
            None => command.arg("--net"),
            Some(netns) => command.arg(format!("--net={}", netns.path().display())),
        };
        command
            .args(["--", program])
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// Starts a command from [`Host::command`] and goes on.
    pub fn spawn(&self, command: &mut Command) -> Process {
        Process::start(command)
    }

    /// Runs a program with arguments.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Output {
        let (program, arguments) = arguments.split_first().expect("a program is named");
        Process::start(self.command(program).args(arguments)).output(PATIENCE)
    }

    /// Runs a shell script.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        self.run(&["sh", "-c", script])
    }

    /// Runs a shell script that must succeed and returns what it printed.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        self.sh(script).expect(script)
    }

    /// Runs a helper as QEMU would: `host.helper("natup", &["vnet0"])`.
    #[track_caller]
    pub fn helper(&self, name: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(&format!("/usr/libexec/kvmnet-{name}"));
        Process::start(command.args(arguments)).output(PATIENCE)
    }

    /// The network of the host itself.
    #[must_use]
    pub fn net(&self) -> Netns {
        Netns::new(format!("/proc/{}/ns/net", self.keeper).into())
    }

    /// The network of a machine made by `ip netns add NAME` in the host.
    #[must_use]
    pub fn machine(&self, name: &str) -> Netns {
        Netns::new(self.path(format!("/run/netns/{name}")))
    }

    /// Makes another network of the host's, such as containers are on, and returns the one machine
    /// there, 172.17.0.2.
    #[track_caller]
    #[must_use]
    pub fn container_network(&self) -> Netns {
        self.ok("ip netns add box && ip link add docker0 type bridge &&
             ip link add veth0 master docker0 type veth peer name eth0 netns box &&
             ip addr add 172.17.0.1/16 dev docker0 &&
             ip link set docker0 addrgenmode none up &&
             ip link set veth0 addrgenmode none up && ip -n box addr add 172.17.0.2/16 dev eth0 &&
             ip -n box link set eth0 up && ip -n box route add default via 172.17.0.1");
        self.machine("box")
    }

    /// The network of the machine at the other end of the uplink.
    #[must_use]
    pub fn outside(&self) -> Netns {
        self.machine("outside")
    }

    /// Runs a shell script on the machine outside.
    #[track_caller]
    pub fn outside_sh(&self, script: &str) -> Output {
        self.sh_in(&self.outside(), script)
    }

    /// Runs a shell script on the machine outside, which must succeed.
    #[track_caller]
    pub fn outside_ok(&self, script: &str) -> String {
        self.outside_sh(script).expect(script)
    }

    /// Runs a shell script in a network of this host; `/sys` stays the host's.
    #[track_caller]
    pub fn sh_in(&self, netns: &Netns, script: &str) -> Output {
        let mut command = self.command_in(Some(netns), "sh");
        Process::start(command.args(["-c", script])).output(PATIENCE)
    }

    /// Starts to wait for one packet that matches, at an interface of the machine outside; returns
    /// when nothing can be missed any more. Its output is the packet as tcpdump shows it.
    #[track_caller]
    #[must_use]
    pub fn outside_tcpdump(&self, interface: &str, filter: &str) -> Process {
        let mut command = self.command_in(Some(&self.outside()), "tcpdump");
        // As root, since a guest's root file system may lack the user that Debian's changes to.
        let options = ["-n", "-c1", "-Z", "root", "-i", interface, filter];
        let capture = Process::start(command.args(options));
        let listens = || capture.written().1.contains("listening on");
        assert!(wait_until(PATIENCE, listens), "tcpdump: {}", capture.written().1);
        capture
    }

    /// What the host's programs have sent to syslog so far, oldest first.
    #[must_use]
    pub fn syslog(&self) -> Vec<String> {
        self.syslog.as_ref().map(Syslog::messages).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Not by the pipe alone: a child that is being forked right now may hold a copy of it.
        // While unshare runs, the keeper's pid can't be anybody else's.
        if matches!(self.unshare.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.keeper), Signal::SIGKILL);
        }
        // The keeper is the init of its pid namespace: its end is seen when all others are gone.
        let _ = self.unshare.wait();
        // Only now that nothing of the host is left in it.
        drop(self.cgroup.take());
    }
}
