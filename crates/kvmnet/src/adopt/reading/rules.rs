//! Firewall rules: `iptables`, `iptables-restore` and `nft`.

use super::values::TAP;
use super::walk::{Command, Found};
use super::{Masquerade, Reading, is_known};

const FLUSH: &str = "it would take others' rules, too; kvmnet's go with the last guest";
const LETS_IN: &str = "kvmnet lets its guests through by itself";
const ANYBODY: &str = "into a nat network kvmnet lets only what answers, and your port forwards";
const ALL_OPEN: &str = "it opens the host for everybody; kvmnet lets its guests through by itself";

/// What a rule says, as far as that is known.
#[derive(Debug, Default)]
struct Rule<'a> {
    table: &'a str,
    chain: &'a str,
    target: &'a str,
    source: Option<&'a str>,
    target_network: Option<(bool, &'a str)>,
    into: Option<&'a str>,
    over: Option<&'a str>,
    ports: Vec<&'a str>,
    /// Something that isn't one of these.
    more: bool,
    bridged: bool,
    /// It is for what answers.
    state: bool,
}

impl Rule<'_> {
    /// Whether it lets anybody in to guests, and not only what answers them.
    fn lets_anybody_in(&self, reading: &Reading) -> bool {
        let own = |name: &str| reading.makes.iter().chain(&reading.joins).any(|made| made == name);
        let inward = match (self.into, self.over) {
            (None, over) => over.is_some_and(own) || self.target_network.is_some(),
            (Some(into), Some(over)) => into != over && own(over),
            (Some(_), None) => false,
        };
        inward && !self.state && !self.bridged
    }
}

/// `iptables`.
pub fn iptables(arguments: &[&str], reading: &mut Reading) -> Found {
    let mut rule = Rule { table: "filter", ..Rule::default() };
    let (mut adds, mut found) = (None, None);
    let mut negated = false;
    let mut words = arguments.iter().copied().peekable();
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_default();
        match word {
            "!" => {
                negated = true;
                continue;
            }
            "-t" | "--table" => rule.table = value(),
            "-A" | "--append" | "-I" | "--insert" => {
                (adds, rule.chain) = (Some(true), value());
                if words.peek().is_some_and(|word| word.bytes().all(|b| b.is_ascii_digit())) {
                    words.next();
                }
            }
            "-D" | "--delete" => (adds, rule.chain) = (Some(false), value()),
            "-F" | "--flush" | "-X" | "--delete-chain" | "-Z" | "--zero" => {
                found = Some(Found::LeftOut(FLUSH));
            }
            "-P" | "--policy" => {
                value();
                found = Some(match value() {
                    "ACCEPT" => Found::LeftOut(ALL_OPEN),
                    _ => Found::problem("a policy is for the host's own firewall"),
                });
            }
            "-C" | "--check" | "-S" | "--list-rules" | "--list" | "-V" => return Found::Understood,
            "-w" | "--wait" | "-n" | "-v" | "--numeric" => {}
            "-s" | "--source" | "--src" if !negated => rule.source = Some(value()),
            "-d" | "--destination" | "--dst" => rule.target_network = Some((negated, value())),
            "-i" | "--in-interface" if !negated => rule.into = Some(value()),
            "-o" | "--out-interface" if !negated => rule.over = Some(value()),
            "-j" | "--jump" => rule.target = value(),
            "-p" | "--protocol" => drop(value()),
            "--dport" | "--destination-port" | "--dports" => rule.ports.push(value()),
            "-m" | "--match" => rule.bridged |= value() == "physdev",
            "--state" | "--ctstate" => rule.state |= !value().contains("NEW"),
            "--comment" | "--reject-with" | "--to-source" | "--to-destination" | "--to-ports"
            | "--to" => {
                value();
            }
            "--physdev-is-bridged" | "--checksum-fill" => {}
            _ if word.starts_with('-') && !word.starts_with("--") && word.contains(['L', 'S']) => {
                return Found::Understood;
            }
            _ => rule.more = true,
        }
        negated = false;
    }
    match adds {
        None => found.unwrap_or_else(|| Found::problem("is not known in this form")),
        Some(_) if rule.more => Found::problem("a rule that kvmnet doesn't make"),
        Some(adds) => judge(&rule, adds, reading),
    }
}

fn judge(rule: &Rule, adds: bool, reading: &mut Reading) -> Found {
    let of_dhcp = !rule.ports.is_empty()
        && rule.ports.iter().all(|port| ["53", "67", "68", "bootps", "domain"].contains(port));
    match (rule.table, rule.chain, rule.target) {
        ("nat", "POSTROUTING", "MASQUERADE" | "SNAT") => {
            if !adds {
                return Found::Understood;
            }
            let known = rule.source.is_none_or(is_known) && rule.over.is_none_or(is_known);
            if !known || rule.into.is_some() || rule.over == Some(TAP) {
                return Found::problem("whom it masquerades cannot be told from the script");
            }
            reading.masquerades.push(Masquerade {
                source: rule.source.map(str::to_owned),
                over: rule.over.map(str::to_owned),
            });
            if rule.target == "SNAT" {
                return Found::LeftOut(
                    "kvmnet masquerades: with the address of the interface that it leaves by",
                );
            }
            Found::Understood
        }
        ("nat", "POSTROUTING", "ACCEPT" | "RETURN") => {
            Found::LeftOut("kvmnet masquerades only what leaves the network")
        }
        ("nat", ..) => Found::problem("a port forward, or the like: for the host's own firewall"),
        ("filter", "INPUT", "ACCEPT") if of_dhcp && rule.into.is_some() => Found::Dhcp,
        ("mangle", "POSTROUTING", "CHECKSUM") => Found::Dhcp,
        ("filter", "FORWARD", "ACCEPT") if rule.lets_anybody_in(reading) => Found::LeftOut(ANYBODY),
        ("filter", "FORWARD", "ACCEPT") if rule.ports.is_empty() => Found::LeftOut(LETS_IN),
        ("filter", "FORWARD", "REJECT" | "DROP")
            if rule.source.is_none()
                && rule.target_network.is_none()
                && rule.ports.is_empty()
                && rule.into.is_some() != rule.over.is_some() =>
        {
            Found::LeftOut("kvmnet's rules let in what answers, and nothing else")
        }
        _ => Found::problem("a rule that kvmnet doesn't make"),
    }
}

/// `iptables-restore`.
pub fn restore(command: Command, reading: &mut Reading) -> Found {
    if command.words.iter().any(|word| ["-V", "--version"].contains(word)) {
        return Found::Understood;
    }
    let Some(document) = command.document else {
        return Found::problem("restores rules of the host's own");
    };
    let (mut table, mut worst) = ("", Found::LeftOut(FLUSH));
    for line in document.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let found = match words.as_slice() {
            [] | ["COMMIT"] => continue,
            [first, ..] if first.starts_with('#') => continue,
            [one] if one.starts_with('*') => {
                table = &one[1..];
                continue;
            }
            [first, policy, ..] if first.starts_with(':') => match *policy {
                "ACCEPT" => continue,
                _ => Found::problem("sets policies, or makes chains: for the host's own firewall"),
            },
            _ => iptables(&[&["-t", table], words.as_slice()].concat(), reading),
        };
        worst = match (worst, found) {
            (Found::Problem(why), _) | (_, Found::Problem(why)) => Found::Problem(why),
            (Found::Dhcp, _) | (_, Found::Dhcp) => Found::Dhcp,
            (worst, _) => worst,
        };
    }
    worst
}

/// `nft`.
pub fn nft(command: Command, reading: &mut Reading) -> Found {
    let arguments: Vec<&str> =
        command.words[1..].iter().copied().filter(|word| !["-a", "-n"].contains(word)).collect();
    match arguments.as_slice() {
        [] | ["list" | "-v" | "--version", ..] => Found::Understood,
        ["flush", ..] => Found::LeftOut(FLUSH),
        ["delete", ..] => Found::LeftOut("kvmnet's rules go with the last guest"),
        ["-f", "-" | "/dev/stdin"] if command.document.is_some() => {
            ruleset(command.document.unwrap_or_default(), reading)
        }
        ["-f", ..] => Found::problem("loads rules of the host's own"),
        words => {
            // A rule may be one word, in quotes, or several.
            ruleset(&words.join(" "), reading)
        }
    }
}

fn ruleset(text: &str, reading: &mut Reading) -> Found {
    for line in text.split(['\n', ';', '{', '}']).map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let words = words.as_slice();
        match words {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["add" | "create", "table" | "chain", ..] | ["table" | "chain" | "policy", ..] => {
                if words.contains(&"drop") {
                    return Found::problem("a policy is for the host's own firewall");
                }
            }
            ["type", "nat", "hook", "postrouting", ..] => {}
            [.., "masquerade"] => match masquerade(words) {
                Some(found) => reading.masquerades.push(found),
                None => {
                    return Found::problem("whom it masquerades cannot be told from the script");
                }
            },
            ["flush" | "delete", "table" | "chain" | "ruleset", ..] => {}
            _ => return Found::problem("a rule that kvmnet doesn't make"),
        }
    }
    Found::Understood
}

/// `add rule ip nat postrouting ip saddr A ip daddr != A oifname B counter masquerade`, or the same
/// inside a chain.
fn masquerade(words: &[&str]) -> Option<Masquerade> {
    let mut found = Masquerade { source: None, over: None };
    let mut rest = match words {
        ["add" | "insert", "rule", "ip" | "inet", _, _, rest @ ..] => rest,
        ["add" | "insert", "rule", _, _, rest @ ..] => rest,
        rest => rest,
    };
    while let Some((first, others)) = rest.split_first() {
        rest = match (*first, others) {
            ("ip", ["saddr", source, others @ ..]) if *source != "!=" && is_known(source) => {
                found.source = Some((*source).to_owned());
                others
            }
            ("ip", ["daddr", "!=", _, others @ ..]) => others,
            ("oifname" | "oif", [name, others @ ..]) if *name != "!=" && is_known(name) => {
                found.over = Some(name.trim_matches('"').to_owned());
                others
            }
            ("oifname" | "oif", ["!=", _, others @ ..]) => others,
            ("counter", others) => others,
            ("masquerade", []) => return Some(found),
            _ => return None,
        };
    }
    None
}
