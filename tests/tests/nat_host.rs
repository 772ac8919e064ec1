//! What a NAT network means for the host itself: its IPv6, and packets it sends by itself.

use std::thread;
use std::time::Duration;

use kvmnet_tests::{Host, wait_until};

const SOON: Duration = Duration::from_secs(10);

/// What a router says to all nodes (RFC 4861, 4.2): be my client, and take an address of
/// 2001:db8:1::/64.
fn router_advertisement() -> Vec<u8> {
    const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
    // Type, code, checksum, hop limit, flags, lifetime of 1800 s, times left to the client.
    let mut icmp = vec![134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
    // Option: the router's own MAC address.
    icmp.extend([1, 1]);
    icmp.extend(MAC);
    // Option: a prefix of 64 bits, on-link and for autoconfiguration, valid and preferred for 3600 s.
    icmp.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    icmp.extend([0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

    let mut source = [0; 16];
    (source[0], source[1], source[15]) = (0xfe, 0x80, 1);
    let mut all_nodes = [0; 16];
    (all_nodes[0], all_nodes[1], all_nodes[15]) = (0xff, 0x02, 1);
    let length = u16::try_from(icmp.len()).expect("it is short");
    let checksum = checksum(&[
        &source[..],
        &all_nodes,
        &u32::from(length).to_be_bytes(),
        &[0, 0, 0, libc::IPPROTO_ICMPV6 as u8],
        &icmp,
    ]);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(MAC);
    frame.extend((libc::ETH_P_IPV6 as u16).to_be_bytes());
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length.to_be_bytes());
    // A router of another link couldn't have kept the hop limit at 255.
    frame.extend([libc::IPPROTO_ICMPV6 as u8, 255]);
    frame.extend(source);
    frame.extend(all_nodes);
    frame.extend(icmp);
    frame
}

/// The Internet checksum (RFC 1071) over parts of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[test]
fn a_guest_that_plays_ipv6_router_is_not_believed() {
    let host = Host::new();
    let guest = host.tap("vnet0");
    host.helper("natup", &["vnet0"]).expect("natup");
    // The same on a bridge as anybody makes it: there the host believes.
    let elsewhere = host.tap("vnet9");
    host.ok("ip link add br9 type bridge forward_delay 0; ip link set br9 up
             ip link set vnet9 master br9 up");

    let advertisement = router_advertisement();
    let advertise = || {
        guest.send(&advertisement);
        elsewhere.send(&advertisement);
    };
    let routes = || host.ok("ip -6 route show default");
    let believed = wait_until(SOON, || {
        advertise();
        thread::sleep(Duration::from_millis(50));
        routes().contains("dev br9")
            && host.ok("ip -6 address show dev br9").contains("2001:db8:1:")
    });
    assert!(believed, "the advertisement is no good: {}", host.ok("ip -6 address; ip -6 route"));
    advertise();
    thread::sleep(Duration::from_millis(200));

    assert!(!routes().contains("br0"), "{}", routes());
    for link in ["br0", "vnet0"] {
        assert_eq!(host.ok(&format!("ip -6 address show dev {link}")), "");
        assert_eq!(host.ok(&format!("ip -6 route show dev {link}")), "");
    }
}

/// What must not leave its link keeps its source, so that answers find the way back.
#[test]
fn link_local_multicast_and_broadcast_keep_their_source() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    host.helper("natup", &["vnet0"]).expect("natup");
    for (destination, source) in [
        ("224.0.0.251", "192.168.100.1"),
        ("255.255.255.255", "192.168.100.1"),
        ("224.0.1.1", "10.0.0.11"),
        ("203.0.113.1", "10.0.0.11"),
    ] {
        let capture = host.outside_tcpdump("lan0", "icmp[icmptype] == icmp-echo");
        // Nobody answers most of these.
        host.sh(&format!("ping -b -c1 -W1 -I eno1 -I 192.168.100.1 {destination}"));
        let packet = capture.output(SOON).stdout;
        assert!(packet.contains(&format!("IP {source} > {destination}:")), "{packet}");
    }
}
