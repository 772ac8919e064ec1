//! natdown on bridges that aren't kvmnet's: it isn't told which network natup was asked for, and
//! finds it in the files, which it reads for nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use kvmnet_tests::{Host, Output, assert_same};

const LIMIT: Duration = Duration::from_secs(10);
const OFFICE: &str = "/etc/kvmnet/office.toml";

fn run(host: &Host, program: &str) -> Output {
    host.spawn(host.command(program).arg("vnet0")).output(LIMIT)
}

/// Makes the tap a port of `office`'s bridge, in the way that a guest's own NIC asks for it.
#[track_caller]
fn attach(host: &Host) {
    run(host, "/run/x/kvmnet-natup@office").expect("natup@office");
    assert_eq!(host.ports("br1"), ["vnet0"]);
}

/// A bridge of the administrator's with a file, and a link to ask for it.
fn with_office() -> Host {
    let host = Host::bare();
    host.write(OFFICE, "mode = \"bridged\"\nbridge = \"br1\"\n");
    // An IPv6 address would come at some time, and look like a change of ours.
    host.ok("
        ip link add br1 type bridge && echo 1 >/proc/sys/net/ipv6/conf/br1/disable_ipv6
        ip link set br1 address 02:00:00:00:00:42 up
    ");
    host.ok("mkdir -p /run/x && ln -s /usr/libexec/kvmnet-natup /run/x/kvmnet-natup@office");
    host
}

#[test]
fn the_plain_downscript_releases_what_natup_at_a_network_attached() {
    let host = with_office();
    let _tap = host.tap("vnet0");
    let before = host.foreign().without_link("vnet0");
    // Neither of these is that tap's network, and one of them is wrong.
    host.write("/etc/kvmnet/lab.toml", "address = \"192.168.150.1/24\"\ntaps = [\"vnet*\"]\n");
    for broken in ["", "mode = zoo"] {
        if !broken.is_empty() {
            host.write("/etc/kvmnet/zoo.toml", broken);
        }
        attach(&host);
        let output = run(&host, "/usr/libexec/kvmnet-natdown");
        assert_eq!((output.code, output.stderr.as_str(), output.stdout.as_str()), (0, "", ""));
        assert!(host.ports("br1").is_empty());
        assert_same(&before, &host.foreign().without_link("vnet0"));
    }
    let log = host.syslog().join("\n");
    assert!(log.contains("vnet0: released from br1"), "{log}");
}

/// A file whose answer is needed and that is wrong is as good as none.
#[test]
fn without_the_file_it_is_refused() {
    let host = with_office();
    let _tap = host.tap("vnet0");
    attach(&host);
    let before = host.foreign();
    let refused = |how: &str| {
        let output = run(&host, "/usr/libexec/kvmnet-natdown");
        let wanted = "kvmnet-natdown: vnet0: is a port of br1, which is not kvmnet's; release it \
                      with kvmnet-ifdown vnet0\n";
        assert_eq!((output.code, output.stderr.as_str()), (1, wanted), "{how}");
        assert_same(&before, &host.foreign());
    };
    let mode = |path: &str, mode| {
        fs::set_permissions(host.path(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(OFFICE, 0o666);
    refused("others can write to the file");
    mode(OFFICE, 0o644);
    mode("/etc/kvmnet", 0o777);
    refused("others can write to the directory");
    mode("/etc/kvmnet", 0o755);
    host.write(OFFICE, "mode = bridged");
    refused("it is no TOML");
    host.write(OFFICE, "mode = \"bridged\"\nbridge = \"br2\"\n");
    refused("it has another bridge by now");
    host.ok("rm -r /etc/kvmnet");
    refused("it is gone");
    let output = run(&host, "/usr/libexec/kvmnet-ifdown");
    assert!(output.success() && host.ports("br1").is_empty(), "{output:?}");
}

/// The old script's own `br0` goes with what is built in, and not where a file says otherwise.
#[test]
fn the_default_networks_file_takes_the_place_of_what_is_built_in() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.ok("ip link add br0 type bridge && ip addr add 192.168.100.1/24 dev br0");
    let attach = || host.ok("ip link set vnet0 master br0");
    attach();
    assert!(run(&host, "/usr/libexec/kvmnet-natdown").success());
    attach();
    host.write("/etc/kvmnet/default.toml", "address = \"192.168.77.1/24\"");
    assert_eq!(run(&host, "/usr/libexec/kvmnet-natdown").code, 1);
    host.write("/etc/kvmnet/default.toml", "address = \"192.168.100.1/24\"");
    assert!(run(&host, "/usr/libexec/kvmnet-natdown").success());
}

#[test]
fn an_ordinary_natdown_opens_no_file() {
    let host = with_office();
    let _tap = host.tap("vnet0");
    let opened = |program: &str| {
        let trace =
            format!("strace -qq -o /run/trace -e trace=open,openat,openat2 {program} vnet0");
        host.ok(&trace);
        host.ok("cat /run/trace").matches(".toml").count()
    };
    run(&host, "/usr/libexec/kvmnet-natup").expect("natup");
    assert_eq!(opened("/usr/libexec/kvmnet-natdown"), 0);
    assert_eq!(opened("/usr/libexec/kvmnet-natdown"), 0);
    attach(&host);
    assert_eq!(opened("/usr/libexec/kvmnet-ifdown"), 0);
    attach(&host);
    assert_eq!(opened("/usr/libexec/kvmnet-natdown"), 1);
}
