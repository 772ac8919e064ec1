//! kvmnet's guests on a host with the real ufw.
//!
//! ufw drops what comes in and what is forwarded, but lets echo requests pass: a ping that gets
//! through proves nothing.

use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Lab, assert_same, seen, ways};

const SOON: Duration = Duration::from_secs(10);
/// How long nothing must come: a hundred times what comes takes.
const SILENCE: Duration = Duration::from_secs(1);

const SAVE_AND_RESTORE: &str = "iptables-save >/run/rules && iptables-restore </run/rules";

/// What is open with kvmnet's accepts: the host itself stays as closed as ufw has it.
fn through_ufw() -> Vec<&'static str> {
    ways::all().into_iter().filter(|way| !ways::TO_HOST.contains(way)).collect()
}

/// The same without the accepts of kvmnet's: what they have to make up for.
#[track_caller]
fn without_accepts_only_ping_gets_through(lab: &Lab) {
    let ufw = lab.host.ufw();
    lab.attach();
    // As long as forwarding is off, ufw calls it disabled.
    let status = ufw.status();
    assert!(status.contains("deny (incoming), allow (outgoing), deny (routed)"), "{status}");
    lab.remove_accepts();
    lab.assert_reached(&ways::FROM_HOST);
    for to in ["10.0.0.1", "192.168.100.1", "192.168.100.11"] {
        lab.host.sh_in(&lab.net("vnet0"), &format!("ping -c1 -W2 {to}")).expect(to);
    }
}

#[test]
fn the_problem() {
    let lab = Lab::new();
    without_accepts_only_ping_gets_through(&lab);
    // From port to port it is br_netfilter that asks iptables; ufw leaves it alone.
    assert_eq!(lab.host.sysctl("net/bridge/bridge-nf-call-iptables"), "1");
    lab.host.ok("sysctl net.bridge.bridge-nf-call-iptables=0");
    lab.assert_reached(&[&ways::FROM_HOST[..], &ways::ON_ONE_BRIDGE, &ways::LAN].concat());
}

#[test]
fn the_problem_with_iptables_legacy() {
    let lab = Lab::new();
    lab.host.use_iptables_legacy();
    without_accepts_only_ping_gets_through(&lab);
    assert_eq!(lab.host.ok("iptables-nft-save | grep -c ufw || :").trim(), "0");
}

#[test]
fn the_problem_when_ufw_comes_later() {
    let lab = Lab::new();
    lab.attach();
    lab.assert_reached(&ways::all());
    let ufw = lab.host.ufw();
    lab.remove_accepts();
    lab.assert_reached(&ways::FROM_HOST);
    ufw.disable();
    lab.assert_reached(&ways::all());
}

/// What docs/ufw.md says, with ufw itself; and the rules that would do for bridges.
#[test]
fn the_rules_in_the_documents() {
    let lab = Lab::new();
    let ufw = lab.host.ufw();
    lab.attach();
    lab.remove_accepts();
    ufw.command("route allow in on br0 out on eno1 from 192.168.100.0/24");
    ufw.command("route allow in on eno1 out on br0 to 192.168.100.10 port 7000 proto tcp");
    lab.host.ok("iptables -t nat -A PREROUTING -i eno1 -p tcp --dport 9000 \
                 -j DNAT --to-destination 192.168.100.10:7000");
    let mut open = [&ways::FROM_HOST[..], &["nat > outside"]].concat();
    lab.assert_reached(&open);
    let forwarded = || lab.host.outside().tcp_connect("10.0.0.11:9000", "hello", SOON);
    assert_eq!(seen(&forwarded().expect("it passes")).ip().to_string(), "10.0.0.1");
    ufw.command("route allow in on br1 out on br1");
    open.extend(["bridged > bridged", "bridged > lan", "lan > bridged"]);
    lab.assert_reached(&open);
    ufw.reload();
    lab.assert_reached(&open);
    ufw.disable();
    ufw.enable();
    lab.assert_reached(&open);
}

/// ufw never moves nor removes what somebody else has put into FORWARD, nor its own jumps there.
#[test]
fn rules_in_forward_stay_where_they_are() {
    let lab = Lab::new();
    let ufw = lab.host.ufw();
    let forward = || lab.host.ok("iptables -S FORWARD | grep -v ^-P");
    lab.host.ok("iptables -I FORWARD -i br0 -j ACCEPT; iptables -A FORWARD -i br9 -j ACCEPT");
    let before = forward();
    assert!(before.starts_with("-A FORWARD -i br0 -j ACCEPT\n"), "{before}");
    ufw.reload();
    assert_eq!(forward(), before);
    ufw.disable();
    assert_eq!(forward(), before);
    ufw.enable();
    assert_eq!(forward(), before);
    // It is otherwise where the administrator has ufw manage the built-in chains as well.
    lab.host.ok("sed -i s/MANAGE_BUILTINS=no/MANAGE_BUILTINS=yes/ /etc/default/ufw");
    ufw.reload();
    assert!(!forward().contains("br0") && !forward().contains("br9"), "{}", forward());
}

#[test]
fn all_is_as_it_was_when_the_last_guest_is_gone() {
    let lab = Lab::new();
    let ufw = lab.host.ufw();
    // Only the second time does ufw make all of its rules for IPv6.
    ufw.reload();
    let before = lab.foreign();
    lab.attach();
    for command in ["iptables -S", "iptables -t nat -S", "ufw status", "ufw show raw"] {
        let listed = lab.host.sh(command);
        assert!(listed.success() && !listed.stderr.contains("incompatible"), "{listed:?}");
    }
    lab.detach();
    lab.assert_no_trace();
    assert_same(&before, &lab.foreign());
    lab.attach();
    ufw.reload();
    lab.detach();
    lab.assert_no_trace();
    assert_same(&before, &lab.foreign());
}

// From here on it is kvmnet's own accepts that are asked for.

#[track_caller]
fn all_get_through(lab: &Lab) {
    let ufw = lab.host.ufw();
    // Each makes chains and rules the first time that are there from then on.
    ufw.reload();
    lab.host.ok(SAVE_AND_RESTORE);
    // Only the second time does ufw make all of its rules for IPv6.
    ufw.reload();
    let before = lab.foreign();
    lab.attach();
    lab.assert_reached(&through_ufw());
    let rules = lab.host.ok("iptables -S");
    for comment in ["kvmnet-default", "kvmnet-routed", "kvmnet-iso", "kvmnet bridge br1"] {
        assert!(rules.contains(comment), "{comment}: {rules}");
    }
    let mut conversation = lab.net("vnet0").tcp_converse("10.0.0.1:7000", SOON).unwrap();
    ufw.reload();
    conversation.say("after a reload", SOON).expect("the connection is open");
    lab.assert_reached(&through_ufw());
    lab.host.ok(SAVE_AND_RESTORE);
    lab.assert_reached(&through_ufw());
    ufw.disable();
    lab.assert_reached(&ways::all());
    ufw.enable();
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    lab.assert_reached(&through_ufw());
    lab.detach();
    lab.assert_no_trace();
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
fn with_ufw_after_the_guests_reload_lets_them_through() {
    let lab = Lab::new();
    lab.attach();
    let _ufw = lab.host.ufw();
    lab.host.run(&["kvmnet", "reload"]).expect("kvmnet reload");
    lab.assert_reached(&through_ufw());
}

#[test]
fn the_administrators_port_forward_is_the_only_way_in() {
    let lab = Lab::new();
    let _ufw = lab.host.ufw();
    lab.attach();
    lab.assert_reached(&through_ufw());
    let forwarded = || lab.host.outside().tcp_connect("10.0.0.11:9000", "hello", SILENCE);
    let _ = forwarded().expect_err("there is no port forward");
    lab.host.ok("iptables -t nat -A PREROUTING -i eno1 -p tcp --dport 9000 \
                 -j DNAT --to-destination 192.168.100.10:7000");
    assert_eq!(seen(&forwarded().expect("it passes")).ip().to_string(), "10.0.0.1");
}

#[test]
fn a_real_guest_gets_through() {
    let lab = Lab::new();
    let _ufw = lab.host.ufw();
    let spec = GuestSpec::new("anna").nat("vnet7").ip("192.168.100.17/24");
    let spec = spec.gateway("192.168.100.1").program(env!("CARGO_BIN_EXE_talk"));
    let mut guest = Guest::boot(&lab.host, spec);
    assert_eq!(guest.tcp("10.0.0.1", 7000).ip().to_string(), "10.0.0.11");
    assert_eq!(guest.udp("10.0.0.1", 7000).ip().to_string(), "10.0.0.11");
    assert_eq!(guest.power_off(), 0);
    lab.assert_no_trace();
}
