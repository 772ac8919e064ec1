//! What the tests of both kinds of package share.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kvmnet_tests::{Guest, GuestSpec, Host, Output, packages};

/// What an installation may take on a busy machine.
const SLOW: Duration = Duration::from_secs(300);

/// A path of the repository.
pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The package that was built last, of that kind.
#[track_caller]
pub fn package(ending: &str) -> String {
    let entries = std::fs::read_dir(packages()).expect("`make deb rpm` has made it");
    let mut found = entries
        .map(|entry| entry.expect("it can be read").path().display().to_string())
        .filter(|path| path.ends_with(ending));
    let package = found.next().unwrap_or_else(|| panic!("no package: run `make deb rpm`"));
    assert_eq!(found.next(), None, "which of them is the present one?");
    package
}

/// Runs a shell script that may take long.
#[track_caller]
fn sh(host: &Host, script: &str) -> Output {
    host.spawn(host.command("sh").args(["-c", script])).output(SLOW)
}

/// The same, which must succeed. Both outputs.
#[track_caller]
pub fn ok(host: &Host, script: &str) -> String {
    sh(host, &format!("({script}) 2>&1")).expect(script)
}

/// Runs a program of this machine's, which must succeed, and returns what it printed.
#[track_caller]
pub fn here(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{command:?}: {text:?}");
    text.concat()
}

/// A real guest on the NAT network gets out, as the host, by ping and by TCP; and with its end the host
/// is as it was.
#[track_caller]
pub fn assert_nat_works(host: &Host, spec: impl FnOnce(GuestSpec) -> GuestSpec) {
    let before = host.foreign().without_forwarding();
    let server = host.outside_tcp_server(8000);
    let spec = spec(GuestSpec::new("guest").ip("192.168.100.10/24").gateway("192.168.100.1"));
    let mut guest = Guest::boot(host, spec);
    assert_eq!(host.ports("br0"), ["vnet0"]);
    guest.ok("ping -c1 -W2 203.0.113.1");
    guest.ok("echo hello | nc -w 5 10.0.0.1 8000");
    let peer = server.accept_peer(Duration::from_secs(5)).expect("the guest got through");
    assert_eq!(peer.ip().to_string(), "10.0.0.11", "masqueraded");
    assert_eq!(guest.power_off(), 0);
    assert_eq!(guest.stderr(), "");
    let after = host.foreign().without_forwarding();
    assert_eq!(before.diff(&after), "");
}

/// All files there are, but for what package managers keep for themselves.
pub fn files(host: &Host, root: &str) -> Vec<String> {
    let script = format!(
        "cd {root}/ && find . -xdev ! -path './var/lib/dpkg*' ! -path './var/lib/rpm*' ! -path './var/log*' \
         ! -path './var/cache*' ! -path './var/lib/apt*' ! -path './dev*' ! -path './proc*' ! -path './sys*' \
         ! -path './run*' ! -path './tmp*' ! -path './var/lib/pam*' | sort"
    );
    ok(host, &script).lines().map(str::to_owned).collect()
}

/// Only what is in the second.
pub fn added(before: &[String], after: &[String]) -> Vec<String> {
    after.iter().filter(|path| !before.contains(path)).cloned().collect()
}
