//! Goes through a script's commands in their order, functions where they are called.

use super::lexer::{Part, Word};
use super::parser::{Script, Simple, Step};
use super::values::{UNKNOWN, Values};
use super::{Reading, Remark, links, others, program, rules, shown};

/// Functions that call functions.
const DEEPEST: usize = 12;
/// All commands together, those of functions each time that they are called.
const LONGEST: usize = 20_000;

/// What a command turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It changes nothing, or nothing that matters here, or it was taken down.
    Understood,
    /// It is left out on purpose, for this reason.
    LeftOut(&'static str),
    /// It belongs to a server for DHCP.
    Dhcp,
    /// It isn't what kvmnet does, or isn't known, for this reason.
    Problem(String),
}

impl Found {
    /// A problem with a plain reason.
    pub fn problem(why: &str) -> Self {
        Self::Problem(why.to_owned())
    }
}

/// A command as the shell runs it.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// The program and its arguments, without `sudo` and its like.
    pub words: &'a [&'a str],
    /// A here-document that it reads.
    pub document: Option<&'a str>,
    /// The words of the command whose output it reads.
    pub piped: Option<&'a [String]>,
}

struct Walk<'a> {
    text: &'a str,
    script: &'a Script,
    reading: &'a mut Reading,
    steps: usize,
    last: Vec<String>,
    /// What something is done to besides the tap, and where.
    touched: Vec<(usize, String)>,
    /// It has come to its end, whatever stands behind that.
    ended: bool,
}

/// Goes through a script.
pub fn walk(text: &str, script: &Script, reading: &mut Reading) {
    let mut walk = Walk {
        text,
        script,
        reading,
        steps: 0,
        last: Vec::new(),
        touched: Vec::new(),
        ended: false,
    };
    walk.steps(&script.steps, &mut Values::of_script(), 0, false);
    if walk.steps > LONGEST {
        walk.remark(1, Found::problem("is too long to be followed"));
    }
    walk.devices();
}

impl Walk<'_> {
    fn remark(&mut self, line: usize, found: Found) {
        let text = shown(self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default());
        let remark = |why: &str| Remark { line, text: text.clone(), why: why.to_owned() };
        match found {
            Found::Understood => {}
            Found::LeftOut(why) => self.reading.left_out.push(remark(why)),
            Found::Dhcp => self.reading.dhcp.push(remark("")),
            Found::Problem(why) => self.reading.problems.push(remark(&why)),
        }
    }

    /// Whatever isn't the tap has to be the bridge.
    fn devices(&mut self) {
        let bridges: Vec<String> = self.reading.bridges().into_iter().map(str::to_owned).collect();
        for (line, device) in std::mem::take(&mut self.touched) {
            if !bridges.contains(&device) {
                let why =
                    format!("does something to {device}, which is neither the tap nor its bridge");
                self.remark(line, Found::Problem(why));
            }
        }
    }

    fn steps(&mut self, steps: &[Step], values: &mut Values, depth: usize, conditional: bool) {
        for step in steps {
            self.steps += 1;
            if self.steps > LONGEST || self.ended {
                return;
            }
            match step {
                Step::Simple(simple) => self.simple(simple, values, depth, conditional),
                Step::For { line, name, words } => {
                    let mut all = words.iter().flat_map(|word| values.expand(word));
                    let (first, second) = (all.next(), all.next());
                    drop(all);
                    let value = match (first, second) {
                        (Some(one), None) => one,
                        _ => UNKNOWN.to_owned(),
                    };
                    for word in words {
                        self.substitutions(*line, word, values);
                    }
                    values.assign(name, value, false);
                }
                Step::Case { line, .. } => {
                    self.remark(*line, Found::problem("what it does depends on a case"));
                }
            }
        }
    }

    fn simple(&mut self, simple: &Simple, values: &mut Values, depth: usize, conditional: bool) {
        let conditional = conditional || simple.conditional;
        let all = simple.words.iter().chain(simple.assignments.iter().map(|(_, word)| word));
        for word in all {
            self.substitutions(simple.line, word, values);
        }
        let words: Vec<String> = simple.words.iter().flat_map(|word| values.expand(word)).collect();
        for (name, value) in &simple.assignments {
            let value = values.text(value);
            values.assign(name, value, conditional);
        }
        let last = std::mem::take(&mut self.last);
        self.last.clone_from(&words);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let words = without_prefixes(&words);
        let written: Vec<String> = simple.written.iter().map(|word| values.text(word)).collect();
        for path in &written {
            let found = others::written(path, words, self.reading);
            self.remark(simple.line, found);
        }
        let Some(&first) = words.first() else { return };
        if let Some(body) = self.script.functions.get(first) {
            if depth >= DEEPEST {
                self.remark(simple.line, Found::problem("functions that call functions"));
                return;
            }
            let mut inner = values.clone();
            inner.arguments = words[1..].iter().map(|&word| word.to_owned()).collect();
            self.steps(body, &mut inner, depth + 1, conditional);
            // Its variables are the script's; its arguments are its own.
            inner.arguments = std::mem::take(&mut values.arguments);
            *values = inner;
            return;
        }
        if matches!(program(first), "export" | "local" | "readonly" | "declare" | "typeset") {
            self.declare(simple, values, conditional);
            return;
        }
        if matches!(program(first), "[" | "test" | "[[") {
            for word in simple.words.iter().skip(1) {
                values.is_looked_at(word);
            }
        }
        self.ended |= first == "exit" && !conditional;
        let document = simple.document.as_ref().map(|word| values.text(word));
        let command =
            Command { words, document: document.as_deref(), piped: simple.piped.then_some(&last) };
        let found = judge(command, self.reading);
        self.remark(simple.line, found);
        let touched = std::mem::take(&mut self.reading.touched);
        self.touched.extend(touched.into_iter().map(|device| (simple.line, device)));
    }

    /// `export NAME=VALUE`, whose value the lexer has left in the word.
    fn declare(&mut self, simple: &Simple, values: &mut Values, conditional: bool) {
        for word in simple.words.iter().skip(1) {
            if let Some((name, value)) = values.text(word).split_once('=') {
                values.assign(name, value.to_owned(), conditional);
            } else if let Some(Part::Text(name)) = word.parts.first() {
                // A local variable has none yet.
                if program(&self.last[0]) == "local" {
                    values.assign(name, String::new(), conditional);
                }
            }
        }
    }

    /// What is in `$(…)` is run, too.
    fn substitutions(&mut self, line: usize, word: &Word, values: &Values) {
        for part in &word.parts {
            let Part::Substitution(source) = part else { continue };
            let commands = values.commands(source).unwrap_or_else(|| vec![vec![source.clone()]]);
            for words in commands {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let words = without_prefixes(&words);
                let command = Command { words, document: None, piped: None };
                let mut inner = Reading::default();
                let found = if words
                    .first()
                    .is_some_and(|name| self.script.functions.contains_key(*name))
                {
                    Found::problem("the output of a function")
                } else {
                    judge(command, &mut inner)
                };
                match found {
                    Found::Problem(why) => self.remark(line, Found::Problem(why)),
                    _ if inner != Reading::default() => {
                        let why = "does something where its output is wanted";
                        self.remark(line, Found::problem(why));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Without what only runs what stands behind it.
fn without_prefixes<'a>(words: &'a [&'a str]) -> &'a [&'a str] {
    let mut words = words;
    while let Some((first, rest)) = words.split_first() {
        match program(first) {
            "sudo" | "doas" | "exec" | "nohup" | "env" | "nice" | "busybox" | "builtin" => {
                let options =
                    rest.iter().take_while(|word| word.starts_with('-') && word.len() == 2);
                words = &rest[options.count()..];
            }
            "command" if rest.first().is_some_and(|word| !word.starts_with('-')) => words = rest,
            _ => break,
        }
    }
    words
}

fn judge(command: Command, reading: &mut Reading) -> Found {
    let Some((&first, arguments)) = command.words.split_first() else { return Found::Understood };
    let name = program(first);
    match name {
        "ip" => links::ip(arguments, reading),
        "brctl" => links::brctl(arguments, reading),
        "ifconfig" => links::ifconfig(arguments, reading),
        "tunctl" => Found::LeftOut("QEMU makes the tap"),
        "iptables" | "iptables-nft" | "iptables-legacy" => rules::iptables(arguments, reading),
        "iptables-restore" | "iptables-nft-restore" | "iptables-legacy-restore" => {
            rules::restore(command, reading)
        }
        "nft" => rules::nft(command, reading),
        "sysctl" => others::sysctl(arguments, reading),
        _ => others::other(name, command, reading),
    }
}
