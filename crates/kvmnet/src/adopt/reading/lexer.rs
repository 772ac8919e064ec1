//! A script's text as tokens of the shell: words, operators, redirections.
//!
//! A parser of the whole language would be a library's to bring. Those that there are either say
//! nothing of line numbers or take no end on some input; what is wanted here is little: no more than
//! old scripts for taps are made of, and everything else told as not understood.

/// Nothing that has to do with a tap nests deeper.
const DEEPEST: usize = 64;

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands there, without its quotes.
    Text(String),
    /// `$NAME`, or `${NAME:-ELSE}` with what stands behind the name.
    Variable {
        /// The name, or a digit, or `@`, `#` and their like.
        name: String,
        /// What stands in the braces behind the name.
        rest: String,
        /// Whether it stands in double quotes.
        quoted: bool,
    },
    /// What a command prints.
    Substitution(String),
}

/// A word: its pieces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// The pieces in their order.
    pub parts: Vec<Part>,
    /// Whether any of it was in quotes, so that it is no keyword, and a word even where it is empty.
    pub quoted: bool,
}

impl Word {
    /// The text of a word that is nothing but unquoted text.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text(text)] if !self.quoted => Some(text),
            _ => None,
        }
    }
}

/// What a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A word.
    Word(Word),
    /// `;`, `&&`, `|`, `(` and so on; a line's end is `;`.
    Operator(&'static str),
    /// A redirection: `>`, `>>`, `<` and where to; of a number before it only whether it is 0 or 1.
    Redirection(&'static str, Word),
    /// A here-document, without its end.
    Document(Word),
}

/// A token and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The line that it begins on, from 1.
    pub line: usize,
    /// What it is.
    pub kind: Kind,
}

/// Text that is no shell script: the line, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub why: &'static str,
}

/// Longer ones first.
const OPERATORS: [&str; 10] = [";;&", ";;", "&&", "||", "|&", ";", "&", "|", "(", ")"];
const REDIRECTIONS: [&str; 10] = ["&>>", "&>", ">>", ">&", ">|", "<<<", "<&", "<>", ">", "<"];

/// Reads a script as tokens.
///
/// # Errors
/// [`Unreadable`].
pub fn tokens(text: &str) -> Result<Vec<Token>, Unreadable> {
    let mut lexer = Lexer { rest: text, line: 1, tokens: Vec::new(), documents: Vec::new() };
    while !lexer.rest.is_empty() {
        lexer.token()?;
    }
    lexer.end_of_line()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
    /// Here-documents whose text is yet to come: the token, the end, whether it is taken as it
    /// stands, whether tabs go.
    documents: Vec<(usize, String, bool, bool)>,
}

impl<'a> Lexer<'a> {
    fn fail<T>(&self, why: &'static str) -> Result<T, Unreadable> {
        Err(Unreadable { line: self.line, why })
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.bytes().filter(|&byte| byte == b'\n').count();
        self.rest = rest;
        taken
    }

    fn skip(&mut self, prefix: &str) -> bool {
        let is_there = self.rest.starts_with(prefix);
        if is_there {
            self.take(prefix.len());
        }
        is_there
    }

    fn push(&mut self, line: usize, kind: Kind) {
        self.tokens.push(Token { line, kind });
    }

    fn token(&mut self) -> Result<(), Unreadable> {
        let line = self.line;
        if self.skip("\\\n") || self.skip(" ") || self.skip("\t") || self.skip("\r") {
            return Ok(());
        }
        if self.rest.starts_with('#') {
            let end = self.rest.find('\n').unwrap_or(self.rest.len());
            self.take(end);
            return Ok(());
        }
        if self.rest.starts_with('\n') {
            self.push(line, Kind::Operator(";"));
            self.take(1);
            return self.end_of_line();
        }
        if let Some((operator, number)) = self.redirection() {
            self.take(number);
            return self.redirect(line, operator);
        }
        if let Some(operator) = OPERATORS.into_iter().find(|&text| self.rest.starts_with(text)) {
            self.take(operator.len());
            self.push(line, Kind::Operator(operator));
            return Ok(());
        }
        let word = self.word()?;
        self.push(line, Kind::Word(word));
        Ok(())
    }

    /// A redirection's operator, and how many bytes it takes with the number before it.
    fn redirection(&self) -> Option<(&'static str, usize)> {
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let behind = &self.rest[digits..];
        if behind.starts_with("<<") && !behind.starts_with("<<<") {
            return Some(("<<", digits + 2));
        }
        let operator = REDIRECTIONS.into_iter().find(|&text| behind.starts_with(text))?;
        Some((operator, digits + operator.len()))
    }

    fn redirect(&mut self, line: usize, operator: &'static str) -> Result<(), Unreadable> {
        let tabs = operator == "<<" && self.skip("-");
        while self.skip(" ") || self.skip("\t") || self.skip("\\\n") {}
        let target = self.word()?;
        if operator != "<<" {
            self.push(line, Kind::Redirection(operator, target));
            return Ok(());
        }
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Variable { name, .. } => format!("${name}"),
            Part::Substitution(text) => text.clone(),
        };
        let end: String = target.parts.iter().map(text).collect();
        if end.is_empty() {
            return self.fail("a here-document without an end");
        }
        self.documents.push((self.tokens.len(), end, target.quoted, tabs));
        self.push(line, Kind::Document(Word::default()));
        Ok(())
    }

    /// The here-documents that were announced on the line before.
    fn end_of_line(&mut self) -> Result<(), Unreadable> {
        for (token, end, as_it_stands, tabs) in std::mem::take(&mut self.documents) {
            let mut text = String::new();
            loop {
                if self.rest.is_empty() {
                    return self.fail("a here-document that does not end");
                }
                let length = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
                let line = self.take(length);
                let line = if tabs { line.trim_start_matches('\t') } else { line };
                if line.trim_end_matches(['\n', '\r']) == end {
                    break;
                }
                text.push_str(line);
            }
            let document = if as_it_stands {
                Word { parts: vec![Part::Text(text)], quoted: true }
            } else {
                // It is read like what stands in double quotes, but for the quotes themselves.
                let line = self.tokens.get(token).map_or(self.line, |token| token.line);
                let mut inner =
                    Lexer { rest: &text, line, tokens: Vec::new(), documents: Vec::new() };
                let mut word = Word { parts: Vec::new(), quoted: true };
                while !inner.rest.is_empty() {
                    inner.piece(&mut word, true)?;
                }
                word
            };
            if let Some(token) = self.tokens.get_mut(token) {
                token.kind = Kind::Document(document);
            }
        }
        Ok(())
    }

    fn word(&mut self) -> Result<Word, Unreadable> {
        let mut word = Word::default();
        while let Some(next) = self.rest.chars().next() {
            match next {
                ' ' | '\t' | '\n' | '\r' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                '\'' => {
                    self.take(1);
                    let Some(end) = self.rest.find('\'') else {
                        return self.fail("a quote that does not end");
                    };
                    let text = self.take(end).to_owned();
                    self.take(1);
                    word.quoted = true;
                    append(&mut word, &text);
                }
                '"' => {
                    self.take(1);
                    word.quoted = true;
                    while !self.skip("\"") {
                        if self.rest.is_empty() {
                            return self.fail("a quote that does not end");
                        }
                        self.piece(&mut word, true)?;
                    }
                }
                _ => self.piece(&mut word, false)?,
            }
        }
        if word == Word::default() && !self.rest.is_empty() {
            // Only behind a redirection: there is no word.
            return self.fail("a redirection to nowhere");
        }
        Ok(word)
    }

    /// A character, an escape or an expansion, in double quotes or outside.
    fn piece(&mut self, word: &mut Word, quoted: bool) -> Result<(), Unreadable> {
        if self.skip("\\\n") {
            return Ok(());
        }
        let mut characters = self.rest.chars();
        match (characters.next(), characters.next()) {
            (Some('\\'), Some(next)) if !quoted || "$`\"\\".contains(next) => {
                self.take(1);
                let text = self.take(next.len_utf8());
                word.quoted = true;
                append(word, text);
            }
            (Some('`'), _) => {
                self.take(1);
                let Some(end) = self.rest.find('`') else {
                    return self.fail("a command in backquotes that does not end");
                };
                let text = self.take(end).to_owned();
                self.take(1);
                word.parts.push(Part::Substitution(text));
            }
            (Some('$'), Some('(')) => {
                self.take(2);
                let text = self.closed('(', ')')?;
                word.parts.push(Part::Substitution(text));
            }
            (Some('$'), Some('{')) => {
                self.take(2);
                let text = self.closed('{', '}')?;
                word.parts.push(variable(&text, quoted));
            }
            (Some('$'), Some(next))
                if next.is_ascii_alphanumeric() || "_@*#?$!-".contains(next) =>
            {
                self.take(1);
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let length = if next.is_ascii_alphabetic() || next == '_' {
                    self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len())
                } else {
                    1
                };
                let name = self.take(length).to_owned();
                word.parts.push(Part::Variable { name, rest: String::new(), quoted });
            }
            (Some(first), _) => {
                let text = self.take(first.len_utf8());
                append(word, text);
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// What stands before the bracket that closes one which has been read.
    fn closed(&mut self, open: char, close: char) -> Result<String, Unreadable> {
        let (mut depth, mut quote, mut escaped) = (1_usize, None, false);
        for (at, character) in self.rest.char_indices() {
            if escaped {
                escaped = false;
            } else if let Some(end) = quote {
                escaped = character == '\\' && end == '"';
                if character == end {
                    quote = None;
                }
            } else if character == '\\' {
                escaped = true;
            } else if character == '\'' || character == '"' {
                quote = Some(character);
            } else if character == open {
                depth += 1;
                if depth > DEEPEST {
                    return self.fail("brackets in brackets in brackets");
                }
            } else if character == close {
                depth -= 1;
                if depth == 0 {
                    let text = self.take(at).to_owned();
                    self.take(close.len_utf8());
                    return Ok(text);
                }
            }
        }
        self.fail("a bracket that is not closed")
    }
}

fn append(word: &mut Word, text: &str) {
    if let Some(Part::Text(last)) = word.parts.last_mut() {
        last.push_str(text);
    } else {
        word.parts.push(Part::Text(text.to_owned()));
    }
}

/// `NAME` with what else stands in the braces.
fn variable(text: &str, quoted: bool) -> Part {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let end = if end == 0 { text.chars().next().map_or(0, char::len_utf8) } else { end };
    let (name, rest) = text.split_at(end);
    Part::Variable { name: name.to_owned(), rest: rest.to_owned(), quoted }
}
