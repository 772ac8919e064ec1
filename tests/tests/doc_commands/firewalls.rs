//! Fixtures with other firewalls, the real ones among them.

use std::mem;

use kvmnet_tests::wait_until;

use crate::fixtures::{
    Fixture, OUTSIDE, bridged, cell, change, default, dmz, forwarded, look, own_bridge,
};
use crate::stage::{SOON, Stage};

/// A machine on the host's own network.
const LAN: &str = "10.0.0.1";

pub const FIXTURES: &[Fixture] = &[
    look("default behind a firewall", |stage| {
        drop_forward(stage);
        default(stage);
        assert!(wait_until(SOON, || gets_out(stage)));
    }),
    change(
        "default before a firewall",
        |stage| {
            default(stage);
            drop_forward(stage);
        },
        gets_out,
    ),
    change(
        "default behind a firewall on a LAN",
        |stage| {
            drop_forward(stage);
            default(stage);
            assert!(stage.guest_reaches(LAN));
        },
        |stage| !stage.guest_reaches(LAN) && stage.guest_reaches(OUTSIDE),
    ),
    look("default kept in by nftables", nftables),
    change("default behind nftables", nftables, gets_out),
    change(
        "default restored at boot",
        |stage| {
            drop_forward(stage);
            default(stage);
            stage
                .host
                .ok("nft list table ip kvmnet-default >/tmp/nft; iptables-save >/tmp/iptables");
            stage.host.helper("natdown", &["vnet0"]).expect("natdown");
            stage.host.ok("nft -f /tmp/nft; iptables-restore /tmp/iptables");
        },
        |stage| !stage.host.ok("nft list tables; iptables -S").contains("kvmnet"),
    ),
    look("default beside Docker", |stage| {
        docker(stage);
        default(stage);
        assert!(wait_until(SOON, || gets_out(stage)));
    })
    .with_firewalls(),
    look("default beside Docker with iptables-legacy", |stage| {
        stage.host.use_iptables_legacy();
        docker(stage);
        default(stage);
        forward_a_port(stage);
        assert!(wait_until(SOON, || gets_out(stage) && forwarded(stage)));
    })
    .with_firewalls(),
    look("default beside ufw", |stage| {
        ufw(stage);
        // Behind kvmnet's rules it has no effect.
        stage.host.ok("ufw route deny in on br0 out on eno1");
        default(stage);
        assert!(wait_until(SOON, || gets_out(stage)));
    })
    .with_firewalls(),
    change(
        "default before ufw",
        |stage| {
            default(stage);
            ufw(stage);
        },
        gets_out,
    )
    .with_firewalls(),
    change(
        "default beside ufw with a server on the host",
        |stage| {
            ufw(stage);
            default(stage);
        },
        |stage| {
            let _server = stage.host.net().tcp_server(53);
            connects(stage, "192.168.100.1:53")
        },
    )
    .with_firewalls(),
    look("default beside ufw with iptables-legacy", |stage| {
        stage.host.use_iptables_legacy();
        ufw(stage);
        default(stage);
        forward_a_port(stage);
        assert!(wait_until(SOON, || gets_out(stage) && forwarded(stage)));
    })
    .with_firewalls(),
    look("default beside firewalld", |stage| {
        firewalld(stage);
        default(stage);
        assert!(wait_until(SOON, || gets_out(stage)));
    })
    .with_firewalls(),
    change(
        "default after a reload of firewalld",
        |stage| {
            firewalld(stage);
            default(stage);
            stage.host.ok("firewall-cmd --reload");
        },
        gets_out,
    )
    .with_firewalls(),
    change(
        "default beside firewalld with a server on the host",
        |stage| {
            firewalld(stage);
            default(stage);
        },
        |stage| {
            let _server = stage.host.net().tcp_server(22);
            connects(stage, "192.168.100.1:22")
        },
    )
    .with_firewalls(),
    change(
        "cell before a firewall",
        |stage| {
            cell(stage);
            stage.guest("natup", "cell1", "10.9.9.11/24", "10.9.9.1");
            assert!(stage.guest_reaches("10.9.9.11"));
            drop_forward(stage);
        },
        |stage| stage.guest_reaches("10.9.9.11"),
    ),
    change(
        "dmz before a firewall",
        |stage| {
            dmz(stage);
            drop_forward(stage);
        },
        |stage| stage.outside_reaches("10.77.0.10") && stage.guest_reaches(OUTSIDE),
    ),
    look("own bridge behind a firewall", |stage| {
        drop_forward(stage);
        bridged(stage);
    }),
    change(
        "own bridge before a firewall",
        |stage| {
            bridged(stage);
            drop_forward(stage);
        },
        gets_out,
    ),
    change(
        "own bridge before Docker",
        |stage| {
            bridged(stage);
            docker(stage);
        },
        gets_out,
    )
    .with_firewalls(),
    change(
        "own bridge beside firewalld",
        |stage| {
            firewalld(stage);
            own_bridge(stage);
            stage.guest("ifup", "vnet0", "10.0.0.20/24", "10.0.0.1");
        },
        gets_out,
    )
    .with_firewalls(),
];

/// What firewalls do to packets that they don't know.
fn drop_forward(stage: &mut Stage) {
    stage.host.ok("iptables -P FORWARD DROP");
}

/// A firewall of the administrator's own, that has never heard of guests.
fn nftables(stage: &mut Stage) {
    default(stage);
    stage.host.ok("nft 'add table inet site
        add chain inet site forward { type filter hook forward priority 0; policy drop; }'");
}

/// The real one, which drops since it was dockerd that turned forwarding on. It ends with the host.
fn docker(stage: &mut Stage) {
    mem::forget(stage.host.docker());
}

fn ufw(stage: &mut Stage) {
    let _ = stage.host.ufw();
}

fn firewalld(stage: &mut Stage) {
    mem::forget(stage.host.firewalld());
}

/// Whether the first guest gets out by TCP: ufw lets pings pass in any case.
fn gets_out(stage: &Stage) -> bool {
    let _server = stage.host.outside_tcp_server(7000);
    connects(stage, "10.0.0.1:7000")
}

fn connects(stage: &Stage, to: &str) -> bool {
    stage.guests[0].net().tcp_connect(to, "hello", SOON / 10).is_ok()
}

/// Of the administrator's.
fn forward_a_port(stage: &Stage) {
    stage.host.ok("iptables -t nat -A PREROUTING -i eno1 -p tcp --dport 8080 -j DNAT \
                   --to-destination 192.168.100.10:80");
}
