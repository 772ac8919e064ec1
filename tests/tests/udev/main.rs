//! What the rule for udev, the .link and the .network file are for: udev, systemd-networkd and
//! NetworkManager leave kvmnet's bridges and taps alone, and have all others as ever; and what a killed
//! QEMU leaves goes by itself. Each boot of the guest shows first what happens without them.

mod addresses;
mod killed;
mod look;
mod networkd;

use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Host, wait_until};

/// How long something may take here, where a processor is emulated by one that others use, too.
const SLOW: Duration = Duration::from_secs(120);

const RULES: &str = "/usr/lib/udev/rules.d/78-kvmnet.rules";
const LINK: &str = "/usr/lib/systemd/network/90-kvmnet.link";
const NETWORK: &str = "/usr/lib/systemd/network/05-kvmnet.network";

/// `IFF_TAP | IFF_NO_PI`, as a VPN's.
const PLAIN: &str = "1002";
/// With `IFF_VNET_HDR`, as QEMU's.
const QEMUS: &str = "5002";

const NATUP: &str = "/usr/libexec/kvmnet-natup";
const IFUP: &str = "/usr/libexec/kvmnet-ifup";

/// Boots a host that has a network file for its own bridge, `lan`, and none of our files for udev yet.
fn boot<'host>(host: &'host Host, name: &str, before_boot: &str) -> Guest<'host> {
    let programs = [
        ("open-tap", include_str!("../../udev/open-tap")),
        ("race", include_str!("../../udev/race")),
    ];
    let programs: String = programs
        .iter()
        .map(|(name, text)| {
            format!("cat >/usr/bin/{name} <<'END'\n{text}END\nchmod 755 /usr/bin/{name}\n")
        })
        .collect();
    let before = format!(
        "{programs}
         mkdir -p /away /etc/kvmnet && mv {RULES} {LINK} {NETWORK} /away
         printf 'mode = \"bridged\"\\nbridge = \"lan\"\\ntaps = [\"adm*\"]\\n' >/etc/kvmnet/lan.toml
         chmod 644 /etc/kvmnet/lan.toml
         {before_boot}"
    );
    let mut guest = Guest::boot(host, GuestSpec::with_systemd(name).before_boot(&before));
    // What a host has loaded by its second guest, at the latest.
    run(&mut guest, "modprobe -a tun bridge nf_tables nft_chain_nat nft_ct nft_masq dummy");
    guest
}

/// Runs what may take long, and must succeed.
#[track_caller]
fn run(guest: &mut Guest, script: &str) -> String {
    guest.sh_within(script, SLOW).expect(script)
}

/// Installs our files, as a package does.
fn install(guest: &mut Guest) {
    run(
        guest,
        &format!(
            "mv /away/*.rules {RULES} && mv /away/*.link {LINK} && mv /away/*.network {NETWORK}
             udevadm control --reload"
        ),
    );
}

/// Opens taps as QEMU does, each with its script, and waits until udev has seen all of it.
#[track_caller]
fn open(guest: &mut Guest, taps: &[(&str, &str, &str)]) {
    for (name, flags, script) in taps {
        run(
            guest,
            &format!(
                "rm -f /run/tap.{name}
                 open-tap {name} {flags} {script} >/run/tap.{name} 2>&1 </dev/null &
                 echo $! >/run/pid.{name}
                 until test -s /run/tap.{name}; do sleep 0.05; done
                 test \"$(cat /run/tap.{name})\" = 0 || {{ cat /run/tap.{name}; exit 1; }}"
            ),
        );
    }
    run(guest, "udevadm settle");
}

/// Ends those who hold the taps, as SIGKILL ends QEMU, and clears up.
fn close_all(guest: &mut Guest) {
    run(
        guest,
        "for pid in /run/pid.*; do kill -KILL $(cat $pid); done; rm -f /run/pid.* /run/tap.*
         while ip link show vnet0 2>/dev/null; do sleep 0.05; done; kvmnet gc; udevadm settle",
    );
}

/// Waits for a condition of the guest's shell.
#[track_caller]
fn await_that(guest: &mut Guest, condition: &str) {
    if !wait_until(SLOW, || guest.sh(condition).success()) {
        let log =
            guest.sh("networkctl --no-pager; ip address; bridge link; journalctl -b -n 40").stdout;
        panic!("{condition}: {log}");
    }
}

/// The properties of ours that udev's database has.
fn known(guest: &mut Guest, link: &str) -> String {
    let script = format!(
        "udevadm info --query=property /sys/class/net/{link} | grep -E '^(KVMNET|NM_UNMANAGED)=' | tr '\\n' ' '"
    );
    run(guest, &script).trim().to_owned()
}

#[track_caller]
fn assert_known(guest: &mut Guest, link: &str, as_what: &str) {
    let found = known(guest, link);
    let mut log =
        || guest.sh(&format!("udevadm test /sys/class/net/{link} 2>&1; kvmnet status")).stdout;
    assert!(found == format!("KVMNET={as_what} NM_UNMANAGED=1"), "{link}: {found}: {}", log());
}

fn addresses(guest: &mut Guest, link: &str) -> String {
    run(guest, &format!("ip -br address show {link} | cut -c30-")).trim().to_owned()
}

fn master(guest: &mut Guest, link: &str) -> String {
    let master = format!("basename \"$(readlink /sys/class/net/{link}/master)\"");
    run(guest, &master).trim().to_owned()
}
