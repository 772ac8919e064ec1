//! Runs a piece of a document on a host of its own.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use kvmnet_tests::{Host, Netns, Output, Process, Tap, TapMachine, wait_until};

use crate::document::{Content, Expect, Piece, Step};
use crate::fixtures::{self, Fixture};
use crate::mark::Mark;

pub const SOON: Duration = Duration::from_secs(10);

/// What `...` stands for in QEMU's command line: a machine whose scripts run and whose guest waits.
const QEMU: &str = "-S -accel tcg -m 64 -nodefaults -display none \
                    -global virtio-net-pci.romfile= -monitor";

/// A host, and who is on it.
pub struct Stage {
    qemus: Vec<(Process, String)>,
    pub guests: Vec<TapMachine>,
    pub taps: Vec<Tap>,
    /// Where commands run if not on the host.
    pub elsewhere: Option<Netns>,
    /// The network files of the document, by their names.
    files: Vec<(String, String)>,
    pub host: Host,
}

impl Stage {
    pub fn new(host: Host, document: &[Piece]) -> Self {
        let file = |piece: &Piece| match (&piece.mark, &piece.content) {
            (Mark::File(name), Content::File(text)) => Some((name.clone(), text.clone())),
            _ => None,
        };
        let (others, files): (Vec<_>, _) =
            document.iter().filter_map(file).partition(|(name, _)| name.starts_with('/'));
        for (path, text) in others {
            host.write(path, text);
        }
        Self {
            qemus: Vec::new(),
            guests: Vec::new(),
            taps: Vec::new(),
            elsewhere: None,
            files,
            host,
        }
    }

    /// The document's own network file of this name: its first one.
    #[track_caller]
    pub fn file(&self, name: &str) -> &str {
        let file = self.files.iter().find(|(of, _)| of == name);
        &file.unwrap_or_else(|| panic!("the document has no block with `file: {name}`")).1
    }

    /// Puts it where it belongs.
    #[track_caller]
    pub fn install(&self, name: &str) {
        self.host.write(format!("/etc/kvmnet/{name}.toml"), self.file(name));
    }

    /// Puts all of the document's network files where they belong.
    pub fn install_all(&mut self) {
        for (name, text) in self.files.iter().rev() {
            self.host.write(format!("/etc/kvmnet/{name}.toml"), text);
        }
    }

    /// A guest on a tap that a helper has attached.
    #[track_caller]
    pub fn guest(&mut self, helper: &str, tap: &str, address: &str, gateway: &str) {
        self.guests.push(self.host.tap_machine(tap, address, gateway));
        self.host.helper(helper, &[tap]).expect(helper);
    }

    /// Whether the first guest reaches an address.
    pub fn guest_reaches(&self, address: &str) -> bool {
        let guest = self.guests.first().expect("the fixture has a guest");
        self.host.sh_in(guest.net(), &ping(address)).success()
    }

    /// Whether the machine outside reaches an address.
    pub fn outside_reaches(&self, address: &str) -> bool {
        self.host.outside_sh(&ping(address)).success()
    }

    fn sh(&self, command: &str) -> Output {
        // Where a file named without a directory is.
        let command = format!("cd /tmp && {command}");
        match &self.elsewhere {
            None => self.host.sh(&command),
            Some(netns) => self.host.sh_in(netns, &command),
        }
    }

    #[track_caller]
    fn step(&mut self, at: &str, step: &Step, ports: &[(String, String)]) {
        let command = &step.command;
        if command.contains("qemu-system-x86_64 ...") {
            return self.qemu(at, command, ports);
        }
        if command.starts_with("tcpdump ") {
            return self.tcpdump(at, command);
        }
        // The kernel tells of a carrier up to a second later.
        let mut output = self.sh(command);
        let done = || {
            if !fits(&step.expect, &output) && output.success() {
                output = self.sh(command);
            }
            fits(&step.expect, &output) || !output.success()
        };
        wait_until(SOON, done);
        let Output { code, stdout, stderr } = &output;
        println!("{at}: {command}\n{stdout}{stderr}");
        assert!(
            output.success() && fits(&step.expect, &output),
            "{at}: `{command}` exited with {code}\n--- expected\n{:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}",
            step.expect
        );
    }

    /// Starts QEMU with the document's own words; its taps become ports where the mark says.
    #[track_caller]
    pub fn qemu(&mut self, at: &str, command: &str, ports: &[(String, String)]) {
        let monitor = format!("/dev/shm/monitor-{}", self.qemus.len());
        let mut machine = format!("{QEMU} unix:{monitor},server=on,wait=off");
        if !command.contains("ifname=") {
            // The document says how to start it, not what is on its card.
            machine += " -netdev tap,id=n,ifname=vnet0,script=/usr/libexec/kvmnet-natup,\
                        downscript=/usr/libexec/kvmnet-natdown";
        }
        let command = command.replacen("...", &machine, 1);
        let taps =
            command.split("ifname=").skip(1).filter_map(|rest| rest.split([',', ' ']).next());
        let port = |name| {
            let port = ports.iter().find(|(tap, _)| tap == name);
            port.unwrap_or_else(|| panic!("{at}: the mark has to say `{name} on BRIDGE`"))
        };
        let ports: Vec<_> = taps.map(port).collect();
        let mut qemu = self.host.spawn(self.host.command("sh").args(["-c", &command]));
        let host = &self.host;
        // Taps that were made beforehand are ports already.
        let is_there = || host.path(&monitor).exists();
        let joined =
            || is_there() && ports.iter().all(|(tap, bridge)| host.ports(bridge).contains(tap));
        let joined = wait_until(SOON, || joined() || !qemu.is_running()) && joined();
        assert!(
            joined && qemu.is_running(),
            "{at}: `{command}`: not {ports:?}: {:?}",
            qemu.written()
        );
        println!("{at}: {command}: {ports:?}");
        self.qemus.push((qemu, monitor));
    }

    /// What looks on and on has to see what the guest sends.
    #[track_caller]
    fn tcpdump(&mut self, at: &str, command: &str) {
        let mut tcpdump = self.host.spawn(self.host.command("sh").args(["-c", command]));
        let listens = || tcpdump.written().1.contains("listening on");
        assert!(wait_until(SOON, listens), "{at}: `{command}`: {:?}", tcpdump.written());
        self.guest_reaches("203.0.113.1");
        // It looks at what has come once a second.
        thread::sleep(Duration::from_millis(1200));
        self.host.ok("kill -INT $(pidof tcpdump)");
        let status = tcpdump.wait(SOON);
        let (stdout, stderr) = tcpdump.written();
        println!("{at}: {command}\n{stdout}{stderr}");
        assert!(status.is_some() && !stdout.is_empty(), "{at}: `{command}`: {stdout}{stderr}");
    }

    /// Ends QEMU; where nobody else is on it, what it leaves goes with the next run of a helper.
    #[track_caller]
    fn end(mut self, at: &str) {
        for (qemu, monitor) in &mut self.qemus {
            // Not by a signal: QEMU sometimes dies of one that comes while it is starting.
            let connected = UnixStream::connect(self.host.path(&*monitor)).and_then(|mut wire| {
                wire.write_all(b"quit\n")?;
                Ok(wire)
            });
            // Kept open until QEMU has read it.
            let _wire = connected.unwrap_or_else(|error| panic!("{at}: {monitor}: {error}"));
            let status = qemu.wait(SOON);
            assert!(status.is_some_and(|status| status.success()), "{at}: {:?}", qemu.written());
        }
        // Those that were brought up to stay.
        self.host.ok("grep -hos '^kvmnet:[^:]*:pinned' /sys/class/net/*/ifalias |
             cut -d: -f2 | xargs -r -n1 kvmnet down");
        if !self.qemus.is_empty() && self.guests.is_empty() && self.taps.is_empty() {
            self.host.helper("natdown", &["gone"]).expect("natdown");
            let tables = self.host.nft_tables();
            assert!(!tables.iter().any(|table| table.contains("kvmnet")), "{at}: {tables:?}");
        }
    }
}

fn ping(address: &str) -> String {
    format!("ping -c1 -W1 {address}")
}

/// Whether a command has printed what the document says.
fn fits(expect: &Expect, output: &Output) -> bool {
    let stdout = &output.stdout;
    let words = || stdout.split_whitespace().map(|word| word.trim_end_matches([':', ',']));
    match expect {
        Expect::Success => true,
        Expect::Output(wanted) => normal(stdout) == normal(wanted),
        Expect::Words(wanted) => wanted.iter().all(|wanted| words().any(|word| word == wanted)),
        Expect::NoRule => stdout.lines().all(|line| {
            line.is_empty() || line.starts_with("Chain ") || line.starts_with("target ")
        }),
    }
}

/// Without what the kernel numbers as it likes, and without what nobody sees.
fn normal(text: &str) -> String {
    let number = |line: &str| match line.split_once(": ") {
        Some((number, rest)) if number.parse::<u32>().is_ok() => format!("N: {rest}\n"),
        _ => format!("{}\n", without_numbers(line)),
    };
    text.trim_end().lines().map(|line| number(line.trim_end())).collect()
}

/// Processes and bridges that are yet to be made: a table's columns are as wide as the process ids.
fn without_numbers(line: &str) -> String {
    const QEMU: &str = "qemu-system-x86_64";
    if !["(pid ", "(index ", " PID ", QEMU].iter().any(|text| line.contains(text)) {
        return line.to_owned();
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let forget = |(n, word): (usize, &&str)| {
        let before = n.checked_sub(1).map_or("", |n| words[n]);
        let is_counted = ["(pid", "(index"].contains(&before) || words.get(n + 1) == Some(&QEMU);
        let forgotten = is_counted && is_number(word.trim_end_matches([')', ',']));
        if forgotten { "N".to_owned() } else { (*word).to_owned() }
    };
    words.iter().enumerate().map(forget).collect::<Vec<_>>().join(" ")
}

/// Runs all that a document has.
pub fn run(document: &str) {
    let pieces = crate::document::read(document);
    let mut stage: Option<Stage> = None;
    let end = |stage: &mut Option<Stage>| stage.take().map(|stage| stage.end(document));
    for piece in &pieces {
        match (&piece.mark, &piece.content) {
            (Mark::NotRun(why), _) => println!("{}: not run: {why}", piece.at),
            // Read by commands that name it, or by a program that looks there.
            (Mark::File(name), Content::File(_)) if name.starts_with('/') => {
                println!("{}: {name}", piece.at);
            }
            (Mark::File(name), Content::File(text)) => fixtures::check_file(&piece.at, name, text),
            (Mark::Run { fixture, ports }, Content::Commands(steps)) => {
                end(&mut stage);
                let fixture = Fixture::named(fixture);
                let mut prepared = fixture.prepare(&pieces);
                fixture.assert_unchanged(&piece.at, &prepared);
                steps.iter().for_each(|step| prepared.step(&piece.at, step, ports));
                fixture.assert_changed(&piece.at, &prepared);
                stage = Some(prepared);
            }
            (Mark::AsBefore, Content::Commands(steps)) => {
                let stage = stage.as_mut().expect("there is something before");
                steps.iter().for_each(|step| stage.step(&piece.at, step, &[]));
            }
            other => unreachable!("refused when it was read: {other:?}"),
        }
    }
    end(&mut stage);
}

#[test]
fn outputs_are_compared() {
    let output = |stdout: &str| Output { code: 0, stdout: stdout.into(), stderr: String::new() };
    let words = |words: &[&str]| Expect::Words(words.iter().map(|&word| word.into()).collect());
    for (expect, stdout, wanted) in [
        (Expect::Success, "", true),
        (Expect::Output("4: br0: UP\n".into()), "17: br0: UP  \n", true),
        (Expect::Output("4: br0: UP\n".into()), "4: br0: DOWN\n", false),
        (Expect::Output("br0 UP\n".into()), "br0 UP\nbr1 UP\n", false),
        (
            Expect::Output("vnet0  PID\nvnet0  7  qemu-system-x86_64\n".into()),
            "vnet0  PID\nvnet0  1234  qemu-system-x86_64\n",
            true,
        ),
        (
            Expect::Output("vnet0  7  qemu-system-x86_64\n".into()),
            "vnet1  7  qemu-system-x86_64\n",
            false,
        ),
        (Expect::Output("web (pid 7)\n".into()), "web (pid 12)\n", true),
        (words(&["br0", "no"]), "br0:\t8000.0\tno\n", true),
        (words(&["br0", "no"]), "br01\tno\n", false),
        (Expect::NoRule, "Chain X (policy ACCEPT)\ntarget  prot\n\n", true),
        (Expect::NoRule, "Chain X (policy ACCEPT)\nMASQUERADE  all\n", false),
    ] {
        assert_eq!(fits(&expect, &output(stdout)), wanted, "{expect:?} {stdout}");
    }
}
