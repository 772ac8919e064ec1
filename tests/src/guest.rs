//! Real guests: QEMU inside a host, and the agent in the guest that runs what the test asks.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::host::Host;
use crate::kernel_machine::{drives, kernel_machine};
use crate::process::{Output, PATIENCE, Process, exit_code, poll, wait_until};
use crate::serial::{NoAnswer, Serial};
use crate::spec::{GuestSpec, Machine};
use crate::stage::{guest_image, staged_tree, systemd_image};

/// What the agent says when it is there.
const READY: &str = "kvmnet-guest-ready\n";

/// The kernel's parameters. Those after `quiet` save two of four seconds of a boot.
const KERNEL: &str = "console=ttyS0 panic=-1 quiet nokaslr mitigations=off no_timer_check \
                      cryptomgr.notests random.trust_cpu=on";

/// A guest that runs; dropped, it is killed.
#[derive(Debug)]
pub struct Guest<'host> {
    host: &'host Host,
    spec: GuestSpec,
    command_line: Vec<OsString>,
    directory: PathBuf,
    qemu: Process,
    pid: Option<i32>,
    agent: Serial,
    monitor: Serial,
    requests: u32,
}

impl<'host> Guest<'host> {
    /// Starts QEMU and doesn't wait for the guest. QEMU's directory, with its sockets, its
    /// console and its pid file, is in the host's `/dev/shm`.
    #[must_use]
    pub fn spawn(host: &'host Host, spec: GuestSpec) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(format!("/dev/shm/guest-{number}"));
        fs::create_dir(host.path(&directory)).expect("the host's /dev/shm is writable");
        let agent = Serial::listen(&host.path(directory.join("agent")));
        let monitor = Serial::listen(&host.path(directory.join("monitor")));
        let machine = match &spec.machine {
            Machine::Small => machine(&initrd(host, &spec, &directory)),
            Machine::Systemd { before_boot } => systemd_machine(host, before_boot, &directory),
            Machine::Kernel { version, before_boot, tests } => {
                kernel_machine(host, version, before_boot, tests, &directory)
            }
        };
        let command_line = command_line(&spec, &directory.display().to_string(), machine);
        let mut command = host.command("qemu-system-x86_64");
        if !matches!(spec.machine, Machine::Small) {
            // For what it writes to its disk.
            command.env("TMPDIR", &directory);
        }
        let qemu = host.spawn(command.args(&command_line));
        Self { host, spec, command_line, directory, qemu, pid: None, agent, monitor, requests: 0 }
    }

    /// Starts a guest and waits until its agent answers; panics with all there is to read when
    /// that takes too long or QEMU ends.
    #[track_caller]
    #[must_use]
    pub fn boot(host: &'host Host, spec: GuestSpec) -> Self {
        let mut guest = Self::spawn(host, spec);
        guest.wait_ready();
        guest
    }

    /// Waits until the agent of a spawned guest answers.
    #[track_caller]
    pub fn wait_ready(&mut self) {
        let limit = self.spec.limit;
        let ready = poll(limit, || {
            // QEMU may end before it has opened the wire, which nobody would hear on the wire.
            (self.agent.connect() || !self.is_running()).then_some(())
        });
        let answer = match ready {
            Some(()) if self.agent.connect() => self.agent.read_until(READY, limit),
            Some(()) => Err(NoAnswer::Ended),
            None => Err(NoAnswer::Late),
        };
        match answer {
            Ok(_) => {}
            Err(NoAnswer::Late) => panic!("not up after {limit:?}: {}", self.report()),
            Err(NoAnswer::Ended) => panic!("QEMU ended: {}", self.report()),
        }
    }

    /// Starts QEMU and waits until it has run its scripts and takes commands.
    #[track_caller]
    #[must_use]
    pub fn start(host: &'host Host, spec: GuestSpec) -> Self {
        let mut guest = Self::spawn(host, spec);
        guest.monitor("info status");
        assert!(guest.is_running(), "QEMU ended: {}", guest.report());
        guest
    }

    /// Tells QEMU to end, and returns its exit code.
    #[track_caller]
    pub fn quit(&mut self) -> i32 {
        self.monitor("quit");
        self.wait(PATIENCE)
    }

    /// The name the test gave it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// QEMU's arguments.
    #[must_use]
    pub fn command_line(&self) -> &[OsString] {
        &self.command_line
    }

    /// QEMU's pid as the host sees it.
    #[track_caller]
    pub fn pid(&mut self) -> i32 {
        if self.pid.is_none() {
            let file = self.host.path(self.directory.join("pid"));
            self.pid = poll(Duration::from_secs(10), || {
                fs::read_to_string(&file).ok()?.trim().parse().ok()
            });
        }
        self.pid.unwrap_or_else(|| panic!("QEMU wrote no pid: {}", self.report()))
    }

    /// Whether QEMU runs, in the background (`-daemonize`), too.
    pub fn is_running(&mut self) -> bool {
        self.qemu.is_running() || (self.is_daemon() && self.daemon_runs())
    }

    /// Runs a shell script in the guest. Both outputs come in `stdout`.
    #[track_caller]
    pub fn sh(&mut self, script: &str) -> Output {
        self.sh_within(script, PATIENCE)
    }

    /// Runs a shell script in the guest that may take so long.
    #[track_caller]
    pub fn sh_within(&mut self, script: &str, limit: Duration) -> Output {
        self.requests += 1;
        // Not to be found in any output by chance, nor in the answer to an older request.
        let token = format!("{}-{}", std::process::id(), self.requests);
        let escaped = script.replace('\\', "\\\\").replace('\n', "\\n");
        self.agent.send(&format!("{token} {escaped}"));
        let answer = self
            .agent
            .read_until(&format!("\n@{token} "), limit)
            .and_then(|output| Ok((output, self.agent.read_until("\n", PATIENCE)?)));
        let (stdout, code) = answer
            .unwrap_or_else(|why| panic!("no answer ({why:?}) to `{script}`: {}", self.report()));
        Output {
            code: code.parse().expect("the agent sends a number"),
            stdout,
            stderr: String::new(),
        }
    }

    /// Runs a shell script in the guest, which must succeed, and returns what it printed.
    #[track_caller]
    pub fn ok(&mut self, script: &str) -> String {
        let what = format!("{}: {script}", self.spec.name);
        self.sh(script).expect(&what)
    }

    /// Gives QEMU's monitor a command (as a person types it) and returns the answer.
    #[track_caller]
    pub fn monitor(&mut self, command: &str) -> String {
        assert!(wait_until(PATIENCE, || self.monitor.connect()), "no monitor: {}", self.report());
        self.qmp(&json!({"execute": "qmp_capabilities"}));
        let answer = self.qmp(&json!({
            "execute": "human-monitor-command",
            "arguments": {"command-line": command},
        }));
        // `quit` is answered by QEMU's end.
        answer["return"].as_str().unwrap_or_default().to_owned()
    }

    /// One request in QEMU's monitor protocol; null when QEMU has ended.
    #[track_caller]
    fn qmp(&mut self, request: &Value) -> Value {
        self.monitor.send(&request.to_string());
        loop {
            let line = match self.monitor.read_until("\n", PATIENCE) {
                Ok(line) => line,
                Err(NoAnswer::Ended) => return Value::Null,
                Err(NoAnswer::Late) => panic!("{request}: no answer: {}", self.report()),
            };
            let message: Value = serde_json::from_str(&line)
                .unwrap_or_else(|error| panic!("QEMU's monitor said {line:?}: {error}"));
            // The greeting and events come in between. A second `qmp_capabilities` is refused.
            if message.get("return").is_some() || message.get("error").is_some() {
                return message;
            }
        }
    }

    /// Powers the guest off from inside, and returns QEMU's exit code (0 for one in the
    /// background, whose code nobody learns).
    #[track_caller]
    pub fn power_off(&mut self) -> i32 {
        self.agent.send("off poweroff -f");
        self.wait(PATIENCE)
    }

    /// Waits for QEMU's end, and returns its exit code.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> i32 {
        if self.is_daemon() {
            assert!(
                wait_until(limit, || !self.daemon_runs()),
                "QEMU still runs: {}",
                self.report()
            );
            return 0;
        }
        let status = self.qemu.wait(limit);
        exit_code(status.unwrap_or_else(|| panic!("QEMU still runs: {}", self.report())))
    }

    /// Kills QEMU with SIGKILL, as the kernel's out-of-memory killer would, and waits for its end.
    pub fn kill(&mut self) {
        if self.is_daemon() {
            let pid = self.pid();
            self.host.sh(&format!("kill -KILL {pid}"));
            wait_until(PATIENCE, || !self.daemon_runs());
        } else {
            self.qemu.kill();
        }
    }

    /// What QEMU has written to standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.qemu.written().1
    }

    /// All there is to read about this guest.
    #[must_use]
    pub fn report(&self) -> String {
        let console = fs::read(self.host.path(self.directory.join("console"))).unwrap_or_default();
        let (stdout, stderr) = self.qemu.written();
        format!(
            "guest {}\n--- QEMU's arguments\n{:?}\n--- QEMU's output\n{stdout}{stderr}\n\
             --- console\n{}\n--- agent\n{}",
            self.spec.name,
            self.command_line,
            String::from_utf8_lossy(&console),
            self.agent.pending(),
        )
    }

    fn is_daemon(&self) -> bool {
        self.spec.args.iter().any(|argument| argument == "-daemonize")
    }

    fn daemon_runs(&mut self) -> bool {
        // The pid file is there before QEMU's first process ends, and unlinked at the end.
        let pid = self.pid();
        self.host.path(format!("/proc/{pid}")).exists()
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        // The first process is killed by its own drop; one in the background has to be found.
        if let (true, Some(pid)) = (self.is_daemon(), self.pid) {
            self.host.sh(&format!("kill -KILL {pid}"));
        }
    }
}

/// Starts several guests at once and waits for all of them.
#[track_caller]
#[must_use]
pub fn boot_all(host: &Host, specs: impl IntoIterator<Item = GuestSpec>) -> Vec<Guest<'_>> {
    let mut guests: Vec<_> = specs.into_iter().map(|spec| Guest::spawn(host, spec)).collect();
    for guest in &mut guests {
        guest.wait_ready();
    }
    guests
}

/// The guest's initrd, with the test's own programs where there are any: the kernel unpacks one
/// archive after the other.
fn initrd(host: &Host, spec: &GuestSpec, directory: &Path) -> PathBuf {
    let image = guest_image("initrd");
    if spec.programs.is_empty() {
        return image;
    }
    let initrd = directory.join("initrd");
    let add = "set -e; image=$1 initrd=$2 root=$3; shift 3
               mkdir -p $root/bin; cat \"$image\" >$initrd
               for program; do strip -o $root/bin/$(basename \"$program\") \"$program\"; done
               cd $root; find . -type f | cpio --quiet -o -H newc | gzip -1 >>$initrd";
    let mut command = host.command("sh");
    command.args(["-c", add, "add"]).arg(image).arg(&initrd).arg(directory.join("root"));
    host.spawn(command.args(&spec.programs)).output(PATIENCE).expect("adding to the initrd");
    initrd
}

/// The guest that is a kernel and an initrd.
fn machine(initrd: &Path) -> Vec<OsString> {
    let kernel = guest_image("vmlinuz");
    let mut line: Vec<OsString> = "-m 128".split(' ').map(OsString::from).collect();
    line.extend(["-kernel".into(), kernel.into(), "-initrd".into(), initrd.into()]);
    line
}

/// The guest with systemd. What is on its first drive stays as it is; the second brings kvmnet.
fn systemd_machine(host: &Host, before_boot: &str, directory: &Path) -> Vec<OsString> {
    let drive = directory.join("drive");
    fs::create_dir(host.path(directory.join("files"))).expect("the host's /dev/shm is writable");
    host.write(directory.join("files/before-boot"), format!("set -e\n{before_boot}"));
    let archive = "tar --owner=0 --group=0 -cf \"$1\" -C \"$2\" . -C \"$3\" before-boot";
    let mut command = host.command("sh");
    command.args(["-c", archive, "tar"]).arg(&drive).arg(staged_tree());
    host.spawn(command.arg(directory.join("files"))).output(PATIENCE).expect("tar");
    // QEMU 7.2 emulates cmpxchg16b in a way that newer kernels crash with. A second processor, or one
    // with all that QEMU can emulate, costs a third more.
    let machine = "-M q35 -cpu qemu64,-cx16 -m 768 -nic none";
    let mut line: Vec<OsString> = machine.split(' ').map(OsString::from).collect();
    line.extend(["-kernel".into(), systemd_image("vmlinuz").into()]);
    line.extend(["-initrd".into(), systemd_image("initrd").into()]);
    line.extend(drives(&[(systemd_image("root.img"), "snapshot=on"), (drive, "readonly=on")]));
    line
}

/// QEMU's arguments: the machine, its wires to the test, then the test's own.
fn command_line(spec: &GuestSpec, directory: &str, machine: Vec<OsString>) -> Vec<OsString> {
    let common = "-accel tcg -nodefaults -display none -no-reboot";
    let mut line: Vec<OsString> = common.split(' ').map(OsString::from).collect();
    line.extend(machine);
    // No card needs to boot from the network.
    line.extend(["-global", "virtio-net-pci.romfile="].map(OsString::from));
    line.extend(["-name", &spec.name].map(OsString::from));
    line.extend(["-pidfile", &format!("{directory}/pid")].map(OsString::from));
    let parameters = format!("{KERNEL} {}", spec.parameters.join(" "));
    line.extend(["-append", &parameters].map(OsString::from));
    for (chardev, option, wire) in [
        ("file,id=console", "-serial", "chardev:console"),
        ("socket,id=agent", "-serial", "chardev:agent"),
        ("socket,id=monitor", "-mon", "chardev=monitor,mode=control"),
    ] {
        let id = chardev.rsplit('=').next().unwrap_or_default();
        let chardev = format!("{chardev},path={directory}/{id}");
        line.extend(["-chardev", &chardev, option, wire].map(OsString::from));
    }
    line.extend(spec.args.iter().cloned());
    line
}
