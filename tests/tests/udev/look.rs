//! The program that the rule runs, and what the files say, without a guest.

use kvmnet_core::model::BRIDGE_PREFIX;
use kvmnet_tests::Host;

use crate::{LINK, NETWORK, RULES};

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
    // Of a socket that isn't bound yet strace doesn't know whose numbers the first message has.
    let first = format!("nlmsg_type={:#x} ", libc::RTM_GETLINK);
    assert_eq!(
        count(&first) + count("RTM_GETLINK") + count("RTM_NEWLINK"),
        count("send") + count("recv"),
        "{trace}"
    );
    for never in ["flock", "mkdir", "O_CREAT", "O_WRONLY", "O_RDWR", "/run/kvmnet", "/etc/kvmnet"] {
        assert_eq!(count(never), 0, "{never}: {trace}");
    }
    // No port, no tap, no link: no, without a word and at once.
    host.persistent_tap("made0");
    for other in ["eno1", "br0", "lo", "made0"] {
        let script = format!(
            "strace -f -e trace=clock_nanosleep -e signal=none -o /tmp/sleeps \
             kvmnet udev wait $(ip -o link show {other} | cut -d: -f1)"
        );
        let output = host.sh(&script);
        assert_eq!((output.code, output.stdout, output.stderr), (1, String::new(), String::new()));
        let sleeps = host.ok("cat /tmp/sleeps");
        assert!(!sleeps.contains("nanosleep"), "{other}: {sleeps}");
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
