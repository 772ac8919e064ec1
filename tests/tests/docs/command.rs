//! `kvmnet.8` and the command: its help, and all that it can say.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::text::{Template, diagnostics, errors, literals};
use crate::{diagnostics as core, read, repository};

const PAGE: &str = "kvmnet.8";

/// What the help says of a subcommand, and what the manual does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Usage {
    options: BTreeSet<String>,
    arguments: BTreeSet<String>,
    /// Those that an argument can have, where they are listed.
    values: BTreeSet<String>,
}

fn help(arguments: &[&str]) -> String {
    let stage = env::var_os("KVMNET_STAGE")
        .map_or_else(|| repository().join("target/stage"), PathBuf::from);
    let program = stage.join("usr/bin/kvmnet");
    let output = Command::new(&program).args(arguments).arg("--help").output();
    let output = output.unwrap_or_else(|error| {
        panic!("{}: {error}: run `make build`", program.display());
    });
    assert!(output.status.success(), "kvmnet {arguments:?} --help: {output:?}");
    String::from_utf8(output.stdout).expect("help is UTF-8")
}

/// The lines of a section of help, up to the next one.
fn section<'a>(help: &'a str, title: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("{title}:");
    let lines = help.lines().skip_while(move |line| *line != start).skip(1);
    lines.take_while(|line| line.is_empty() || line.starts_with(' '))
}

fn subcommands() -> BTreeSet<String> {
    let help = help(&[]);
    let names = section(&help, "Commands").filter_map(|line| line.split_whitespace().next());
    let names: BTreeSet<String> = names.map(str::to_owned).collect();
    assert!(names.len() > 4, "the help is not read as it should be: {help}");
    names
}

fn options(help: &str) -> BTreeSet<String> {
    let words = section(help, "Options").flat_map(str::split_whitespace);
    words.filter_map(|word| word.strip_prefix("--")).map(str::to_owned).collect()
}

fn usage_in_help(subcommand: &str) -> Usage {
    let help = help(&[subcommand]);
    let mut usage = Usage { options: options(&help), ..Usage::default() };
    usage.options.remove("help");
    // What an option takes is named in the manual, too.
    let of_options = section(&help, "Options").flat_map(str::split_whitespace);
    let of_options = of_options.filter_map(|word| word.strip_prefix('<')?.strip_suffix('>'));
    usage.arguments.extend(of_options.map(str::to_lowercase));
    for line in section(&help, "Arguments").map(str::trim) {
        if let Some(name) = line.strip_prefix(['<', '[']) {
            let name = name.split(['>', ']']).next().unwrap_or_default();
            usage.arguments.insert(name.to_lowercase());
        }
        if let Some((_, values)) = line.split_once("[possible values: ") {
            let values = values.trim_end_matches(']').split(", ");
            usage.values.extend(values.map(str::to_owned));
        }
        if let Some((value, _)) = line.strip_prefix("- ").and_then(|line| line.split_once(':')) {
            usage.values.insert(value.to_owned());
        }
    }
    usage
}

/// The entries of the list of subcommands, each with its head.
fn entries_of_manual() -> BTreeMap<String, (String, String)> {
    let page = read(&format!("docs/man/{PAGE}"));
    let (_, list) = page.split_once(".Sh DESCRIPTION\n").expect("a page has a DESCRIPTION");
    let (list, _) = list.split_once(".Ss ").expect("what the columns mean comes behind the list");
    let mut entries = BTreeMap::new();
    for entry in list.split("\n.It Ic ").skip(1) {
        let (head, text) = entry.split_once('\n').expect("an entry has a text");
        let name = head.split(' ').next().expect("it has a name").to_owned();
        let twice = entries.insert(name, (head.to_owned(), text.to_owned()));
        assert!(twice.is_none(), "{PAGE} has an entry a second time: {head}");
    }
    entries
}

/// The words behind a macro of mdoc's, up to the next one.
fn behind(text: &str, macros: &str) -> BTreeSet<String> {
    let words: Vec<&str> =
        text.split_whitespace().map(|word| word.trim_start_matches('.')).collect();
    let wanted: Vec<&str> = macros.split(' ').collect();
    let mut found = BTreeSet::new();
    for at in 0..words.len() {
        if words[at..].starts_with(&wanted) {
            let names = words[at + wanted.len()..].iter();
            let is_name = |word: &&&str| !word.starts_with(char::is_uppercase);
            let names = names.take_while(is_name).filter(|word| word.len() > 1);
            found.extend(names.filter(|&&word| word != "...").map(|&word| word.to_owned()));
        }
    }
    found
}

fn usage_in_manual(head: &str, text: &str) -> Usage {
    Usage {
        // An option stands in the head and has an entry of its own.
        options: behind(head, "Fl Fl"),
        arguments: behind(head, "Ar"),
        values: text
            .lines()
            .chain([head])
            .flat_map(|line| behind(line, "Cm"))
            .filter(|word| word != "or")
            .collect(),
    }
}

#[test]
fn the_manual_has_every_subcommand_option_and_argument_of_the_help_and_no_other() {
    let entries = entries_of_manual();
    let subcommands = subcommands();
    assert_eq!(entries.keys().cloned().collect::<BTreeSet<_>>(), subcommands);
    let mut all: BTreeSet<String> = options(&help(&[]));
    for subcommand in &subcommands {
        let (head, text) = &entries[subcommand];
        let mut wanted = usage_in_help(subcommand);
        let found = usage_in_manual(head, text);
        all.extend(wanted.options.iter().cloned());
        // An argument whose values stand in the head isn't named there.
        let in_head = behind(head, "Cm");
        if !wanted.values.is_empty() && in_head == wanted.values {
            wanted.arguments.retain(|argument| found.arguments.contains(argument));
        }
        assert_eq!(found, wanted, "{PAGE}: {subcommand}");
        for option in &found.options {
            let entry = format!(".It Fl Fl {option}\n");
            assert!(text.contains(&entry), "{PAGE}: {subcommand}: no entry for --{option}");
        }
    }
    let page = read(&format!("docs/man/{PAGE}"));
    let named: BTreeSet<_> = page.lines().flat_map(|line| behind(line, "Fl Fl")).collect();
    assert_eq!(named, all, "{PAGE}: options");
}

#[test]
fn the_synopsis_has_every_subcommand() {
    let page = read(&format!("docs/man/{PAGE}"));
    let (_, synopsis) = page.split_once(".Sh SYNOPSIS\n").expect("a page has a SYNOPSIS");
    let (synopsis, _) = synopsis.split_once(".Sh ").expect("more follows");
    let found: BTreeSet<_> = synopsis.lines().flat_map(|line| behind(line, "Ic")).collect();
    assert_eq!(found, subcommands());
}

#[test]
fn the_manual_has_every_exit_code_of_the_help() {
    let help = help(&[]);
    let (_, codes) = help.split_once("Exit codes: ").expect("the help has them");
    let codes = codes.lines().next().unwrap_or_default().split("; ");
    let codes: Vec<_> = codes.filter_map(|code| code.split(' ').next()).collect();
    let page = read(&format!("docs/man/{PAGE}"));
    let (_, list) = page.split_once(".Sh EXIT STATUS\n").expect("a page has EXIT STATUS");
    let (list, _) = list.split_once(".Sh ").expect("more follows");
    let found: Vec<_> = list.lines().filter_map(|line| line.strip_prefix(".It ")).collect();
    assert_eq!(found, codes);
}

fn code(name: &str) -> String {
    let code = read(&format!("crates/kvmnet/src/{name}.rs"));
    code.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// What `check` finds; and what of it is only sometimes there.
fn findings() -> (Vec<Template>, Vec<Template>) {
    let code = ["between", "firewalld", "host", "running"]
        .map(|name| code(&format!("check/{name}")))
        .concat();
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let code: String =
        code.lines().filter(|line| !is_comment(line)).map(|line| format!("{line}\n")).collect();
    let has_words = |text: &String| text.contains(' ') && text.contains(char::is_lowercase);
    let texts = literals(&code).into_iter().filter(has_words);
    let is_part = |text: &String| text.starts_with([' ', ',', ';']);
    let (parts, whole): (Vec<_>, Vec<_>) = texts.partition(is_part);
    let templates = |texts: Vec<String>| -> Vec<Template> {
        texts.iter().map(|text| Template::new("finding", text)).collect()
    };
    assert!(whole.len() > 10, "the sources are not read as they should be: {whole:?}");
    (templates(whole), templates(parts))
}

/// All that the command says: its own errors, those of core's that are in no other manual, and what
/// `check` finds.
fn sayings() -> Vec<Template> {
    let own = errors(&code("error"));
    assert!(own.len() > 4, "the source is not read as it should be: {own:?}");
    own.into_iter().chain(core::of_the_command()).chain(findings().0).collect()
}

#[test]
fn the_manual_has_all_that_the_command_says_and_nothing_else() {
    let entries: Vec<_> = diagnostics(PAGE).into_iter().map(|(_, text)| text).collect();
    let sayings = sayings();
    for saying in &sayings {
        let documented = entries.iter().any(|entry| saying.is_exactly(entry));
        assert!(documented, "DIAGNOSTICS of {PAGE} lack {saying:?}");
    }
    for entry in &entries {
        let said = sayings.iter().any(|saying| saying.is_exactly(entry));
        assert!(said, "nothing says this of {PAGE}: {entry}");
    }
    let (_, parts) = findings();
    let bracketed: Vec<&str> = entries
        .iter()
        .flat_map(|entry| entry.split('[').skip(1).filter_map(|rest| rest.split(']').next()))
        .collect();
    assert_eq!(parts.len(), bracketed.len(), "{parts:?}, {bracketed:?}");
    for part in &parts {
        let documented = bracketed.iter().any(|text| part.is_exactly(text));
        assert!(documented, "DIAGNOSTICS of {PAGE} lack, in brackets, {part:?}");
    }
}
