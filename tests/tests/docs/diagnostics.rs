//! Every text of an error stands in the manual of the program that prints it, and no other does.

use kvmnet_tests::HELPERS;

use crate::text::{Template, diagnostics, errors, literal, literals};
use crate::{read, source};

const UP: &[&str] = &["kvmnet-ifup", "kvmnet-natup"];
const DOWN: &[&str] = &["kvmnet-ifdown", "kvmnet-natdown"];
const NATUP: &[&str] = &["kvmnet-natup"];
/// The manual of the network files: what any helper may say of them, and of networks that have one.
const NETWORK_FILES: &[&str] = &["kvmnet-network"];
/// Its manual is looked at in `command.rs`.
const COMMAND: &[&str] = &["kvmnet"];

/// All that have a manual with DIAGNOSTICS.
fn manuals() -> impl Iterator<Item = &'static str> {
    HELPERS.into_iter().chain(NETWORK_FILES.iter().copied())
}

/// The sources that hold texts of errors.
const SOURCES: [&str; 6] =
    ["error", "lock", "config/error", "plan/refusal", "kernel/error", "model/name"];

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
        | "Error::NeedsKvmnet"
        | "KernelError::Iptables"
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
        "Refusal::AliasInTheWay" | "KernelError::Firewalld" => COMMAND,
        _ => panic!("{variant} is new: say in diagnostics.rs which programs print it"),
    }
}

/// The texts of all errors; those of the kernel's as they stand behind their object.
fn templates() -> Vec<Template> {
    let mut templates: Vec<_> = SOURCES.iter().flat_map(|name| errors(&source(name))).collect();
    for template in &mut templates {
        if template.variant.starts_with("KernelError::") {
            let behind = format!(": {}", template.parts[0]);
            template.parts.splice(..1, [String::new(), ": not ".to_owned(), behind]);
        }
    }
    assert!(templates.len() > 25, "the sources are not read as they should be: {templates:?}");
    templates
}

/// Those that stand in the manual of the command: what it shares with the helpers is in theirs.
pub fn of_the_command() -> Vec<Template> {
    let mut templates = templates();
    templates.retain(|template| {
        let for_both = ["Error::Kernel", "Error::TakeDown"].contains(&template.variant.as_str());
        for_both || printed_by(&template.variant) == COMMAND
    });
    templates
}

/// What of a page is `program`'s: two programs share a page.
fn entries(program: &str) -> Vec<String> {
    let whole = NETWORK_FILES.contains(&program);
    let its_own = |section: &str| whole || section == "Either program" || section == program;
    let section = if whole { 5 } else { 8 };
    let all = diagnostics(&format!("{program}.{section}")).into_iter();
    all.filter(|(section, _)| its_own(section)).map(|(_, text)| text).collect()
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
    for (_, call) in
        source("lock").replace("&path,", "path,").split("unsafe_at(path,").enumerate().skip(1)
    {
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

/// The page on what goes wrong quotes what the helpers print.
#[test]
fn what_is_quoted_is_printed() {
    let page = read("docs/troubleshooting.md");
    let templates = templates();
    let mut count = 0;
    for line in page.lines() {
        let said = HELPERS.iter().find_map(|helper| line.strip_prefix(&format!("{helper}: ")));
        let Some(said) = said else { continue };
        let is_printed = |template: &Template| template.parts.len() > 1 && template.is_said(said);
        assert!(templates.iter().any(is_printed), "no helper prints: {said}");
        count += 1;
    }
    assert!(count > 5, "the page is not read as it should be");
}
