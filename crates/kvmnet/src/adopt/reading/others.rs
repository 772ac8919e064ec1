//! Everything else that old scripts do: settings of the kernel, servers, looking, and waiting.

use super::values::UNKNOWN;
use super::walk::{Command, Found};
use super::{Reading, is_known, program};

const OWN_WAY: &str = "kvmnet lets its guests through by itself";

/// Programs that look, or talk, and change nothing.
const HARMLESS: &[&str] = &[
    ":",
    "true",
    "false",
    "echo",
    "printf",
    "exit",
    "return",
    "logger",
    "date",
    "set",
    "which",
    "type",
    "hash",
    "id",
    "whoami",
    "basename",
    "dirname",
    "cat",
    "grep",
    "egrep",
    "fgrep",
    "awk",
    "gawk",
    "mawk",
    "cut",
    "head",
    "tail",
    "wc",
    "ls",
    "sort",
    "uniq",
    "tr",
    "ps",
    "pgrep",
    "pidof",
    "uname",
    "hostname",
    "lsmod",
    "break",
    "continue",
    "wait",
    "umask",
    "cd",
    "expr",
    "seq",
    "iptables-save",
    "route",
    "netstat",
    "ss",
    "sync",
    "tty",
];

/// Programs that QEMU, the kernel or kvmnet make needless.
const NEEDLESS: &[(&[&str], &str)] = &[
    (&["sleep", "usleep"], "there is nothing to wait for"),
    (&["flock"], "kvmnet's runs wait for each other"),
];

/// Modules that the kernel loads by itself.
const MODULES: &[&str] = &[
    "tun",
    "tap",
    "bridge",
    "kvm",
    "kvm_intel",
    "kvm-intel",
    "kvm_amd",
    "kvm-amd",
    "vhost_net",
    "vhost-net",
    "ip_tables",
    "iptable_nat",
    "iptable_filter",
    "nf_nat",
    "nf_conntrack",
    "nf_tables",
    "br_netfilter",
    "ipt_MASQUERADE",
    "xt_MASQUERADE",
    "virtio_net",
];

/// A command that no other file here knows.
pub fn other(name: &str, command: Command, reading: &mut Reading) -> Found {
    let arguments = &command.words[1..];
    if let Some((_, why)) = NEEDLESS.iter().find(|(names, _)| names.contains(&name)) {
        return Found::LeftOut(why);
    }
    match name {
        "[" | "test" | "[[" => condition(arguments),
        "set"
            if arguments
                .iter()
                .any(|word| !word.starts_with(['-', '+']) && *word != "pipefail") =>
        {
            Found::problem("gives the script other arguments")
        }
        "route" if arguments.iter().any(|word| ["add", "del", "delete"].contains(word)) => {
            Found::problem("routes are for the host's own configuration")
        }
        "set" if arguments.contains(&"--") => Found::problem("gives the script other arguments"),
        "command" if arguments.first().is_some_and(|word| ["-v", "-V"].contains(word)) => {
            Found::Understood
        }
        "awk" | "gawk" | "mawk" if arguments.iter().any(|word| word.contains("system")) => {
            Found::problem("runs other programs")
        }
        _ if HARMLESS.contains(&name) => looks(name, arguments),
        "sed" if !arguments.iter().any(|word| word.starts_with("-i") || *word == "--in-place") => {
            looks(name, arguments)
        }
        "bridge" if arguments.iter().any(|word| ["show", "monitor"].contains(word)) => {
            Found::Understood
        }
        "tee" => arguments.iter().filter(|word| !word.starts_with('-')).fold(
            Found::Understood,
            |found, path| match found {
                Found::Problem(why) => Found::Problem(why),
                _ => of_pipe(path, command, reading),
            },
        ),
        "dd" => match arguments.iter().find_map(|word| word.strip_prefix("of=")) {
            Some(path) => of_pipe(path, command, reading),
            None => Found::problem("is not known in this form"),
        },
        "modprobe" | "insmod" => {
            let mut modules = arguments.iter().filter(|word| !word.starts_with('-'));
            if modules.all(|module| MODULES.contains(module)) {
                Found::LeftOut("the kernel loads it by itself")
            } else {
                Found::problem("loads a module that kvmnet does not need, but who knows who does")
            }
        }
        "dnsmasq" | "dhcpd" | "udhcpd" | "kea-dhcp4" => Found::Dhcp,
        "kill" | "pkill" | "killall" | "start-stop-daemon" => of_server(arguments),
        "rm" | "mkdir" | "touch" | "mknod" | "chmod" | "chown" | "install" => files(arguments),
        "openvpn" if arguments.contains(&"--mktun") => Found::LeftOut("QEMU makes the tap"),
        _ => Found::Problem(format!(
            "{} is not known here",
            if is_known(name) { name } else { "it" }
        )),
    }
}

/// What a program looks at decides what the script does next: the kernel's files are what kvmnet looks
/// at, too, and others it doesn't know.
fn looks(name: &str, arguments: &[&str]) -> Found {
    let talks = ["echo", "printf", "logger", "exit", "return"].contains(&name);
    // What an administrator writes; a pattern of awk's begins with a slash, too.
    let own = ["/etc/", "/root/", "/home/", "/opt/", "/srv/", "/var/lib/", "/usr/local/etc/"];
    let is_own = |word: &&str| own.iter().any(|directory| word.starts_with(directory));
    if !talks && arguments.iter().any(is_own) {
        return Found::problem("what it does depends on a file");
    }
    Found::Understood
}

fn is_of_the_system(path: &str) -> bool {
    const DIRECTORIES: [&str; 9] =
        ["/sys/", "/proc/", "/dev/", "/sbin/", "/bin/", "/usr/", "/run/", "/var/run/", "/tmp/"];
    DIRECTORIES.iter().any(|directory| path.starts_with(directory))
}

/// Whether there is something, or how many arguments: all else makes a difference between taps, hosts
/// or days that can't be told from here.
fn condition(arguments: &[&str]) -> Found {
    const COMPARISONS: [&str; 4] = ["=", "==", "!=", "=~"];
    // `[ "$1" = "" ]`, and `[ "x$1" = x ]`
    let asks = |one: &str, other: &str| {
        one.is_empty() || (one.len() == 1 && other.len() > 1 && other.starts_with(one))
    };
    for (at, _) in arguments.iter().enumerate().filter(|(_, word)| COMPARISONS.contains(word)) {
        let left = at.checked_sub(1).and_then(|at| arguments.get(at)).copied().unwrap_or_default();
        let right = arguments.get(at + 1).copied().unwrap_or_default();
        if !asks(left, right) && !asks(right, left) {
            return Found::problem("what it does depends on a comparison");
        }
    }
    for pair in arguments.windows(2) {
        let looks = ["-e", "-f", "-r", "-s", "-d", "-x", "-w", "-L"].contains(&pair[0]);
        let known = is_of_the_system(pair[1]) || !pair[1].contains(['/', '\0']);
        if looks && !known {
            return Found::problem("what it does depends on a file");
        }
    }
    Found::Understood
}

fn of_server(arguments: &[&str]) -> Found {
    let named = arguments.iter().any(|word| word.contains("dnsmasq") || word.contains("dhcp"));
    if named {
        Found::Dhcp
    } else {
        Found::problem("ends a process, and which cannot be told from the script")
    }
}

/// Files that only the script itself needs.
fn files(arguments: &[&str]) -> Found {
    const OWN: [&str; 6] = ["/run/", "/var/run/", "/tmp/", "/var/lock/", "/dev/net", "/var/tmp/"];
    let mut paths = arguments.iter().filter(|word| word.starts_with('/'));
    if arguments.iter().any(|word| word.contains("dnsmasq") || word.contains("dhcp")) {
        return Found::Dhcp;
    }
    if paths.clone().count() > 0 && paths.all(|path| OWN.iter().any(|own| path.starts_with(own))) {
        Found::LeftOut("a file that kvmnet has no use for")
    } else {
        Found::problem("changes files")
    }
}

fn of_pipe(path: &str, command: Command, reading: &mut Reading) -> Found {
    let words: Vec<&str> = command.piped.unwrap_or_default().iter().map(String::as_str).collect();
    written(path, &words, reading)
}

/// A file that a command writes.
pub fn written(path: &str, words: &[&str], reading: &mut Reading) -> Found {
    let value = match words {
        [name, .., value] if ["echo", "printf"].contains(&program(name)) => value.trim(),
        _ => UNKNOWN,
    };
    let log = ["/dev/null", "/dev/stderr", "/dev/stdout", "/dev/tty", "/dev/console", "/dev/kmsg"];
    if log.contains(&path) {
        return Found::Understood;
    }
    if let Some(name) = path.strip_prefix("/proc/sys/") {
        return setting(name, value, reading);
    }
    if path.starts_with("/sys/class/net/") {
        let setting = program(path);
        return match setting {
            "stp_state" | "forward_delay" => {
                Found::LeftOut("kvmnet's bridges have no spanning tree and no delay")
            }
            _ => Found::problem("sets what kvmnet doesn't"),
        };
    }
    let own = ["/tmp/", "/var/log/", "/run/", "/var/run/", "/var/lock/", "/var/tmp/"];
    if own.iter().any(|own| path.starts_with(own)) {
        return Found::LeftOut("kvmnet's own line is in syslog");
    }
    Found::problem("writes a file")
}

/// `sysctl`.
pub fn sysctl(arguments: &[&str], reading: &mut Reading) -> Found {
    let mut worst = Found::Understood;
    for word in arguments {
        match word.split_once('=') {
            _ if ["-p", "--load", "--system", "-a"].contains(word) => {
                return Found::problem("loads settings of the host's own");
            }
            _ if word.starts_with('-') => {}
            None => {}
            Some((name, value)) => match setting(&name.replace('.', "/"), value.trim(), reading) {
                Found::Problem(why) => return Found::Problem(why),
                Found::Understood => {}
                other => worst = other,
            },
        }
    }
    worst
}

/// A setting of the kernel's, by its path under `/proc/sys`.
fn setting(name: &str, value: &str, reading: &mut Reading) -> Found {
    match (name.trim(), value) {
        ("net/ipv4/ip_forward" | "net/ipv4/conf/all/forwarding", "1") => {
            reading.forwards = true;
            Found::Understood
        }
        ("net/ipv4/ip_forward" | "net/ipv4/conf/all/forwarding", "0") => {
            Found::LeftOut("others may rely on forwarding by then")
        }
        (name, "0") if name.starts_with("net/bridge/bridge-nf-call-") => Found::LeftOut(OWN_WAY),
        (name, _) if name.starts_with("net/ipv6/conf/") && name.ends_with("/disable_ipv6") => {
            if name.contains("/all/") || name.contains("/default/") {
                Found::problem("sets the whole host's IPv6")
            } else {
                Found::LeftOut("kvmnet has IPv6 off on its own bridges")
            }
        }
        _ => Found::problem("sets what kvmnet doesn't"),
    }
}
