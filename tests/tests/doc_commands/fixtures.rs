//! What the documents' commands run on, and what they change.

use std::collections::BTreeMap;

use kvmnet_tests::{Builder, Host, wait_until};

use crate::document::Piece;
use crate::stage::{SOON, Stage};
use crate::{firewalls, managers};

/// A host made ready for commands. Where `changes` is, it is false before and true after them.
pub struct Fixture {
    pub name: &'static str,
    host: fn(Builder) -> Builder,
    prepare: fn(&mut Stage),
    changes: Option<fn(&Stage) -> bool>,
}

/// One to look at, or to start QEMU on.
pub const fn look(name: &'static str, prepare: fn(&mut Stage)) -> Fixture {
    Fixture { name, host: |host| host, prepare, changes: None }
}

/// One on which something is not as the reader wants it, until the commands have run.
pub const fn change(
    name: &'static str,
    prepare: fn(&mut Stage),
    changes: fn(&Stage) -> bool,
) -> Fixture {
    Fixture { name, host: |host| host, prepare, changes: Some(changes) }
}

pub const OUTSIDE: &str = "203.0.113.1";
const LAB: &str = "mode = \"nat\"\nbridge = \"br-lab\"\naddress = \"192.168.150.1/24\"\n\
                   taps = [\"lab*\"]\n";

const WITH_DHCP: &str =
    include_str!("../../../crates/kvmnet/src/adopt/fixtures/qemuwiki-dhcp-ifup");

const FIXTURES: &[Fixture] = &[
    look("host", |_| {}),
    // The network default, a guest on it, and the administrator's troubles with it.
    look("default", default),
    change("default with a server", default, forwarded),
    change(
        "default after a flush",
        |stage| {
            default(stage);
            stage.host.ok("nft flush ruleset");
        },
        |stage| stage.guest_reaches(OUTSIDE),
    ),
    change(
        "default left behind",
        |stage| {
            let tap = stage.host.tap("vnet0");
            stage.host.helper("natup", &["vnet0"]).expect("natup");
            drop(tap);
        },
        |stage| stage.host.link("br0").is_none() && stage.host.nft_tables().is_empty(),
    ),
    // The same with QEMU as its guests; and a network `lab` that is down.
    look("web and db", web_and_db),
    look("web and db after a flush", |stage| {
        web_and_db(stage);
        stage.host.ok("nft flush ruleset");
    }),
    look("lab", |stage| stage.host.write("/etc/kvmnet/lab.toml", LAB)),
    change(
        "default with a narrow way out",
        |stage| {
            default(stage);
            stage.host.ok("ip link set eno1 mtu 1400");
        },
        |stage| {
            let syn = "tcp[tcpflags] & tcp-syn != 0 and dst 10.0.0.1";
            let seen = stage.host.outside_tcpdump("lan0", syn);
            // Nobody serves there, and what is asked for is seen all the same.
            let _ = stage.guests[0].net().tcp_connect("10.0.0.1:7001", "", SOON / 10);
            seen.output(SOON).stdout.contains("mss 1360")
        },
    ),
    // Beside the old scripts.
    change(
        "a guest of the old script",
        |stage| {
            stage.host.install_legacy();
            stage.taps = vec![stage.host.tap("vnet0"), stage.host.tap("vnet1")];
            stage.host.ok("/etc/qemu-natup vnet0");
        },
        |stage| stage.host.link("br0").is_none(),
    ),
    change(
        "a guest ended by the old script",
        |stage| {
            stage.host.install_legacy();
            default(stage);
            stage.host.ok("/etc/qemu-natdown vnet0");
            assert!(stage.host.link("br0").is_none());
        },
        |stage| stage.host.nft_tables().iter().all(|table| !table.contains("kvmnet")),
    ),
    // Networks that have a file in the document.
    look("cell", cell),
    change(
        "cell with an address",
        |stage| {
            cell(stage);
            stage.host.ok("ip address add 10.9.9.1/24 dev cell");
        },
        |stage| stage.host.addresses("cell").is_empty(),
    ),
    change("cell made routed", routed_cell, |stage| {
        !stage.guest_reaches(OUTSIDE) && stage.guest_reaches("10.9.9.1")
    }),
    look("old", |stage| {
        stage.install("old");
        stage.guest("natup", "old0", "192.168.160.10/24", "192.168.160.1");
        assert!(stage.guest_reaches(OUTSIDE));
    }),
    look("dmz", dmz),
    change(
        "outside",
        |stage| {
            dmz_without_way_back(stage);
            stage.elsewhere = Some(stage.host.outside());
        },
        |stage| stage.outside_reaches("10.77.0.10") && stage.guest_reaches(OUTSIDE),
    ),
    change(
        "dmz without forwarding",
        |stage| {
            let text = format!("{}forwarding = \"never\"\n", stage.file("dmz"));
            stage.host.write("/etc/kvmnet/dmz.toml", text);
            stage.taps.push(stage.host.tap("dmz0"));
        },
        |stage| stage.host.helper("natup", &["dmz0"]).success(),
    ),
    change(
        "eno2",
        |stage| {
            stage.host.ok("ip link add eno2 type veth peer name eno2-peer");
        },
        |stage| stage.host.sysctl("net/ipv4/conf/eno2/forwarding") == "1",
    ),
    change(
        "lab.toml here",
        |stage| {
            stage.host.write("/tmp/lab.toml", stage.file("lab"));
            stage.taps.push(stage.host.tap("lab0"));
        },
        |stage| {
            let mut natup = stage.host.command("/usr/libexec/kvmnet-natup");
            natup.arg("lab0").env("KVMNET_NETWORK", "lab");
            stage.host.spawn(&mut natup).output(SOON).success()
        },
    ),
    change(
        "a file for all to write",
        |stage| {
            stage.host.write("/etc/kvmnet/lab.toml", LAB);
            stage.host.ok("chmod 666 /etc/kvmnet/lab.toml; chown nobody /etc/kvmnet/lab.toml");
            stage.taps.push(stage.host.tap("lab0"));
        },
        |stage| stage.host.helper("natup", &["lab0"]).success(),
    ),
    look("tap vnet9", |stage| stage.taps.push(stage.host.tap("vnet9"))),
    look("files", Stage::install_all),
    look("lab and cell", |stage| {
        stage.install_all();
        for (tap, network) in [("lab0", "lab"), ("cell0", "cell")] {
            stage.taps.push(stage.host.tap(tap));
            let mut natup = stage.host.command("/usr/libexec/kvmnet-natup");
            let output =
                stage.host.spawn(natup.arg(tap).env("KVMNET_NETWORK", network)).output(SOON);
            output.expect(network);
        }
    }),
    look("lab with a tap made beforehand", |stage| {
        stage.install_all();
        stage.host.ok("kvmnet up lab; ip tuntap add dev lab0 mode tap user nobody
                       KVMNET_NETWORK=lab /usr/libexec/kvmnet-natup lab0");
    }),
    // Scripts from before kvmnet.
    look("old scripts", old_scripts),
    look("adopted scripts", |stage| {
        old_scripts(stage);
        stage.host.kvmnet_ok(&["adopt", "--yes", "/etc/qemu-natup"]);
    }),
    look("script with DHCP", |stage| {
        stage.host.write_program("/etc/qemu-ifup", WITH_DHCP);
        stage.host.write_program("/etc/qemu-ifdown", "#!/bin/sh\n:\n");
    }),
    // The administrator's own bridge.
    look("own bridge without guest", own_bridge),
    look("own bridge", bridged),
    change("no bridge yet", |_| {}, bridge_has_it_all),
    change(
        "own bridge with a spanning tree",
        |stage| {
            own_bridge(stage);
            stage.host.ok("ip link set br0 type bridge stp_state 1");
        },
        |stage| stage.host.ok("cat /sys/class/net/br0/bridge/stp_state") == "0\n",
    ),
];

/// All that there are.
pub fn all() -> impl Iterator<Item = &'static Fixture> {
    FIXTURES.iter().chain(firewalls::FIXTURES).chain(managers::FIXTURES)
}

impl Fixture {
    /// On a host that has dockerd, ufw and firewalld.
    pub const fn with_firewalls(mut self) -> Self {
        self.host = Builder::with_firewalls;
        self
    }

    /// On a host that has ifupdown, netplan and libvirt.
    pub const fn with_managers(mut self) -> Self {
        self.host = Builder::with_managers;
        self
    }

    #[track_caller]
    pub fn named(name: &str) -> &'static Self {
        let found = all().find(|fixture| fixture.name == name);
        found.unwrap_or_else(|| panic!("{name}: there is no such fixture"))
    }

    pub fn prepare(&self, document: &[Piece]) -> Stage {
        let mut stage = Stage::new((self.host)(Host::builder()).build(), document);
        // The machine's own is read-only.
        stage.host.ok("mount -t tmpfs -o mode=755 tmpfs /usr/local");
        // QEMU may run as any user.
        stage.host.ok("chmod 1777 /dev/shm");
        (self.prepare)(&mut stage);
        stage
    }

    #[track_caller]
    pub fn assert_unchanged(&self, at: &str, stage: &Stage) {
        let changed = self.changes.is_some_and(|changes| changes(stage));
        assert!(!changed, "{at}: all is well on `{}`, before any command", self.name);
    }

    /// A packet may be late on a busy machine.
    #[track_caller]
    pub fn assert_changed(&self, at: &str, stage: &Stage) {
        let changed = self.changes.is_none_or(|changes| wait_until(SOON, || changes(stage)));
        assert!(changed, "{at}: the commands don't help on `{}`", self.name);
    }
}

fn old_scripts(stage: &mut Stage) {
    stage.host.ok("rm -f /etc/qemu-if*");
    stage.host.install_legacy();
}

pub fn default(stage: &mut Stage) {
    stage.guest("natup", "vnet0", "192.168.100.10/24", "192.168.100.1");
}

/// Two guests on the default network, and a network that nobody uses.
fn web_and_db(stage: &mut Stage) {
    // What a machine with Docker has would be a warning of `kvmnet check`.
    stage.host.sh("sysctl -w net.bridge.bridge-nf-call-iptables=0");
    stage.host.write("/etc/kvmnet/lab.toml", LAB);
    for (name, tap) in [("web", "vnet0"), ("db", "vnet1")] {
        let command = format!(
            "qemu-system-x86_64 ... -name {name} -netdev tap,id=n0,ifname={tap},\
             script=/usr/libexec/kvmnet-natup,downscript=/usr/libexec/kvmnet-natdown \
             -device virtio-net-pci,netdev=n0"
        );
        stage.qemu("two guests", &command, &[(tap.to_owned(), "br0".to_owned())]);
    }
}

/// Whether port 8080 of the host leads to the guest's server.
pub fn forwarded(stage: &Stage) -> bool {
    let _server = stage.guests[0].net().tcp_server(80);
    stage.host.outside_tcp_connect("10.0.0.11", 8080, SOON / 10).is_ok()
}

pub fn cell(stage: &mut Stage) {
    stage.install("cell");
    stage.guest("natup", "cell0", "10.9.9.10/24", "10.9.9.1");
}

fn routed_cell(stage: &mut Stage) {
    let text = "mode = \"routed\"\naddress = \"10.9.9.1/24\"\ntaps = [\"cell*\"]\n";
    stage.host.write("/etc/kvmnet/cell.toml", text);
    stage.guest("natup", "cell0", "10.9.9.10/24", "10.9.9.1");
    stage.host.outside_ok("ip route add 10.9.9.0/24 via 10.0.0.11");
    assert!(stage.guest_reaches(OUTSIDE));
}

fn dmz_without_way_back(stage: &mut Stage) {
    stage.install("dmz");
    stage.guest("natup", "dmz0", "10.77.0.10/24", "10.77.0.1");
}

pub fn dmz(stage: &mut Stage) {
    dmz_without_way_back(stage);
    stage.host.outside_ok("ip route add 10.77.0.0/24 via 10.0.0.11");
    assert!(stage.guest_reaches(OUTSIDE));
}

/// Whether the host's NIC is on the bridge, and its address, and the way out is over it.
pub fn bridge_has_it_all(stage: &Stage) -> bool {
    stage.host.addresses("br0") == ["10.0.0.11/24"]
        && stage.host.ports("br0") == ["eno1"]
        && stage.host.addresses("eno1").is_empty()
        && stage.host.ok("cat /sys/class/net/br0/bridge/stp_state") == "0\n"
        && stage.host.sh("ping -c1 -W2 203.0.113.1").success()
}

pub fn own_bridge(stage: &mut Stage) {
    stage.host.ok("ip link add br0 type bridge forward_delay 0; ip link set br0 up
                   ip address del 10.0.0.11/24 dev eno1; ip link set eno1 master br0
                   ip address add 10.0.0.11/24 dev br0
                   ip route add default via 10.0.0.1 dev br0");
}

pub fn bridged(stage: &mut Stage) {
    own_bridge(stage);
    stage.guest("ifup", "vnet0", "10.0.0.20/24", "10.0.0.1");
    assert!(stage.guest_reaches(OUTSIDE));
}

/// A network file of a document: a helper joins a tap to the bridge that it says, which has the
/// address that it says.
#[track_caller]
pub fn check_file(at: &str, name: &str, text: &str) {
    let line = |line: &str| {
        let (key, value) = line.split('#').next()?.split_once('=')?;
        Some((key.trim().to_owned(), value.trim().trim_matches(['[', ']', '"']).to_owned()))
    };
    let keys: BTreeMap<_, _> = text.lines().filter_map(line).collect();
    let host = Host::new();
    host.write(format!("/etc/kvmnet/{name}.toml"), text);
    let bridge =
        keys.get("bridge").map_or(if name == "default" { "br0" } else { name }, |bridge| bridge);
    if keys.get("mode").is_some_and(|mode| mode == "bridged") {
        host.ok(&format!("ip link add {bridge} type bridge"));
    }
    // Chosen by the tap's name, or else by the network's.
    let tap = keys.get("taps").map_or("vnet0".to_owned(), |taps| taps.replace('*', "0"));
    let _tap = host.tap(&tap);
    let mut natup = host.command("/usr/libexec/kvmnet-natup");
    if !keys.contains_key("taps") {
        natup.env("KVMNET_NETWORK", name);
    }
    host.spawn(natup.arg(&tap)).output(SOON).expect(at);
    assert_eq!(host.ports(bridge), [tap], "{at}");
    let addresses: Vec<_> = keys.get("address").into_iter().cloned().collect();
    assert_eq!(host.addresses(bridge), addresses, "{at}");
}
