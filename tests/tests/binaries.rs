//! The installed programs as files.

use std::path::PathBuf;
use std::process::Command;

use kvmnet_tests::{HELPERS, Host};

/// As installed, by way of a host that has them at their real paths.
fn installed(host: &Host) -> impl Iterator<Item = PathBuf> {
    let directory = host.path("/usr/libexec");
    HELPERS.into_iter().map(move |name| directory.join(name))
}

fn readelf(option: &str, file: &PathBuf) -> String {
    let output = Command::new("readelf").args([option, "--wide"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// No program of the guest's or of a container needs a library, so none can be missing or swapped.
#[test]
fn they_are_static_and_stripped() {
    let host = Host::bare();
    for file in installed(&host) {
        let segments = readelf("--program-headers", &file);
        assert!(segments.contains("LOAD"), "{segments}");
        assert!(!segments.contains("INTERP"), "{}: wants a loader", file.display());
        let dynamic = readelf("--dynamic", &file);
        assert!(!dynamic.contains("NEEDED"), "{}: wants a library", file.display());
        let sections = readelf("--sections", &file);
        assert!(sections.contains(".text") && !sections.contains(".symtab"), "{sections}");
        assert!(!sections.contains(".debug"), "{}: has debugging data", file.display());
    }
    let output = host.sh("ldd /usr/libexec/kvmnet-natup");
    assert!(output.stdout.contains("statically linked"), "{output:?}");
}

#[test]
fn they_run_without_anything_else_of_the_system() {
    let host = Host::bare();
    // An empty root but for /proc, as a container's: the error is our own, and so the program ran.
    let output = host
        .sh("mkdir -p /dev/shm/root/proc && cp /usr/libexec/kvmnet-natup /dev/shm/root/ && \
         mount -t proc proc /dev/shm/root/proc && chroot /dev/shm/root /kvmnet-natup vnet9");
    assert_eq!(output.code, 1);
    assert!(output.stderr.starts_with("kvmnet-natup: /run/kvmnet: cannot make the directory; "));
}
