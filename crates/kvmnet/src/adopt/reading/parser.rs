//! Tokens as simple commands in their order: what a script does, whichever way it takes through its
//! conditions.

use std::collections::HashMap;

use super::lexer::{Kind, Part, Token, Unreadable, Word};

/// A simple command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Simple {
    /// The line, from 1.
    pub line: usize,
    /// `NAME=` before the command, or without one.
    pub assignments: Vec<(String, Word)>,
    /// The command and its arguments.
    pub words: Vec<Word>,
    /// The files that it writes.
    pub written: Vec<Word>,
    /// What it is given on standard input, where that is a here-document.
    pub document: Option<Word>,
    /// Whether it reads what the command before prints.
    pub piped: bool,
    /// Whether it is done in some cases only.
    pub conditional: bool,
}

/// A step of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A command.
    Simple(Simple),
    /// `for NAME in WORDS`.
    For {
        /// The line, from 1.
        line: usize,
        /// The variable.
        name: String,
        /// What it is, one after the other.
        words: Vec<Word>,
    },
    /// `case WORD in`.
    Case {
        /// The line, from 1.
        line: usize,
        /// What decides.
        word: Word,
    },
}

/// A script: its steps, and those of its functions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// The steps outside functions.
    pub steps: Vec<Step>,
    /// Each function's.
    pub functions: HashMap<String, Vec<Step>>,
}

/// What is open.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Frame {
    If,
    Loop,
    Case,
    /// `{` or `(`, with what closes it.
    Group(&'static str),
    /// A function's body, with the steps before it, and what closes it.
    Function(String, Vec<Step>, &'static str),
}

/// Reads tokens as a script.
///
/// # Errors
/// [`Unreadable`].
pub fn script(tokens: Vec<Token>) -> Result<Script, Unreadable> {
    let mut parser = Parser {
        last: tokens.last().map_or(1, |token| token.line),
        tokens: tokens.into_iter().peekable(),
        script: Script::default(),
        frames: Vec::new(),
        piped: false,
        conditional: false,
    };
    while parser.tokens.peek().is_some() {
        parser.command()?;
    }
    if !parser.frames.is_empty() {
        return Err(Unreadable { line: parser.last, why: "something is open at the end" });
    }
    Ok(parser.script)
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    last: usize,
    script: Script,
    frames: Vec<Frame>,
    piped: bool,
    /// Behind `&&` or `||`.
    conditional: bool,
}

impl Parser {
    fn fail<T>(line: usize, why: &'static str) -> Result<T, Unreadable> {
        Err(Unreadable { line, why })
    }

    fn peek_operator(&mut self) -> Option<&'static str> {
        match self.tokens.peek() {
            Some(Token { kind: Kind::Operator(operator), .. }) => Some(operator),
            _ => None,
        }
    }

    fn skip(&mut self, operator: &str) -> bool {
        let is_there = self.peek_operator() == Some(operator);
        if is_there {
            self.tokens.next();
        }
        is_there
    }

    /// What begins here: a separator, a keyword, or a command.
    fn command(&mut self) -> Result<(), Unreadable> {
        let Some(token) = self.tokens.next() else { return Ok(()) };
        let line = token.line;
        match token.kind {
            Kind::Operator(operator) => self.operator(line, operator),
            Kind::Word(word) => match word.plain() {
                Some(keyword) if is_keyword(keyword) => {
                    let keyword = keyword.to_owned();
                    self.keyword(line, &keyword)
                }
                Some(name) if self.peek_operator() == Some("(") && is_name(name) => {
                    let name = name.to_owned();
                    self.tokens.next();
                    if !self.skip(")") {
                        return Self::fail(line, "brackets where a command's words are");
                    }
                    self.function(line, name)
                }
                _ => self.simple(line, Some(Kind::Word(word))),
            },
            kind @ (Kind::Redirection(..) | Kind::Document(_)) => self.simple(line, Some(kind)),
        }
    }

    fn operator(&mut self, line: usize, operator: &'static str) -> Result<(), Unreadable> {
        match operator {
            "(" => self.frames.push(Frame::Group(")")),
            ")" => self.close(line, ")")?,
            ";;" | ";;&" => {
                if self.frames.last() != Some(&Frame::Case) {
                    return Self::fail(line, "the end of a case outside any");
                }
                self.pattern(line)?;
            }
            "|" | "|&" => self.piped = true,
            "&&" | "||" => self.conditional = true,
            // An empty line does not end `a &&`.
            _ => {}
        }
        Ok(())
    }

    fn keyword(&mut self, line: usize, keyword: &str) -> Result<(), Unreadable> {
        match keyword {
            "if" => self.frames.push(Frame::If),
            "while" | "until" => self.frames.push(Frame::Loop),
            "{" => self.frames.push(Frame::Group("}")),
            "}" => self.close(line, "}")?,
            "fi" if self.frames.last() == Some(&Frame::If) => drop(self.frames.pop()),
            "done" if self.frames.last() == Some(&Frame::Loop) => drop(self.frames.pop()),
            "esac" if self.frames.last() == Some(&Frame::Case) => drop(self.frames.pop()),
            "fi" | "done" | "esac" => return Self::fail(line, "an end without its beginning"),
            "for" => return self.for_loop(line),
            "case" => return self.case(line),
            "function" => return self.named_function(line),
            // then, else, elif, do, !, time
            _ => {}
        }
        if matches!(keyword, "fi" | "done" | "esac" | "}") {
            self.redirections_of_a_group(line)?;
        }
        Ok(())
    }

    /// `done <file`, `} >log`: as of a command that does nothing.
    fn redirections_of_a_group(&mut self, line: usize) -> Result<(), Unreadable> {
        let next = self.tokens.peek().map(|token| &token.kind);
        if matches!(next, Some(Kind::Redirection(..) | Kind::Document(_))) {
            return self.simple(line, None);
        }
        Ok(())
    }

    fn close(&mut self, line: usize, with: &'static str) -> Result<(), Unreadable> {
        match self.frames.pop() {
            Some(Frame::Group(end)) if end == with => Ok(()),
            Some(Frame::Function(name, before, end)) if end == with => {
                let body = std::mem::replace(&mut self.script.steps, before);
                self.script.functions.insert(name, body);
                Ok(())
            }
            _ => Self::fail(line, "a bracket that closes nothing"),
        }?;
        if with == ")" { self.redirections_of_a_group(line) } else { Ok(()) }
    }

    fn named_function(&mut self, line: usize) -> Result<(), Unreadable> {
        let name = match self.tokens.next().map(|token| token.kind) {
            Some(Kind::Word(word)) => word.plain().map(str::to_owned),
            _ => None,
        };
        let Some(name) = name else { return Self::fail(line, "a function without a name") };
        if self.skip("(") && !self.skip(")") {
            return Self::fail(line, "brackets where a command's words are");
        }
        self.function(line, name)
    }

    fn function(&mut self, line: usize, name: String) -> Result<(), Unreadable> {
        while self.skip(";") {}
        let end = match self.tokens.next().map(|token| token.kind) {
            Some(Kind::Word(word)) if word.plain() == Some("{") => "}",
            Some(Kind::Operator("(")) => ")",
            _ => return Self::fail(line, "a function without a body"),
        };
        let before = std::mem::take(&mut self.script.steps);
        self.frames.push(Frame::Function(name, before, end));
        Ok(())
    }

    fn for_loop(&mut self, line: usize) -> Result<(), Unreadable> {
        let name = match self.tokens.next().map(|token| token.kind) {
            Some(Kind::Word(word)) => word.plain().map(str::to_owned),
            _ => None,
        };
        let Some(name) = name else { return Self::fail(line, "for without a variable") };
        let mut words = Vec::new();
        while let Some(Token { kind: Kind::Word(_), .. }) = self.tokens.peek() {
            if let Some(Token { kind: Kind::Word(word), .. }) = self.tokens.next() {
                words.push(word);
            }
        }
        if words.first().and_then(Word::plain) == Some("in") {
            words.remove(0);
        }
        self.script.steps.push(Step::For { line, name, words });
        self.frames.push(Frame::Loop);
        Ok(())
    }

    fn case(&mut self, line: usize) -> Result<(), Unreadable> {
        let Some(Token { kind: Kind::Word(word), .. }) = self.tokens.next() else {
            return Self::fail(line, "case without a word");
        };
        self.script.steps.push(Step::Case { line, word });
        while self.skip(";") {}
        match self.tokens.next().map(|token| token.kind) {
            Some(Kind::Word(word)) if word.plain() == Some("in") => {}
            _ => return Self::fail(line, "case without in"),
        }
        self.frames.push(Frame::Case);
        self.pattern(line)
    }

    /// A pattern of a case up to its bracket; or the end of the case.
    fn pattern(&mut self, line: usize) -> Result<(), Unreadable> {
        while self.skip(";") {}
        self.skip("(");
        loop {
            match self.tokens.peek().map(|token| &token.kind) {
                Some(Kind::Word(word)) if word.plain() == Some("esac") => return Ok(()),
                Some(Kind::Word(_) | Kind::Operator("|")) => drop(self.tokens.next()),
                Some(Kind::Operator(")")) => {
                    self.tokens.next();
                    return Ok(());
                }
                _ => return Self::fail(line, "a case that is not as it should be"),
            }
        }
    }

    fn is_conditional(&self) -> bool {
        // What a subshell sets, or ends, is its own.
        let of_frame = |frame: &Frame| {
            matches!(frame, Frame::If | Frame::Loop | Frame::Case | Frame::Group(")"))
        };
        self.conditional || self.frames.iter().any(of_frame)
    }

    fn simple(&mut self, line: usize, first: Option<Kind>) -> Result<(), Unreadable> {
        let conditional = self.is_conditional();
        let mut simple = Simple { line, piped: self.piped, conditional, ..Simple::default() };
        (self.piped, self.conditional) = (false, false);
        let mut next = first;
        loop {
            if let Some(kind) = next.take() {
                self.add(&mut simple, kind)?;
            }
            match self.tokens.peek().map(|token| &token.kind) {
                Some(Kind::Operator(_)) | None => break,
                Some(_) => next = self.tokens.next().map(|token| token.kind),
            }
        }
        self.script.steps.push(Step::Simple(simple));
        Ok(())
    }

    fn add(&mut self, simple: &mut Simple, kind: Kind) -> Result<(), Unreadable> {
        match kind {
            Kind::Word(word) => {
                let assignment = if simple.words.is_empty() { assignment(&word) } else { None };
                match assignment {
                    Some((name, mut value)) => {
                        if value == Word::default() && self.skip("(") {
                            // A list of bash's is nothing that could be followed.
                            value.parts.push(Part::Substitution(String::new()));
                            while !self.skip(")") {
                                if self.tokens.next().is_none() {
                                    return Self::fail(simple.line, "a list that does not end");
                                }
                            }
                        }
                        simple.assignments.push((name, value));
                    }
                    None => simple.words.push(word),
                }
            }
            Kind::Redirection(">&" | "<&", word) if is_descriptor(&word) => {}
            Kind::Redirection("<" | "<<<" | "<>" | "<&", _) => {}
            Kind::Redirection(_, word) => simple.written.push(word),
            Kind::Document(word) => simple.document = Some(word),
            Kind::Operator(_) => {}
        }
        Ok(())
    }
}

fn is_descriptor(word: &Word) -> bool {
    word.plain().is_some_and(|text| text == "-" || text.bytes().all(|b| b.is_ascii_digit()))
}

fn is_keyword(word: &str) -> bool {
    const KEYWORDS: &[&str] = &[
        "if", "then", "elif", "else", "fi", "for", "while", "until", "do", "done", "case", "esac",
        "{", "}", "!", "function", "time",
    ];
    KEYWORDS.contains(&word)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// `NAME=` or `NAME+=` at the beginning of a word.
fn assignment(word: &Word) -> Option<(String, Word)> {
    let Some(Part::Text(text)) = word.parts.first() else { return None };
    let (name, value) = text.split_once('=')?;
    let is_variable = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty()
        || !name.chars().all(is_variable)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    let mut parts = word.parts[1..].to_vec();
    if !value.is_empty() {
        parts.insert(0, Part::Text(value.to_owned()));
    }
    Some((name.to_owned(), Word { parts, quoted: word.quoted }))
}
