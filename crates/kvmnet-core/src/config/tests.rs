use std::path::Path;

use super::file::{NetworkFile, parse};
use super::{Choice, ConfigError, behind_at};
use crate::model::{Firewall, Forwarding, Mode, Network, NetworkName, ZoneName};

fn read(text: &str) -> Result<NetworkFile, ConfigError> {
    parse(Path::new("/etc/kvmnet/lab.toml"), text, &NetworkName::parse("lab").unwrap())
}

#[test]
fn every_key_is_read() {
    let file = read(
        r#"
        mode = "routed"
        bridge = "br-lab"
        address = "192.168.150.1/24"
        taps = ["lab*", "vm-?"]
        mtu = 9000
        firewall = "none"
        forwarding = "interfaces"
        "#,
    )
    .unwrap();
    let Network::Managed(network) = &file.network else { panic!("{file:?}") };
    assert_eq!(network.bridge.as_str(), "br-lab");
    assert_eq!(network.mode, Mode::Routed("192.168.150.1/24".parse().unwrap()));
    assert_eq!((network.mtu, network.firewall), (Some(9000), Firewall::None));
    assert_eq!(network.forwarding, Forwarding::Interfaces);
    assert_eq!(file.taps, ["lab*", "vm-?"]);
}

#[test]
fn what_is_left_out_has_its_default() {
    let file = read("address = \"10.9.0.1/16\"").unwrap();
    let Network::Managed(network) = &file.network else { panic!("{file:?}") };
    assert_eq!(network.bridge.as_str(), "lab");
    assert_eq!(network.mode, Mode::Nat("10.9.0.1/16".parse().unwrap()));
    assert_eq!((network.mtu, network.firewall), (None, Firewall::Auto));
    assert_eq!(network.forwarding, Forwarding::Global);
    assert!(file.taps.is_empty());
    assert!(matches!(read("mode = 'isolated'").unwrap().network, Network::Managed(_)));
    assert!(matches!(read("mode = 'bridged'").unwrap().network, Network::Bridged(_)));
    // As an editor of another system leaves it.
    assert!(read("\u{feff}mode = 'isolated'\r\n# that's all\r\n").is_ok());
}

/// The line, what is wrong, and what to write instead.
#[test]
fn every_mistake_has_its_line_and_its_remedy() {
    let cases = [
        (
            "",
            "1: a network of mode nat needs the host's address and the subnet: address = \"192.168.150.1/24\"",
        ),
        (
            "\nmode = \"routed\"",
            "2: a network of mode routed needs the host's address and the subnet: address = \"192.168.150.1/24\"",
        ),
        (
            "mode = \"isolated\"\n\nbrigde = \"br1\"",
            "3: unknown key brigde; the keys are mode, bridge, address, taps, mtu, firewall, forwarding and zone",
        ),
        (
            "mode = \"natted\"",
            "1: mode = \"natted\" is none; write \"nat\", \"routed\", \"isolated\" or \"bridged\"",
        ),
        ("mode = 1", "1: mode is of type integer; write it so: mode = \"nat\""),
        ("mode = isolated", "1: a word without quotes; write it in quotes: mode = \"nat\""),
        ("mode = \"isolated\"\nmode = \"nat\"", "2: mode stands here a second time; keep one"),
        (
            "mode = \"isolated\"\naddress = \"10.0.0.1/24\"",
            "2: address means nothing to a network of mode isolated; take it out",
        ),
        (
            "mode = \"isolated\"\nforwarding = \"never\"",
            "2: forwarding means nothing to a network of mode isolated; take it out",
        ),
        (
            "mode = \"bridged\"\nmtu = 1500",
            "2: mtu means nothing to a network of mode bridged; take it out",
        ),
        (
            "mode = \"bridged\"\nfirewall = \"none\"",
            "2: firewall means nothing to a network of mode bridged; take it out",
        ),
        (
            "bridge = \"a/b\"\naddress = \"10.0.0.1/24\"",
            "1: bridge = \"a/b\" is no interface name: it contains '/'",
        ),
        (
            "mode = \"isolated\"\nbridge = \"sixteen_bytes_ab\"",
            "2: bridge = \"sixteen_bytes_ab\" is no interface name: it has 16 bytes, the kernel allows 15",
        ),
        (
            "address = \"192.168.150.0/24\"",
            "1: address = \"192.168.150.0/24\" is the subnet itself; write the host's address in it: \"192.168.150.1/24\"",
        ),
        (
            "address = \"192.168.150.255/24\"",
            "1: address = \"192.168.150.255/24\" is the subnet's broadcast address; write the host's: \"192.168.150.1/24\"",
        ),
        (
            "address = \"192.168.150.1\"",
            "1: address = \"192.168.150.1\" is no IPv4 address with a prefix; write the host's address and the subnet's prefix length: \"192.168.150.1/24\"",
        ),
        (
            "address = \"192.168.150.1/33\"",
            "1: address = \"192.168.150.1/33\" is no IPv4 address with a prefix; write the host's address and the subnet's prefix length: \"192.168.150.1/24\"",
        ),
        (
            "address = \"10.0.0.1/31\"",
            "1: address = \"10.0.0.1/31\" leaves no sensible room for guests; its prefix lies between /8 and /30",
        ),
        (
            "address = \"10.0.0.1/32\"",
            "1: address = \"10.0.0.1/32\" leaves no sensible room for guests; its prefix lies between /8 and /30",
        ),
        (
            "address = \"10.0.0.1/0\"",
            "1: address = \"10.0.0.1/0\" leaves no sensible room for guests; its prefix lies between /8 and /30",
        ),
        (
            "address = \"224.0.0.1/24\"",
            "1: address = \"224.0.0.1/24\" is no address that a host can have on a network; write the host's address and the subnet's prefix length: \"192.168.150.1/24\"",
        ),
        (
            "address = \"fd00::1/64\"",
            "1: address = \"fd00::1/64\" is IPv6, which kvmnet doesn't route yet; write the host's address and the subnet's prefix length: \"192.168.150.1/24\"",
        ),
        ("mode = \"isolated\"\nmtu = 67", "2: mtu = 67: it lies between 68 and 65521"),
        (
            "mode = \"isolated\"\nmtu = \"1500\"",
            "2: mtu is of type string; write it so: mtu = 1500",
        ),
        (
            "mode = \"isolated\"\nfirewall = \"pf\"",
            "2: firewall = \"pf\" is none; write \"auto\", \"nftables\", \"iptables\" or \"none\"",
        ),
        (
            "address = \"10.0.0.1/24\"\nforwarding = \"yes\"",
            "2: forwarding = \"yes\" is none; write \"global\", \"interfaces\" or \"never\"",
        ),
        (
            "mode = \"isolated\"\nzone = \"my zone\"",
            "2: zone = \"my zone\" is no name of a zone of firewalld's: that has at most 17 characters, letters, digits, '-' and '_'; the zones there are: firewall-cmd --get-zones",
        ),
        (
            "mode = \"isolated\"\nzone = true",
            "2: zone is of type boolean; write it so: zone = \"trusted\"",
        ),
        (
            "mode = \"isolated\"\ntaps = \"lab*\"",
            "2: taps is of type string; write it so: taps = [\"lab*\", \"vm-web\"]",
        ),
        (
            "mode = \"isolated\"\ntaps = [\n\"lab*\",\n\"a/b\"]",
            "4: taps: no interface name can match \"a/b\"; write it so: taps = [\"lab*\", \"vm-web\"]",
        ),
        (
            "mode = \"isolated\"\ntaps = [7]",
            "2: taps holds something that is no string; write it so: taps = [\"lab*\", \"vm-web\"]",
        ),
        (
            "[network]\nmode = \"nat\"",
            "1: unknown key network; the keys are mode, bridge, address, taps, mtu, firewall, forwarding and zone",
        ),
    ];
    for (text, wanted) in cases {
        let error = read(text).unwrap_err().to_string();
        assert_eq!(error, format!("/etc/kvmnet/lab.toml:{wanted}"), "{text:?}");
    }
}

#[test]
fn every_mode_may_name_a_zone() {
    for text in ["mode = \"bridged\"", "mode = \"isolated\"", "address = \"10.0.0.1/24\""] {
        let zone = |text: &str| match read(text).unwrap().network {
            Network::Managed(managed) => managed.zone,
            Network::Bridged(bridged) => bridged.zone,
        };
        assert_eq!(zone(text), None);
        assert_eq!(zone(&format!("zone = \"trusted\"\n{text}")), ZoneName::parse("trusted"));
    }
}

#[test]
fn the_firewall_is_one_of_four() {
    for (word, firewall) in [
        ("auto", Firewall::Auto),
        ("nftables", Firewall::Nftables),
        ("iptables", Firewall::Iptables),
        ("none", Firewall::None),
    ] {
        let file = read(&format!("mode = 'isolated'\nfirewall = '{word}'")).unwrap();
        let Network::Managed(network) = &file.network else { panic!("{file:?}") };
        assert_eq!(network.firewall, firewall);
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    let whole =
        "mode = \"nat\"\naddress = \"10.0.0.1/24\"\ntaps = [\"a*\", 'b']\nmtu = 1_500 # x\n";
    for cut in 0..whole.len() {
        let _ = read(&whole[..cut]);
        let _ = read(&whole[cut..]);
        let _ = read(&format!("{}\u{0}{}", &whole[..cut], &whole[cut..]));
        let _ = read(&format!("{}ü[[{}", &whole[..cut], &whole[cut..]));
    }
}

#[test]
fn the_programs_name_can_choose() {
    for (program, network) in [
        ("/usr/local/libexec/kvmnet-natup@lab", Some("lab")),
        ("kvmnet-natup@", Some("")),
        ("/srv/a@b/kvmnet-natup", None),
        ("kvmnet-natup", None),
        ("", None),
    ] {
        assert_eq!(behind_at(program.as_ref()).as_deref(), network, "{program}");
    }
    assert_eq!(Choice::default(), Choice { program: None, variable: None });
}
