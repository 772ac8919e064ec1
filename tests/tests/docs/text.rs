//! Texts in sources and in manual pages.

use crate::read;

/// A text of an error: the parts between its placeholders.
#[derive(Debug)]
pub struct Template {
    pub variant: String,
    pub parts: Vec<String>,
}

impl Template {
    pub fn new(variant: &str, text: &str) -> Self {
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
    pub fn is(&self, entry: &str) -> bool {
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

    /// Whether a line is this text with its placeholders filled; the cause may follow it.
    pub fn is_said(&self, line: &str) -> bool {
        let (first, others) = self.parts.split_first().expect("there is always a part");
        let Some(mut rest) = line.strip_prefix(first.as_str()) else { return false };
        for part in others {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        let has_words = self.parts.iter().any(|part| part.matches(' ').count() > 1);
        has_words
            && (rest.is_empty()
                || rest.starts_with(": ")
                || others.last().is_some_and(String::is_empty))
    }

    /// Whether an entry is this text to the letter, with words in capitals for the placeholders, or
    /// what is only sometimes there in brackets.
    pub fn is_exactly(&self, entry: &str) -> bool {
        let entry = entry.strip_suffix(": CAUSE").unwrap_or(entry);
        fill(&self.parts, entry)
    }
}

fn fill(parts: &[String], entry: &str) -> bool {
    let Some((first, others)) = parts.split_first() else { return false };
    let Some(rest) = entry.strip_prefix(first.as_str()) else { return false };
    if others.is_empty() {
        return rest.is_empty();
    }
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.into_iter().any(|end| is_filling(&rest[..end]) && fill(others, &rest[end..]))
}

fn is_filling(text: &str) -> bool {
    let in_brackets = text.starts_with('[') && text.ends_with(']');
    in_brackets || !text.contains(char::is_lowercase)
}

#[test]
fn templates_are_filled() {
    let template = Template::new("", "{a}: the route to {b}{c} covers {d}");
    for (entry, wanted) in [
        ("NET: the route to ROUTE[ over IF] covers SUBNET", true),
        ("NET: the route to ROUTE over IF covers SUBNET", false),
        ("NET: the routes to ROUTE[ over IF] covers SUBNET", false),
        ("NET: the route to ROUTE[ over IF] covers SUBNET, or not", false),
    ] {
        assert_eq!(template.is_exactly(entry), wanted, "{entry}");
    }
    assert!(!Template::new("", "network {}: {}").is_exactly("network NETWORK: is gone"));
}

/// The string literal at the beginning of `code`, and what is behind it.
pub fn literal(code: &str) -> Option<(String, &str)> {
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
pub fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some((text, behind)) = rest.find('"').and_then(|at| literal(&rest[at..])) {
        found.push(text);
        rest = behind;
    }
    found
}

/// The texts of the errors that a source declares.
pub fn errors(code: &str) -> Vec<Template> {
    let mut templates = Vec::new();
    for (at, _) in code.match_indices("#[error(") {
        let declared = code[..at].rfind("pub enum ").map(|at| &code[at + 9..]);
        let kind = declared.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        let Some((text, rest)) = literal(code[at + 8..].trim_start()) else {
            continue; // transparent
        };
        templates.push(Template::new(&format!("{kind}::{}", variant_behind(rest)), &text));
    }
    templates
}

fn variant_behind(rest: &str) -> String {
    let (_, rest) = rest.split_once(")]").expect("an attribute ends");
    rest.trim_start().chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// The DIAGNOSTICS of a manual page, such as `kvmnet-natup.8`: the section of each entry (a
/// program's name, or one for both), and its text.
#[track_caller]
pub fn diagnostics(page: &str) -> Vec<(String, String)> {
    let page = read(&format!("docs/man/{page}")).replace("\\\n", "");
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

fn unescape(text: &str) -> String {
    text.replace("\\(aq", "'").replace("\\(dq", "\"").replace("\\-", "-")
}
