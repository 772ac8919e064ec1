//! What the guides have systemd do, under a real one: their files are taken out of them, so that
//! what is tried here is what stands there. Each test is one boot of a distribution's kernel.

use std::fs;
use std::path::Path;
use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Host, wait_until};

/// How long anything may take here, where a processor is emulated by one that others use, too.
const SLOW: Duration = Duration::from_secs(240);

/// A guest's disk whose operating system is its first sector: it turns the power button on
/// (PM1_EN), waits for it (PM1_STS), and switches the machine off (PM1_CNT).
const HEEDS_THE_BUTTON: &[u8] = b"\xba\x02\x06\xb8\x00\x01\xef\xba\x00\x06\xed\xf6\xc4\x01\x74\xfa\
                                  \xba\x04\x06\xb8\x00\x20\xef\xeb\xfe";

/// What `<!-- file: PATH -->` stands before.
fn files(document: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(document);
    let text = fs::read_to_string(&path).expect("the document is there");
    let pieces = text.split("<!-- file: ").skip(1).map(|piece| {
        let (name, rest) = piece.split_once(" -->\n```").expect("a block follows a mark");
        let (_, block) = rest.split_once('\n').expect("it has lines");
        let (block, _) = block.split_once("```").expect("it ends");
        let absolute = name.starts_with('/');
        let path = if absolute { name.to_owned() } else { format!("/etc/kvmnet/{name}.toml") };
        (path, block.to_owned())
    });
    pieces.collect()
}

/// A script that writes a file.
fn writing((path, text): &(String, String)) -> String {
    format!("mkdir -p \"$(dirname {path})\"\ncat >{path} <<'END'\n{text}END\n")
}

#[track_caller]
fn run(guest: &mut Guest, script: &str) -> String {
    guest.sh_within(script, SLOW).expect(script)
}

/// Waits until a command succeeds; shows the log where it doesn't.
#[track_caller]
fn wait(guest: &mut Guest, command: &str) {
    let script =
        format!("for i in $(seq 300); do {{ {command}; }} && exit; sleep 0.2; done; exit 1");
    let output = guest.sh_within(&script, SLOW);
    if !output.success() {
        let log =
            guest.sh_within("journalctl -b -n 60 --no-pager; systemctl --failed", SLOW).stdout;
        panic!("`{command}` never comes true: {}\n{log}", output.stdout);
    }
}

/// A host with the document's files, of which those that are for one case only are beside their place.
struct Units<'host> {
    guest: Guest<'host>,
}

impl<'host> Units<'host> {
    fn boot(host: &'host Host) -> Self {
        let mut script: String = files("systemd.md").iter().map(writing).collect();
        script += "mv /etc/systemd/system/qemu@.service.d/confine.conf /etc/confine.conf
                   mv /etc/systemd/system/qemu@db.service.d/user.conf /etc/user.conf
                   mv /etc/systemd/system/qemu@web.service.d/runas.conf /etc/runas.conf
                   mkdir -p /var/lib/qemu
                   echo TAP=db0 >/etc/qemu/db.env
                   echo DISK=/var/lib/qemu/db.img >>/etc/qemu/db.env
                   echo MAC=52:54:00:12:34:57 >>/etc/qemu/db.env\n";
        let octal: String = HEEDS_THE_BUTTON.iter().map(|byte| format!("\\{byte:03o}")).collect();
        script += &format!(
            "for disk in /var/lib/qemu/web.img /var/lib/qemu/db.img; do
                 printf '{octal}' >$disk; truncate -s 510 $disk; printf '\\125\\252' >>$disk
                 truncate -s 1M $disk; chmod 666 $disk
             done\n"
        );
        let mut guest = Guest::boot(host, GuestSpec::with_systemd("units").before_boot(&script));
        run(&mut guest, "modprobe tun; chmod 666 /dev/net/tun");
        Self { guest }
    }

    #[track_caller]
    fn run(&mut self, script: &str) -> String {
        run(&mut self.guest, script)
    }

    #[track_caller]
    fn wait(&mut self, command: &str) {
        wait(&mut self.guest, command);
    }

    /// Puts lines into the unit of all guests, in place of those put there before.
    fn with(&mut self, lines: &str) {
        let path = "/etc/systemd/system/qemu@.service.d/test.conf".to_owned();
        let script = writing(&(path, format!("[Service]\n{lines}\n")));
        self.run(&format!("{script}systemctl daemon-reload"));
    }

    /// Puts a file of the document's to its place, which was only for later.
    fn put(&mut self, file: &str, unit: &str) {
        let place = format!("/etc/systemd/system/{unit}.service.d/");
        self.run(&format!("mkdir -p {place}; mv /etc/{file} {place}; systemctl daemon-reload"));
    }

    /// Starts a guest and waits until its tap is on the bridge and its system runs.
    #[track_caller]
    fn start(&mut self, name: &str, tap: &str, bridge: &str) {
        self.run(&format!("systemctl start qemu@{name}"));
        self.wait(&format!("test -e /sys/class/net/{bridge}/brif/{tap}"));
        let ask = format!("echo 'i /2xh 0x602' | socat - UNIX-CONNECT:/run/qemu/{name}/monitor");
        self.wait(&format!("{ask} | grep -q 'portw.0x0602. = 0x0100'"));
    }

    #[track_caller]
    fn assert_gone(&mut self, name: &str, bridge: &str, result: &str) {
        self.wait(&format!("! systemctl is-active qemu@{name} >/dev/null"));
        let shown = self.run(&format!("systemctl show -P Result qemu@{name}"));
        assert_eq!(shown.trim(), result, "{}", self.log());
        self.run(&format!("! test -e /sys/class/net/{bridge}; ! nft list tables | grep kvmnet-"));
        self.run("systemctl reset-failed");
    }

    /// Stops a guest, with whom its network goes.
    #[track_caller]
    fn stop(&mut self, name: &str, bridge: &str) {
        self.run(&format!("systemctl stop qemu@{name}"));
        self.assert_gone(name, bridge, "success");
    }

    /// Starts a guest that can't, and returns what the log has of it.
    #[track_caller]
    fn fails(&mut self) -> String {
        // As after a boot.
        self.run("rm -rf /run/kvmnet; systemctl start qemu@web");
        self.wait("systemctl is-failed qemu@web >/dev/null");
        self.run("systemctl reset-failed");
        self.log()
    }

    fn log(&mut self) -> String {
        self.run("journalctl -b -o cat -n 60 --no-pager")
    }
}

/// The files of `docs/host-bridge.md`, in place of one that has the NIC as a host without a bridge does.
#[test]
fn networkd_makes_the_bridge() {
    let host = Host::builder().without_uplink().build();
    let directory = "/etc/systemd/network";
    let new = files("host-bridge.md").into_iter().filter(|(path, _)| path.starts_with(directory));
    let new: Vec<_> = new.collect();
    assert_eq!(new.len(), 3);
    let old = "[Match]\nName=eno1\n\n[Network]\nAddress=10.0.0.11/24\nGateway=10.0.0.1\n";
    let script = writing(&(format!("{directory}/20-eno1.network"), old.to_owned()));
    let mut guest = Guest::boot(&host, GuestSpec::with_systemd("networkd").before_boot(&script));
    let guest = &mut guest;
    run(guest, "modprobe tun; ip netns add outside; systemctl start systemd-networkd");
    run(guest, "ip link add eno1 type veth peer name lan0 netns outside");
    run(guest, "ip -n outside addr add 10.0.0.1/24 dev lan0; ip -n outside link set lan0 up");
    wait(guest, "ip route | grep -q 'default via 10.0.0.1 dev eno1'");

    run(guest, &format!("rm {directory}/20-eno1.network"));
    let script: String = new.iter().map(writing).collect();
    run(guest, &format!("{script}networkctl reload"));
    wait(guest, "ip route | grep -q 'default via 10.0.0.1 dev br0'");
    wait(guest, "test -e /sys/class/net/br0/brif/eno1");
    wait(guest, "ip -br -4 address show | grep -q '^br0 .* 10.0.0.11/24 $'");
    assert!(!run(guest, "ip -4 address show eno1").contains("inet"));
    assert_eq!(run(guest, "cat /sys/class/net/br0/address").trim(), "02:00:00:00:00:11");
    assert_eq!(run(guest, "cat /sys/class/net/br0/bridge/forward_delay").trim(), "0");
    wait(guest, "ip netns exec outside busybox ping -c1 -W5 10.0.0.11");

    // networkd takes no tap for its own.
    run(guest, "ip tuntap add vnet0 mode tap; /usr/libexec/kvmnet-ifup vnet0; sleep 5");
    run(guest, "test -e /sys/class/net/br0/brif/vnet0");
}

/// What a host goes back by, when its administrator is locked out; after three seconds here.
#[test]
fn what_goes_back_by_itself() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/host-bridge.md");
    let document = fs::read_to_string(document).expect("it is there");
    let line = |word: &str| {
        let line = document.lines().find(|line| line.contains(word) && line.contains(" 120"));
        line.expect(word).replace(" 120", " 3")
    };
    let as_before = |host: &Host| {
        let back = || {
            host.addresses("eno1") == ["10.0.0.11/24"]
                && host.link("br0").is_none()
                && host.sh("ping -c1 -W2 203.0.113.1").success()
        };
        wait_until(SLOW, back)
    };
    let host = Host::new();
    let (move_it, _) = document.split_once("\n```\n\nBefore that").expect("the commands of ip");
    let (_, move_it) = move_it.rsplit_once("```sh\n").expect("they are in a block");
    host.ok(&format!("{}\n{move_it}", line("sleep")));
    assert_eq!(host.ports("br0"), ["eno1"]);
    assert!(as_before(&host), "plain ip");

    let host = Host::builder().with_managers().build();
    let _manager = host.network_manager();
    host.ok(&line("CheckpointCreate"));
    let commands = document.lines().filter_map(|line| line.strip_prefix("nmcli "));
    for command in commands {
        host.ok(&format!("nmcli {command}"));
    }
    assert_eq!(host.ports("br0"), ["eno1"]);
    assert!(as_before(&host), "NetworkManager");
    assert!(!host.ok("nmcli connection").contains("br0"));
}

#[test]
fn guests_in_units() {
    let host = Host::builder().without_uplink().build();
    let mut units = Units::boot(&host);
    let units = &mut units;
    let verify = "cd /etc/systemd/system && systemd-analyze verify --man=no qemu@web.service \
                  qemu@db.service kvmnet-up@lab.service 2>&1";
    assert_eq!(units.run(verify).trim(), "", "systemd-analyze verify");

    // The power button, and a guest that heeds it.
    units.start("web", "web", "br0");
    assert!(units.run("kvmnet status default | cat").contains("  web  "));
    units.stop("web", "br0");
    assert!(!units.log().contains("terminating on signal"), "{}", units.log());
    let said = units.run("journalctl -b -o cat -t kvmnet-natup");
    assert!(said.contains("web: attached to br0"), "{said}");
    let said = units.run("journalctl -b -o cat -u qemu@web");
    assert!(said.contains("web: attached to br0"), "{said}");

    // Killed, which runs no downscript.
    units.start("web", "web", "br0");
    units.run("systemctl kill -s KILL qemu@web");
    units.assert_gone("web", "br0", "signal");
    // One that doesn't heed the button.
    units.with("TimeoutStopSec=5");
    units.start("web", "web", "br0");
    units.run("echo stop | socat - UNIX-CONNECT:/run/qemu/web/monitor; systemctl stop qemu@web");
    assert!(units.log().contains("terminating on signal 15"), "{}", units.log());
    units.assert_gone("web", "br0", "timeout");
    units.with("");

    // Another network, which a unit keeps.
    units.start("db", "db0", "br-lab");
    units.run("systemctl is-active kvmnet-up@lab; grep pinned /sys/class/net/br-lab/ifalias");
    units.run("systemctl stop qemu@db; test -e /sys/class/net/br-lab");
    units.start("db", "db0", "br-lab");
    units.run("systemctl stop kvmnet-up@lab");
    units.assert_gone("db", "br-lab", "success");

    // By another user.
    units.put("user.conf", "qemu@db");
    units.start("db", "db0", "br-lab");
    assert_eq!(units.run("ps -o user= -C qemu-system-x86").trim(), "nobody");
    units.run("systemctl stop qemu@db; ! test -e /sys/class/net/db0");
    units.run("test -e /sys/class/net/br-lab; systemctl stop kvmnet-up@lab");
    units.assert_gone("db", "br-lab", "success");

    // Started as root, and another user then.
    units.put("runas.conf", "qemu@web");
    units.start("web", "web", "br0");
    assert_eq!(units.run("ps -o user= -C qemu-system-x86").trim(), "nobody");
    units.stop("web", "br0");
}

#[test]
fn what_confines_a_unit() {
    let host = Host::builder().without_uplink().build();
    let mut units = Units::boot(&host);
    let units = &mut units;
    // Each way in which it fails, alone; then what they have in common with what works.
    for (lines, said) in [
        ("ProtectKernelTunables=yes", "have it so beforehand: sysctl -w "),
        ("PrivateDevices=yes", "could not open /dev/net/tun: No such file or directory"),
        (
            "CapabilityBoundingSet=~CAP_NET_ADMIN",
            "could not configure /dev/net/tun (web): Operation not permitted",
        ),
        (
            "RestrictAddressFamilies=AF_UNIX AF_INET",
            "web: not attached: cannot open a rtnetlink socket",
        ),
        ("ProtectSystem=strict\nReadWritePaths=/var/lib/qemu", "/run/kvmnet: cannot "),
    ] {
        units.with(lines);
        let log = units.fails();
        assert!(log.contains(said), "{lines}: {log}");
    }
    units.with("Environment=\"OPTIONS=-sandbox on,spawn=deny\"");
    let log = units.fails();
    assert!(log.contains("status=31/SYS"), "{log}");

    units.with("PrivateNetwork=yes");
    units.run("systemctl start qemu@web; ! test -e /sys/class/net/br0");
    units.run("systemctl kill -s KILL qemu@web");
    units.assert_gone("web", "br0", "signal");

    units.with("");
    units.put("confine.conf", "qemu@");
    units.start("web", "web", "br0");
    units.stop("web", "br0");
    // The network is up, so that no sysctl is left to set.
    units.with("ProtectKernelTunables=yes");
    units.run("systemctl start kvmnet-up@default");
    units.start("web", "web", "br0");
    units.run("systemctl stop qemu@web kvmnet-up@default");
    units.assert_gone("web", "br0", "success");
    // And with -runas.
    units.put("runas.conf", "qemu@web");
    units.with("CapabilityBoundingSet=CAP_SETUID CAP_SETGID");
    units.start("web", "web", "br0");
    units.stop("web", "br0");
}
