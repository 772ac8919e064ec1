//! Plans for scripts of all kinds, as they are told: `fixtures/NAME` has the script, and
//! `fixtures/NAME.told` what is told of it. With `KVMNET_BLESS` set the latter are written.

use std::fs;
use std::path::{Path, PathBuf};

use kvmnet_core::config::{self, Configured};
use kvmnet_core::model::NetworkName;

use super::meaning::Host;
use super::plan::{self, Circumstances, Outcome, Plan};
use super::state::{Identity, Observed, State, backup_of};
use super::wrapper::Wrapper;
use super::{reading, show};

const DIRECTORY: &str = "/etc/kvmnet";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/adopt/fixtures")
}

fn fixture(name: &str) -> String {
    fs::read_to_string(fixtures().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Which file it is plays no part in planning.
fn identity() -> Identity {
    Identity::at(&fixtures()).unwrap().unwrap()
}

fn script(path: &str, text: &str) -> Observed {
    let state = match Wrapper::read(text) {
        Some(wrapper) => State::Wrapper(wrapper, text.to_owned()),
        None => State::Script { text: text.to_owned(), identity: identity() },
    };
    Observed { path: path.into(), state, backup: None }
}

fn from_fixture(name: &str) -> Observed {
    script(&format!("/etc/{name}"), &fixture(name))
}

fn network(name: &str, text: &str) -> Configured {
    let name = NetworkName::parse(name).unwrap();
    let path = config::path_of(Path::new(DIRECTORY), &name);
    Configured { file: config::parse(&path, text, &name).unwrap(), name, path }
}

fn helper(name: &str) -> Option<PathBuf> {
    Some(Path::new("/usr/libexec").join(name))
}

fn nothing_there() -> Circumstances<'static> {
    Circumstances {
        directory: Path::new(DIRECTORY),
        networks: Vec::new(),
        host: Host::default(),
        helper: &helper,
        named: None,
    }
}

fn told(plan: &Plan) -> String {
    let files = plan.files.iter();
    let files = files.map(|file| format!("\n{}:\n{}", file.path.display(), file.written.text()));
    show::describe(plan) + &files.collect::<String>()
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(fixtures()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.contains('.'));
    names.sort();
    names
}

#[test]
fn every_form_is_told_as_it_should_be() {
    let names = names();
    assert!(names.len() > 30, "{names:?}");
    let mut wrong = Vec::new();
    for name in &names {
        let plan = plan::plan(&[from_fixture(name)], &nothing_there());
        let told = told(&plan);
        let path = fixtures().join(format!("{name}.told"));
        if std::env::var_os("KVMNET_BLESS").is_some() {
            fs::write(&path, &told).unwrap();
        }
        let wanted = fs::read_to_string(&path).unwrap_or_default();
        if told != wanted {
            wrong.push(format!("{name}: wanted\n{wanted}\nand is\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a plan says of one path, and its wrapper's network and program.
fn outcome<'a>(plan: &'a Plan, path: &str) -> &'a Outcome {
    let found = plan.scripts.iter().find(|script| script.path == Path::new(path));
    &found.unwrap_or_else(|| panic!("{path}: {plan:?}")).outcome
}

#[track_caller]
fn wrapper<'a>(plan: &'a Plan, path: &str) -> (&'a str, Option<&'a str>) {
    match outcome(plan, path) {
        Outcome::Adopted { wrapper, .. } => (
            wrapper.helper.file_name().unwrap().to_str().unwrap(),
            wrapper.network.as_ref().map(NetworkName::as_str),
        ),
        other => panic!("{path}: {other:?}"),
    }
}

#[track_caller]
fn stays(plan: &Plan, path: &str, why: &str) {
    match outcome(plan, path) {
        Outcome::Stays(reasons) => {
            assert!(reasons.iter().any(|reason| reason.contains(why)), "{why}: {reasons:?}");
        }
        other => panic!("{path}: {other:?}"),
    }
    assert_eq!(plan.files, [], "nothing is written for a script that stays");
}

fn half(path: &str, name: &str) -> Observed {
    script(path, &fixture(name))
}

#[test]
fn both_halves_go_by_the_one_that_comes_first() {
    // Debian's own for a tap that goes does nothing, whatever the other one was made into.
    let scripts =
        [half("/etc/qemu-ifdown", "debian-ifdown"), half("/etc/qemu-ifup", "function-natup")];
    let plan = plan::plan(&scripts, &nothing_there());
    assert_eq!(wrapper(&plan, "/etc/qemu-ifup"), ("kvmnet-natup", None));
    assert_eq!(wrapper(&plan, "/etc/qemu-ifdown"), ("kvmnet-natdown", None));
    // They have to be about the same bridge.
    let scripts = [half("/etc/qemu-ifup", "kvmwiki-ifup"), half("/etc/qemu-ifdown", "arch-ifdown")];
    let plan = plan::plan(&scripts, &nothing_there());
    stays(&plan, "/etc/qemu-ifdown", "it is about br1, and its other half about br0");
    stays(&plan, "/etc/qemu-ifup", "its other half, /etc/qemu-ifdown, stays");
    let scripts = [half("/etc/qemu-ifup", "ovs-ifup"), half("/etc/qemu-ifdown", "debian-ifdown")];
    let plan = plan::plan(&scripts, &nothing_there());
    stays(&plan, "/etc/qemu-ifdown", "its other half, /etc/qemu-ifup, stays");
    // A run that was killed between them has done the first.
    let up = Wrapper {
        script: "/etc/qemu-natup".into(),
        helper: "/usr/libexec/kvmnet-natup".into(),
        network: None,
    };
    let scripts =
        [script("/etc/qemu-natup", &up.text()), half("/etc/qemu-natdown", "function-natdown")];
    let plan = plan::plan(&scripts, &nothing_there());
    assert_eq!(*outcome(&plan, "/etc/qemu-natup"), Outcome::Already);
    assert_eq!(wrapper(&plan, "/etc/qemu-natdown"), ("kvmnet-natdown", None));
    for (one, other) in [
        ("/etc/qemu-ifup", "/etc/qemu-ifdown"),
        ("/etc/kvm/kvm-ifdown", "/etc/kvm/kvm-ifup"),
        ("/etc/qemu-ifup-br1", "/etc/qemu-ifdown-br1"),
    ] {
        assert_eq!(plan::other_half(Path::new(one)), Some(other.into()));
    }
}

#[test]
fn a_half_whose_wrapper_tells_what_it_was() {
    // The bridge stays with this one, so only the program of the other half tells.
    let up = Wrapper {
        script: "/etc/qemu-ifup".into(),
        helper: "/usr/libexec/kvmnet-natup".into(),
        network: None,
    };
    let scripts = [script("/etc/qemu-ifup", &up.text()), half("/etc/qemu-ifdown", "debian-ifdown")];
    let plan = plan::plan(&scripts, &nothing_there());
    assert_eq!(wrapper(&plan, "/etc/qemu-ifdown"), ("kvmnet-natdown", None));
}

#[test]
fn files_that_are_there() {
    let up = [half("/etc/qemu-natup", "nft-natup")];
    let with = |networks: &[(&str, &str)]| {
        let networks = networks.iter().map(|(name, text)| network(name, text)).collect();
        plan::plan(&up, &Circumstances { networks, ..nothing_there() })
    };
    let same = "mode = \"nat\"\nbridge = \"virbr7\"\naddress = \"192.168.77.1/24\"\n";
    // One that says the same is taken, whatever else it says.
    let plan = with(&[("lab", &format!("{same}firewall = \"none\"\n"))]);
    assert_eq!(wrapper(&plan, "/etc/qemu-natup"), ("kvmnet-natup", Some("lab")));
    assert_eq!(plan.files, []);
    let plan = with(&[("default", same)]);
    assert_eq!(wrapper(&plan, "/etc/qemu-natup"), ("kvmnet-natup", None));
    // A file that takes taps by their names would take these, too.
    let taps = "mode = \"isolated\"\ntaps = [\"cell*\"]\n";
    let plan = with(&[("cell", taps), ("default", same)]);
    assert_eq!(wrapper(&plan, "/etc/qemu-natup"), ("kvmnet-natup", Some("default")));
    // The default is another's: it is called as its bridge is.
    let plan = with(&[("default", "mode = \"nat\"\naddress = \"10.9.0.1/24\"\n")]);
    assert_eq!(wrapper(&plan, "/etc/qemu-natup"), ("kvmnet-natup", Some("virbr7")));
    assert_eq!(plan.files[0].path, Path::new("/etc/kvmnet/virbr7.toml"));
    // What is in the way.
    for (name, text, why) in [
        ("lab", "mode = \"isolated\"\nbridge = \"virbr7\"\n", "both have the bridge virbr7"),
        (
            "lab",
            "mode = \"nat\"\naddress = \"192.168.0.1/16\"\n",
            "both have addresses of 192.168.77.0/24",
        ),
    ] {
        stays(&with(&[(name, text)]), "/etc/qemu-natup", why);
    }
    let both = [("default", "mode = \"isolated\"\n"), ("virbr7", "mode = \"isolated\"\n")];
    stays(
        &with(&both),
        "/etc/qemu-natup",
        "virbr7.toml is there, and says isolated on virbr7, not nat",
    );
}

/// Two scripts for one network, and two for two.
#[test]
fn several_scripts_in_one_go() {
    let scripts = [
        half("/etc/qemu-natup", "nft-natup"),
        half("/etc/kvm/kvm-ifup", "nft-natup"),
        half("/etc/qemu-ifup", "routed-ifup"),
    ];
    let plan = plan::plan(&scripts, &nothing_there());
    assert_eq!(wrapper(&plan, "/etc/qemu-natup"), ("kvmnet-natup", None));
    assert_eq!(wrapper(&plan, "/etc/kvm/kvm-ifup"), ("kvmnet-natup", None));
    assert_eq!(wrapper(&plan, "/etc/qemu-ifup"), ("kvmnet-natup", Some("br-dmz")));
    let paths: Vec<_> = plan.files.iter().map(|file| file.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/etc/kvmnet/default.toml", "/etc/kvmnet/br-dmz.toml"]);
}

#[test]
fn what_else_is_in_the_way() {
    let up = [half("/etc/qemu-ifup", "debian-ifup")];
    // kvmnet-ifup would take br0.
    let host = Host { has_br0: true, default_route: Some("lan7".to_owned()) };
    let plan = plan::plan(&up, &Circumstances { host, ..nothing_there() });
    stays(
        &plan,
        "/etc/qemu-ifup",
        "which lan7 has, and kvmnet-ifup takes br0, which is there, too",
    );
    let host = Host { has_br0: true, default_route: Some("br0".to_owned()) };
    let plan = plan::plan(&up, &Circumstances { host, ..nothing_there() });
    assert_eq!(wrapper(&plan, "/etc/qemu-ifup"), ("kvmnet-ifup", None));
    // The program isn't there.
    let plan = plan::plan(&up, &Circumstances { helper: &|_| None, ..nothing_there() });
    stays(&plan, "/etc/qemu-ifup", "kvmnet-ifup is not installed");
    // There is a backup of another script.
    let mut with_backup = up.to_vec();
    with_backup[0].backup = Identity::at(&fixtures().join("debian-ifup")).unwrap();
    let plan = plan::plan(&with_backup, &nothing_there());
    stays(&plan, "/etc/qemu-ifup", "is there already, and another file");
    with_backup[0].backup = Some(identity());
    assert!(with_backup[0].is_its_backup());
    let plan = plan::plan(&with_backup, &nothing_there());
    assert_eq!(wrapper(&plan, "/etc/qemu-ifup"), ("kvmnet-ifup", None));
    let plan = plan::plan(&[half("/etc/qemu if-up", "debian-ifup")], &nothing_there());
    stays(&plan, "/etc/qemu if-up", "its path would need quotes");
    assert_eq!(backup_of(Path::new("/etc/x")), Path::new("/etc/x.before-kvmnet"));
    assert!(reading::read("").problems.is_empty());
}
