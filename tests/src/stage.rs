//! Where things are: the staged tree, the guest's image; and the one thing all tests need.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The helpers as they are installed in `/usr/libexec`.
pub const HELPERS: [&str; 4] = ["kvmnet-ifup", "kvmnet-ifdown", "kvmnet-natup", "kvmnet-natdown"];

/// Panics when the effective user isn't root. A test that skipped would look like one that passed.
pub fn require_root() {
    assert!(nix::unistd::geteuid().is_root(), "these tests need root: run `sudo make test`");
}

/// The top of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a directory of the repository")
}

/// The staged tree: `KVMNET_STAGE`, else `target/stage`. Panics when a helper isn't in it.
pub(crate) fn staged_tree() -> PathBuf {
    let stage = env::var_os("KVMNET_STAGE")
        .map_or_else(|| repository().join("target/stage"), PathBuf::from);
    for helper in HELPERS {
        let path = stage.join("usr/libexec").join(helper);
        assert!(path.exists(), "{} is missing: run `make build`", path.display());
    }
    stage.canonicalize().expect("a directory that exists has a canonical path")
}

/// A file of the guest's image, which `tests/setup` builds.
pub(crate) fn guest_image(file: &str) -> PathBuf {
    let path = guest_images().join(file);
    assert!(path.exists(), "{} is missing: run `tests/setup`", path.display());
    path
}

/// Where the guest's image is.
pub(crate) fn guest_images() -> PathBuf {
    env::var_os("KVMNET_GUEST_DIR").map_or_else(|| repository().join("target/guest"), PathBuf::from)
}

/// Where `make deb` and `make rpm` put the packages.
#[must_use]
pub fn packages() -> PathBuf {
    repository().join("target/packages")
}

/// The root file system of the distribution's, which `tests/package-root` fills.
#[must_use]
pub fn fresh_root() -> PathBuf {
    let directory = env::var_os("KVMNET_PACKAGE_ROOT")
        .map_or_else(|| repository().join("target/package-root"), PathBuf::from);
    assert!(
        directory.join("stamp").exists(),
        "{} is missing: run `tests/package-root`",
        directory.display()
    );
    directory.join("tree")
}

/// A file of the guest with systemd, which `tests/systemd-guest` builds.
pub(crate) fn systemd_image(file: &str) -> PathBuf {
    let directory = env::var_os("KVMNET_SYSTEMD_DIR")
        .map_or_else(|| repository().join("target/systemd"), PathBuf::from);
    let path = directory.join(file);
    assert!(path.exists(), "{} is missing: run `tests/systemd-guest`", path.display());
    path.canonicalize().expect("a file that exists has a canonical path")
}

/// A file of the kernels, which `tests/kernels` gets.
pub(crate) fn kernel_image(file: &str) -> PathBuf {
    let directory = env::var_os("KVMNET_KERNELS_DIR")
        .map_or_else(|| repository().join("target/kernels"), PathBuf::from);
    // The stamp says that all of it is there.
    for file in ["stamp", file] {
        let path = directory.join(file);
        assert!(path.exists(), "{} is missing: run `tests/kernels`", path.display());
    }
    directory.join(file).canonicalize().expect("a file that exists has a canonical path")
}

/// A program of this crate's tests, as cargo has built it last beside the one that runs: `modes-HASH`.
pub(crate) fn test_program(name: &str) -> PathBuf {
    let own = env::current_exe().expect("a program knows its path");
    let directory = own.parent().expect("a program is in a directory");
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let hash = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        hash.is_some_and(|hash| hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let files = fs::read_dir(directory).expect("a program's directory can be read");
    let candidates = files.filter_map(|file| Some(file.ok()?.path())).filter(is_it);
    let built = |path: &PathBuf| path.metadata().and_then(|about| about.modified()).ok();
    candidates.max_by_key(built).unwrap_or_else(|| {
        panic!("{name} isn't built: run `cargo test -p kvmnet-tests --test {name} --no-run`")
    })
}

/// A tree of packages, which `tests/NAME` fills.
pub(crate) fn packages_tree(name: &str) -> PathBuf {
    let tree = env::var_os(format!("KVMNET_{}_DIR", name.to_uppercase()))
        .map_or_else(|| repository().join("target").join(name), PathBuf::from);
    assert!(tree.join("stamp").exists(), "{} is missing: run `tests/{name}`", tree.display());
    tree.canonicalize().expect("a directory that exists has a canonical path")
}
