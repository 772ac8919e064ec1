//! What the rule for udev, the .link and the .network file are for: udev, systemd-networkd and
//! NetworkManager leave kvmnet's bridges and taps alone, and have all others as ever. Each boot of the
//! guest shows first what happens without them.

use std::time::{Duration, Instant};

use kvmnet_core::model::BRIDGE_PREFIX;
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
    let programs =
        [("open-tap", include_str!("../udev/open-tap")), ("race", include_str!("../udev/race"))];
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
                "open-tap {name} {flags} {script} >/run/tap.{name} 2>&1 </dev/null &
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

/// Both networks are as kvmnet built them.
#[track_caller]
fn assert_exact(guest: &mut Guest, when: &str) {
    assert_eq!(master(guest, "vnet0"), "br0", "{when}");
    assert_eq!(master(guest, "adm0"), "lan", "{when}");
    assert_eq!(addresses(guest, "br0"), "192.168.100.1/24", "{when}");
    assert_eq!(addresses(guest, "vnet0"), "", "{when}");
    assert_eq!(addresses(guest, "adm0"), "", "{when}");
    let said = run(guest, "kvmnet reload");
    assert!(said.lines().all(|line| line.ends_with(": is as it should be")), "{when}: {said}");
}

/// A host whose administrator has networkd manage whatever there is: cards, by the file that
/// networkd's own manual begins with, and all else; a bridge, and a tap of a VM of the administrator's.
const NETWORKD: &str = "
    cd /etc/systemd/network
    put() { printf '[Match]\\n%s\\n[Network]\\nLinkLocalAddressing=no\\nAddress=%s\\n' $2 $3 >$1; }
    put 20-lan.network Name=lan 10.60.0.1/24
    put 20-own.network Name=own0 10.50.0.1/24
    put 50-wired.network Type=ether 10.99.0.1/32
    put 60-any.network Name=* 10.98.0.1/32
    echo DHCP=yes >>50-wired.network
    echo ConfigureWithoutCarrier=yes | tee -a 20-lan.network >>20-own.network
    printf '[NetDev]\\nName=lan\\nKind=bridge\\n' >20-lan.netdev
    systemctl enable systemd-networkd
";

#[test]
fn networkd_leaves_ports_and_bridges_alone() {
    let host = Host::builder().without_uplink().build();
    let mut guest = boot(&host, "networkd", NETWORKD);
    let guest = &mut guest;
    let taps = [
        ("vnet0", QEMUS, NATUP),
        ("adm0", QEMUS, IFUP),
        ("own0", QEMUS, ""),
        ("vpn0", PLAIN, ""),
        ("tun0", "1001", ""),
    ];
    // Opened last, so that networkd has had its way with the others, too.
    let others =
        "networkctl status own0 | grep -q 20-own && ip -br a show own0 | grep -q 10.50.0.1/24 &&
        networkctl status lan | grep -q 20-lan && ip -br a show lan | grep -q 10.60.0.1/24 &&
        ip -br a show vpn0 | grep -q 10.99.0.1/32 && ip -br a show tun0 | grep -q 10.98.0.1/32";
    await_that(guest, "networkctl status lan | grep -q configured");

    // Without our files. networkd may be done with a tap just before a helper attaches it.
    let is_wrong = (0..10).any(|_| {
        open(guest, &taps);
        await_that(guest, others);
        let taken =
            "for tap in vnet0 adm0; do networkctl status $tap | grep -q 50-wired || exit 1; done";
        await_that(guest, taken);
        let is_wrong = [master(guest, "vnet0"), master(guest, "adm0")].contains(&String::new())
            && addresses(guest, "br0") != "192.168.100.1/24";
        if !is_wrong {
            close_all(guest);
        }
        is_wrong
    });
    assert!(is_wrong, "networkd does no harm without our files");
    close_all(guest);

    install(guest);
    run(guest, "systemctl restart systemd-networkd");
    open(guest, &taps);
    await_that(guest, others);
    let unmanaged = "for link in br0 vnet0 adm0; do
        networkctl status $link | grep -q '(unmanaged)' || exit 1; done";
    await_that(guest, unmanaged);
    assert_exact(guest, "at first");
    run(guest, "systemctl restart systemd-networkd");
    await_that(guest, &format!("{unmanaged}; {others}"));
    assert_exact(guest, "networkd began anew");
    run(guest, "udevadm trigger --settle --subsystem-match=net; networkctl reload");
    await_that(guest, &format!("{unmanaged}; {others}"));
    assert_exact(guest, "after a trigger");
    run(guest, "ip link set vnet0 down && ip link set vnet0 name web && ip link set web up");
    run(guest, "udevadm settle; sleep 1");
    await_that(guest, "networkctl status web | grep -q '(unmanaged)'");
    assert_eq!(master(guest, "web"), "br0");
    run(guest, "ip link set web down && ip link set web name vnet0 && ip link set vnet0 up");
    assert_exact(guest, "after two renames");

    // An administrator who wants a bridge managed all the same says so.
    run(
        guest,
        "d=/etc/systemd/network/05-kvmnet.network.d; mkdir $d
         printf '[Match]\\nName=!br0\\n' >$d/br0.conf; networkctl reload; networkctl reconfigure br0",
    );
    await_that(guest, "ip -br a show br0 | grep -q 10.98.0.1/32");
    await_that(guest, "networkctl status vnet0 | grep -q '(unmanaged)'");
    assert_eq!(run(guest, "systemctl --failed --no-legend").trim(), "");
}

/// The bridge follows the lowest of its ports, as where NIC and bridge are left to the kernel.
const LAN: &str = "
    printf '[Match]\\nOriginalName=lan br5\\n[Link]\\nMACAddressPolicy=none\\n' >/etc/systemd/network/10-lan.link
    udevadm control --reload
    ip link add lan type bridge && udevadm settle
    ip link add eno1 address 52:54:00:aa:bb:cc type dummy && ip link set eno1 master lan
    ip link set eno1 up && ip link set lan up && udevadm settle
";

fn mac(guest: &mut Guest, link: &str) -> String {
    run(guest, &format!("cat /sys/class/net/{link}/address")).trim().to_owned()
}

#[test]
fn udev_leaves_addresses_and_others_taps_alone() {
    let host = Host::builder().without_uplink().build();
    let mut guest = boot(&host, "udev", "");
    let guest = &mut guest;
    run(guest, LAN);
    assert_eq!(mac(guest, "lan"), "52:54:00:aa:bb:cc");

    // Without our files.
    let lost = run(guest, "race 300 lan");
    println!("without: {} lost their addresses", lost.trim());
    assert!(!lost.starts_with('0'), "{lost}");
    run(guest, "systemctl start dbus NetworkManager");
    let taps = [("vnet0", QEMUS, NATUP), ("own0", QEMUS, ""), ("vpn0", PLAIN, "")];
    let up = "ip address add 10.50.0.1/24 dev own0; ip link set own0 up; ip link set vpn0 up";
    open(guest, &taps);
    run(guest, up);
    let states = |guest: &mut Guest| run(guest, "nmcli -c no -t -f DEVICE,STATE device");
    let taken = |guest: &mut Guest, link: &str| {
        states(guest).lines().any(|line| line == format!("{link}:connected (externally)"))
    };
    for link in ["br0", "vnet0", "own0"] {
        assert!(wait_until(SLOW, || taken(guest, link)), "{link}: {}", states(guest));
    }
    run(guest, "systemctl stop NetworkManager");
    assert_dhcpcd_leaves_alone(guest, "");
    assert_dhcpcd_leaves_alone(guest, "--nodev");
    close_all(guest);

    install(guest);
    run(guest, "systemctl start NetworkManager");
    open(guest, &taps);
    run(guest, up);
    assert!(wait_until(SLOW, || taken(guest, "own0")), "{}", states(guest));
    for link in ["br0", "vnet0"] {
        let unmanaged = format!("{link}:unmanaged");
        assert!(states(guest).lines().any(|line| line == unmanaged), "{}", states(guest));
    }
    run(guest, "systemctl stop NetworkManager");
    assert_known(guest, "br0", "bridge");
    assert_known(guest, "vnet0", "port");
    for link in ["own0", "vpn0", "lan", "eno1"] {
        assert_eq!(known(guest, link), "", "{link}");
    }
    assert_tests_clean(guest);
    assert_delays(guest);
    assert_kept(guest);

    let before = mac(guest, "lan");
    assert_eq!(run(guest, "race 20 lan").trim(), "0 of 20");
    assert_eq!(run(guest, &format!("race 10 {IFUP}")).trim(), "0 of 10");
    assert_eq!(mac(guest, "lan"), before);

    // What a rule for a killed guest's tap would have to go by.
    run(guest, "udevadm monitor --udev --property --subsystem-match=net >/run/monitor & sleep 1");
    close_all(guest);
    await_that(guest, "sed -n '/ remove .*vnet0 /,/^$/p' /run/monitor | grep -q KVMNET=port");
    let log = run(guest, "journalctl -b -q -o cat -u systemd-udevd | grep -i kvmnet || true");
    assert_eq!(log, "", "udev complains");
}

/// dhcpcd needs none of our files: it takes a card and neither bridges nor taps.
#[track_caller]
fn assert_dhcpcd_leaves_alone(guest: &mut Guest, option: &str) {
    let script = format!(
        "mkdir -p /var/lib/dhcpcd
         ip link add eth7 type veth peer name eth8; ip link set eth7 up; ip link set eth8 up
         dhcpcd -B {option} >/run/said 2>&1 & p=$!
         timeout 60 sh -c 'until grep -q \"eth7: soliciting a DHCP\" /run/said; do sleep 0.2; done'
         sleep 1; kill $p; while kill -0 $p 2>/dev/null; do sleep 0.1; done; ip link del eth7
         cat /run/said"
    );
    let said = run(guest, &script);
    assert!(said.contains("eth7: soliciting a DHCP"), "{said}");
    for link in ["br0:", "vnet0:", "own0:", "vpn0:", "lan:"] {
        assert!(!said.contains(link), "{link} {said}");
    }
    assert_eq!(addresses(guest, "br0"), "192.168.100.1/24");
}

/// `udevadm test` finds nothing wrong with the rule, and runs our program for whom it may matter only.
#[track_caller]
fn assert_tests_clean(guest: &mut Guest) {
    for (link, asked) in
        [("vnet0", 1), ("own0", 1), ("vpn0", 0), ("br0", 0), ("lan", 0), ("eno1", 0)]
    {
        let said = run(guest, &format!("udevadm test /sys/class/net/{link} 2>&1"));
        assert!(said.contains("78-kvmnet.rules"), "{said}");
        let of_ours = said.lines().filter(|line| line.contains("kvmnet"));
        let starts = of_ours.clone().filter(|line| line.contains("Starting '/usr/bin/kvmnet udev"));
        assert_eq!(starts.count(), asked, "{link}: {said}");
        // That our program says no is none of these.
        let is_wrong = |line: &&str| {
            ["nvalid", "nknown", "ignoring line"].iter().any(|word| line.contains(word))
        };
        let wrong: Vec<_> = of_ours.filter(is_wrong).collect();
        assert_eq!(wrong, [""; 0], "{link}");
    }
}

/// A tap that is none of ours is held up for a moment where it looks like QEMU's, and not else.
#[track_caller]
fn assert_delays(guest: &mut Guest) {
    // From the tap's event to its end, by udev's own clock for both.
    let took = |guest: &mut Guest, name: &str, make: &str| {
        let script = format!(
            "udevadm monitor --kernel --udev --subsystem-match=net >/run/events & p=$!; sleep 1
             {make} {name}; udevadm settle; sleep 0.2; kill $p
             sed -n 's/^\\(KERNEL\\|UDEV\\) *\\[\\([0-9.]*\\)\\] add .*\\/{name} .*/\\2/p' /run/events"
        );
        let times = run(guest, &script);
        let times: Vec<f64> = times.lines().map(|time| time.parse().expect("seconds")).collect();
        let [start, end] = times[..] else { panic!("{name}: {times:?}") };
        end - start
    };
    run(
        guest,
        "cat >/run/open <<'END'
open-tap $2 $1 >/dev/null 2>&1 </dev/null & echo $! >/run/pid.$2
sleep 2
END",
    );
    let vpn = took(guest, "vpn1", &format!("sh /run/open {PLAIN}"));
    let own = took(guest, "own1", &format!("sh /run/open {QEMUS}"));
    let persistent = took(guest, "made0", "ip tuntap add mode tap vnet_hdr dev");
    println!(
        "add of a tap: like QEMU's {own:.3} s, a VPN's {vpn:.3} s, persistent {persistent:.3} s"
    );
    assert!(own > 0.25 && own < 5.0, "{own}");
    // What others cost differs from run to run; that nothing is started for them doesn't.
    for link in ["vpn1", "made0"] {
        let said = run(guest, &format!("udevadm test /sys/class/net/{link} 2>&1"));
        assert!(!said.contains("Starting '/usr/bin/kvmnet"), "{link}: {said}");
    }
}

/// What was once known stays known, and nothing else becomes it.
#[track_caller]
fn assert_kept(guest: &mut Guest) {
    let trigger = "udevadm trigger --settle --subsystem-match=net";
    let queues = [("adm9", "5102", IFUP), ("vnet2", "5102", NATUP), ("plain0", PLAIN, NATUP)];
    open(guest, &queues);
    assert_known(guest, "adm9", "port");
    assert_known(guest, "vnet2", "port");
    // Nobody waits for one without a virtio header; the next event knows it.
    run(guest, trigger);
    assert_known(guest, "plain0", "port");

    run(guest, "ip link set adm9 down && ip link set adm9 name web && ip link set web up");
    run(guest, "ip link set br0 alias ''; udevadm settle");
    assert_known(guest, "web", "port");
    for action in ["change", "add"] {
        run(guest, &format!("{trigger} --action={action}"));
        assert_known(guest, "web", "port");
        assert_known(guest, "vnet0", "port");
        assert_known(guest, "br0", "bridge");
    }
    run(guest, "ip link set br0 alias kvmnet:default; ip link set br0 address 02:00:00:00:00:01");
    run(guest, trigger);
    assert_known(guest, "br0", "bridge");
    assert_known(guest, "vnet2", "port");
    run(guest, "kvmnet reload");

    // An administrator's bridge with a VLAN of ours, which has our address by inheritance.
    run(
        guest,
        "ip link add br5 type bridge; ip link add link br0 name br0.5 type vlan id 5
         echo 1 >/sys/class/net/br5/bridge/stp_state; udevadm settle; ip link set br0.5 master br5",
    );
    assert_eq!(mac(guest, "br5"), mac(guest, "br0"));
    // As libvirt does it.
    run(guest, "ip link set own0 down; ip link set own0 address fe:54:00:01:02:03 master lan up");
    run(guest, &format!("ip link set web nomaster; {trigger}"));
    for link in ["br5", "br0.5", "own0", "web", "lan"] {
        assert_eq!(known(guest, link), "", "{link}");
    }
    run(guest, "ip link del br5; ip link del br0.5; ip link del made0");

    // An administrator's rule has the last word.
    run(
        guest,
        "cat >/etc/udev/rules.d/79-local.rules <<'END'
SUBSYSTEM==\"net\", ACTION!=\"remove\", KERNEL==\"made0\", ENV{KVMNET}=\"port\", ENV{NM_UNMANAGED}=\"1\"
SUBSYSTEM==\"net\", ACTION!=\"remove\", KERNEL==\"vnet2\", ENV{KVMNET}=\"\", ENV{NM_UNMANAGED}=\"\"
END
         udevadm control --reload; ip tuntap add made0 mode tap; udevadm trigger -w /sys/class/net/vnet2
         udevadm settle",
    );
    assert_eq!(known(guest, "vnet2"), "");
    assert_known(guest, "made0", "port");
    run(guest, "ip link del made0");
}

/// The program that the rule runs only looks, at the tap and its bridge, and holds up nobody.
#[test]
fn it_asks_the_kernel_for_one_link_and_takes_no_lock() {
    let host = Host::new();
    let _tap = host.tap_on("default", "vnet0");
    let index = host.ok("cat /sys/class/net/vnet0/ifindex || ip -o link show vnet0 | cut -d: -f1");
    let index = index.trim();
    let asked = host.ok(&format!("kvmnet udev look {index}"));
    assert_eq!(asked, "KVMNET=port\n");
    let trace = host.ok(&format!(
        "strace -f -e trace=network,flock,open,openat,mkdir,mkdirat -o /tmp/trace \
         kvmnet udev look {index} >/dev/null; cat /tmp/trace"
    ));
    let count = |what: &str| trace.lines().filter(|line| line.contains(what)).count();
    assert_eq!(count("send"), 2, "{trace}");
    assert_eq!(
        count("RTM_GETLINK") + count("RTM_NEWLINK"),
        count("send") + count("recv"),
        "{trace}"
    );
    for never in ["flock", "mkdir", "O_CREAT", "O_WRONLY", "O_RDWR", "/run/kvmnet", "/etc/kvmnet"] {
        assert_eq!(count(never), 0, "{never}: {trace}");
    }
    // No port, no tap, no link: no, without a word and at once.
    host.persistent_tap("made0");
    for other in ["eno1", "br0", "lo", "made0"] {
        let script = format!("kvmnet udev wait $(ip -o link show {other} | cut -d: -f1)");
        let start = Instant::now();
        let output = host.sh(&script);
        assert!(start.elapsed() < Duration::from_millis(250), "{other}");
        assert_eq!((output.code, output.stdout, output.stderr), (1, String::new(), String::new()));
    }
    assert_eq!(host.sh("kvmnet udev look 4711").code, 1);
    // A helper may have to wait for the lock, for longer than a tap is usually waited for.
    let _waiting = host.tap("vnet1");
    let asked = host.ok("flock /run/kvmnet/net-* sleep 1 & sleep 0.2
         /usr/libexec/kvmnet-natup vnet1 & sleep 0.1
         kvmnet udev wait $(ip -o link show vnet1 | cut -d: -f1); wait");
    assert_eq!(asked, "KVMNET=port\n");
    // It is no subcommand for people.
    assert_eq!(host.sh("kvmnet udev").code, 2);
    assert!(!host.ok("kvmnet --help").contains("udev"));
}

/// What the rule sets is what the other files and the code go by.
#[test]
fn the_files_agree() {
    let host = Host::bare();
    let [rules, link, network] = [RULES, LINK, NETWORK].map(|path| host.ok(&format!("cat {path}")));
    let [a, b, c] = BRIDGE_PREFIX;
    assert!(rules.contains(&format!("ATTR{{address}}==\"{a:02x}:{b:02x}:{c:02x}:*\"")), "{rules}");
    assert!(rules.contains("ENV{KVMNET}=\"bridge\"") && !rules.contains('@'), "{rules}");
    for file in [&link, &network] {
        assert!(file.contains("\nProperty=KVMNET=*\n"), "{file}");
        assert!(file.contains("\nDriver=bridge tun\n"), "{file}");
    }
    assert!(link.contains("\nMACAddressPolicy=none\n"), "{link}");
    assert!(network.contains("\nUnmanaged=yes\n"), "{network}");
    // The order that udev and networkd read them in.
    let number = |path: &str| -> u32 {
        let name = path.rsplit('/').next().expect("a path has a last part");
        name[..2].parse().expect("it begins with a number")
    };
    assert!(number(RULES) < 80 && number(LINK) < 98 && number(NETWORK) < 10);
}
