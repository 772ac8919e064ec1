//! What a script does, found by reading it. Nothing of it is run.
//!
//! All of a script counts, whichever way it takes through its conditions: what it does in some cases
//! it does. A condition that isn't about whether something is there already makes a difference that
//! can't be told from here, and so stands in the way.

mod lexer;
mod links;
mod others;
mod parser;
mod rules;
#[cfg(test)]
mod tests;
mod values;
mod walk;

use std::net::Ipv4Addr;

pub use links::prefix_of;
pub use values::{ROUTE, UNKNOWN};

/// A script is a page, not a book; in bytes.
pub const LARGEST: usize = 64 * 1024;

/// A line and what there is to say of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The line, from 1.
    pub line: usize,
    /// The line as it stands there.
    pub text: String,
    /// What there is to say.
    pub why: String,
}

/// An address that a bridge is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: Ipv4Addr,
    /// The subnet's prefix length; none where the script leaves that to the command.
    pub prefix: Option<u8>,
}

/// Whom a script masquerades.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    /// The addresses; none for everybody.
    pub source: Option<String>,
    /// The interface by which they leave, where the rule names it.
    pub over: Option<String>,
}

/// What a script does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The bridges that it puts the tap on.
    pub joins: Vec<String>,
    /// Those that it takes it off.
    pub leaves: Vec<String>,
    /// Those that it makes.
    pub makes: Vec<String>,
    /// Those that it deletes.
    pub deletes: Vec<String>,
    /// The addresses that it gives to bridges.
    pub addresses: Vec<(String, Address)>,
    /// Whom it masquerades.
    pub masquerades: Vec<Masquerade>,
    /// Whether it turns forwarding on.
    pub forwards: bool,
    /// MTUs that it sets.
    pub mtus: Vec<u32>,
    /// Where it starts a server for DHCP.
    pub dhcp: Vec<Remark>,
    /// What it does and kvmnet doesn't, on purpose.
    pub left_out: Vec<Remark>,
    /// What isn't understood, or isn't what kvmnet does.
    pub problems: Vec<Remark>,
    /// What it does something to, besides the tap, since that was last asked for.
    touched: Vec<String>,
}

impl Reading {
    /// The bridges that it is about: those that the tap is a port of, or else those that it makes or
    /// deletes.
    #[must_use]
    pub fn bridges(&self) -> Vec<&str> {
        let ports = self.joins.iter().chain(&self.leaves).filter(|name| *name != UNKNOWN);
        let mut names: Vec<&str> = ports.map(String::as_str).collect();
        if names.is_empty() {
            names = self.makes.iter().chain(&self.deletes).map(String::as_str).collect();
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Something is done to a device that isn't the tap.
    fn touch(&mut self, device: &str) {
        self.touched.push(device.to_owned());
    }
}

/// Reads a script.
#[must_use]
pub fn read(text: &str) -> Reading {
    let mut reading = Reading::default();
    if let Some(why) = unreadable(text) {
        let first = text.lines().next().unwrap_or_default();
        let text = if text.contains('\0') { String::new() } else { shown(first) };
        reading.problems.push(Remark { line: 1, text, why: why.to_owned() });
        return reading;
    }
    let script = lexer::tokens(text).and_then(parser::script);
    match script {
        Ok(script) => walk::walk(text, &script, &mut reading),
        Err(lexer::Unreadable { line, why }) => {
            let text = shown(text.lines().nth(line.saturating_sub(1)).unwrap_or_default());
            reading.problems.push(Remark { line, text, why: format!("cannot be read: {why}") });
        }
    }
    for remarks in [&mut reading.dhcp, &mut reading.left_out, &mut reading.problems] {
        remarks.sort();
        remarks.dedup();
    }
    for names in [&mut reading.joins, &mut reading.leaves, &mut reading.makes, &mut reading.deletes]
    {
        names.sort();
        names.dedup();
    }
    reading
}

fn unreadable(text: &str) -> Option<&'static str> {
    if text.contains('\0') {
        return Some("is no text");
    }
    if text.len() > LARGEST {
        return Some("is larger than 64 KiB: no script of the kind that is known here");
    }
    let shell = text.strip_prefix("#!")?.lines().next()?;
    let words = shell.split_whitespace().map(program);
    let shells = ["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"];
    let mut words = words.skip_while(|word| *word == "env");
    let is_shell = words.next().is_some_and(|word| shells.contains(&word));
    (!is_shell).then_some("is written for another program than a shell")
}

/// A line of a script as it is shown: without what surrounds it, and not endless.
fn shown(line: &str) -> String {
    const WIDTH: usize = 90;
    let line = line.trim();
    match line.char_indices().nth(WIDTH) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    }
}

/// A program's name without its directory.
fn program(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether that is a name that nothing has to be known for.
fn is_known(text: &str) -> bool {
    !text.contains('\0')
}

/// Whether that can be a bridge: a name, or the one with the default route.
fn is_bridge(text: &str) -> bool {
    text == ROUTE || (is_known(text) && !text.is_empty() && !text.starts_with('-'))
}
