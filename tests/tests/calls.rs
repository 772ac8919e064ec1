//! What a verb asks of the kernel, held by a limit: its system calls, and no child process. Times would
//! depend on the machine; these don't.

use kvmnet_tests::Host;

/// What one verb may cost.
struct Limit {
    verb: &'static str,
    tap: &'static str,
    /// Of kvmnet, with the default firewall.
    system_calls: usize,
    /// Of the floor (docs/performance.md), to compare.
    floor: usize,
}

const fn limit(verb: &'static str, tap: &'static str, system_calls: usize, floor: usize) -> Limit {
    Limit { verb, tap, system_calls, floor }
}

/// A few more than today, since what the C library does at a start depends on its version.
const NAT: [Limit; 4] = [
    limit("natup", "vnet0", 79, 32),
    limit("natup", "vnet1", 69, 27),
    limit("natdown", "vnet1", 72, 25),
    limit("natdown", "vnet0", 76, 30),
];
const BRIDGED: [Limit; 2] = [limit("ifup", "vnet0", 66, 21), limit("ifdown", "vnet0", 61, 20)];

/// Guests whose links come in more than a dozen answers.
const MANY: usize = 300;

/// Each verb in turn stays within its limit.
fn hold(host: &Host, limits: &[Limit]) {
    let _taps = ["vnet0", "vnet1"].map(|tap| host.tap(tap));
    for Limit { verb, tap, system_calls, floor } in limits {
        let (calls, trace) = calls_of(host, verb, tap);
        assert!(
            calls <= *system_calls,
            "{verb} {tap}: {calls} system calls, at most {system_calls} (the floor: {floor}):\n{trace}"
        );
        println!("{verb} {tap}: {calls} system calls");
        // A limit that is far off holds nothing.
        assert!(calls + 20 > *system_calls, "{verb} {tap}: only {calls}, of {system_calls}");
    }
}

/// The system calls of a helper, which starts no other program, and their trace.
fn calls_of(host: &Host, verb: &str, tap: &str) -> (usize, String) {
    let program = format!("/usr/libexec/kvmnet-{verb}");
    let (output, trace) = host.strace(&["-f"], &[&program, tap]);
    assert!(output.success(), "{verb} {tap}: {output:?}");
    let (calls, processes) = count(&trace);
    assert_eq!(processes, 1, "{verb} {tap} starts other programs:\n{trace}");
    (calls, trace)
}

/// The system calls in a trace of `strace -f`, and the processes (and threads) that made them. A call that
/// the kernel restarts by itself counts once, and the exec that strace does for the program not at all; nor do
/// those for each connection that is tracked, of which it depends on time how many there are.
fn count(trace: &str) -> (usize, usize) {
    let lines = trace.lines().filter_map(|line| line.split_once(' '));
    let mut pids: Vec<&str> = lines.clone().map(|(pid, _)| pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let is_call = |call: &str| {
        let other = ["<...", "+++", "---", "restart_syscall("];
        let is_other = other.iter().any(|start| call.starts_with(start));
        !is_other && !call.ends_with("(To be restarted)") && !call.contains("IPCTNL_MSG_CT_DELETE")
    };
    let calls = lines.filter(|(_, call)| is_call(call.trim_start())).count();
    (calls - 1, pids.len())
}

#[test]
fn nat() {
    hold(&Host::new(), &NAT);
}

#[test]
fn bridged() {
    let host = Host::new();
    host.ok("ip link add br0 type bridge && ip link set br0 up");
    hold(&host, &BRIDGED);
}

/// One guest that stays is enough to know of, and on the administrator's bridge not even one.
#[test]
fn a_down_reads_no_long_list_of_ports() {
    for (up, down, bridge, expected) in
        [("natup", "natdown", "", 2..=4), ("ifup", "ifdown", "br0", 1..=1)]
    {
        let host = Host::new();
        if !bridge.is_empty() {
            host.ok("ip link add br0 type bridge && ip link set br0 up");
        }
        let _tap = host.tap("vnet0");
        assert!(host.helper(up, &["vnet0"]).success(), "{up}");
        let names: Vec<String> = (0..MANY).map(|n| format!("many{n}")).collect();
        let _many: Vec<_> = names.iter().map(|name| host.tap(name)).collect();
        let batch: String =
            names.iter().map(|name| format!("link set {name} master br0 up\n")).collect();
        host.write("/tmp/batch", batch);
        host.ok("ip -batch /tmp/batch");
        let (_, trace) = calls_of(&host, down, "vnet0");
        let reads = reads_of_links(&trace);
        assert!(
            expected.contains(&reads),
            "{down}, among {MANY} others: {reads} reads of links:\n{trace}"
        );
        assert_eq!(host.ports("br0").len(), MANY);
    }
}

/// Of several networks each is asked for its own guests; not all links for their networks.
#[test]
fn a_down_beside_another_network_reads_no_other_links() {
    let host = Host::new();
    host.describe("lab", "mode = \"isolated\"\nbridge = \"br1\"\ntaps = [\"lab*\"]\n");
    let _taps = ["vnet0", "vnet1", "lab0"].map(|tap| host.tap(tap));
    for tap in ["vnet0", "vnet1", "lab0"] {
        host.helper("natup", &[tap]).expect(tap);
    }
    let batch: String =
        (0..MANY / 2).map(|n| format!("link add one{n} type veth peer name other{n}\n")).collect();
    host.write("/tmp/batch", batch);
    host.ok("ip -batch /tmp/batch");
    for tap in ["vnet0", "vnet1"] {
        let (_, trace) = calls_of(&host, "natdown", tap);
        let reads = reads_of_links(&trace);
        assert!((1..=6).contains(&reads), "natdown {tap}: {reads} reads of links:\n{trace}");
    }
    assert!(host.link("br0").is_none());
    assert_eq!(host.ports("br1"), ["lab0"]);
}

/// The answers that have links of a list.
fn reads_of_links(trace: &str) -> usize {
    let parts = ["recvfrom(", "RTM_NEWLINK", "NLM_F_MULTI"];
    trace.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

#[test]
fn calls_are_counted() {
    let trace = "10 execve(\"/a\", [\"a\"]) = 0\n\
                 10 write(3, \"1\", 1) = ? ERESTARTNOINTR (To be restarted)\n\
                 10 write(3, \"1\", 1) = 1\n\
                 10 vfork( <unfinished ...>\n\
                 11  getpid() = 11\n\
                 11 +++ exited with 0 +++\n\
                 10 <... vfork resumed>) = 11\n\
                 10 --- SIGCHLD {si_signo=SIGCHLD} ---\n\
                 10 exit_group(0) = ?\n";
    assert_eq!(count(trace), (4, 2));
}
