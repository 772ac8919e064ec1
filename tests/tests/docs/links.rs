//! What the documents name exists.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{DOCUMENTS, read, repository};

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
    let targets = |line: &str| line.split_once(':').map(|(names, _)| names.to_owned());
    let is_target = |word: &str| {
        makefile
            .lines()
            .filter_map(targets)
            .any(|names| names.split_whitespace().any(|name| name == word))
    };
    let mut named = BTreeSet::new();
    for document in DOCUMENTS {
        let code = code(&read(document));
        for line in code.lines().map(|line| line.split('#').next().unwrap_or_default()) {
            let words: Vec<_> = line.split_whitespace().collect();
            let Some(make) = words.iter().position(|&word| word == "make") else { continue };
            // Steps of kvmnet's are sentences: `1. make bridge …`
            let is_prose = words[..make].last().is_some_and(|word| word.ends_with(['.', ':', ';']));
            let targets = words[make + 1..].iter().filter(|word| !is_prose && !word.contains('='));
            named.extend(targets.map(|&target| target.to_owned()));
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

/// What GitHub makes of a heading, for links to lead to.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || ['-', '_', ' '].contains(c);
    heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

#[test]
fn links_lead_to_headings() {
    let mut count = 0;
    for document in DOCUMENTS {
        let text = read(document);
        let directory = Path::new(document).parent().expect("a file is in a directory");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let Some((path, wanted)) = link.split_once('#') else { continue };
            if link.starts_with("https://") {
                continue;
            }
            let target = if path.is_empty() {
                text.clone()
            } else {
                read(directory.join(path).to_str().expect("it is ASCII"))
            };
            let mut headings = target.lines().filter(|line| line.starts_with('#'));
            let found = headings.any(|line| anchor(line.trim_start_matches('#')) == wanted);
            assert!(found, "{document}: {link}");
            count += 1;
        }
    }
    assert!(count > 20, "the documents are not read as they should be");
}

/// Of the paths in the sources that the documents name, none is gone, nor is a test that is named with one
/// (`FILE.rs: TEST`).
#[test]
fn named_sources_exist() {
    let sources =
        ["kvmnet-core", "kvmnet-iptables", "kvmnet"].map(|name| format!("crates/{name}/src"));
    let tests = ["", "tests", "tests/tests", "crates/kvmnet-fake/tests"].map(str::to_owned);
    let roots = [&tests[..], &sources].concat();
    let mut tests = 0;
    for document in DOCUMENTS {
        for span in read(document).split('`').skip(1).step_by(2) {
            let (path, test) = span.split_once(": ").unwrap_or((span, ""));
            if !path.ends_with(".rs") && !path.starts_with("crates/") {
                continue;
            }
            let mut paths = roots.iter().map(|root| format!("{root}/{path}"));
            let found = paths.find(|path| repository().join(path.trim_start_matches('/')).exists());
            let found = found.unwrap_or_else(|| panic!("{document}: {span}"));
            if !test.is_empty() {
                let text = read(found.trim_start_matches('/'));
                assert!(text.contains(&format!("fn {test}()")), "{document}: {span}");
                tests += 1;
            }
        }
    }
    assert!(tests > 15, "the tests that are named aren't read: {tests}");
}
