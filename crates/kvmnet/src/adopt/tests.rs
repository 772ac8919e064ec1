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
