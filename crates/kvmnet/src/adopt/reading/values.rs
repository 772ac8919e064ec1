//! What words stand for: variables, arguments, and the few commands whose output is known.

use std::collections::HashMap;

use super::lexer::{self, Part, Word};
use super::parser::{self, Step};

/// In an expanded word: the tap, which QEMU names as the first argument. No script has a NUL in it.
pub const TAP: &str = "\0tap\0";
/// The interface that holds the default route.
pub const ROUTE: &str = "\0route\0";
/// What can't be told from the script alone.
pub const UNKNOWN: &str = "\0?\0";

/// Substitutions in substitutions.
const DEEPEST: usize = 4;
/// A value is a name or a list of them; one that holds itself twice, and again, grows without end.
const LONGEST: usize = 4096;

/// Variables and arguments.
#[derive(Debug, Clone, Default)]
pub struct Values {
    variables: HashMap<String, String>,
    /// `$1` and so on.
    pub arguments: Vec<String>,
    depth: usize,
}

impl Values {
    /// As QEMU calls a script: with the tap's name.
    #[must_use]
    pub fn of_script() -> Self {
        Self { arguments: vec![TAP.to_owned()], ..Self::default() }
    }

    /// Gives a variable its value. One that has another already, in some cases only, is not known from
    /// then on.
    pub fn assign(&mut self, name: &str, value: String, conditional: bool) {
        let differs = self.variables.get(name).is_some_and(|before| *before != value);
        // The usual ways to find a program, one after the other, are no choice of a network.
        let is_lost = (conditional && differs) || value.len() > LONGEST;
        let value = if is_lost { UNKNOWN.to_owned() } else { value };
        self.variables.insert(name.to_owned(), value);
    }

    /// A variable that a script looks at before it has given it a value comes from the environment.
    pub fn is_looked_at(&mut self, word: &Word) {
        for part in &word.parts {
            if let Part::Variable { name, .. } = part {
                if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    self.variables.entry(name.clone()).or_insert_with(|| UNKNOWN.to_owned());
                }
            }
        }
    }

    /// A word as the words that the shell makes of it.
    #[must_use]
    pub fn expand(&self, word: &Word) -> Vec<String> {
        if let [Part::Variable { name, rest, .. }] = word.parts.as_slice() {
            if rest.is_empty() && (name == "@" || name == "*") {
                return self.arguments.clone();
            }
        }
        let mut done = Vec::new();
        let mut current = word.quoted.then(String::new);
        for part in &word.parts {
            match part {
                Part::Text(text) => current.get_or_insert_default().push_str(text),
                Part::Variable { name, rest, quoted: true } => {
                    current.get_or_insert_default().push_str(&self.variable(name, rest));
                }
                Part::Variable { name, rest, quoted: false } => {
                    let value = self.variable(name, rest);
                    if value.starts_with(char::is_whitespace) {
                        done.extend(current.take());
                    }
                    for (n, field) in value.split_whitespace().enumerate() {
                        if n > 0 {
                            done.extend(current.take());
                        }
                        current.get_or_insert_default().push_str(field);
                    }
                    if value.ends_with(char::is_whitespace) {
                        done.extend(current.take());
                    }
                }
                Part::Substitution(source) => {
                    current.get_or_insert_default().push_str(&self.printed(source));
                }
            }
        }
        done.extend(current);
        done
    }

    /// A word as one.
    #[must_use]
    pub fn text(&self, word: &Word) -> String {
        self.expand(word).join(" ")
    }

    fn variable(&self, name: &str, rest: &str) -> String {
        let value = match name.parse::<usize>() {
            Ok(0) => Some(UNKNOWN.to_owned()),
            Ok(number) => Some(self.arguments.get(number - 1).cloned().unwrap_or_default()),
            Err(_) if name == "@" || name == "*" => Some(self.arguments.join(" ")),
            Err(_) => self.variables.get(name).cloned(),
        };
        let is_set = value.as_ref().is_some_and(|value| !value.is_empty());
        let of_environment = value.is_none();
        let value = value.unwrap_or_else(|| UNKNOWN.to_owned());
        let plain = |text: &str| {
            let simple = text.trim_matches('"');
            if simple.contains(['$', '`', '\\', '\'']) { UNKNOWN.to_owned() } else { simple.into() }
        };
        let behind = |signs: [&str; 2]| signs.into_iter().find_map(|sign| rest.strip_prefix(sign));
        if rest.is_empty() || behind([":?", "?"]).is_some() {
            value
        } else if let Some(other) = behind([":-", "-"]).or_else(|| behind([":=", "="])) {
            // From the environment, or else this.
            if is_set || of_environment { value } else { plain(other) }
        } else if let Some(other) = behind([":+", "+"]) {
            if is_set {
                plain(other)
            } else if of_environment {
                UNKNOWN.into()
            } else {
                String::new()
            }
        } else {
            UNKNOWN.to_owned()
        }
    }

    /// What a command in `$(…)` prints, where that is known.
    fn printed(&self, source: &str) -> String {
        self.known_output(source).unwrap_or_else(|| UNKNOWN.to_owned())
    }

    fn known_output(&self, source: &str) -> Option<String> {
        let words = self.commands(source)?;
        let first: Vec<&str> = words.first()?.iter().map(String::as_str).collect();
        match (super::program(first.first()?), &first[1..]) {
            ("command", ["-v", name]) | ("which", [name]) | ("type", ["-p" | "-P", name]) => {
                Some((*name).to_owned())
            }
            ("echo", [text]) if words.len() == 1 => Some((*text).to_owned()),
            ("ip" | "route" | "netstat", _) => {
                let routes = ["route", "r", "ro"].iter().any(|word| first.contains(word));
                let routes = routes || super::program(first[0]) != "ip";
                let default = words.iter().flatten().any(|word| {
                    ["default", "0.0.0.0", "UG"].iter().any(|text| word.contains(text))
                });
                (routes && default).then(|| ROUTE.to_owned())
            }
            _ => None,
        }
    }

    /// The commands of a substitution, none where they can't be read.
    #[must_use]
    pub fn commands(&self, source: &str) -> Option<Vec<Vec<String>>> {
        if self.depth >= DEEPEST {
            return None;
        }
        let inner = Self { depth: self.depth + 1, ..self.clone() };
        let script = parser::script(lexer::tokens(source).ok()?).ok()?;
        let mut commands = Vec::new();
        for step in &script.steps {
            let Step::Simple(simple) = step else { return None };
            let words = simple.words.iter().flat_map(|word| inner.expand(word)).collect();
            commands.push(words);
        }
        Some(commands)
    }
}
