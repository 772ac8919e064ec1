//! kvmnet's guests on a host with the real firewalld.
//!
//! What isn't in a zone that allows it is rejected; an accept in any other table doesn't help.
//! kvmnet doesn't speak to firewalld: these are the facts that docs/firewalld.md builds on.

use std::io::ErrorKind;
use std::time::Duration;

use kvmnet_tests::{Firewalld, Guest, GuestSpec, Lab, assert_same, seen, ways};

const SOON: Duration = Duration::from_secs(10);
const OUTSIDE: &str = "10.0.0.1:7000";

/// A port forward of the administrator's, to a guest on nat.
const PORT_FORWARD: &str = "iptables -t nat -A PREROUTING -i eno1 -p tcp --dport 9000 \
                            -j DNAT --to-destination 192.168.100.10:7000";

/// The rules that docs/docker.md tells the administrator to add.
const OF_THE_DOCUMENTS_FOR_DOCKER: &str = "
    iptables -I DOCKER-USER -i br0 -o eno1 -s 192.168.100.0/24 -j ACCEPT
    iptables -I DOCKER-USER ! -i br0 -o br0 -d 192.168.100.0/24 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    iptables -I DOCKER-USER ! -i br0 -o br0 -d 192.168.100.0/24 -m conntrack --ctstate DNAT -j ACCEPT";

/// The narrow zone of docs/firewalld.md.
const OF_THE_DOCUMENTS: [&str; 7] = [
    "--permanent --new-zone=kvmnet",
    "--permanent --zone=kvmnet --add-source=192.168.100.0/24",
    "--permanent --new-policy=kvmnet-out",
    "--permanent --policy=kvmnet-out --add-ingress-zone=kvmnet",
    "--permanent --policy=kvmnet-out --add-egress-zone=ANY",
    "--permanent --policy=kvmnet-out --set-target=ACCEPT",
    "--reload",
];

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
fn assert_port_forward(lab: &Lab) {
    let answer = lab.host.outside().tcp_connect("10.0.0.11:9000", "hello", SOON);
    assert_eq!(seen(&answer.expect("it passes")).ip().to_string(), "10.0.0.1");
}

#[test]
fn in_the_zone_public_all_but_port_forwards_is_rejected() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    assert_eq!(firewalld.command("--get-default-zone"), "public\n");
    lab.attach();
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
    trust(&firewalld, "");
    lab.assert_reached(&with_trust());
    firewalld.command("--complete-reload");
    lab.assert_reached(&ways::FROM_HOST);
    trust(&firewalld, "");
    firewalld.restart();
    lab.assert_reached(&ways::FROM_HOST);
    // A permanent one is there before the bridge.
    trust(&firewalld, "--permanent");
    firewalld.command("--reload");
    lab.assert_reached(&with_trust());
    lab.detach();
    lab.attach();
    lab.assert_reached(&with_trust());
    firewalld.stop();
    lab.assert_reached(&ways::all());
}

/// What docs/firewalld.md says, with firewalld itself: outside is reached, the host isn't.
#[test]
fn the_zone_in_the_documents() {
    let lab = Lab::new();
    let mut firewalld = lab.host.firewalld();
    lab.attach();
    for line in OF_THE_DOCUMENTS {
        firewalld.command(line);
    }
    let open = [&ways::FROM_HOST[..], &["nat > outside", "nat > nat"]].concat();
    lab.assert_reached(&open);
    firewalld.restart();
    lab.assert_reached(&open);
}

#[test]
fn all_is_as_it_was_when_the_last_guest_is_gone() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    let before = lab.foreign();
    lab.attach();
    firewalld.command("--reload");
    lab.detach();
    lab.assert_no_trace();
    assert_same(&before, &lab.foreign());
}

/// Both have to let a guest through: firewalld by a zone, Docker by rules.
#[test]
fn docker_and_firewalld() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    let _docker = lab.host.docker();
    lab.attach();
    lab.remove_accepts();
    let zones = firewalld.command("--get-active-zones");
    assert!(zones.contains("docker\n  interfaces: docker0"), "{zones}");
    lab.assert_reached(&ways::FROM_HOST);
    lab.host.ok(OF_THE_DOCUMENTS_FOR_DOCKER);
    lab.assert_reached(&ways::FROM_HOST);
    firewalld.command("--permanent --zone=trusted --change-interface=br0");
    firewalld.command("--zone=trusted --change-interface=br0");
    lab.assert_reached(&[&ways::FROM_HOST[..], &["nat > outside", "nat > host"]].concat());
    lab.host.ok("iptables -F DOCKER-USER");
    lab.assert_reached(&[&ways::FROM_HOST[..], &["nat > host"]].concat());
    // A reload flushes all that is in iptables; Docker puts its own back, and not what was in
    // DOCKER-USER.
    lab.host.ok(OF_THE_DOCUMENTS_FOR_DOCKER);
    firewalld.command("--reload");
    let back = || lab.host.ok("iptables -S FORWARD").contains("DOCKER-USER");
    assert!(kvmnet_tests::wait_until(SOON, back));
    assert!(!lab.host.ok("iptables -S DOCKER-USER").contains("192.168.100.0"));
}

// From here on it is kvmnet's own accepts and zones that are asked for.

#[test]
fn with_docker_and_a_zone_guests_of_every_mode_get_through() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    let _docker = lab.host.docker();
    lab.attach();
    trust(&firewalld, "--permanent");
    trust(&firewalld, "");
    lab.assert_reached(&with_trust());
    // firewalld's reload takes kvmnet's rules in iptables, too.
    firewalld.command("--reload");
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    lab.assert_reached(&with_trust());
}

#[test]
#[ignore = "waits for zones"]
fn guests_of_every_mode_get_through() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    lab.attach();
    // The host itself stays as closed as the administrator has it.
    let open: Vec<_> = ways::all().into_iter().filter(|w| !ways::TO_HOST.contains(w)).collect();
    lab.assert_reached(&open);
    firewalld.command("--reload");
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    lab.assert_reached(&open);
}

/// In a zone by hand, as docs/firewalld.md says.
#[test]
fn a_real_guest_gets_through_in_the_zone_trusted() {
    let lab = Lab::new();
    let firewalld = lab.host.firewalld();
    firewalld.command("--permanent --zone=trusted --add-source=192.168.100.0/24");
    firewalld.command("--reload");
    let spec = GuestSpec::new("anna").nat("vnet7").ip("192.168.100.17/24");
    let spec = spec.gateway("192.168.100.1").program(env!("CARGO_BIN_EXE_talk"));
    let mut guest = Guest::boot(&lab.host, spec);
    assert_eq!(guest.tcp("10.0.0.1", 7000).ip().to_string(), "10.0.0.11");
    assert_eq!(guest.udp("10.0.0.1", 7000).ip().to_string(), "10.0.0.11");
    assert_eq!(guest.power_off(), 0);
}
