//! A host whose own firewall, through iptables, forwards only what it names, as Docker and ufw
//! make it: guests have accept rules of kvmnet's there, as narrow as can be.

use std::time::Duration;

use kvmnet_tests::{Host, TapMachine};

const SHORT: Duration = Duration::from_millis(700);

/// What `iptables -S` shows of kvmnet's rules.
fn ours(host: &Host, program: &str) -> Vec<String> {
    let rules = host.ok(&format!("{program} -S"));
    rules.lines().filter(|line| line.contains("kvmnet")).map(str::to_owned).collect()
}

#[test]
fn scratch() {
    let host = Host::new();
    host.ok("iptables -P FORWARD DROP; ip6tables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -A FORWARD -j DOCKER-USER");
    let _tap = host.tap("vnet0");
    let o = host.run(&["sh", "-c", "KVMNET_LOG=debug /usr/libexec/kvmnet-natup vnet0"]);
    println!("{o:?}");
    println!("{}", host.ok("iptables -S; ip6tables -S; iptables-save; nft list ruleset"));
    println!("{}", host.ok("KVMNET_LOG=debug /usr/libexec/kvmnet-natup vnet0 2>&1; iptables-save | iptables-restore; KVMNET_LOG=debug /usr/libexec/kvmnet-natup vnet0 2>&1; KVMNET_LOG=debug /usr/libexec/kvmnet-natdown vnet0 2>&1; iptables -S; ip6tables -S"));
    let _ = (SHORT, ours(&host, "iptables"));
    let _: Option<TapMachine> = None;
}
