//! Guests of every mode on one host, and who of them reaches whom.

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::Duration;

use crate::foreign::Foreign;
use crate::host::Host;
use crate::netns::Netns;
use crate::servers::{TcpServer, UdpServer};
use crate::tap_machine::TapMachine;

/// Where all serve TCP and UDP.
const PORT: u16 = 7000;
/// How long a try may take: a hundred times what one that passes needs.
const SILENCE: Duration = Duration::from_millis(700);
/// On a machine with other things to do, what should pass gets more than one try.
const TRIES: usize = 3;

/// The networks, by files.
const NETWORKS: [(&str, &str); 3] = [
    ("routed", "mode = \"routed\"\naddress = \"192.168.110.1/24\"\ntaps = [\"rt*\"]\n"),
    ("iso", "mode = \"isolated\"\ntaps = [\"iso*\"]\n"),
    ("lan", "mode = \"bridged\"\nbridge = \"br1\"\ntaps = [\"brd*\"]\n"),
];

/// The taps, with the addresses and gateways of the machines behind them.
const MACHINES: [(&str, &str, &str); 8] = [
    ("vnet0", "192.168.100.10", "192.168.100.1"),
    ("vnet1", "192.168.100.11", "192.168.100.1"),
    ("rt0", "192.168.110.10", "192.168.110.1"),
    ("rt1", "192.168.110.11", "192.168.110.1"),
    ("iso0", "192.168.120.10", "192.168.120.1"),
    ("iso1", "192.168.120.11", "192.168.120.1"),
    ("brd0", "10.1.0.20", "10.1.0.1"),
    ("brd1", "10.1.0.21", "10.1.0.1"),
];

/// All ways that are tried: a name, from where, to which address, and whom the other side sees.
const WAYS: [(&str, &str, &str, &str); 15] = [
    ("nat > outside", "vnet0", "10.0.0.1", "10.0.0.11"),
    ("nat > nat", "vnet0", "192.168.100.11", "192.168.100.10"),
    ("nat > host", "vnet0", "192.168.100.1", "192.168.100.10"),
    ("host > nat", "host", "192.168.100.10", "192.168.100.1"),
    ("outside > nat", "outside", "192.168.100.10", "10.0.0.1"),
    ("nat > routed", "vnet0", "192.168.110.10", "192.168.100.10"),
    ("routed > outside", "rt0", "10.0.0.1", "192.168.110.10"),
    ("outside > routed", "outside", "192.168.110.10", "10.0.0.1"),
    ("routed > routed", "rt0", "192.168.110.11", "192.168.110.10"),
    ("routed > host", "rt0", "192.168.110.1", "192.168.110.10"),
    ("host > routed", "host", "192.168.110.10", "192.168.110.1"),
    ("isolated > isolated", "iso0", "192.168.120.11", "192.168.120.10"),
    ("bridged > lan", "brd0", "10.1.0.1", "10.1.0.20"),
    ("lan > bridged", "outside", "10.1.0.20", "10.1.0.1"),
    ("bridged > bridged", "brd0", "10.1.0.21", "10.1.0.20"),
];

/// Sets of ways, by their names in [`Lab::reached`].
pub mod ways {
    /// From a guest to another on the same bridge.
    pub const ON_ONE_BRIDGE: [&str; 4] =
        ["nat > nat", "routed > routed", "isolated > isolated", "bridged > bridged"];
    /// Between the administrator's bridge's guests and the machines on its wire.
    pub const LAN: [&str; 2] = ["bridged > lan", "lan > bridged"];
    /// What the host forwards.
    pub const FORWARDED: [&str; 3] = ["nat > outside", "routed > outside", "outside > routed"];
    /// From guests to the host itself.
    pub const TO_HOST: [&str; 2] = ["nat > host", "routed > host"];
    /// From the host to guests.
    pub const FROM_HOST: [&str; 2] = ["host > nat", "host > routed"];

    /// All that kvmnet promises where no other firewall is: all but `outside > nat` and
    /// `nat > routed`.
    #[must_use]
    pub fn all() -> Vec<&'static str> {
        [&ON_ONE_BRIDGE[..], &LAN, &FORWARDED, &TO_HOST, &FROM_HOST].concat()
    }
}

/// A host, with firewalls or without, an administrator's bridge `br1` of MTU 9000 beside the uplink, and two
/// machines for each mode behind taps, which aren't attached yet.
#[derive(Debug)]
pub struct Lab {
    _servers: Vec<(TcpServer, UdpServer)>,
    machines: Vec<TapMachine>,
    /// The host.
    pub host: Host,
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

impl Lab {
    /// Makes it, with the real firewalls installed.
    #[must_use]
    pub fn new() -> Self {
        Self::on(Host::builder().with_firewalls().build())
    }

    /// Makes it of a host that is there.
    #[must_use]
    pub fn on(host: Host) -> Self {
        for (name, text) in NETWORKS {
            host.write(format!("/etc/kvmnet/{name}.toml"), text);
        }
        // Duplicate address detection, Docker's bridges' too, would leave addresses in flux.
        // A kernel may be without IPv6.
        host.ok("cd /proc/sys/net/ipv6/conf 2>/dev/null || exit 0; echo 0 >default/accept_dad");
        host.ok("ip link add eno2 mtu 9000 type veth peer name far2 mtu 9000 netns outside
             ip link add br1 address 02:00:00:00:00:b1 mtu 9000 type bridge forward_delay 0
             [ ! -e /proc/sys/net/ipv6 ] || echo 1 >/proc/sys/net/ipv6/conf/br1/disable_ipv6
             ip link set eno2 master br1 up; ip link set br1 up");
        // The way to the guests is there, so that only a firewall keeps it closed.
        host.outside_ok(
            "ip address add 10.1.0.1/24 dev far2; ip link set far2 up
             ip route add 192.168.100.0/24 via 10.0.0.11
             ip route add 192.168.110.0/24 via 10.0.0.11",
        );
        let machines: Vec<_> = MACHINES
            .iter()
            .map(|(tap, address, gateway)| host.tap_machine(tap, &format!("{address}/24"), gateway))
            .collect();
        for tap in ["brd0", "brd1"] {
            host.ok(&format!("ip -n at-{tap} link set eth0 mtu 9000"));
        }
        let nets = machines.iter().map(|machine| machine.net().clone());
        let servers = nets
            .chain([host.net(), host.outside()])
            .map(|net| (net.tcp_server(PORT), net.udp_server(PORT)))
            .collect();
        Self { _servers: servers, machines, host }
    }

    /// The network of the machine behind a tap; `host` and `outside` are there, too.
    #[must_use]
    pub fn net(&self, name: &str) -> Netns {
        match name {
            "host" => self.host.net(),
            "outside" => self.host.outside(),
            _ => {
                let at = MACHINES.iter().position(|(tap, ..)| *tap == name);
                self.machines[at.expect("a tap of the lab")].net().clone()
            }
        }
    }

    /// Attaches every tap, as QEMU would.
    #[track_caller]
    pub fn attach(&self) {
        self.attach_only(&MACHINES.map(|(tap, ..)| tap));
    }

    /// Attaches some of the taps.
    #[track_caller]
    pub fn attach_only(&self, taps: &[&str]) {
        for tap in taps {
            self.host.helper("natup", &[tap]).expect("natup");
        }
    }

    /// Releases every tap, as QEMU would.
    #[track_caller]
    pub fn detach(&self) {
        for (tap, ..) in MACHINES {
            self.host.helper("natdown", &[tap]).expect("natdown");
        }
    }

    /// Exactly these ways are open, by TCP and by UDP; all others by neither. What should pass is
    /// tried again when it didn't.
    #[track_caller]
    pub fn assert_reached(&self, wanted: &[&str]) {
        let wanted: BTreeSet<String> = wanted
            .iter()
            .flat_map(|name| ["tcp", "udp"].map(|protocol| format!("{name} {protocol}")))
            .collect();
        let names: Vec<_> = WAYS.iter().map(|(name, ..)| *name).collect();
        let mut reached = self.reached(&names);
        for _ in 1..TRIES {
            if reached.is_superset(&wanted) {
                break;
            }
            reached.extend(self.reached(&names));
        }
        let closed: Vec<_> = wanted.difference(&reached).collect();
        let open: Vec<_> = reached.difference(&wanted).collect();
        assert!(
            closed.is_empty() && open.is_empty(),
            "closed, and should be open: {closed:#?}\nopen, and should be closed: {open:#?}\n{}",
            self.host.sh("iptables-save; nft list ruleset").stdout
        );
    }

    /// Which of the ways are open, each with ` tcp` or ` udp` behind its name. All are tried at
    /// once.
    #[must_use]
    pub fn reached(&self, names: &[&str]) -> BTreeSet<String> {
        let ways = WAYS.iter().filter(|(name, ..)| names.contains(name));
        thread::scope(|scope| {
            let tries: Vec<_> = ways
                .flat_map(|way| [(way, "tcp"), (way, "udp")])
                .map(|((name, from, to, source), protocol)| {
                    let net = self.net(from);
                    scope.spawn(move || {
                        let sees = seen_by(&net, to, protocol);
                        if let Ok(sees) = &sees {
                            assert_eq!(sees, source, "{name} {protocol}");
                        }
                        sees.is_ok().then(|| format!("{name} {protocol}"))
                    })
                })
                .collect();
            tries
                .into_iter()
                .filter_map(|tried| tried.join().expect("the source is right"))
                .collect()
        })
    }

    /// Takes kvmnet's accepts out of the other firewalls' chains: what remains is the host as it
    /// would be without them.
    #[track_caller]
    pub fn remove_accepts(&self) {
        for variant in ["nft", "legacy"] {
            self.host.ok(&format!(
                "iptables-{variant}-save 2>/dev/null >/run/saved
                 if grep -q 'comment \"*kvmnet' /run/saved; then
                     grep -v 'comment \"*kvmnet' /run/saved | iptables-{variant}-restore; fi"
            ));
        }
    }

    /// A snapshot of all but the taps, which come and go with their VM, and of forwarding.
    #[track_caller]
    #[must_use]
    pub fn foreign(&self) -> Foreign {
        let all = self.host.foreign().without_forwarding();
        MACHINES.iter().fold(all, |rest, (tap, ..)| rest.without_link(tap))
    }

    /// No firewall has a rule of kvmnet's.
    #[track_caller]
    pub fn assert_no_trace(&self) {
        let rules = self.host.ok("nft list ruleset; iptables-save; iptables-legacy-save");
        assert!(!rules.contains("kvmnet"), "{rules}");
    }
}

/// Whom the server at an address sees when it is asked from a network.
fn seen_by(from: &Netns, to: &str, protocol: &str) -> io::Result<String> {
    let to = format!("{to}:{PORT}");
    let answer = match protocol {
        "tcp" => from.tcp_connect(&to, "hello", SILENCE)?,
        _ => from.udp_request(&to, "hello", SILENCE)?,
    };
    Ok(crate::talk::seen(&answer).ip().to_string())
}
