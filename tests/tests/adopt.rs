//! `kvmnet adopt`: the same command line with the same script, and the same network as before.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::time::Duration;

use kvmnet_tests::Host;

const UP: &str = "/etc/qemu-natup";
const DOWN: &str = "/etc/qemu-natdown";

/// Everything about a file that an administrator could see, and its content.
#[derive(Debug, PartialEq, Eq)]
struct Kept {
    content: String,
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    changed: (i64, i64),
}

fn kept(host: &Host, path: &str) -> Kept {
    let path = host.path(path);
    let found = fs::symlink_metadata(&path).unwrap();
    Kept {
        content: if found.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else {
            format!("{:?}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
        },
        inode: found.ino(),
        mode: found.mode(),
        owner: (found.uid(), found.gid()),
        changed: (found.mtime(), found.mtime_nsec()),
    }
}

/// All names in `/etc` that have to do with it, hidden ones too, and in `/etc/kvmnet`.
fn names(host: &Host) -> String {
    host.ok("cd /etc; ls -A | grep -E 'qemu-|kvmnet'; ls -A kvmnet 2>/dev/null; :")
}

/// A host with the scripts of the old how-to, each odd in one way, and no others.
fn host() -> Host {
    let host = Host::new();
    host.ok("rm -f /etc/qemu-if*");
    host.install_legacy();
    host.ok("rm /etc/qemu-ifup");
    fs::set_permissions(host.path(UP), fs::Permissions::from_mode(0o751)).unwrap();
    chown(host.path(UP), Some(12), Some(34)).unwrap();
    host.ok("touch -d '2009-02-13 23:31:30.123456789' /etc/qemu-natup");
    host
}

fn adopted(host: &Host, path: &str) -> bool {
    let text = fs::read_to_string(host.path(path)).unwrap();
    text.contains("exec /usr/libexec/kvmnet-")
}

/// What a script makes of the network, in words that are the same whoever made it: addresses, ports,
/// forwarding; and for whom there is NAT, and what comes of it on the way out.
fn network(host: &Host, bridge: &str) -> String {
    format!(
        "{:?} {:?} forwarding {} masqueraded {}",
        host.ports(bridge),
        host.addresses(bridge),
        host.sysctl("net/ipv4/ip_forward").trim(),
        host.count_rules("masquerade") > 0,
    )
}

#[test]
fn the_old_how_tos_nat_scripts() {
    let host = host();
    let (up, down) = (kept(&host, UP), kept(&host, DOWN));
    let before = names(&host);
    // As it was, with QEMU's own way to call it.
    let guest = host.tap_machine("vnet0", "192.168.100.10/24", "192.168.100.1");
    let _servers = (host.outside().tcp_server(7000), host.outside().udp_server(7000));
    host.ok("/etc/qemu-natup vnet0");
    let old = network(&host, "br0");
    host.ok("/etc/qemu-natdown vnet0");

    // A dry run tells all, and changes nothing.
    let told = host.kvmnet_ok(&["adopt"]);
    for words in [
        "/etc/qemu-natup: becomes /usr/libexec/kvmnet-natup\n",
        "/etc/qemu-natdown: becomes /usr/libexec/kvmnet-natdown\n",
        "network default, nat on br0, 192.168.100.1/24 (built in)\n",
        "-    brctl addbr $bridge\n",
        "+exec /usr/libexec/kvmnet-natup \"$@\"\n",
        "iptables -t nat -F: it would take others' rules, too",
        "Nothing is changed yet",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!((kept(&host, UP), kept(&host, DOWN), names(&host)), (up, down, before.clone()));

    let (up, down) = (kept(&host, UP), kept(&host, DOWN));
    host.kvmnet_ok(&["adopt", "--yes"]);
    assert!(adopted(&host, UP) && adopted(&host, DOWN));
    assert_eq!(kept(&host, "/etc/qemu-natup.before-kvmnet"), up);
    assert_eq!(kept(&host, UP).mode & 0o7777, 0o755);
    // No network file: it is built in.
    assert!(!names(&host).contains("toml"));
    assert!(host.syslog().iter().any(|line| line.contains("/etc/qemu-natup: runs")));

    host.ok("/etc/qemu-natup vnet0");
    assert_eq!(network(&host, "br0"), old);
    assert!(host.nft_tables().iter().any(|table| table.contains("kvmnet-default")));
    guest.assert_reaches("10.0.0.1:7000");
    host.ok("/etc/qemu-natdown vnet0");
    assert!(host.link("br0").is_none());

    // Once more is nothing.
    let again = host.kvmnet_ok(&["adopt", "--yes"]);
    assert_eq!(
        again,
        "/etc/qemu-natup: is kvmnet's already\n\n/etc/qemu-natdown: is kvmnet's already\n"
    );

    let told = host.kvmnet_ok(&["adopt", "--undo"]);
    assert!(told.contains("+    brctl addbr $bridge\n"), "{told}");
    assert!(adopted(&host, UP));
    host.kvmnet_ok(&["adopt", "--undo", "--yes"]);
    assert_eq!((kept(&host, UP), kept(&host, DOWN), names(&host)), (up, down, before));
    assert_eq!(host.kvmnet_ok(&["adopt", "--undo", "--yes"]), "nothing is adopted\n");
}

/// What the same path does before and after: forms other than the how-to's, from the command's own
/// fixtures.
#[test]
fn other_forms_make_the_same_network() {
    for (name, bridge, address) in [
        ("qemuwiki-nat-ifup", "virt0", "192.168.53.1/24"),
        ("nft-natup", "virbr7", "192.168.77.1/24"),
    ] {
        let host = Host::new();
        host.ok("rm -f /etc/qemu-if*");
        host.write_program("/etc/qemu-ifup", fixture(name));
        let guest = address.replace(".1/", ".10/");
        let gateway = address.split('/').next().unwrap();
        let machine = host.tap_machine("vnet0", &guest, gateway);
        host.ok("/etc/qemu-ifup vnet0");
        let old = network(&host, bridge);
        assert!(old.starts_with(&format!("[\"vnet0\"] [\"{address}\"] forwarding 1 ")), "{old}");
        host.ok(&format!("ip link del {bridge}; nft flush ruleset"));
        host.kvmnet_ok(&["adopt", "--yes"]);
        host.ok("/etc/qemu-ifup vnet0");
        assert_eq!(network(&host, bridge), old, "{name}");
        let _servers = (host.outside().tcp_server(7000), host.outside().udp_server(7000));
        machine.assert_reaches("10.0.0.1:7000");
        assert_eq!(
            host.kvmnet_ok(&["check"]),
            "1 network checked: all is well\n",
            "{name}: the file that was written"
        );
        host.kvmnet_ok(&["adopt", "--undo", "--yes"]);
        assert_eq!(fs::read_to_string(host.path("/etc/qemu-ifup")).unwrap(), fixture(name));
        assert!(!host.path("/etc/kvmnet/default.toml").exists());
    }
}

fn fixture(name: &str) -> String {
    let path = format!("{}/../crates/kvmnet/src/adopt/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn bridged_scripts_join_the_same_bridge() {
    // Debian's own is what the machine has; the others are of the command's fixtures.
    for (script, bridge) in [
        (None, "lan7"),
        (Some("debian-ifup"), "lan7"),
        (Some("kvmwiki-ifup"), "br0"),
        (Some("arch-ifup"), "br1"),
        (Some("iproute-ifup"), "lan0"),
    ] {
        let host = Host::new();
        host.ok("! grep -qw sudo /etc/qemu-ifup");
        if let Some(script) = script {
            // There is no sudo among what the tests install, and programs are where they are.
            let directories = ["/usr/bin/", "/usr/sbin/", " /sbin/", "sudo "];
            let without = |text: String, directory| text.replace(directory, " ");
            let text = directories.into_iter().fold(fixture(script), without);
            host.write_program("/etc/qemu-ifup", text);
        }
        host.ok(&format!(
            "ip link add {bridge} type bridge forward_delay 0; ip link set {bridge} up
             ip address del 10.0.0.11/24 dev eno1; ip link set eno1 master {bridge}
             ip address add 10.0.0.11/24 dev {bridge}
             ip route add default via 10.0.0.1 dev {bridge}"
        ));
        if ["br1", "lan0"].contains(&bridge) {
            // What kvmnet-ifup would take by itself.
            host.ok("ip link add br0 type bridge");
        }
        let _tap = host.tap("vnet0");
        host.ok("/etc/qemu-ifup vnet0 || :");
        assert_eq!(host.ports(bridge), ["eno1", "vnet0"], "{script:?}");
        host.ok("ip link set vnet0 nomaster; ip link set vnet0 down");
        host.kvmnet_ok(&["adopt", "--yes", "/etc/qemu-ifup"]);
        assert!(adopted(&host, "/etc/qemu-ifup"));
        host.ok("/etc/qemu-ifup vnet0");
        assert_eq!(host.ports(bridge), ["eno1", "vnet0"], "{script:?}");
        host.ok("/etc/qemu-ifdown vnet0");
        assert_eq!(host.ports(bridge), ["eno1"], "{script:?}");
        host.kvmnet_ok(&["adopt", "--undo", "--yes"]);
        assert!(!adopted(&host, "/etc/qemu-ifup") && !adopted(&host, "/etc/qemu-ifdown"));
    }
}

#[test]
fn what_cannot_be_told_stays() {
    let host = host();
    for (text, why) in [
        (
            "ip link set $1 master br0\ntc qdisc add dev $1 root fq\n",
            "line 3: tc qdisc add dev $1 root fq: tc is not known here",
        ),
        (
            "case $1 in a) b=br0;; *) b=br1;; esac\nbrctl addif $b $1\n",
            "line 2: case $1 in a) b=br0;; *) b=br1;; esac: what it does depends on a case",
        ),
    ] {
        host.write_program("/etc/qemu-ifup", format!("#!/bin/sh\n{text}"));
        let before = kept(&host, "/etc/qemu-ifup");
        for arguments in [&["adopt", "/etc/qemu-ifup"][..], &["adopt", "--yes", "/etc/qemu-ifup"]] {
            let output = host.kvmnet(arguments);
            assert_eq!(
                output.stderr,
                format!(
                    "kvmnet: not adopted: /etc/qemu-ifup ({why}; as network NAME all the same: kvmnet adopt --network NAME /etc/qemu-ifup)\n"
                )
            );
            assert_eq!(output.code, 1);
            assert!(output.stdout.contains(&format!("  because      {why}\n")), "{output:?}");
        }
        assert_eq!(kept(&host, "/etc/qemu-ifup"), before);
    }
    // As a network that is described, all the same.
    let output = host.kvmnet(&["adopt", "--yes", "--network", "lan", "/etc/qemu-ifup"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("there is no /etc/kvmnet/lan.toml"), "{output:?}");
    host.describe("lan", "mode = \"bridged\"\nbridge = \"br1\"\n");
    let told = host.kvmnet_ok(&["adopt", "--yes", "--network", "lan", "/etc/qemu-ifup"]);
    assert!(told.contains("in spite of: line 2: case $1"), "{told}");
    host.ok("ip link add br1 type bridge");
    let _tap = host.tap("vnet0");
    host.ok("/etc/qemu-ifup vnet0");
    assert_eq!(host.ports("br1"), ["vnet0"]);
    host.kvmnet_ok(&["adopt", "--undo", "--yes", "/etc/qemu-ifup"]);
    // That file is the administrator's.
    assert!(host.path("/etc/kvmnet/lan.toml").exists());
}

/// DHCP stands in the way, until the network is named; then the file is written from what is known.
#[test]
fn a_script_that_serves_dhcp() {
    let host = host();
    host.write_program("/etc/qemu-ifup", fixture("qemuwiki-dhcp-ifup"));
    let output = host.kvmnet(&["adopt", "--yes", "/etc/qemu-ifup"]);
    assert!(output.stderr.contains("serves DHCP, which kvmnet does not"), "{output:?}");
    let told = host.kvmnet_ok(&["adopt", "--yes", "--network", "default", "/etc/qemu-ifup"]);
    assert!(told.contains("kvmnet serves no DHCP"), "{told}");
    let _tap = host.tap("vnet0");
    host.ok("/etc/qemu-ifup vnet0");
    assert_eq!(host.addresses("br0"), ["192.168.53.1/24"]);
}

#[test]
fn one_half_alone_is_not_adopted() {
    let host = host();
    host.write_program(DOWN, "#!/bin/sh\nbrctl delif br0 $1\ntc qdisc del dev $1 root\n");
    let before = (kept(&host, UP), kept(&host, DOWN), names(&host));
    let output = host.kvmnet(&["adopt", "--yes", UP]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.contains("/etc/qemu-natup (its other half, /etc/qemu-natdown, stays)"),
        "{output:?}"
    );
    assert_eq!((kept(&host, UP), kept(&host, DOWN), names(&host)), before);
}

#[test]
fn networks_that_have_a_file() {
    let host = host();
    let script = fs::read_to_string(host.path(UP)).unwrap();
    let script = script.replace("br0", "br-lab").replace("192.168.100.", "192.168.150.");
    host.write_program(UP, &script);
    host.write_program(DOWN, fs::read_to_string(host.path(DOWN)).unwrap().replace("br0", "br-lab"));
    // Another's that says otherwise is in the way, and stays.
    host.describe("lab", "mode = \"nat\"\nbridge = \"br-lab\"\naddress = \"192.168.151.1/24\"\n");
    let output = host.kvmnet(&["adopt", "--yes"]);
    let why = "it is for nat on br-lab, 192.168.150.1/24, and /etc/kvmnet/lab.toml for nat on br-lab, 192.168.151.1/24: both have the bridge br-lab";
    assert!(output.stderr.contains(why), "{output:?}");
    assert!(!adopted(&host, UP) && !adopted(&host, DOWN));
    // One that says the same is taken, and isn't undone.
    host.describe("lab", "mode = \"nat\"\nbridge = \"br-lab\"\naddress = \"192.168.150.1/24\"\n");
    host.kvmnet_ok(&["adopt", "--yes"]);
    let _tap = host.tap("vnet0");
    host.ok("/etc/qemu-natup vnet0");
    assert_eq!(host.ports("br-lab"), ["vnet0"]);
    assert!(host.nft_tables().iter().any(|table| table.contains("kvmnet-lab")));
    host.ok("/etc/qemu-natdown vnet0");
    assert!(host.link("br-lab").is_none());
    host.kvmnet_ok(&["adopt", "--undo", "--yes"]);
    // With none, one is written; changed by hand it stays.
    host.ok("rm /etc/kvmnet/lab.toml");
    host.kvmnet_ok(&["adopt", "--yes"]);
    assert_eq!(host.ok("stat -c '%a %U' /etc/kvmnet/default.toml"), "644 root\n");
    host.ok("sed -i 's/150.1/150.2/' /etc/kvmnet/default.toml");
    let told = host.kvmnet_ok(&["adopt", "--undo", "--yes"]);
    assert!(
        told.contains("/etc/kvmnet/default.toml: was changed since it was written, and stays"),
        "{told}"
    );
    assert!(host.path("/etc/kvmnet/default.toml").exists());
    assert_eq!(fs::read_to_string(host.path(UP)).unwrap(), script);
    // One that two need goes with the second.
    host.ok("rm /etc/kvmnet/default.toml; cp /etc/qemu-natup /etc/qemu-ifup");
    host.kvmnet_ok(&["adopt", "--yes"]);
    let told = host.kvmnet_ok(&["adopt", "--undo", "--yes", "/etc/qemu-ifup"]);
    assert!(told.contains("/etc/kvmnet/default.toml: stays, for /etc/qemu-natup"), "{told}");
    let _tap = host.tap("vnet1");
    host.ok("/etc/qemu-natup vnet1");
    assert_eq!(host.ports("br-lab"), ["vnet1"]);
    host.kvmnet_ok(&["adopt", "--undo", "--yes", UP]);
    assert!(!host.path("/etc/kvmnet/default.toml").exists());
    host.ok("rm /etc/qemu-ifup");
    // A mistake in any file has to be mended first.
    host.describe("default", "mode = \"natt\"\n");
    let output = host.kvmnet(&["adopt", "--yes"]);
    assert!(
        output.stderr.contains("/etc/kvmnet/default.toml:1: mode = \"natt\" is none"),
        "{output:?}"
    );
}

#[test]
fn wrappers_that_were_changed_and_scripts_that_came_back() {
    let host = host();
    let old = kept(&host, UP);
    host.kvmnet_ok(&["adopt", "--yes"]);
    let wrapper = fs::read_to_string(host.path(UP)).unwrap();
    // Edited.
    host.ok("echo 'logger hello' >>/etc/qemu-natup");
    let output = host.kvmnet(&["adopt", "--undo", "--yes"]);
    assert_eq!(output.code, 1);
    assert!(output.stderr.contains("not undone: /etc/qemu-natup (it was edited since; /etc/qemu-natup.before-kvmnet is the script that was here)"), "{output:?}");
    assert!(output.stdout.contains("+logger hello\n"), "{output:?}");
    assert!(!adopted(&host, DOWN));
    assert!(host.kvmnet_ok(&["adopt", UP]).contains("it was edited since"));
    // A package's newer one in its place: neither is lost.
    host.write_program(UP, "#!/bin/sh\nbrctl addif br9 $1\n");
    let output = host.kvmnet(&["adopt", "--undo", "--yes"]);
    assert!(output.stderr.contains("it is another script by now"), "{output:?}");
    assert_eq!(kept(&host, "/etc/qemu-natup.before-kvmnet"), old);
    let output = host.kvmnet(&["adopt", "--yes", UP]);
    assert!(output.stderr.contains("is there already, and another file"), "{output:?}");
    // Purged with its package: what was here comes back.
    host.ok("rm /etc/qemu-natup");
    host.kvmnet_ok(&["adopt", "--undo", "--yes"]);
    assert_eq!(kept(&host, UP), old);
    // The backup is gone.
    host.write_program(UP, &wrapper);
    let output = host.kvmnet(&["adopt", "--undo", "--yes"]);
    assert!(output.stderr.contains("/etc/qemu-natup.before-kvmnet is gone"), "{output:?}");
    assert!(adopted(&host, UP));
}

#[test]
fn odd_files() {
    let host = host();
    for (make, why) in [
        ("mkdir /etc/qemu-ifup", "is a directory"),
        ("mkfifo /etc/qemu-ifup", "is no file"),
        ("ln -s nowhere /etc/qemu-ifup", "is a link that leads nowhere"),
        ("echo '#!/bin/sh' >/etc/qemu-ifup", "is not executable"),
        (
            "head -c 70000 /dev/zero | tr '\\0' '#' >/etc/qemu-ifup; chmod +x /etc/qemu-ifup",
            "is larger than 64 KiB",
        ),
        ("cp /usr/bin/true /etc/qemu-ifup", "is no text"),
    ] {
        host.ok(make);
        let output = host.kvmnet(&["adopt", "--yes", "/etc/qemu-ifup"]);
        assert_eq!(output.code, 1, "{make}");
        assert!(output.stderr.contains(why), "{make}: {output:?}");
        host.ok("rm -r /etc/qemu-ifup");
        assert!(!names(&host).contains("qemu-ifup"), "{make}");
    }
    // A link: it is what goes aside, and what it leads to stays.
    host.ok("mkdir /etc/scripts; mv /etc/qemu-natup /etc/scripts/up");
    symlink("scripts/up", host.path(UP)).unwrap();
    let (link, target) = (kept(&host, UP), kept(&host, "/etc/scripts/up"));
    host.kvmnet_ok(&["adopt", "--yes"]);
    assert!(adopted(&host, UP));
    assert_eq!(kept(&host, "/etc/scripts/up"), target);
    host.kvmnet_ok(&["adopt", "--undo", "--yes"]);
    assert_eq!((kept(&host, UP), kept(&host, "/etc/scripts/up")), (link, target));
    // A link to the program is kvmnet's already.
    host.ok("ln -sf /usr/libexec/kvmnet-natup /etc/qemu-natup");
    assert!(host.kvmnet_ok(&["adopt", UP]).starts_with("/etc/qemu-natup: is kvmnet's already"));
    // What isn't UTF-8 comes back as it was.
    host.ok("printf '#!/bin/sh\\n# gr\\374n\\nbrctl addif br0 $1\\n' >/etc/x-ifup; chmod +x /etc/x-ifup");
    let before = kept(&host, "/etc/x-ifup");
    host.ok("cd /etc && kvmnet adopt --yes x-ifup");
    assert!(adopted(&host, "/etc/x-ifup"));
    host.kvmnet_ok(&["adopt", "--undo", "--yes"]);
    assert_eq!(kept(&host, "/etc/x-ifup"), before);
    // Who isn't root looks, and changes nothing.
    let output = host.kvmnet_unprivileged(&["adopt", "--yes"]);
    assert_eq!(output.stderr, "kvmnet: adopt: user 1000 may not replace scripts; run it as root\n");
    assert_eq!(host.kvmnet(&["adopt", "--undo", "--network", "x", UP]).code, 2);
    assert_eq!(host.kvmnet(&["adopt", "--network", "x"]).code, 2);
}

#[test]
fn several_at_once() {
    let host = host();
    let before = (kept(&host, UP), kept(&host, DOWN), names(&host));
    for arguments in [&["adopt", "--yes"][..], &["adopt", "--undo", "--yes"]] {
        let runs: Vec<_> =
            (0..6).map(|_| host.spawn(host.command("kvmnet").args(arguments))).collect();
        for run in runs {
            let output = run.output(Duration::from_secs(30));
            assert!(output.success(), "{output:?}");
        }
        assert_eq!(adopted(&host, UP), arguments.len() == 2);
    }
    assert_eq!((kept(&host, UP), kept(&host, DOWN), names(&host)), before);
    host.ok("rm /etc/qemu-*");
    let told = host.kvmnet_ok(&["adopt", "--yes"]);
    assert!(told.starts_with("no script at any of /etc/qemu-ifup, "), "{told}");
}

/// Killed before each of its system calls: the path has either whole, and one more run ends well.
#[test]
fn killed_anywhere() {
    let host = host();
    let script = fs::read_to_string(host.path(UP)).unwrap().replace("192.168.100", "192.168.150");
    host.write_program(UP, &script);
    let before = (kept(&host, UP), kept(&host, DOWN), names(&host));
    host.kvmnet_ok(&["adopt", "--yes"]);
    let after = names(&host);
    let wrapper = fs::read_to_string(host.path(UP)).unwrap();
    assert!(after.contains("default.toml"));
    let adopt = ["kvmnet", "adopt", "--yes"];
    let undo = ["kvmnet", "adopt", "--undo", "--yes"];
    let is_whole = |what: &str| {
        let text = fs::read_to_string(host.path(UP)).unwrap();
        assert!(text == script || text == wrapper, "{what}: {text}");
    };
    let kill = |program: &[&str], (call, number): &(String, usize)| {
        let what = format!("inject={call}:signal=KILL:when={number}");
        let (output, _) = host.strace(&["-e", &what], program);
        assert!(output.code == 128 + 9 || output.success(), "{what}: {output:?}");
        let what = format!("{program:?} killed before {call} number {number}");
        is_whole(&what);
        what
    };
    let assert_back = |what: &str| {
        let now = (kept(&host, UP), kept(&host, DOWN), names(&host).replace("kvmnet\n", ""));
        assert_eq!(now, (kept(&host, UP), kept(&host, DOWN), before.2.clone()), "{what}");
        assert_eq!((&now.0, &now.1), (&before.0, &before.1), "{what}");
    };
    host.kvmnet_ok(&["adopt", "--undo", "--yes"]);
    assert_back("undisturbed");
    let calls = host.system_calls(&adopt);
    host.kvmnet_ok(&undo[1..]);
    let calls: Vec<_> = calls.into_iter().filter(|(name, _)| matters(name)).collect();
    assert!(calls.len() > 40, "{calls:?}");
    for call in &calls {
        let what = kill(&adopt, call);
        host.kvmnet(&adopt[1..]).expect(&what);
        assert_eq!(names(&host), after, "{what}");
        assert_eq!(fs::read_to_string(host.path(UP)).unwrap(), wrapper, "{what}");
        host.kvmnet(&undo[1..]).expect(&what);
        assert_back(&what);
        // And right back.
        let what = kill(&adopt, call);
        host.kvmnet(&undo[1..]).expect(&what);
        assert_back(&what);
    }
    host.kvmnet_ok(&adopt[1..]);
    let undone = host.system_calls(&undo);
    for call in undone.iter().filter(|(name, _)| matters(name)) {
        host.kvmnet_ok(&adopt[1..]);
        let what = kill(&undo, call);
        host.kvmnet(&undo[1..]).expect(&what);
        assert_back(&what);
    }
    println!("killed before each of {} and {} system calls", calls.len(), undone.len());
}

/// Those that change nothing but the process itself can't make a difference.
fn matters(call: &str) -> bool {
    !["mmap", "brk", "munmap", "mprotect", "rt_sigaction", "sigaltstack", "mremap", "getrandom"]
        .contains(&call)
}

/// A package's conffile, as Debian's qemu-system-common has it: purging the package takes the wrapper,
/// and never the program.
#[test]
fn purging_the_scripts_package_harms_nothing() {
    let host = host();
    host.ok("mkdir -p /tmp/pkg/DEBIAN /tmp/pkg/etc /tmp/base/DEBIAN /tmp/base/etc && cd /tmp
         printf 'Package: fake-qemu\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody <nobody@localhost>\\nDescription: scripts\\n' >pkg/DEBIAN/control
         echo /etc/qemu-ifup >pkg/DEBIAN/conffiles
         printf '#!/bin/sh\\nip link set $1 master br0\\n' >pkg/etc/qemu-ifup
         chmod 755 pkg/etc/qemu-ifup && dpkg-deb -b pkg fake.deb
         # Somebody else's, so that /etc stays.
         printf 'Package: fake-base\\nVersion: 1\\nArchitecture: all\\nMaintainer: nobody <nobody@localhost>\\nDescription: base\\n' >base/DEBIAN/control
         : >base/etc/fake-base; dpkg-deb -b base base.deb
         mkdir -p dpkg/info dpkg/updates dpkg/triggers; : >dpkg/status
         dpkg --admindir=/tmp/dpkg -i base.deb fake.deb");
    host.kvmnet_ok(&["adopt", "--yes", "/etc/qemu-ifup"]);
    let helper = host.ok("sha256sum /usr/libexec/kvmnet-ifup");
    host.ok("dpkg --admindir=/tmp/dpkg --purge fake-qemu");
    assert!(!host.path("/etc/qemu-ifup").exists());
    assert_eq!(host.ok("sha256sum /usr/libexec/kvmnet-ifup"), helper);
    host.kvmnet_ok(&["adopt", "--undo", "--yes"]);
    assert!(!names(&host).contains("before-kvmnet"));
}
