//! What `make demo` shows: two real guests on the default network, from nothing to nothing.

use std::env;
use std::io::IsTerminal;
use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kvmnet_tests::{Guest, GuestSpec, Host, boot_all, wait_until};

const SOON: Duration = Duration::from_secs(5);

/// The name of each guest, its tap and its address.
const GUESTS: [(&str, &str, &str); 2] =
    [("anna", "vnet0", "192.168.100.10"), ("bert", "vnet1", "192.168.100.11")];

fn main() -> ExitCode {
    // The library speaks of failures as tests do, by a panic; a person gets one line.
    static WHY: Mutex<String> = Mutex::new(String::new());
    panic::set_hook(Box::new(|panic| {
        let mut why = WHY.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let payload = panic.payload();
        *why = match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, text) => text.copied().unwrap_or("unknown").to_owned(),
        };
    }));
    let start = Instant::now();
    let page = Page::new();
    if panic::catch_unwind(|| show(&page)).is_err() {
        let why = WHY.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        eprintln!("\n{} {why}", page.paint("31", "✗"));
        eprintln!("demo: not as promised; what it had made is gone");
        return ExitCode::FAILURE;
    }
    println!(
        "\n{} all as promised, in {:.0} s; this machine's own network was never touched",
        page.paint("32", "✓"),
        start.elapsed().as_secs_f32()
    );
    ExitCode::SUCCESS
}

fn show(page: &Page) {
    page.title("A private host, made of namespaces");
    let host = Host::new();
    let before = host.foreign();
    page.fact("eno1 has 10.0.0.11/24; outside is 10.0.0.1 and 203.0.113.1,");
    page.fact("and has no route to the guests' addresses");

    let mut guests = start(page, &host);
    let [anna, bert] = &mut guests[..] else { panic!("two guests were started") };
    traffic(page, &host, anna, bert);
    facts(page, &host);

    page.title("Powering off");
    let ended = anna.power_off() == 0;
    let left = host.ports("br0") == ["vnet1"] && host.nft("ip", "kvmnet-default").is_some();
    page.check(ended && left, "anna off: bert keeps the network");
    bert.ok("ping -c1 -W2 203.0.113.1");
    page.check(true, "bert still reaches outside");
    page.check(bert.power_off() == 0, "bert off");
    page.check(host.link("br0").is_none(), "the bridge is gone");
    page.check(host.nft_tables().is_empty(), "the rules are gone");
    let diff = before.without_forwarding().diff(&host.foreign().without_forwarding());
    page.check(
        diff.is_empty(),
        &format!("links, addresses, routes, rules and settings are as before{diff}"),
    );
    let forwarding = host.sysctl("net/ipv4/ip_forward");
    page.fact(&format!(
        "net.ipv4.ip_forward stays {forwarding}, since others may rely on it by now"
    ));
}

/// Boots the guests and shows how.
fn start<'host>(page: &Page, host: &'host Host) -> Vec<Guest<'host>> {
    page.title("Two guests, booted by QEMU");
    let start = Instant::now();
    let guests = boot_all(
        host,
        GUESTS.map(|(name, tap, address)| {
            GuestSpec::new(name).nat(tap).ip(&format!("{address}/24")).gateway("192.168.100.1")
        }),
    );
    let line = guests[0].command_line();
    let netdev = line.iter().position(|argument| argument == "-netdev").unwrap_or_default();
    page.fact("qemu-system-x86_64 …");
    for option in line[netdev..].chunks(2) {
        let words: Vec<_> = option.iter().map(|word| word.to_string_lossy()).collect();
        page.fact(&format!("    {}", words.join(" ")));
    }
    page.check(
        host.ports("br0") == ["vnet0", "vnet1"],
        &format!("both are up after {:.1} s", start.elapsed().as_secs_f32()),
    );
    guests
}

/// Shows who reaches whom.
fn traffic(page: &Page, host: &Host, anna: &mut Guest, bert: &mut Guest) {
    page.title("Traffic");
    for (to, address) in
        [("bert", "192.168.100.11"), ("gateway", "192.168.100.1"), ("outside", "203.0.113.1")]
    {
        let output = anna.ok(&format!("ping -c1 -W2 {address}"));
        let time = output.split("time=").nth(1).and_then(|rest| rest.lines().next());
        page.check(time.is_some(), &format!("anna → {to}: ping, {}", time.unwrap_or_default()));
    }
    bert.ok("nc -ll -p 7000 -e /bin/cat >/dev/null 2>&1 &");
    let answer = anna.ok("sleep 0.2; echo hello | nc -w 5 192.168.100.11 7000");
    page.check(answer == "hello\n", "anna → bert: TCP");
    let server = host.outside_tcp_server(7000);
    let answer = anna.ok("echo hello | nc -w 5 203.0.113.1 7000");
    let peer = server.accept_peer(SOON).map(|peer| peer.ip().to_string());
    page.check(
        answer.ends_with("hello\n") && peer.as_deref() == Some("10.0.0.11"),
        &format!("anna → outside: TCP, and outside saw {}", peer.unwrap_or_default()),
    );
    let inside = host.net().tcp_connect("192.168.100.11:7000", "hello", SOON);
    page.check(inside.is_ok_and(|answer| answer == "hello"), "host → bert: TCP");
    // Without a route of its own the outside would fail for that alone.
    host.outside_ok("ip route add 192.168.100.0/24 via 10.0.0.11");
    let unasked = host.outside_tcp_connect("192.168.100.11", 7000, Duration::from_secs(1));
    host.outside_ok("ip route del 192.168.100.0/24");
    page.check(unasked.is_err(), "outside → bert: not let in, even with a route");
}

/// Shows what kvmnet has built.
fn facts(page: &Page, host: &Host) {
    page.title("What the host has now");
    let status = host.run(&["kvmnet", "status"]);
    let shows_both = GUESTS.iter().all(|(name, tap, _)| {
        status.stdout.lines().any(|line| line.starts_with(tap) && line.contains(name))
    });
    page.check(status.code == 0 && shows_both, "kvmnet status");
    for line in status.stdout.lines() {
        page.fact(&format!("    {line}"));
    }
    let link = host.link("br0").unwrap_or_default();
    page.check(
        host.addresses("br0") == ["192.168.100.1/24"],
        &format!("bridge br0, {}, marked {}", host.addresses("br0").join(" "), link["ifalias"]),
    );
    let table = host.nft("ip", "kvmnet-default");
    page.check(
        table.is_some() && host.count_rules("masquerade") > 0,
        "nftables, table ip kvmnet-default",
    );
    for line in table.unwrap_or_default().lines() {
        page.fact(&format!("    {}", line.replace('\t', "    ")));
    }
    let all_there = wait_until(SOON, || host.sysctl("net/ipv4/ip_forward") == "1");
    page.check(all_there, "net.ipv4.ip_forward is on");
}

/// Where it is printed.
struct Page {
    colour: bool,
}

impl Page {
    fn new() -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colour: wanted && std::io::stdout().is_terminal() }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn title(&self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    fn fact(&self, text: &str) {
        println!("    {text}");
    }

    /// A promise kept, or the end of the demo.
    fn check(&self, kept: bool, promise: &str) {
        assert!(kept, "{promise}");
        println!("  {} {promise}", self.paint("32", "✓"));
    }
}
