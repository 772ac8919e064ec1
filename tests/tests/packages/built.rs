//! The packages as files.

use std::fs;
use std::process::Command;

use crate::scene::{here, package, source};

#[test]
fn lintian_has_nothing_to_say() {
    let said = here(Command::new("lintian").args(["--fail-on", "error,warning", &package(".deb")]));
    assert_eq!(said.replace("running with root privileges is not recommended!\n", ""), "");
}

#[test]
fn rpmlint_has_nothing_to_say() {
    let mut command = Command::new("rpmlint");
    command.arg("-c").arg(source("packaging/rpm/rpmlint.toml"));
    let said = here(command.arg(package(".rpm")).arg(source("packaging/rpm/kvmnet.spec")));
    assert!(said.contains(" 0 errors, 0 warnings, "), "{said}");
}

/// Every file of `make install` is in both.
#[test]
fn both_hold_the_same_files() {
    let deb = here(Command::new("sh").args([
        "-c",
        "dpkg-deb --fsys-tarfile $0 | tar -t",
        &package(".deb"),
    ]));
    let query = "[%{FILEMODES:perms} %{FILENAMES}\\n]";
    let rpm = here(Command::new("rpm").args(["-qp", "--queryformat", query, &package(".rpm")]));
    let mut deb: Vec<String> = deb
        .lines()
        .filter(|path| !path.ends_with('/'))
        .map(|path| path.trim_start_matches('.').trim_end_matches(".gz").to_owned())
        .collect();
    let mut rpm: Vec<String> = rpm
        .lines()
        .filter(|line| !line.starts_with('d'))
        .filter_map(|line| line.split_once(' '))
        .map(|(_, path)| path.trim_end_matches(".gz").to_owned())
        .map(|path| path.replace("zsh/site-functions", "zsh/vendor-completions"))
        .collect();
    // What only one of them has, by its distribution's rules.
    deb.retain(|path| {
        !path.ends_with("/copyright") && !path.contains("/lintian/") && !path.contains("/changelog")
    });
    rpm.retain(|path| !path.ends_with("/LICENSE") && !path.ends_with("/CHANGELOG.md"));
    deb.sort();
    rpm.sort();
    assert_eq!(deb, rpm);
    assert!(deb.contains(&"/usr/libexec/kvmnet-natup".to_owned()), "{deb:?}");
}

/// The same commit, built anew from another directory, with the crates elsewhere, under another umask and in
/// another place of the world.
#[test]
fn the_same_commit_makes_the_same_bytes() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let clone = elsewhere.path().join("clone");
    // What git has, as it is here by now, and the time of the commit.
    let script = "set -e; umask 077; cd \"$0\"; git clone -q . \"$1\"
        git ls-files -z | tar --create --null --files-from=- | tar --extract --directory \"$1\"
        ln -s \"${CARGO_HOME:-$HOME/.cargo}\" \"$2/cargo\"; export CARGO_HOME=\"$2/cargo\"
        unset CARGO_TARGET_DIR; cd \"$1\"; export TZ=Asia/Kolkata LC_ALL=C.UTF-8
        packaging/build deb; packaging/build rpm; cp target/packages/*.deb target/packages/*.rpm \"$2\"";
    let mut command = Command::new("bash");
    here(command.args(["-c", script]).arg(source(".")).arg(&clone).arg(elsewhere.path()));
    for ending in [".deb", ".rpm"] {
        let one = package(ending);
        let name = one.rsplit('/').next().unwrap_or_default();
        let other = fs::read(elsewhere.path().join(name)).expect("it was built");
        assert!(fs::read(&one).expect("it is there") == other, "{name} differs");
    }
}

#[test]
fn there_is_one_version() {
    let first = |path: &str, begin: &str, end: &str| {
        let text = fs::read_to_string(source(path)).expect("it is there");
        let from = text.split_once(begin).unwrap_or_else(|| panic!("{path}: {begin}")).1;
        from.split(end).next().unwrap_or_default().trim().to_owned()
    };
    let version = first("Cargo.toml", "version = \"", "\"");
    assert_eq!(first("packaging/debian/changelog", "kvmnet (", "-1)"), version);
    assert_eq!(first("packaging/rpm/kvmnet.spec", "Version:", "\n"), version);
    assert_eq!(first("CHANGELOG.md", "## [", "]"), version);
}
