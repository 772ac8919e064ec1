//! What others have for the same purpose: CNI's plugin, netavark, and libvirt's networks.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::programs::{Program, command};
use crate::results::Verb;
use crate::run;
use crate::world::PRIVATE;

const CNI: &str = "/usr/lib/cni";
const NETAVARK: &str = "/usr/lib/podman/netavark";
const LIBVIRTD: &str = "/usr/sbin/libvirtd";
/// How long libvirtd may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

fn require(program: &str, package: &str) -> io::Result<()> {
    if Path::new(program).exists() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program} is missing: tests/peers gets it from {package}")))
}

/// The networks of two containers that nobody is in.
fn make_containers() -> io::Result<()> {
    run::sh("ip netns add ct0; ip netns add ct1")
}

fn container(verb: Verb) -> String {
    format!("/run/netns/ct{}", verb.guest())
}

/// The plugins `bridge` and `host-local` of CNI.
pub struct Cni;

impl Program for Cni {
    fn name(&self) -> &'static str {
        "CNI bridge plugin"
    }

    fn note(&self) -> &'static str {
        "ADD and DEL of a container: a veth pair and an address for it, too; never removes the bridge"
    }

    fn verbs(&self) -> &'static [Verb] {
        &[Verb::First, Verb::Next, Verb::NotLast]
    }

    fn wants_tap(&self) -> bool {
        false
    }

    fn set_up(&mut self) -> io::Result<()> {
        require(&format!("{CNI}/bridge"), "containernetworking-plugins")?;
        make_containers()?;
        let network = serde_json::json!({
            "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "br0",
            "isGateway": true, "ipMasq": true,
            "ipam": {
                "type": "host-local", "dataDir": format!("{PRIVATE}/addresses"),
                "ranges": [[{"subnet": "192.168.100.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        });
        fs::write(format!("{PRIVATE}/network"), network.to_string())
    }

    fn command(&mut self, verb: Verb) -> io::Result<Command> {
        let mut command = Command::new(format!("{CNI}/bridge"));
        command
            .stdin(File::open(format!("{PRIVATE}/network"))?)
            .env("CNI_COMMAND", if verb.is_up() { "ADD" } else { "DEL" })
            .env("CNI_CONTAINERID", format!("ct{}", verb.guest()))
            .env("CNI_NETNS", container(verb))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", CNI);
        Ok(command)
    }

    fn clean(&mut self) -> io::Result<()> {
        run::untimed(&mut self.command(Verb::Last)?)?;
        run::sh("ip link delete br0")
    }
}

/// netavark, Podman's.
pub struct Netavark;

impl Program for Netavark {
    fn name(&self) -> &'static str {
        "netavark"
    }

    fn note(&self) -> &'static str {
        "setup and teardown of a container: a veth pair and an address for it, too"
    }

    fn verbs(&self) -> &'static [Verb] {
        &Verb::NAT
    }

    fn wants_tap(&self) -> bool {
        false
    }

    fn set_up(&mut self) -> io::Result<()> {
        require(NETAVARK, "netavark")?;
        make_containers()?;
        for guest in 0..2 {
            let network = serde_json::json!({
                "container_id": format!("ct{guest}"), "container_name": format!("ct{guest}"),
                "networks": {"bench": {
                    "static_ips": [format!("192.168.100.{}", guest + 2)], "interface_name": "eth0",
                }},
                "network_info": {"bench": {
                    "name": "bench", "id": "b".repeat(64), "driver": "bridge",
                    "network_interface": "br0", "ipv6_enabled": false, "internal": false,
                    "dns_enabled": false, "ipam_options": {"driver": "host-local"},
                    "subnets": [{"gateway": "192.168.100.1", "subnet": "192.168.100.0/24"}],
                }},
            });
            fs::write(format!("{PRIVATE}/network{guest}"), network.to_string())?;
        }
        Ok(())
    }

    fn command(&mut self, verb: Verb) -> io::Result<Command> {
        let mut command = command(NETAVARK);
        let file = format!("{PRIVATE}/network{}", verb.guest());
        let action = if verb.is_up() { "setup" } else { "teardown" };
        command.args(["--config", PRIVATE, "--file", &file, action, &container(verb)]);
        Ok(command)
    }
}

/// A network of libvirt's, without DHCP and DNS, which kvmnet hasn't either.
pub struct Libvirt {
    pub daemon: Option<Child>,
}

impl Libvirt {
    fn virsh(arguments: &[&str]) -> Command {
        let mut command = command("/usr/bin/virsh");
        command.args(["--quiet", "--connect", "network:///system"]).args(arguments);
        command
    }
}

impl Program for Libvirt {
    fn name(&self) -> &'static str {
        "libvirt network"
    }

    fn note(&self) -> &'static str {
        "virsh net-start and net-destroy; libvirtd does the work, so CPU time, calls and memory are virsh's alone"
    }

    fn verbs(&self) -> &'static [Verb] {
        &[Verb::First, Verb::Last]
    }

    fn wants_tap(&self) -> bool {
        false
    }

    fn set_up(&mut self) -> io::Result<()> {
        require(LIBVIRTD, "libvirt-daemon")?;
        run::sh(
            "mkdir -p /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt",
        )?;
        // Its own user, whom its package would have made.
        run::sh(
            "grep -q ^libvirt-qemu: /etc/passwd || {
                echo libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin >>/etc/passwd
                echo libvirt-qemu:x:64055: >>/etc/group
            }",
        )?;
        let network = "<network><name>bench</name><forward mode='nat'/>\
             <bridge name='br0' stp='off' delay='0'/><dns enable='no'/>\
             <ip address='192.168.100.1' netmask='255.255.255.0'/></network>";
        let file = format!("{PRIVATE}/network.xml");
        fs::write(&file, network)?;
        let log = File::create(format!("{PRIVATE}/libvirtd"))?;
        let daemon = Command::new(LIBVIRTD)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.daemon = Some(daemon);
        let end = Instant::now() + PATIENCE;
        while let Err(error) = run::untimed(&mut Self::virsh(&["net-list"])) {
            if Instant::now() > end {
                let log = fs::read_to_string(format!("{PRIVATE}/libvirtd")).unwrap_or_default();
                let last = log.lines().next_back().unwrap_or_default();
                return Err(io::Error::other(format!("{error}; libvirtd: {last}")));
            }
            thread::sleep(Duration::from_millis(100));
        }
        run::untimed(&mut Self::virsh(&["net-define", &file]))
    }

    fn command(&mut self, verb: Verb) -> io::Result<Command> {
        let action = if verb.is_up() { "net-start" } else { "net-destroy" };
        Ok(Self::virsh(&[action, "bench"]))
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
