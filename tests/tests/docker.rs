//! kvmnet's guests on a host with the real Docker.
//!
//! Docker's policy for all that is forwarded is DROP, but only where dockerd itself turned
//! forwarding on; and with the kernel's br_netfilter, frames from port to port of a bridge are
//! "forwarded", too.

use std::process::{Command, Stdio};
use std::time::Duration;

use kvmnet_tests::{
    Conversation, Docker, Guest, GuestSpec, Host, Lab, assert_same, seen, wait_until, ways,
};

const SOON: Duration = Duration::from_secs(10);
/// How long nothing must come: a hundred times what comes takes.
const SILENCE: Duration = Duration::from_secs(1);
const OUTSIDE: &str = "10.0.0.1:7000";

/// The rules that docs/docker.md tells the administrator to add.
const OF_THE_DOCUMENTS: &str = "
    iptables -I DOCKER-USER -i br0 -o eno1 -s 192.168.100.0/24 -j ACCEPT
    iptables -I DOCKER-USER ! -i br0 -o br0 -d 192.168.100.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    iptables -I DOCKER-USER ! -i br0 -o br0 -d 192.168.100.0/24 -m conntrack --ctstate DNAT -j ACCEPT";

/// A port forward of the administrator's, to a guest on nat.
const PORT_FORWARD: &str = "iptables -t nat -A PREROUTING -i eno1 -p tcp --dport 9000 \
                            -j DNAT --to-destination 192.168.100.10:7000";

const SAVE_AND_RESTORE: &str = "iptables-save >/run/rules && iptables-restore </run/rules";

fn policy(host: &Host) -> String {
    let rules = host.ok("iptables -S FORWARD");
    rules.lines().next().unwrap_or_default().to_owned()
}

/// What is open where Docker drops and nobody has added a rule.
fn by_the_host_alone() -> Vec<&'static str> {
    [&ways::TO_HOST[..], &ways::FROM_HOST].concat()
}

/// The same without the accepts of kvmnet's: what they have to make up for.
#[track_caller]
fn without_accepts_only_the_host_is_reached(lab: &Lab) {
    assert_eq!(lab.host.sysctl("net/ipv4/ip_forward"), "0");
    let _docker = lab.host.docker();
    assert_eq!(lab.host.sysctl("net/ipv4/ip_forward"), "1");
    assert_eq!(policy(&lab.host), "-P FORWARD DROP");
    lab.attach();
    lab.remove_accepts();
    lab.assert_reached(&by_the_host_alone());
    // From port to port it is br_netfilter that asks iptables.
    assert_eq!(lab.host.sysctl("net/bridge/bridge-nf-call-iptables"), "1");
    lab.host.ok("sysctl net.bridge.bridge-nf-call-iptables=0");
    lab.assert_reached(&[&by_the_host_alone()[..], &ways::ON_ONE_BRIDGE, &ways::LAN].concat());
}

#[test]
fn the_problem() {
    without_accepts_only_the_host_is_reached(&Lab::new());
}

/// Neither nft nor iptables-nft shows these rules.
#[test]
fn the_problem_with_iptables_legacy() {
    let lab = Lab::new();
    lab.host.use_iptables_legacy();
    without_accepts_only_the_host_is_reached(&lab);
    assert_eq!(lab.host.ok("iptables-nft-save | grep -c DOCKER || :").trim(), "0");
    let tables = lab.host.ok("cat /proc/net/ip_tables_names");
    assert!(tables.contains("filter") && tables.contains("nat"), "{tables}");
}

#[test]
fn dockerd_drops_nothing_where_forwarding_was_on() {
    let lab = Lab::new();
    lab.attach();
    let _docker = lab.host.docker();
    assert_eq!(policy(&lab.host), "-P FORWARD ACCEPT");
    lab.assert_reached(&ways::all());
    // And so it is kvmnet's first guest on nat that decides, when Docker comes later.
    lab.host.helper("natdown", &["vnet0"]).expect("natdown");
    lab.host.helper("natup", &["vnet0"]).expect("natup");
    lab.assert_reached(&ways::all());
}

/// Guests that need no forwarding don't turn it on, and dockerd comes later.
#[track_caller]
fn bridges_before_docker(lab: &Lab) -> Docker<'_> {
    lab.attach_only(&["iso0", "iso1", "brd0", "brd1"]);
    lab.assert_reached(&BRIDGES);
    let docker = lab.host.docker();
    assert_eq!(policy(&lab.host), "-P FORWARD DROP");
    docker
}

const BRIDGES: [&str; 4] =
    ["isolated > isolated", "bridged > bridged", "bridged > lan", "lan > bridged"];

#[test]
fn the_problem_when_dockerd_comes_later() {
    let lab = Lab::new();
    let _docker = bridges_before_docker(&lab);
    lab.remove_accepts();
    lab.assert_reached(&[]);
}

/// What docs/docker.md says, with Docker itself: it does, and stays over a restart of dockerd.
#[test]
fn the_rules_in_the_documents() {
    let lab = Lab::new();
    let mut docker = lab.host.docker();
    lab.attach();
    lab.remove_accepts();
    lab.host.ok(&format!("{OF_THE_DOCUMENTS}\n{PORT_FORWARD}"));
    let open = [&by_the_host_alone()[..], &["nat > outside"]].concat();
    lab.assert_reached(&open);
    lab.host.outside().tcp_connect("10.0.0.11:9000", "hello", SOON).expect("the port forward");
    let mut conversation = converse(&lab);
    // Docker 20.10 puts its jumps at FORWARD's head again, and leaves DOCKER-USER as it is.
    docker.restart();
    conversation.say("after a restart", SOON).expect("the connection is open");
    docker.hang_up();
    conversation.say("after a signal", SOON).expect("the connection is open");
    lab.assert_reached(&open);
    docker.stop();
    assert_eq!(policy(&lab.host), "-P FORWARD DROP");
    lab.assert_reached(&open);
    // Without the rules not even what is established passes.
    lab.host.ok("iptables -F DOCKER-USER");
    let _ = conversation.say("into the void", SILENCE).expect_err("the policy is DROP");
}

fn converse(lab: &Lab) -> Conversation {
    lab.net("vnet0").tcp_converse(OUTSIDE, SOON).expect("the way is open")
}

#[test]
fn guests_reach_published_ports_of_containers_and_no_others() {
    let lab = Lab::new();
    let docker = lab.host.docker();
    let container = docker.run("web", &["--publish", "8080:80"]);
    let _servers = (container.net().tcp_server(80), container.net().tcp_server(81));
    lab.attach();
    for guest in ["vnet0", "rt0"] {
        let published = lab.net(guest).tcp_connect("10.0.0.11:8080", "hello", SOON);
        let _ = seen(&published.unwrap_or_else(|error| panic!("{guest}: {error}")));
        let closed = format!("{}:81", container.address());
        let _ = lab.net(guest).tcp_connect(&closed, "hello", SILENCE).expect_err(guest);
    }
    // It serves there.
    let closed = format!("{}:81", container.address());
    lab.host.net().tcp_connect(&closed, "hello", SOON).expect("the host reaches it");
    // kvmnet lets nobody in by itself.
    let _ = container.net().tcp_connect("192.168.100.10:7000", "hello", SILENCE).unwrap_err();
}

#[test]
fn all_is_as_it_was_when_the_last_guest_is_gone() {
    let lab = Lab::new();
    let mut docker = lab.host.docker();
    let container = docker.run("web", &["--publish", "8080:80"]);
    let before = lab.foreign();
    lab.attach();
    // All this works while kvmnet's rules are there.
    for command in ["iptables -S", "iptables -t nat -S", "iptables -L -n -v"] {
        let listed = lab.host.sh(command);
        assert!(listed.success() && !listed.stderr.contains("incompatible"), "{listed:?}");
    }
    lab.detach();
    lab.assert_no_trace();
    assert_same(&before, &lab.foreign());
    drop(container);
    lab.attach();
    docker.restart();
    assert_starts_well(&docker);
    lab.detach();
    lab.assert_no_trace();
}

/// dockerd has complained of no chain.
#[track_caller]
fn assert_starts_well(docker: &Docker<'_>) {
    let log = docker.log();
    let complaints: Vec<_> = log
        .lines()
        .filter(|line| ["incompatible", "DOCKER-USER", "iptables"].iter().any(|w| line.contains(w)))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn nothing_is_left_of_docker() {
    let cgroup = |keeper: &str| format!("test -e /sys/fs/cgroup/kvmnet-test-{keeper}");
    let witness = Host::builder().with_firewalls().build();
    let host = Host::builder().with_firewalls().build();
    let keeper = host.keeper().to_string();
    let docker = host.docker();
    let _ = docker.run("web", &[]);
    assert!(witness.sh(&cgroup(&keeper)).success());
    drop(docker);
    drop(host);
    assert!(!witness.sh(&cgroup(&keeper)).success());

    let mut doomed = Command::new(env!("CARGO_BIN_EXE_doomed"))
        .arg("docker")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program was built with this test");
    let mut line = String::new();
    let stdout = doomed.stdout.take().expect("it was piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    let keeper = line.split_whitespace().nth(1).unwrap_or_else(|| panic!("{line}")).to_owned();
    assert!(witness.sh(&cgroup(&keeper)).success());
    doomed.kill().expect("our own child can be killed");
    doomed.wait().expect("our own child can be waited for");
    assert!(wait_until(SOON, || !witness.sh(&cgroup(&keeper)).success()));
}

// From here on it is kvmnet's own accepts that are asked for.

/// Docker, then guests of every mode, then whatever an administrator does.
#[track_caller]
fn all_get_through(lab: &Lab) {
    let mut docker = lab.host.docker();
    // A restore makes the chains that nobody has used; and a restart changes the order of Docker's.
    lab.host.ok(SAVE_AND_RESTORE);
    docker.restart();
    let before = lab.foreign();
    lab.attach();
    assert_eq!(policy(&lab.host), "-P FORWARD DROP");
    lab.assert_reached(&ways::all());
    for link in ["br1", "eno2", "brd0"] {
        assert_eq!(lab.host.link(link).expect("it is there")["mtu"], 9000, "{link}");
    }
    let large = "x".repeat(8000);
    lab.net("brd0").udp_request("10.1.0.1:7000", &large, SOON).expect("a large datagram passes");
    let rules = lab.host.ok("iptables -S");
    for comment in ["kvmnet-default", "kvmnet-routed", "kvmnet-iso", "kvmnet bridge br1"] {
        assert!(rules.contains(comment), "{comment}: {rules}");
    }
    lab.host.ok(SAVE_AND_RESTORE);
    lab.assert_reached(&ways::all());
    docker.restart();
    assert_starts_well(&docker);
    lab.assert_reached(&ways::all());
    docker.stop();
    lab.assert_reached(&ways::all());
    // Each network takes its own.
    for tap in ["vnet0", "vnet1", "brd0", "brd1"] {
        lab.host.helper("natdown", &[tap]).expect("natdown");
    }
    let rules = lab.host.ok("iptables -S");
    assert!(!rules.contains("kvmnet-default") && !rules.contains("br1"), "{rules}");
    assert!(rules.contains("kvmnet-routed"), "{rules}");
    lab.detach();
    lab.assert_no_trace();
    docker.start();
    assert_same(&before, &lab.foreign());
}

#[test]
fn guests_of_every_mode_get_through() {
    all_get_through(&Lab::new());
}

#[test]
#[ignore = "waits for kvmnet's own accepts, in iptables-legacy"]
fn guests_of_every_mode_get_through_with_iptables_legacy() {
    let lab = Lab::new();
    lab.host.use_iptables_legacy();
    all_get_through(&lab);
}

#[test]
fn with_dockerd_after_the_guests_reload_lets_them_through() {
    let lab = Lab::new();
    let _docker = bridges_before_docker(&lab);
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    lab.assert_reached(&BRIDGES);
}

#[test]
fn with_dockerd_after_the_guests_the_next_run_lets_them_through() {
    let lab = Lab::new();
    let _docker = bridges_before_docker(&lab);
    lab.attach_only(&["iso0", "brd0"]);
    lab.assert_reached(&BRIDGES);
}

#[test]
fn a_connection_outlives_a_restart_of_dockerd() {
    let lab = Lab::new();
    let mut docker = lab.host.docker();
    lab.attach();
    let mut conversation = converse(&lab);
    docker.hang_up();
    conversation.say("after a signal", SOON).expect("the connection is open");
    docker.stop();
    conversation.say("without dockerd", SOON).expect("the connection is open");
    docker.start();
    conversation.say("after a restart", SOON).expect("the connection is open");
    lab.assert_reached(&ways::all());
}

#[test]
fn the_administrators_port_forward_is_the_only_way_in() {
    let lab = Lab::new();
    let _docker = lab.host.docker();
    lab.attach();
    lab.assert_reached(&ways::all());
    let forwarded = || lab.host.outside().tcp_connect("10.0.0.11:9000", "hello", SILENCE);
    let _ = forwarded().expect_err("there is no port forward");
    lab.host.ok(PORT_FORWARD);
    assert_eq!(seen(&forwarded().expect("it passes")).ip().to_string(), "10.0.0.1");
}

#[test]
fn a_real_guest_gets_through() {
    let lab = Lab::new();
    let _docker = lab.host.docker();
    let spec = GuestSpec::new("anna").nat("vnet7").ip("192.168.100.17/24");
    let spec = spec.gateway("192.168.100.1").program(env!("CARGO_BIN_EXE_talk"));
    let mut guest = Guest::boot(&lab.host, spec);
    assert_eq!(guest.tcp("10.0.0.1", 7000).ip().to_string(), "10.0.0.11");
    assert_eq!(guest.udp("10.0.0.1", 7000).ip().to_string(), "10.0.0.11");
    assert_eq!(guest.power_off(), 0);
    lab.assert_no_trace();
}
