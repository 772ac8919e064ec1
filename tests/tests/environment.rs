//! Whatever QEMU, a unit or a hostile neighbour has made of the helper's surroundings.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use kvmnet_tests::Host;
use nix::sys::signal::Signal;

const NATUP: &str = "/usr/libexec/kvmnet-natup";
const LIMIT: Duration = Duration::from_secs(20);

/// The attach is done, whole.
#[track_caller]
fn assert_attached(host: &Host, how: &str) {
    assert_eq!(host.ports("br0"), ["vnet0"], "{how}");
    assert!(host.nft("ip", "kvmnet-default").is_some(), "{how}");
    assert!(host.helper("natdown", &["vnet0"]).success(), "{how}");
    assert!(host.link("br0").is_none(), "{how}");
}

#[test]
fn what_the_process_inherits_changes_nothing() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    for how in [
        format!("{NATUP} vnet0 <&-"),
        format!("{NATUP} vnet0 >&-"),
        format!("{NATUP} vnet0 2>&-"),
        format!("{NATUP} vnet0 <&- >&- 2>&-"),
        format!("{NATUP} vnet0 2>/dev/full"),
        format!("KVMNET_LOG=trace {NATUP} vnet0 2>/dev/full"),
        format!("KVMNET_LOG=trace {NATUP} vnet0 2>&-"),
        format!("KVMNET_LOG=no=such=filter {NATUP} vnet0"),
        format!("KVMNET_LOG=no=such=filter {NATUP} vnet0 2>/dev/full"),
        format!("ulimit -n 16; exec {NATUP} vnet0"),
        format!("umask 0; exec {NATUP} vnet0"),
        format!("umask 777; exec {NATUP} vnet0"),
        format!("cd /proc; exec env -i {NATUP} vnet0"),
        format!("PATH=/tmp LD_PRELOAD=/tmp/x.so exec {NATUP} vnet0"),
        format!("exec env --block-signal=ALRM,USR1,BUS,IO --ignore-signal=PIPE,CHLD {NATUP} vnet0"),
        format!("exec bash -c \"exec -a '' {NATUP} vnet0\""),
        format!(
            "exec bash -c 'for n in {{10..900}}; do eval \"exec $n</dev/null\"; done; exec {NATUP} vnet0'"
        ),
    ] {
        let output = host.sh(&format!("rm -rf /run/kvmnet; {how}"));
        assert_eq!((output.code, output.stdout.as_str()), (0, ""), "{how}: {output:?}");
        assert_eq!(host.ok("stat -c '%a %U' /run/kvmnet /run/kvmnet/*"), "700 root\n600 root\n");
        assert_attached(&host, &how);
    }
}

/// An error that nobody can read is an error all the same, and soon.
#[test]
fn an_error_without_a_reader() {
    let host = Host::bare();
    for how in [
        format!("{NATUP} vnet9 2>&-"),
        format!("{NATUP} vnet9 2>/dev/full"),
        // A broken pipe.
        format!(
            "bash -c '{{ sleep 0.2; {NATUP} vnet9; echo $? >/run/code; }} 2> >(exec true); sleep 0.5'; exit $(cat /run/code)"
        ),
        // A full one.
        format!(
            "mkfifo /run/full; exec 3<>/run/full; timeout 1 sh -c 'yes >&3'; {NATUP} vnet9 2>&3"
        ),
    ] {
        let start = Instant::now();
        let output = host.sh(&how);
        assert_eq!(output.code, 1, "{how}: {output:?}");
        assert!(start.elapsed() < Duration::from_secs(10), "{how}");
        let said = host.syslog();
        assert!(said.last().unwrap().contains("vnet9: there is no such interface"), "{said:?}");
    }
}

#[test]
fn a_log_that_is_full_or_missing() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.ok("rm /dev/log");
    assert!(host.helper("natup", &["vnet0"]).success());
    assert_attached(&host, "no syslog");
    let full = UnixDatagram::bind(host.path("/dev/log")).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    while sender.send_to(b"x", host.path("/dev/log")).is_ok() {}
    assert!(host.helper("natup", &["vnet0"]).success());
    assert_attached(&host, "full syslog");
    drop(full);
}

/// The terminal's signals reach the helper with QEMU. A run that has begun ends whole.
#[test]
fn signals_of_the_terminal_do_not_end_a_run() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGTSTP,
        Signal::SIGPIPE,
    ] {
        // Somebody else holds the lock, so that the run is surely under way.
        let lock = lock_file(&host);
        let mut holder = host.spawn(host.command("flock").args([&lock, "sleep", "60"]));
        wait_for_lock(&host, &lock);
        let run = host.spawn(host.command(NATUP).arg("vnet0"));
        std::thread::sleep(Duration::from_millis(300));
        for _ in 0..20 {
            run.signal(signal);
        }
        std::thread::sleep(Duration::from_millis(100));
        end_holder(&host, &mut holder);
        let output = run.output(LIMIT);
        assert!(output.success(), "{signal}: {output:?}");
        assert_attached(&host, signal.as_str());
    }
}

fn lock_file(host: &Host) -> String {
    // Any run makes it.
    host.helper("natdown", &["vnet9"]);
    host.ok("echo /run/kvmnet/net-*").trim().to_owned()
}

fn wait_for_lock(host: &Host, lock: &str) {
    host.ok(&format!("while flock -n {lock} true; do sleep 0.01; done"));
}

fn end_holder(host: &Host, holder: &mut kvmnet_tests::Process) {
    host.ok("pkill -KILL -x sleep");
    holder.wait(LIMIT);
}

/// A run that was stopped while it held the lock must not stop every start of a VM for ever.
#[test]
fn a_holder_that_does_not_let_go_is_named() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let lock = lock_file(&host);
    let mut holder = host.spawn(host.command("flock").args(["--no-fork", &lock, "sleep", "60"]));
    wait_for_lock(&host, &lock);
    let pid = holder.pid().unwrap();
    let before = host.foreign();
    let start = Instant::now();
    let output = host.helper("natup", &["vnet0"]);
    let waited = start.elapsed();
    assert_eq!(
        (output.code, output.stderr),
        (
            1,
            format!(
                "kvmnet-natup: {lock}: held for more than 5 s by process {pid} (sleep); see what \
                 it waits for, and end it if it hangs\n"
            )
        )
    );
    assert!(waited > Duration::from_secs(5) && waited < Duration::from_secs(8), "{waited:?}");
    kvmnet_tests::assert_same(&before, &host.foreign());
    end_holder(&host, &mut holder);
    assert!(host.helper("natup", &["vnet0"]).success());
}

/// Two hundred shutdowns in a row are slow and honest: nobody gives up.
#[test]
fn holders_that_change_are_waited_for() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let lock = lock_file(&host);
    // For 7 s one process after the other holds it, and hands it on without a gap.
    let script =
        format!("for n in 1 2 3 4 5 6 7; do flock {lock} sleep 1 & sleep 0.98; done; wait");
    let holders = host.spawn(host.command("sh").args(["-c", &script]));
    wait_for_lock(&host, &lock);
    let output = host.helper("natup", &["vnet0"]);
    assert!(output.success(), "{output:?}");
    assert!(holders.output(LIMIT).success());
}

#[test]
fn nobody_else_can_take_the_lock() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let lock = lock_file(&host);
    let output = host
        .sh(&format!("setpriv --reuid 65534 --regid 65534 --clear-groups flock -n {lock} true"));
    assert!(!output.success(), "{output:?}");
    assert!(output.stderr.contains("Permission denied"), "{output:?}");
    for (prepare, wanted) in [
        ("touch /run/kvmnet", "/run/kvmnet: is not a directory"),
        ("mkdir /run/other && ln -s other /run/kvmnet", "/run/kvmnet: is not a directory"),
        ("mkdir /run/kvmnet && chown 65534 /run/kvmnet", "/run/kvmnet: belongs to another user"),
        (
            "mkdir /run/kvmnet && chmod 777 /run/kvmnet",
            "/run/kvmnet: others than its owner can write to it",
        ),
        (
            "mkdir -m 755 /run/kvmnet && touch $lock && chmod 644 $lock",
            "$lock: others than its owner can open it",
        ),
        (
            "mkdir -m 755 /run/kvmnet && touch $lock && chmod 600 $lock && chown 65534 $lock",
            "$lock: belongs to another user",
        ),
    ] {
        host.ok(&format!("rm -rf /run/kvmnet /run/other; lock={lock}; {prepare}"));
        let output = host.helper("natup", &["vnet0"]);
        let wanted = format!(
            "kvmnet-natup: {}; remove it, kvmnet makes it anew: rm -rf /run/kvmnet\n",
            wanted.replace("$lock", &lock)
        );
        assert_eq!((output.code, output.stderr), (1, wanted), "{prepare}");
        assert!(host.link("br0").is_none());
    }
    for (prepare, problem) in [
        ("ln -s /dev/null $lock", "Too many levels of symbolic links (os error 40)"),
        ("mkdir $lock", "Is a directory (os error 21)"),
    ] {
        host.ok(&format!("rm -rf /run/kvmnet; mkdir -m 700 /run/kvmnet; lock={lock}; {prepare}"));
        let output = host.helper("natup", &["vnet0"]);
        let wanted = format!(
            "kvmnet-natup: {lock}: cannot open it; kvmnet keeps its lock there, and /run must be a \
             writable directory: {problem}\n"
        );
        assert_eq!((output.code, output.stderr), (1, wanted), "{prepare}");
    }
    // A FIFO can be locked as well as a file, and opening it doesn't wait for a writer.
    host.ok(&format!("rm -rf /run/kvmnet; mkdir -m 700 /run/kvmnet; mkfifo -m 600 {lock}"));
    assert!(host.helper("natup", &["vnet0"]).success());
    assert_attached(&host, "a FIFO");
    // Garbage in it means nothing.
    host.ok(&format!("rm -rf /run/kvmnet; mkdir -m 700 /run/kvmnet; (umask 077; head -c 4096 /dev/urandom >{lock})"));
    assert!(host.helper("natup", &["vnet0"]).success());
    assert_attached(&host, "garbage");
}

#[test]
fn a_run_directory_that_cannot_be_made() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.ok("rm -rf /run/kvmnet && mount -o remount,ro /run");
    let output = host.helper("natup", &["vnet0"]);
    assert_eq!(
        output.stderr,
        "kvmnet-natup: /run/kvmnet: cannot make the directory; kvmnet keeps its lock there, and \
         /run must be a writable directory: Read-only file system (os error 30)\n"
    );
    assert!(host.link("br0").is_none() && host.nft_tables().is_empty());
}

/// As in many a container.
#[test]
fn settings_that_cannot_be_written() {
    let host = Host::new();
    let _tap = host.tap("vnet0");
    let before = host.foreign();
    host.ok("mount -o bind,ro /proc/sys /proc/sys");
    let output = host.helper("natup", &["vnet0"]);
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            1,
            "kvmnet-natup: vnet0: not attached: cannot set net.ipv6.conf.br0.disable_ipv6 to 1; \
             have it so beforehand: sysctl -w net.ipv6.conf.default.disable_ipv6=1: Read-only file \
             system (os error 30)\n"
        )
    );
    let tapless = |state: kvmnet_tests::Foreign| state.without_link("vnet0");
    kvmnet_tests::assert_same(&tapless(before), &tapless(host.foreign()));
    // What it says to do helps.
    let set = |name: &str| {
        host.ok("mount -o bind,remount,rw /proc/sys");
        host.ok(&format!("echo 1 >/proc/sys/{name} && mount -o bind,remount,ro /proc/sys"));
    };
    set("net/ipv6/conf/default/disable_ipv6");
    let output = host.helper("natup", &["vnet0"]);
    assert_eq!(
        output.stderr,
        "kvmnet-natup: vnet0: not attached: cannot set net.ipv4.ip_forward to 1; have it so \
         beforehand: sysctl -w net.ipv4.ip_forward=1: Read-only file system (os error 30)\n"
    );
    set("net/ipv4/ip_forward");
    assert!(host.helper("natup", &["vnet0"]).success());
    assert_attached(&host, "settings made beforehand");
}

#[test]
fn a_host_without_ipv6() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    host.ok("for file in all default; do echo 1 >/proc/sys/net/ipv6/conf/$file/disable_ipv6; done");
    host.ok("mount -t tmpfs tmpfs /proc/sys/net/ipv6");
    let output = host.helper("natup", &["vnet0"]);
    assert_eq!((output.code, output.stderr.as_str()), (0, ""));
    assert_attached(&host, "no IPv6");
}

/// By what the kernel says when it is built without it.
#[test]
fn a_kernel_without_nf_tables() {
    let host = Host::bare();
    let _tap = host.tap("vnet0");
    let file = "address = \"192.168.100.1/24\"\nfirewall = \"nftables\"\n";
    host.write("/etc/kvmnet/default.toml", file);
    let strace = "strace -qq -o /dev/null -e inject=socket:error=EPROTONOSUPPORT:when=2";
    let output = host.sh(&format!("{strace} {NATUP} vnet0"));
    assert_eq!(
        (output.code, output.stderr.as_str()),
        (
            1,
            "kvmnet-natup: vnet0: not attached: this kernel has no nf_tables, which the \
             network's rules need; load it: modprobe nf_tables, or do without: \
             firewall = \"iptables\" in the network's file\n"
        )
    );
    assert!(host.link("br0").is_none());
    // What is wrong all the same comes first, and where no rules are added none are missed.
    let output = host.sh(&format!("{strace} {NATUP} vnet9"));
    assert!(output.stderr.contains("vnet9: there is no such interface"), "{output:?}");
    host.ok("ip link add br0 type bridge && ip addr add 192.168.100.1/24 dev br0");
    let output = host.sh(&format!("{strace} {NATUP} vnet0"));
    assert!(output.success(), "{output:?}");
    host.ok("ip link del br0");
    // Releasing does without.
    let output = host.sh(&format!("{strace} /usr/libexec/kvmnet-natdown vnet0"));
    assert!(output.success(), "{output:?}");
}
