//! The command line of `kvmnet`: wrong usage, help, completions.

use kvmnet_tests::{Host, assert_same};

#[test]
fn wrong_usage() {
    let host = Host::bare();
    let before = host.foreign();
    for arguments in [
        &[][..],
        &["nope"],
        &["statsu"],
        &["status", "--jsn"],
        &["status", "--json", "--tree"],
        &["status", "Lab"],
        &["status", "../lab"],
        &["status", ""],
        &["check", "lab"],
        &["plan"],
        &["plan", "up"],
        &["plan", "lab"],
        &["plan", "gc", "lab"],
        &["plan", "up", "lab", "more"],
        &["up"],
        &["up", "lab", "more"],
        &["up", "-x"],
        &["up", "sixteen-letters-x"],
        &["down"],
        &["down", "a/b"],
        &["gc", "lab"],
        &["reload", "lab"],
        &["adopt", "--network", "lab"],
        &["adopt", "--undo", "--network", "lab", "/etc/qemu-ifup"],
        &["adopt", "--network", "Lab", "/etc/qemu-ifup"],
        &["completions"],
        &["completions", "csh"],
        &["--nope"],
    ] {
        let output = host.kvmnet(arguments);
        assert_eq!((output.code, output.stdout.as_str()), (2, ""), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains("--help"), "{arguments:?}: {output:?}");
        assert!(!output.stderr.contains('\x1b'), "{output:?}");
    }
    let output = host.sh("kvmnet up \"$(printf '\\377')\"");
    assert_eq!(output.code, 2, "{output:?}");
    let output = host.kvmnet(&["up", "Lab"]);
    assert!(
        output.stderr.contains("a network's name is 1 to 15 of a-z, 0-9, _ and -"),
        "{output:?}"
    );
    assert_same(&before, &host.foreign());
    assert!(host.syslog().is_empty());
}

#[test]
fn help_and_version() {
    let host = Host::bare();
    let help = host.kvmnet_ok(&["--help"]);
    for word in [
        "status",
        "check",
        "plan",
        "up",
        "down",
        "reload",
        "gc",
        "adopt",
        "completions",
        "Exit codes: 0 done;",
    ] {
        assert!(help.contains(word), "{word}: {help}");
        if !word.contains(' ') {
            assert!(host.kvmnet_ok(&[word, "--help"]).contains("Usage: kvmnet "), "{word}");
        }
    }
    assert!(host.kvmnet_ok(&["--version"]).starts_with("kvmnet "));
    // Whoever reads it may go.
    assert!(host.run(&["bash", "-c", "set -o pipefail; kvmnet --help | true"]).success());
}

/// Those that are installed are those that the program prints.
#[test]
fn completions() {
    let host = Host::bare();
    let stage = std::env::var_os("KVMNET_STAGE").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/stage"),
        Into::into,
    );
    for (shell, file) in [
        ("bash", "bash-completion/completions/kvmnet"),
        ("zsh", "zsh/site-functions/_kvmnet"),
        ("fish", "fish/vendor_completions.d/kvmnet.fish"),
    ] {
        let script = host.kvmnet_ok(&["completions", shell]);
        for word in ["status", "check", "plan", "reload", "json"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        let path = stage.join("usr/share").join(file);
        let installed = std::fs::read_to_string(&path);
        let installed = installed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(installed, script, "{shell}");
        let full = host.sh(&format!("kvmnet completions {shell} >/dev/full"));
        assert_eq!(full.code, 1, "{full:?}");
    }
    host.ok("kvmnet completions bash | bash -n");
    // bash asks the function as it does when somebody presses Tab.
    let complete = |line: &str| {
        let last = line.split(' ').count() - 1;
        let script = format!(
            "source <(kvmnet completions bash); COMP_WORDS=({line}''); COMP_CWORD={last}; \
             words=({line}''); _kvmnet kvmnet \"${{COMP_WORDS[$COMP_CWORD]}}\" \"${{COMP_WORDS[$COMP_CWORD-1]}}\"; \
             printf '%s ' \"${{COMPREPLY[@]}}\""
        );
        host.run(&["bash", "-c", &script]).expect(line)
    };
    for word in ["status", "check", "plan", "up", "down", "reload", "gc", "adopt", "completions"] {
        assert!(complete("kvmnet ").split(' ').any(|found| found == word), "{word}");
    }
    assert!(complete("kvmnet status ").contains("--json --tree"), "{}", complete("kvmnet status "));
    assert!(complete("kvmnet plan ").contains("up down"), "{}", complete("kvmnet plan "));
}
