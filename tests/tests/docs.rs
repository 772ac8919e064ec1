//! The documents hold to the code: files are compared, nothing is run, and no root is needed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kvmnet_core::model::{InterfaceName, ManagedNetwork, Mode, NetworkName};
use kvmnet_core::{config, plan};
use kvmnet_tests::HELPERS;

const UP: &[&str] = &["kvmnet-ifup", "kvmnet-natup"];
const DOWN: &[&str] = &["kvmnet-ifdown", "kvmnet-natdown"];
const NATUP: &[&str] = &["kvmnet-natup"];
/// The manual of the network files: what any helper may say of them, and of networks that have one.
const NETWORK_FILES: &[&str] = &["kvmnet-network"];

/// All that have a manual with DIAGNOSTICS.
fn manuals() -> impl Iterator<Item = &'static str> {
    HELPERS.into_iter().chain(NETWORK_FILES.iter().copied())
}

/// The sources that hold texts of errors.
const SOURCES: [&str; 6] =
    ["error", "lock", "config/error", "plan/refusal", "kernel/error", "model/name"];

const DOCUMENTS: [&str; 8] = [
    "README.md",
    "CHANGELOG.md",
    "docs/design.md",
    "docs/networks.md",
    "docs/nat.md",
    "docs/routed.md",
    "docs/isolated.md",
    "docs/bridged.md",
];

/// In whose manual a text stands. A new one has to be entered here, and there.
fn printed_by(variant: &str) -> &'static [&'static str] {
    match variant {
        "Error::Usage"
        | "Error::Name"
        | "Error::Setuid"
        | "Error::Capability"
        | "Error::Kernel"
        | "Refusal::AlternativeName"
        | "Refusal::NotATap"
        | "KernelError::Refused"
        | "KernelError::System"
        | "KernelError::Answer" => &HELPERS,
        variant if variant.starts_with("LockError::") => &HELPERS,
        variant if variant.starts_with("NameError::") => &HELPERS,
        variant if variant.starts_with("ConfigError::") => NETWORK_FILES,
        "Refusal::NoSuchInterface" | "Refusal::PortOfAnother" | "Refusal::NotABridge" => UP,
        // Either program serves any mode, so these go with the files rather than with a program.
        "Refusal::NoSuchBridge"
        | "Refusal::BridgeOfAnother"
        | "Refusal::RunsElsewhere"
        | "Refusal::HasAnotherAddress"
        | "Refusal::CarriesAddress"
        | "Refusal::RunsAsIsolated"
        | "Refusal::ForwardingIsOff" => NETWORK_FILES,
        "Refusal::NoBridge" => &["kvmnet-ifup"],
        "Refusal::ForeignBridge"
        | "Refusal::SubnetInUse"
        | "Refusal::LeadsElsewhere"
        | "KernelError::Sysctl"
        | "KernelError::NoNftables" => NATUP,
        "Error::TakeDown" | "Refusal::MasterNotABridge" => DOWN,
        "Refusal::PortOfForeign" => &["kvmnet-natdown"],
        _ => panic!("{variant} is new: say in docs.rs which programs print it"),
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[track_caller]
fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn source(name: &str) -> String {
    read(&format!("crates/kvmnet-core/src/{name}.rs"))
}

/// A text of an error: the parts between its placeholders.
#[derive(Debug)]
struct Template {
    variant: String,
    parts: Vec<String>,
}

impl Template {
    fn new(variant: &str, text: &str) -> Self {
        let mut parts = vec![String::new()];
        let mut inside = false;
        for character in text.chars() {
            match character {
                '{' => (inside, _) = (true, parts.push(String::new())),
                '}' => inside = false,
                _ if inside => {}
                _ => parts.last_mut().expect("there is always a part").push(character),
            }
        }
        Self { variant: variant.to_owned(), parts }
    }

    /// Whether an entry of the manual is this text, with words for the placeholders. A source's own
    /// text may follow, and stands there as CAUSE.
    fn is(&self, entry: &str) -> bool {
        let entry = entry.strip_suffix(": CAUSE").unwrap_or(entry);
        let has_words = |text: &str| text.contains(char::is_lowercase);
        // One such as "FILE: PROBLEM" would fit them all.
        if has_words(entry) && !self.parts.iter().any(|part| has_words(part)) {
            return false;
        }
        let (first, others) = self.parts.split_first().expect("there is always a part");
        let Some(mut rest) = entry.strip_prefix(first.as_str()) else {
            return false;
        };
        for part in others {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.is_empty() || others.last().is_some_and(String::is_empty)
    }
}

/// The string literal at the beginning of `code`, and what is behind it.
fn literal(code: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut rest = code.strip_prefix('"')?;
    loop {
        let at = rest.find(['"', '\\'])?;
        text.push_str(&rest[..at]);
        let escaped = rest[at + 1..].chars().next();
        match (&rest[at..=at], escaped) {
            ("\"", _) => return Some((text, &rest[at + 1..])),
            (_, Some('\n')) => rest = rest[at + 1..].trim_start(),
            (_, escaped) => {
                text.push(escaped?);
                rest = &rest[at + 2..];
            }
        }
    }
}

/// Every string literal in a piece of code.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some((text, behind)) = rest.find('"').and_then(|at| literal(&rest[at..])) {
        found.push(text);
        rest = behind;
    }
    found
}

/// The texts of all errors; those of the kernel's as they stand behind their object.
fn templates() -> Vec<Template> {
    let mut templates = Vec::new();
    for code in SOURCES.map(source) {
        let mut kind = "";
        for (at, _) in code.match_indices("#[error(") {
            let declared = code[..at].rfind("pub enum ").map(|at| &code[at + 9..]);
            kind = declared.and_then(|rest| rest.split_whitespace().next()).unwrap_or(kind);
            let Some((text, rest)) = literal(code[at + 8..].trim_start()) else {
                continue; // transparent
            };
            let name = variant_behind(rest);
            let text =
                if kind == "KernelError" { format!("{{tap}}: not {{}}: {text}") } else { text };
            templates.push(Template::new(&format!("{kind}::{name}"), &text));
        }
    }
    assert!(templates.len() > 25, "the sources are not read as they should be: {templates:?}");
    templates
}

fn variant_behind(rest: &str) -> String {
    let (_, rest) = rest.split_once(")]").expect("an attribute ends");
    rest.trim_start().chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// A manual page's DIAGNOSTICS: the section of each entry (a program's name, or one for both), and
/// its text.
fn diagnostics(program: &str) -> Vec<(String, String)> {
    let section = if NETWORK_FILES.contains(&program) { 5 } else { 8 };
    let page = read(&format!("docs/man/{program}.{section}")).replace("\\\n", "");
    let (_, page) = page.split_once(".Sh DIAGNOSTICS\n").expect("a page has DIAGNOSTICS");
    let mut section = String::new();
    let mut entries = Vec::new();
    for line in page.lines().take_while(|line| !line.starts_with(".Sh ")) {
        if let Some(title) = line.strip_prefix(".Ss ") {
            section = title.to_owned();
        }
        let text = line.strip_prefix(".It ").unwrap_or(line).trim_start_matches('.');
        if let Some(text) = text.strip_prefix("Sy \"").and_then(|text| text.strip_suffix('"')) {
            entries.push((section.clone(), unescape(text)));
        }
    }
    entries
}

/// What of a page is `program`'s: two programs share a page.
fn entries(program: &str) -> Vec<String> {
    let whole = NETWORK_FILES.contains(&program);
    let its_own = |section: &str| whole || section == "Either program" || section == program;
    let all = diagnostics(program).into_iter();
    all.filter(|(section, _)| its_own(section)).map(|(_, text)| text).collect()
}

fn unescape(text: &str) -> String {
    text.replace("\\(aq", "'").replace("\\(dq", "\"").replace("\\-", "-")
}

#[test]
fn every_refusal_is_in_the_manual_of_the_program_that_prints_it() {
    let templates = templates();
    for program in manuals() {
        let entries = entries(program);
        for template in &templates {
            let documented = entries.iter().any(|entry| template.is(entry));
            assert_eq!(
                documented,
                printed_by(&template.variant).contains(&program),
                "DIAGNOSTICS of {program} and {template:?}"
            );
        }
    }
}

/// Remedies, and what is wrong with a lock: texts that fill another's placeholder.
fn fillings() -> Vec<String> {
    let error = source("error");
    let remedy = error.split_once("fn remedy").expect("error.rs has remedies").1;
    let mut texts = literals(remedy.split_once("\n}").expect("a function ends").0);
    for (_, call) in source("lock").split("unsafe_at(path,").enumerate().skip(1) {
        texts.extend(literal(call.trim_start()).map(|(text, _)| text));
    }
    assert!(texts.len() >= 6, "the sources are not read as they should be: {texts:?}");
    texts
}

/// Those that fill a placeholder of what `program` says.
fn fillings_of(program: &str) -> Vec<Template> {
    let mut texts = fillings();
    if NATUP.contains(&program) {
        let refusal = source("plan/refusal");
        let way = refusal.split_once("fn way_onto_the_bridge").expect("it has remedies").1;
        let way = literals(way.split_once("\n}").expect("a function ends").0);
        assert_eq!(way.len(), 2, "{way:?}");
        texts.extend(way);
    }
    texts.iter().map(|text| Template::new("filling", text)).collect()
}

#[test]
fn remedies_and_problems_are_in_the_manual() {
    for program in HELPERS {
        let entries = entries(program);
        for text in fillings_of(program) {
            let documented = entries.iter().any(|entry| text.is(entry));
            assert!(documented, "DIAGNOSTICS of {program}.8 lack: {text:?}");
        }
    }
}

/// What can be wrong with a network file, as it stands behind the file's name.
fn mistakes() -> Vec<Template> {
    let code = ["file", "trust"].map(|name| source(&format!("config/{name}"))).concat();
    let is_text = |text: &String| text.contains(' ') && text.contains(char::is_lowercase);
    // Not an example.
    let is_said = |text: &String| !text.starts_with('[');
    let texts = literals(&code).into_iter().filter(is_text).filter(is_said);
    let templates: Vec<_> = texts.map(|text| Template::new("mistake", &text)).collect();
    assert!(templates.len() > 25, "the sources are not read as they should be: {templates:?}");
    let has_words =
        |template: &Template| template.parts.iter().any(|part| part.contains(char::is_lowercase));
    templates.into_iter().filter(has_words).collect()
}

#[test]
fn every_mistake_in_a_network_file_is_in_its_manual() {
    let entries = entries("kvmnet-network");
    for mistake in mistakes() {
        let documented = entries.iter().any(|entry| mistake.is(entry));
        assert!(documented, "DIAGNOSTICS of kvmnet-network.5 lack {mistake:?}");
    }
}

#[test]
fn every_key_of_a_network_file_is_in_its_manual() {
    let page = read("docs/man/kvmnet-network.5");
    let code = source("config/file");
    let keys = code.split_once("const KEYS: &str = ").and_then(|(_, rest)| literal(rest));
    let (keys, _) = keys.expect("file.rs lists its keys");
    for key in keys.replace(" and ", ", ").split(", ") {
        assert!(page.contains(&format!("\n.It Li {key} Ta ")), "the table lacks {key}");
        assert!(page.contains(&format!("\n.It Li {key}\n")), "the list lacks {key}");
    }
}

/// What was removed from the code goes from the manual.
#[test]
fn the_manual_has_no_refusal_that_the_code_has_not() {
    let templates = templates();
    let mistakes = mistakes();
    for program in manuals() {
        let fillings = fillings_of(program);
        for entry in entries(program) {
            let is_mistake = || mistakes.iter().any(|mistake| mistake.is(&entry));
            let known = fillings.iter().any(|filling| filling.is(&entry))
                || NETWORK_FILES.contains(&program) && is_mistake()
                || templates.iter().any(|template| {
                    printed_by(&template.variant).contains(&program) && template.is(&entry)
                });
            assert!(known, "no program prints this of {program}: {entry}");
        }
    }
}

#[test]
fn the_rules_are_those_that_are_installed() {
    let table = plan::table_of(&config::default_nat()).expect("it has rules").to_string();
    assert!(read("docs/nat.md").contains(&table), "docs/nat.md lacks:\n{table}");
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let rules = table.lines().map(str::trim).filter(|line| !line.starts_with("table"));
    let manual = squeeze(&read("docs/man/kvmnet-natup.8").replace("\\e\n", " "));
    let mut count = 0;
    for rule in rules.filter(|line| line.contains(' ')) {
        assert!(manual.contains(&squeeze(rule)), "kvmnet-natup.8 lacks: {rule}");
        count += 1;
    }
    assert!(count > 10, "the table is not read as it should be:\n{table}");
}

/// The examples of the other modes, as their pages have them.
#[test]
fn the_rules_of_each_mode_are_those_that_are_installed() {
    let address = "10.77.0.1/24".parse().expect("it is one");
    for (document, name, mode) in [
        ("docs/routed.md", "dmz", Mode::Routed(address)),
        ("docs/isolated.md", "cell", Mode::Isolated),
    ] {
        let network = NetworkName::parse(name).expect("it is valid");
        let bridge = InterfaceName::parse(name.as_ref()).expect("it is valid");
        let network = ManagedNetwork::new(network, bridge, mode);
        let table = plan::table_of(&network).expect("it has rules").to_string();
        assert!(read(document).contains(&table), "{document} lacks:\n{table}");
    }
}

#[test]
fn the_defaults_are_those_of_the_code() {
    let network = config::default_nat();
    let address = network.mode.address().expect("NAT has one");
    let table = network.table().to_string();
    for document in ["README.md", "docs/nat.md", "docs/man/kvmnet-natup.8"] {
        let text = read(document);
        let wanted = [
            address.to_string(),
            address.trunc().to_string(),
            network.bridge.to_string(),
            kvmnet_core::model::Mac::of_bridge(&network.name).to_string(),
            kvmnet_core::model::Mark::of(&network.name).to_string(),
            table.clone(),
        ];
        for fact in wanted {
            assert!(text.contains(&fact), "{document} lacks {fact}");
        }
    }
}

/// The code of a document: what is fenced, and what is between backticks.
fn code(document: &str) -> String {
    let mut code = String::new();
    let mut fenced = false;
    for line in document.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            code.push_str(line);
        } else {
            code.extend(line.split('`').skip(1).step_by(2).flat_map(|span| [span, "\n"]));
        }
        code.push('\n');
    }
    code
}

#[test]
fn every_target_of_make_that_is_named_exists() {
    let makefile = read("Makefile");
    let is_target = |word: &str| makefile.lines().any(|line| line.starts_with(&format!("{word}:")));
    let mut named = BTreeSet::new();
    for document in DOCUMENTS {
        let code = code(&read(document));
        for line in code.lines().map(|line| line.split('#').next().unwrap_or_default()) {
            let words = line.split_whitespace().skip_while(|&word| word != "make").skip(1);
            named.extend(words.filter(|word| !word.contains('=')).map(str::to_owned));
        }
    }
    for target in &named {
        assert!(is_target(target), "there is no target {target} in the Makefile");
    }
    assert!(named.contains("demo") && named.contains("test"), "{named:?}");
}

#[test]
fn links_lead_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        let directory = Path::new(document).parent().expect("a file is in a directory");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            let exists = repository().join(directory).join(path).exists();
            assert!(link.starts_with("https://") || exists, "{document}: {link}");
        }
    }
}

/// Of the paths in the sources that the documents name, none is gone.
#[test]
fn named_sources_exist() {
    let roots = ["", "crates/kvmnet-core/src", "tests"];
    for document in DOCUMENTS {
        for span in read(document).split('`').skip(1).step_by(2) {
            let is_path = span.ends_with(".rs") || span.starts_with("crates/");
            let exists = |root| repository().join(root).join(span).exists();
            assert!(!is_path || roots.into_iter().any(exists), "{document}: {span}");
        }
    }
}
