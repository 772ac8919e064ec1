//! `kvmnet status` for people: table and tree, colours, and whoever reads them.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use kvmnet_tests::{Host, Process, Tap, wait_until};

const SOON: Duration = Duration::from_secs(10);
const ESCAPE: char = '\x1b';

fn hold(host: &Host, tap: &str) -> Process {
    let process = host.spawn(host.command(env!("CARGO_BIN_EXE_hold")).arg(tap));
    assert!(wait_until(SOON, || process.written().0.contains("held")));
    process
}

/// A host with something of everything. The pid of who holds `lab1` comes with it.
fn scene() -> (Host, Vec<Tap>, Process, i32) {
    let host = Host::new();
    host.describe("lab", "address = \"192.168.150.1/24\"\n");
    host.describe("cell", "mode = \"isolated\"\n");
    host.describe("a-long-name", "mode = \"routed\"\naddress = \"10.123.210.129/25\"\n");
    host.describe("gone", "address = \"10.6.0.1/24\"\nfirewall = \"none\"\n");
    let taps = vec![host.tap_on("lab", "lab0"), host.tap_on("gone", "tap0")];
    let held = hold(&host, "lab1");
    host.helper_on("lab", "natup", "lab1");
    host.kvmnet_ok(&["up", "cell"]);
    host.persistent_tap("idle");
    host.ok("
        ip link set idle master cell up
        ip link add br1 type bridge && ip link set br1 up && ip addr add 10.1.0.1/24 dev br1
        ip link add veth0 type veth peer name veth1 && ip link set veth0 master br1 up
        rm /etc/kvmnet/gone.toml && nft add rule netdev kvmnet-cell ingress drop
    ");
    let lan = host.tap("tap1");
    host.ok("ip link set tap1 master br1 up");
    let pid = held.pid().expect("it runs");
    (host, taps.into_iter().chain([lan]).collect(), held, pid)
}

#[test]
fn the_table() {
    let (host, _taps, _held, pid) = scene();
    let column = pid.to_string();
    let width = column.len().max(3);
    let text = format!(
        "\
NETWORK      MODE      BRIDGE       ADDRESS            STATE   PORTS  RULES
a-long-name  routed    a-long-name  10.123.210.129/25  down    0      -
cell         isolated  cell         -                  pinned  1      nft list table netdev kvmnet-cell (changed)
default      nat       br0          192.168.100.1/24   down    0      -
gone         ?         gone         10.6.0.1/24        up      1      missing
lab          nat       lab          192.168.150.1/24   up      2      nft list table ip kvmnet-lab
-            bridged   br1          10.1.0.1/24        up      2      -

PORT   NETWORK  VM  {:width$}  PROGRAM
idle   cell     -   {:width$}  (a tap that no program holds open)
tap0   gone     -   {:width$}  (its program cannot be seen from here)
lab0   lab      -   {:width$}  (its program cannot be seen from here)
lab1   lab      -   {column:width$}  hold
tap1   -        -   {:width$}  (its program cannot be seen from here)
veth0  -        -   {:width$}  (veth)

IPv4 forwarding is on; kvmnet turned it on for lab.
",
        "PID", "-", "-", "-", "-", "-"
    );
    assert_eq!(host.kvmnet_ok(&["status"]), text);
    let output = host.kvmnet_ok(&["status", "default"]);
    assert_eq!(
        output,
        "\
NETWORK  MODE  BRIDGE  ADDRESS           STATE  PORTS  RULES
default  nat   br0     192.168.100.1/24  down   0      -

IPv4 forwarding is on; kvmnet turned it on for lab.
"
    );
    let bare = Host::bare();
    assert!(
        bare.kvmnet_ok(&["status"])
            .ends_with("\n\nIPv4 forwarding is off for the host as a whole.\n")
    );
    bare.ok("sysctl -w net.ipv4.ip_forward=1");
    assert!(bare.kvmnet_ok(&["status"]).ends_with("\n\nIPv4 forwarding is on.\n"));
}

#[test]
fn the_tree() {
    let (host, _taps, _held, pid) = scene();
    let text = format!(
        "\
host with its default route over eno1
├── a-long-name: routed on a-long-name, 10.123.210.129/25, down
├── cell: isolated on cell, pinned, its rules are changed
│   └── idle  (a tap that no program holds open)
├── default: nat on br0, 192.168.100.1/24, down
├── gone: of unknown mode, without a file that can be read, on gone, 10.6.0.1/24, up, its rules are missing
│   └── tap0  (its program cannot be seen from here)
├── lab: nat on lab, 192.168.150.1/24, up
│   ├── lab0  (its program cannot be seen from here)
│   └── lab1  hold (pid {pid})
└── bridged on br1, 10.1.0.1/24, up
    ├── tap1  (its program cannot be seen from here)
    └── veth0  (veth)
IPv4 forwarding is on; kvmnet turned it on for lab.
"
    );
    assert_eq!(host.kvmnet_ok(&["status", "--tree"]), text);
    let bare = Host::bare().kvmnet_ok(&["status", "--tree"]);
    assert!(bare.starts_with("host without a default route\n└── default: nat on br0"), "{bare}");
}

/// On a terminal, as script(1) makes one.
fn on_terminal(host: &Host, setting: &str, command: &str) -> String {
    let shown = host.ok(&format!("{setting} script -qec '{command}' /dev/null"));
    shown.replace("\r\n", "\n")
}

#[test]
fn colours_on_a_terminal_alone() {
    let (host, _taps, _held, _) = scene();
    for command in ["kvmnet status", "kvmnet status --tree", "kvmnet check"] {
        let run = host.sh(command);
        let plain = run.stdout;
        assert!(!plain.contains(ESCAPE) && !plain.is_empty(), "{plain}");
        let may_fail = format!("{command}; true");
        let coloured = on_terminal(&host, "TERM=xterm", &may_fail);
        assert!(coloured.contains("\x1b["), "{coloured}");
        let mut stripped = String::new();
        for (n, part) in coloured.split("\x1b[").enumerate() {
            let text = part.split_once('m').map_or(part, |(_, text)| text);
            stripped.push_str(if n == 0 { part } else { text });
        }
        assert_eq!(stripped, plain);
        assert_eq!(on_terminal(&host, "NO_COLOR=1 TERM=xterm", &may_fail), plain);
        assert_eq!(on_terminal(&host, "TERM=dumb", &may_fail), plain);
    }
    let json = on_terminal(&host, "TERM=xterm", "kvmnet status --json");
    assert_eq!(json, host.kvmnet_ok(&["status", "--json"]));
}

/// Whoever may start a VM chooses its name, and root's terminal shows it.
#[test]
fn no_name_steers_the_terminal() {
    let host = Host::bare();
    let bell = "\u{7}";
    let name = format!("{ESCAPE}]0;owned{bell}\r\n{ESCAPE}[2Jvm\u{9b}31m\tx");
    let mut qemu = host.command("qemu-system-x86_64");
    qemu.args(["-machine", "none", "-nodefaults", "-display", "none", "-S", "-name", &name]);
    qemu.args(["-netdev", "tap,id=n,ifname=vnet0,script=/usr/libexec/kvmnet-natup,downscript=no"]);
    let mut qemu = host.spawn(&mut qemu);
    assert!(wait_until(SOON, || host.ports("br0") == ["vnet0"]), "{:?}", qemu.written());
    // The kernel lets interfaces have such names, too, and ip makes them.
    host.ok("ip link add \"$(printf 'x\\033[5m')\" type veth peer name y");
    host.ok("ip link set \"$(printf 'x\\033[5m')\" master br0");
    for command in ["kvmnet status", "kvmnet status --tree"] {
        for shown in [host.ok(command), on_terminal(&host, "NO_COLOR=1 TERM=xterm", command)] {
            let controls: Vec<char> =
                shown.chars().filter(|c| c.is_control() && *c != '\n').collect();
            assert!(controls.is_empty(), "{controls:?} in {shown:?}");
            assert!(
                shown.contains("?]0;owned????[2Jvm?31m?x") && shown.contains("x?[5m"),
                "{shown:?}"
            );
        }
    }
    // `down` and `plan` name it as well.
    for command in ["plan down default", "down default"] {
        let output = host.ok(&format!("kvmnet {command}"));
        assert!(output.contains("x?[5m") && !output.contains(ESCAPE), "{output:?}");
    }
    qemu.kill();
}

/// A reader that has seen enough is no failure; a full disk is.
#[test]
fn whoever_reads_may_go() {
    let (host, _taps, _held, _) = scene();
    for form in ["", "--tree", "--json"] {
        for how in [
            format!("kvmnet status {form} | head -1"),
            format!("kvmnet status {form} | true"),
            format!("kvmnet status {form} >&-"),
            format!("kvmnet status {form} <&- >&- 2>&-"),
        ] {
            let output = host.run(&["bash", "-c", &format!("set -o pipefail; {how}")]);
            assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{how}");
        }
        // Nobody is there from the start.
        let (reader, writer) = UnixStream::pair().expect("the kernel has sockets");
        drop(reader);
        let mut command = host.command("kvmnet");
        command.arg("status").args(form.split_whitespace()).stdout(OwnedFd::from(writer));
        assert!(command.status().expect("it starts").success(), "{form}");
        let full = host.sh(&format!("kvmnet status {form} >/dev/full"));
        let why = "kvmnet: cannot print: No space left on device (os error 28)\n";
        assert_eq!((full.code, full.stderr.as_str()), (1, why));
    }
}
