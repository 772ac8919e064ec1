//! kvmnet's guests on a host with the real firewalld.
//!
//! What isn't in a zone that allows it is rejected; an accept in any other table doesn't help. So
//! kvmnet's bridges join a zone of kvmnet's own.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use kvmnet_tests::{
    Firewalld, Foreign, Guest, GuestSpec, Host, Lab, assert_same, seen, wait_until, ways,
};

const SOON: Duration = Duration::from_secs(10);
/// How long nothing must come: a hundred times what comes takes.
const SILENCE: Duration = Duration::from_secs(1);
const OUTSIDE: &str = "10.0.0.1:7000";

/// A port forward of the administrator's, to a guest on nat.
const PORT_FORWARD: &str = "iptables -t nat -A PREROUTING -i eno1 -p tcp --dport 9000 \
                            -j DNAT --to-destination 192.168.100.10:7000";

/// The lab's network on the administrator's bridge, with a zone.
const LAN_WITH_ZONE: &str =
    "mode = \"bridged\"\nbridge = \"br1\"\ntaps = [\"brd*\"]\nzone = \"public\"\n";

/// The bus has hung up: that is heard by reading or by writing, whichever comes first.
const HUNG_UP: &str = "it cannot be asked over D-Bus (/run/dbus/system_bus_socket: ";

/// A line of syslog when the guests stay cut off.
const CUT_OFF: &str = "firewalld does not let the guests through: ";

/// What is open with no word of the administrator's: the host stays closed, and so does the
/// administrator's own bridge.
fn by_kvmnet_alone() -> Vec<&'static str> {
    let theirs = |way: &&str| ways::LAN.contains(way) || *way == "bridged > bridged";
    with_a_zone_for_the_lan().into_iter().filter(|way| !theirs(way)).collect()
}

/// What is open where the bridged network's file names a zone, too.
fn with_a_zone_for_the_lan() -> Vec<&'static str> {
    ways::all().into_iter().filter(|way| !ways::TO_HOST.contains(way)).collect()
}

/// What is open once all bridges are in the zone trusted. To let connections in from the uplink's
/// zone takes a policy.
fn with_trust() -> Vec<&'static str> {
    ways::all().into_iter().filter(|way| *way != "outside > routed").collect()
}

fn trust(firewalld: &Firewalld<'_>, permanent: &str) {
    for bridge in ["br0", "routed", "iso", "br1"] {
        firewalld.command(&format!("{permanent} --zone=trusted --change-interface={bridge}"));
    }
}

#[track_caller]
fn assert_zone(host: &Host, interface: &str, zone: &str) {
    let found = host.sh(&format!("firewall-cmd --get-zone-of-interface={interface} 2>&1"));
    assert_eq!(found.stdout.trim(), zone, "{interface}");
}

#[track_caller]
fn assert_port_forward(lab: &Lab) {
    let answer = lab.host.outside().tcp_connect("10.0.0.11:9000", "hello", SOON);
    assert_eq!(seen(&answer.expect("it passes")).ip().to_string(), "10.0.0.1");
}

/// Attaches the first guest on nat, and returns what syslog has on it.
#[track_caller]
fn natup(lab: &Lab) -> String {
    let before = lab.host.syslog().len();
    lab.host.helper("natup", &["vnet0"]).expect("natup");
    let told = || lab.host.syslog().len() > before;
    assert!(wait_until(SOON, told), "nothing in syslog");
    lab.host.syslog().split_off(before).join("\n")
}

/// A reload of firewalld's takes every zone that isn't permanent: what kvmnet makes up for.
#[test]
fn the_problem() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    assert_eq!(firewalld.command("--get-default-zone"), "public\n");
    lab.attach();
    firewalld.command("--reload");
    lab.assert_reached(&ways::FROM_HOST);
    // No timeout: the guest hears that the host won't.
    let error = lab.net("vnet0").tcp_connect(OUTSIDE, "hello", SOON).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    lab.host.ok(PORT_FORWARD);
    assert_port_forward(&lab);
    // Neither an accept of firewalld's own direct interface nor one in a table that comes first.
    firewalld.command("--direct --add-rule ipv4 filter FORWARD 0 -i br0 -j ACCEPT");
    lab.host.ok(
        "nft 'add table ip mine; add chain ip mine f { type filter hook forward priority -1; };
                 add rule ip mine f iifname \"br0\" accept'",
    );
    lab.assert_reached(&ways::FROM_HOST);
}

#[test]
fn guests_of_every_mode_get_through() {
    let lab = Lab::new();
    let mut firewalld = lab.host.firewalld();
    lab.attach();
    for (bridge, zone) in [("br0", "kvmnet"), ("iso", "kvmnet"), ("routed", "kvmnet-routed")] {
        assert_zone(&lab.host, bridge, zone);
    }
    lab.assert_reached(&by_kvmnet_alone());
    lab.host.ok(PORT_FORWARD);
    assert_port_forward(&lab);
    lab.host.write("/etc/kvmnet/lan.toml", LAN_WITH_ZONE);
    let open = with_a_zone_for_the_lan();
    let reload = |lab: &Lab| {
        let told = lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
        lab.assert_reached(&open);
        told
    };
    let told = reload(&lab);
    assert!(told.contains("br1: repaired: put br1 into firewalld's zone public"), "{told}");
    assert!(told.contains("default: is as it should be"), "{told}");
    for how in ["--reload", "--complete-reload"] {
        firewalld.command(how);
        lab.assert_reached(&ways::FROM_HOST);
        let told = reload(&lab);
        assert!(told.contains("default: repaired: put br0 into firewalld's zone kvmnet"), "{told}");
    }
    firewalld.restart();
    lab.assert_reached(&ways::FROM_HOST);
    reload(&lab);
    // The next guest's start puts back its own network.
    firewalld.command("--reload");
    lab.host.helper("natup", &["vnet1"]).expect("natup");
    assert_zone(&lab.host, "br0", "kvmnet");
}

/// Of the host guests reach DHCP and DNS, and what it serves to the machines outside is closed.
#[test]
fn the_hosts_own_ports_stay_closed() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    lab.attach();
    let host = lab.host.net();
    let _ssh = host.tcp_server(22);
    let _dns = (host.tcp_server(53), host.udp_server(53), host.udp_server(67));
    lab.host.outside().tcp_connect("10.0.0.11:22", "hello", SOON).expect("public lets ssh in");
    for (guest, gateway) in [("vnet0", "192.168.100.1"), ("rt0", "192.168.110.1")] {
        let net = lab.net(guest);
        for address in [gateway, "10.0.0.11"] {
            let _ = net.tcp_connect(&format!("{address}:22"), "hello", SILENCE).expect_err(guest);
        }
        net.tcp_connect(&format!("{gateway}:53"), "hello", SOON).expect(guest);
        for port in [53, 67] {
            net.udp_request(&format!("{gateway}:{port}"), "hello", SOON).expect(guest);
        }
    }
    // As docs/firewalld.md has it.
    firewalld.command("--zone=kvmnet --add-service=ssh");
    lab.net("vnet0").tcp_connect("192.168.100.1:22", "hello", SOON).expect("it is opened");
}

/// An administrator's choice is another's only by the network's file.
#[test]
fn in_the_zone_trusted_all_pass_until_a_reload() {
    let lab = Lab::new();
    let mut firewalld = lab.host.firewalld();
    lab.attach();
    trust(&firewalld, "");
    lab.assert_reached(&with_trust());
    let mut conversation = lab.net("vnet0").tcp_converse(OUTSIDE, SOON).unwrap();
    // A binding that isn't permanent goes with every reload, and so do foreign iptables rules;
    // foreign nft tables stay.
    lab.host.ok("iptables -A FORWARD -i br9 -j ACCEPT; iptables -P FORWARD DROP");
    let table = lab.host.nft("ip", "kvmnet-default");
    firewalld.command("--reload");
    assert_eq!(lab.host.nft("ip", "kvmnet-default"), table);
    assert_eq!(lab.host.ok("iptables -S FORWARD"), "-P FORWARD DROP\n");
    lab.host.ok("iptables -P FORWARD ACCEPT");
    lab.assert_reached(&ways::FROM_HOST);
    conversation.say("established", SOON).expect("what is established may go on");
    // A permanent one is there before the bridge, and no start and no end of a guest's changes it.
    trust(&firewalld, "--permanent");
    firewalld.restart();
    lab.assert_reached(&with_trust());
    lab.detach();
    assert_zone(&lab.host, "br0", "trusted");
    lab.attach();
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    assert_zone(&lab.host, "br0", "trusted");
    lab.assert_reached(&with_trust());
    firewalld.stop();
    lab.assert_reached(&ways::all());
}

#[test]
fn a_zone_in_the_networks_file() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    let before = firewalld.command("--list-all-zones");
    let address = "address = \"192.168.100.1/24\"\n";
    let file = |rest: &str| lab.host.write("/etc/kvmnet/default.toml", format!("{address}{rest}"));
    let alias = || lab.host.ok("cat /sys/class/net/br0/ifalias");
    // The file's word is the administrator's last.
    firewalld.command("--permanent --zone=internal --add-interface=br0");
    firewalld.command("--reload");
    file("zone = \"trusted\"\n");
    let log = natup(&lab);
    assert!(log.contains("put br0 into firewalld's zone trusted"), "{log}");
    assert_zone(&lab.host, "br0", "trusted");
    assert_eq!(alias(), "kvmnet:default:forwarding:zone\n");
    lab.net("vnet0").tcp_connect("192.168.100.1:7000", "hello", SOON).expect("trusted is open");
    firewalld.command("--permanent --zone=internal --remove-interface=br0");
    lab.host.helper("natdown", &["vnet0"]).expect("natdown");
    assert_zone(&lab.host, "br0", "no zone");
    firewalld.command("--reload");
    assert_eq!(firewalld.command("--list-all-zones"), before);
    // With rules that are the administrator's zones are, too, but for one that is named.
    file("firewall = \"none\"\n");
    let log = natup(&lab);
    assert!(!log.contains("zone"), "{log}");
    assert_zone(&lab.host, "br0", "no zone");
    file("firewall = \"none\"\nzone = \"kvmnet\"\n");
    let told = lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    assert_eq!(told, "default: repaired: put br0 into firewalld's zone kvmnet\n");
    lab.host.helper("natdown", &["vnet0"]).expect("natdown");
    // The administrator's bridge stays where its file has it.
    lab.host.write("/etc/kvmnet/lan.toml", LAN_WITH_ZONE);
    lab.attach_only(&["brd0", "brd1"]);
    assert_zone(&lab.host, "br1", "public");
    lab.host.helper("natdown", &["brd0"]).expect("natdown");
    lab.host.helper("natdown", &["brd1"]).expect("natdown");
    assert_zone(&lab.host, "br1", "public");
}

#[test]
fn all_is_as_it_was_when_the_last_guest_is_gone() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    let all = || firewalld.command("--list-all-zones") + &firewalld.command("--list-all-policies");
    let (before, zones) = (lab.foreign(), all());
    lab.attach();
    assert_ne!(all(), zones);
    // firewalld keeps a zone's chains until its next reload. Nothing leads to them.
    let assert_as_before = || {
        let rest = |foreign: Foreign| foreign.without_table("firewalld");
        assert_same(&rest(before.clone()), &rest(lab.foreign()));
        assert_eq!(all(), zones);
        let rules = lab.host.ok("nft list table inet firewalld");
        for word in
            ["\"br0\"", "\"routed\"", "\"iso\"", "goto filter_IN_kvmnet", "policy_kvmnet-out\n"]
        {
            assert!(!rules.contains(word), "{rules}");
        }
    };
    lab.detach();
    assert_as_before();
    // A reload between, and a zone that came back.
    lab.attach();
    firewalld.command("--reload");
    lab.host.helper("natup", &["vnet0"]).expect("natup");
    lab.detach();
    assert_as_before();
    // A VM is killed.
    natup(&lab);
    lab.host.ok("ip link set vnet0 nomaster");
    assert_zone(&lab.host, "br0", "kvmnet");
    lab.host.run(&["kvmnet", "gc"]).expect("kvmnet gc");
    assert_as_before();
    firewalld.command("--reload");
    lab.assert_no_trace();
    assert_same(&before, &lab.foreign());
}

/// What `plan`, `up`, `down` and `check` say of it.
#[test]
fn the_command() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    let kvmnet = |arguments: &[&str]| {
        let output = lab.host.run(&[&["kvmnet"], arguments].concat());
        format!("{}{}", output.stdout, output.stderr)
    };
    let check = kvmnet(&["check"]);
    let warning = "warning: network lan: firewalld does not let its guests through: br1 is in no \
                   zone of its; put it into one that forwards from port to port, as public does: \
                   firewall-cmd --permanent --zone=public --add-interface=br1; firewall-cmd --reload\n";
    assert!(check.contains(warning), "{check}");
    lab.host.write("/etc/kvmnet/lan.toml", LAN_WITH_ZONE);
    lab.attach_only(&["brd0"]);
    let plan = kvmnet(&["plan", "up", "routed"]);
    assert!(plan.contains(". put routed into firewalld's zone kvmnet-routed\n"), "{plan}");
    let up = kvmnet(&["up", "routed"]);
    assert!(up.contains("put routed into firewalld's zone kvmnet-routed"), "{up}");
    assert!(!kvmnet(&["check"]).contains("firewalld"), "{}", kvmnet(&["check"]));
    firewalld.command("--reload");
    let check = kvmnet(&["check"]);
    let lacks = "mistake: network routed: is not as it should be; kvmnet reload puts it right, as \
                 does the next guest's start: put routed into firewalld's zone kvmnet-routed\n";
    assert!(check.contains(lacks), "{check}");
    let lacks = "warning: network lan: br1 is not in firewalld's zone public, which the network's \
                 file names; kvmnet reload puts it there\n";
    assert!(check.contains(lacks), "{check}");
    kvmnet(&["reload"]);
    assert!(!kvmnet(&["check"]).contains("firewalld"), "{}", kvmnet(&["check"]));
    let plan = kvmnet(&["plan", "down", "routed"]);
    let leave = "1. take routed out of firewalld's zone kvmnet-routed\n";
    assert!(plan.starts_with(leave), "{plan}");
    kvmnet(&["down", "routed"]);
    assert_zone(&lab.host, "routed", "no zone");
    // Networks that are in no zone by the administrator's own word.
    lab.host.write("/etc/kvmnet/iso.toml", "mode = \"isolated\"\nfirewall = \"none\"\n");
    let check = kvmnet(&["check"]);
    let warning = "warning: network iso: firewalld does not let its guests through: iso is in no \
                   zone of its, and the network's file names none; zone = \"kvmnet\" there, or \
                   firewall-cmd --permanent --zone=ZONE --add-interface=iso\n";
    assert!(check.contains(warning), "{check}");
    firewalld.command("--zone=trusted --add-interface=iso");
    assert!(!kvmnet(&["check"]).contains("network iso"), "{}", kvmnet(&["check"]));
    lab.host.write("/etc/kvmnet/iso.toml", "mode = \"isolated\"\nzone = \"nowhere\"\n");
    let check = kvmnet(&["check"]);
    let warning = "warning: network iso: firewalld does not let its guests through: it does not \
                   know the zone nowhere, which the network's file names; make it: firewall-cmd \
                   --permanent --new-zone=nowhere; firewall-cmd --reload\n";
    assert!(check.contains(warning), "{check}");
}

/// Whatever is wrong with firewalld, the guest starts, and hears no more of it than a warning.
#[test]
fn a_zone_that_is_not_known() {
    let lab = Lab::new();
    lab.host
        .write("/etc/kvmnet/default.toml", "address = \"192.168.100.1/24\"\nzone = \"nowhere\"\n");
    let firewalld = lab.host.firewalld();
    let log = natup(&lab);
    let why = "it does not know the zone nowhere, which the network's file names; make it: \
               firewall-cmd --permanent --new-zone=nowhere; firewall-cmd --reload";
    assert!(log.contains(&format!("{CUT_OFF}{why}")), "{log}");
    let told = lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    assert!(told.contains(why), "{told}");
    // The remedy is one.
    firewalld.command("--permanent --new-zone=nowhere");
    firewalld.command("--reload");
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    assert_zone(&lab.host, "br0", "nowhere");
}

/// firewalld has run since before kvmnet was installed.
#[test]
fn kvmnets_own_zone_is_not_known_yet() {
    let lab = Lab::new();
    lab.host.ok(
        "mkdir -p /run/old/zones /run/old/policies
         cp /usr/lib/firewalld/zones/[!k]*.xml /run/old/zones
         for what in zones policies; do mount --bind /run/old/$what /usr/lib/firewalld/$what; done",
    );
    let firewalld = lab.host.firewalld();
    lab.host.ok("umount /usr/lib/firewalld/zones /usr/lib/firewalld/policies");
    let log = natup(&lab);
    let why = "it does not know the zone kvmnet, which is installed with kvmnet in \
               /usr/lib/firewalld; have it look there: firewall-cmd --reload";
    assert!(log.contains(&format!("{CUT_OFF}{why}")), "{log}");
    let check = lab.host.sh("kvmnet check").stdout;
    assert!(check.contains(&format!("does not let its guests through: {why}")), "{check}");
    firewalld.command("--reload");
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    lab.net("vnet0").tcp_connect(OUTSIDE, "hello", SOON).expect("the remedy is one");
}

/// Attaches, releases, and looks at the time that took.
#[track_caller]
fn starts_without_an_answer(lab: &Lab, why: &str) {
    let start = Instant::now();
    let log = natup(lab);
    assert!(log.contains(CUT_OFF) && log.contains(why), "{log}");
    lab.net("vnet0").tcp_connect("192.168.100.11:7000", "hello", SILENCE).unwrap_err();
    assert_eq!(lab.host.ports("br0"), ["vnet0"]);
    let check = lab.host.sh("kvmnet check").stdout;
    let lines = check.matches("warning: firewalld does not let guests through: ").count();
    assert!(lines == 1 && check.contains(why), "{check}");
    lab.host.helper("natdown", &["vnet0"]).expect("natdown");
    assert!(lab.host.ports("br0").is_empty());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn firewalld_is_killed_and_its_table_stays() {
    let lab = Lab::new();
    let mut firewalld = lab.host.firewalld();
    firewalld.kill();
    starts_without_an_answer(&lab, "it does not run; start it, then kvmnet reload");
    // The other remedy.
    lab.host.ok("nft delete table inet firewalld");
    assert!(!natup(&lab).contains("firewalld"));
}

#[test]
fn the_bus_does_not_answer() {
    let lab = Lab::new();
    let mut firewalld = lab.host.firewalld();
    firewalld.freeze_bus();
    starts_without_an_answer(&lab, "it has not answered over D-Bus in 3 s");
    firewalld.kill();
    firewalld.kill_bus();
    starts_without_an_answer(&lab, "/run/dbus/system_bus_socket: Connection refused");
    lab.host.ok("rm /run/dbus/system_bus_socket");
    starts_without_an_answer(&lab, "/run/dbus/system_bus_socket: No such file or directory");
    for (says, why) in [
        ("", HUNG_UP),
        ("REJECTED EXTERNAL\r\n", "/run/dbus/system_bus_socket: it does not take user 0"),
        ("OK 1234\r\n", HUNG_UP),
        (
            "OK 1234\r\n+l\u{2}\u{1}\u{1}\u{7f}\u{7f}\u{7f}\u{7f}\u{1}\0\0\0\0\0\0\0",
            "/run/dbus/system_bus_socket: what it says is no D-Bus",
        ),
    ] {
        be_a_bus(&lab.host, says);
        starts_without_an_answer(&lab, why);
    }
}

/// Takes the place of the system bus: says this to everybody, by and by, and hangs up.
fn be_a_bus(host: &Host, says: &'static str) {
    let path = host.path("/run/dbus/system_bus_socket");
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("the host's /run is writable");
    thread::spawn(move || {
        for caller in listener.incoming() {
            let mut caller = caller.expect("somebody calls");
            let mut heard = [0; 512];
            for part in says.split('+') {
                let _ = caller.read(&mut heard);
                let _ = caller.write_all(part.as_bytes());
            }
            // What it says is read before it is missed.
            thread::sleep(SILENCE / 5);
        }
    });
}

/// Both have to let a guest through: firewalld by the zone, Docker by rules; a reload takes both.
#[test]
fn docker_and_firewalld() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    let docker = lab.host.docker();
    let container = docker.run("web", &["--publish", "8080:80"]);
    let _servers = (container.net().tcp_server(80), container.net().tcp_server(81));
    lab.host.write("/etc/kvmnet/lan.toml", LAN_WITH_ZONE);
    lab.attach();
    let zones = firewalld.command("--get-active-zones");
    assert!(zones.contains("docker\n  interfaces: docker0"), "{zones}");
    lab.assert_reached(&with_a_zone_for_the_lan());
    for guest in ["vnet0", "rt0"] {
        let published = lab.net(guest).tcp_connect("10.0.0.11:8080", "hello", SOON);
        let _ = seen(&published.unwrap_or_else(|error| panic!("{guest}: {error}")));
        let closed = format!("{}:81", container.address());
        let _ = lab.net(guest).tcp_connect(&closed, "hello", SILENCE).expect_err(guest);
    }
    let _ = container.net().tcp_connect("192.168.100.10:7000", "hello", SILENCE).unwrap_err();
    firewalld.command("--reload");
    // Docker puts back its own by and by, and nobody what was in DOCKER-USER.
    let back = || lab.host.ok("iptables -S FORWARD").contains("DOCKER-USER");
    assert!(wait_until(SOON, back));
    lab.assert_reached(&ways::FROM_HOST);
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    lab.assert_reached(&with_a_zone_for_the_lan());
    // With the zone alone Docker drops, with the rules alone firewalld rejects.
    lab.remove_accepts();
    lab.assert_reached(&ways::FROM_HOST);
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    for (bridge, zone) in
        [("br0", "kvmnet"), ("iso", "kvmnet"), ("br1", "public"), ("routed", "kvmnet-routed")]
    {
        firewalld.command(&format!("--zone={zone} --remove-interface={bridge}"));
    }
    lab.assert_reached(&ways::FROM_HOST);
}

/// Where firewalld makes its rules with iptables, it is a firewall like ufw: kvmnet adds accepts.
#[test]
fn firewalld_by_iptables() {
    let lab = Lab::new();
    lab.host
        .ok("sed -i s/^FirewallBackend=.*/FirewallBackend=iptables/ /etc/firewalld/firewalld.conf");
    let firewalld = lab.host.firewalld();
    lab.attach();
    assert_zone(&lab.host, "br0", "no zone");
    lab.assert_reached(&with_a_zone_for_the_lan());
    firewalld.command("--reload");
    lab.assert_reached(&ways::FROM_HOST);
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    lab.assert_reached(&with_a_zone_for_the_lan());
}

/// What docs/firewalld.md has for container ports that Docker leaves open.
const OF_THE_DOCUMENTS_FOR_DOCKER: [&str; 7] = [
    "--permanent --new-policy=kvmnet-docker",
    "--permanent --policy=kvmnet-docker --set-priority=-2",
    "--permanent --policy=kvmnet-docker --add-ingress-zone=kvmnet",
    "--permanent --policy=kvmnet-docker --add-ingress-zone=kvmnet-routed",
    "--permanent --policy=kvmnet-docker --add-egress-zone=docker",
    "--permanent --policy=kvmnet-docker --set-target=REJECT",
    "--reload",
];

/// Docker drops nothing where forwarding was on before it came.
#[test]
fn docker_after_the_guests_leaves_its_ports_open() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    lab.attach();
    let docker = lab.host.docker();
    assert!(lab.host.ok("iptables -S FORWARD").starts_with("-P FORWARD ACCEPT\n"));
    let container = docker.run("web", &["--publish", "8080:80"]);
    let _servers = (container.net().tcp_server(80), container.net().tcp_server(81));
    // The first dockerd makes a zone, and reloads firewalld.
    lab.assert_reached(&ways::FROM_HOST);
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    lab.assert_reached(&by_kvmnet_alone());
    let unpublished = format!("{}:81", container.address());
    lab.net("vnet0").tcp_connect(&unpublished, "hello", SOON).expect("it is open");
    for line in OF_THE_DOCUMENTS_FOR_DOCKER {
        firewalld.command(line);
    }
    let back = || lab.host.ok("iptables -S FORWARD").contains("DOCKER-USER");
    assert!(wait_until(SOON, back));
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    lab.assert_reached(&by_kvmnet_alone());
    for guest in ["vnet0", "rt0"] {
        let _ = lab.net(guest).tcp_connect(&unpublished, "hello", SILENCE).expect_err(guest);
        lab.net(guest).tcp_connect("10.0.0.11:8080", "hello", SOON).expect(guest);
    }
}

#[test]
fn a_real_guest_gets_through() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    let spec = GuestSpec::new("anna").nat("vnet7").ip("192.168.100.17/24");
    let spec = spec.gateway("192.168.100.1").program(env!("CARGO_BIN_EXE_talk"));
    let mut guest = Guest::boot(&lab.host, spec);
    let gets_out = |guest: &mut Guest<'_>| {
        assert_eq!(guest.tcp("10.0.0.1", 7000).ip().to_string(), "10.0.0.11");
        assert_eq!(guest.udp("10.0.0.1", 7000).ip().to_string(), "10.0.0.11");
    };
    gets_out(&mut guest);
    firewalld.command("--reload");
    assert!(!guest.sh("echo hello | nc -w 5 10.0.0.1 7000").success());
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    gets_out(&mut guest);
    assert_eq!(guest.power_off(), 0);
    assert_zone(&lab.host, "br0", "no zone");
}
