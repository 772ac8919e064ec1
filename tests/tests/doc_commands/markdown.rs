//! Markdown: fenced blocks, tables, and inline code that is a command.

use crate::document::{Content, Expect, Piece, Step, commands, console, is_command};
use crate::mark::Mark;

/// Where a fenced block, a table or a paragraph stands, and the mark before it.
struct Reader<'a> {
    document: &'a str,
    mark: Option<Mark>,
    pieces: Vec<Piece>,
    wrong: Vec<String>,
}

/// All pieces of a document, or what is wrong with it.
pub fn pieces(document: &str, text: &str) -> Result<Vec<Piece>, Vec<String>> {
    let mut reader = Reader { document, mark: None, pieces: Vec::new(), wrong: Vec::new() };
    let lines: Vec<_> = text.lines().collect();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim_start();
        let from = at;
        at += 1;
        if line.is_empty() {
            continue;
        } else if let Some(language) = line.strip_prefix("```") {
            at += lines[at..].iter().take_while(|line| line.trim_start() != "```").count() + 1;
            let indent = lines[from].len() - line.len();
            let inside = &lines[from + 1..(at - 1).min(lines.len())];
            let block: String = inside
                .iter()
                .map(|line| format!("{}\n", line.get(indent..).unwrap_or("")))
                .collect();
            reader.block(from, language, &block);
        } else if let Some(comment) = line.strip_prefix("<!-- ") {
            let comment = comment.trim_end().strip_suffix(" -->").unwrap_or_default();
            reader.comment(from, comment);
        } else {
            while at < lines.len() && continues(lines[from], lines[at]) {
                at += 1;
            }
            if line.starts_with('|') {
                reader.table(from, &lines[from..at]);
            } else {
                reader.paragraph(from, &lines[from..at]);
            }
        }
    }
    reader.done(lines.len());
    if reader.wrong.is_empty() { Ok(reader.pieces) } else { Err(reader.wrong) }
}

/// Whether a line goes on with the paragraph or the table above it.
fn continues(first: &str, line: &str) -> bool {
    let is_table = |line: &str| line.trim_start().starts_with('|');
    let line = line.trim_start();
    let begins = ["```", "<!--", "- ", "#"].iter().any(|start| line.starts_with(start));
    let numbered = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u8>().is_ok());
    !line.is_empty() && !begins && !numbered && is_table(first) == is_table(line)
}

impl Reader<'_> {
    fn complain(&mut self, line: usize, what: &str) {
        self.wrong.push(format!("{}:{}: {what}", self.document, line + 1));
    }

    fn comment(&mut self, line: usize, comment: &str) {
        if self.mark.is_some() {
            self.complain(line, "the mark before this one has nothing to run");
        }
        match Mark::parse(comment) {
            Ok(mark) => self.mark = Some(mark),
            Err(what) => self.complain(line, &what),
        }
    }

    fn done(&mut self, line: usize) {
        if self.mark.take().is_some() {
            self.complain(line, "a mark, and nothing to run behind it");
        }
    }

    /// Takes the mark for something that needs one.
    fn push(&mut self, line: usize, content: Content) {
        let at = format!("{}:{}", self.document, line + 1);
        match (self.mark.take(), &content) {
            (None, _) => self.complain(line, "no mark says on what this is run: `<!-- run: … -->`"),
            (Some(Mark::File(_)), Content::Commands(_)) => self.complain(line, "is no file"),
            (Some(Mark::Run { .. } | Mark::AsBefore), Content::File(_)) => {
                self.complain(line, "is a file: `<!-- file: NAME -->`");
            }
            (Some(mark), _) => self.pieces.push(Piece { at, mark, content }),
        }
    }

    fn block(&mut self, line: usize, language: &str, block: &str) {
        match language {
            "sh" => self.push(line, Content::Commands(commands(block))),
            "console" => self.push(line, Content::Commands(console(block))),
            "toml" | "ini" | "xml" | "yaml" => self.push(line, Content::File(block.to_owned())),
            // A picture, or the text of a table.
            "" => {
                self.done(line);
                let typed = |line: &&str| {
                    let is_indented = line.starts_with([' ', '\t']);
                    let has_prompt = line.starts_with("# ") || line.starts_with("$ ");
                    has_prompt || !is_indented && is_command(line)
                };
                if let Some(command) = block.lines().find(typed) {
                    self.complain(line, &format!("```sh or ```console, for {command:?}"));
                }
            }
            _ => self.complain(line, &format!("no test knows what to do with ```{language}")),
        }
    }

    fn table(&mut self, line: usize, rows: &[&str]) {
        let mut steps = Vec::new();
        for row in rows {
            if !row.contains("(not run: ") {
                steps.extend(
                    spans(row)
                        .into_iter()
                        .filter(|(span, _)| is_command(span))
                        .map(|(command, behind)| Step { command, expect: claimed(&behind) }),
                );
            }
        }
        self.inline(line, steps);
    }

    fn paragraph(&mut self, line: usize, lines: &[&str]) {
        let text = lines.join(" ");
        let is_run = |behind: &str| {
            let next = behind.split('`').next().unwrap_or_default();
            !next.contains("(not run: ")
        };
        let steps =
            spans(&text).into_iter().filter(|(span, behind)| is_command(span) && is_run(behind));
        let step = |(command, _)| Step { command, expect: Expect::Success };
        self.inline(line, steps.map(step).collect());
    }

    fn inline(&mut self, line: usize, steps: Vec<Step>) {
        if steps.is_empty() {
            self.done(line);
        } else {
            self.push(line, Content::Commands(steps));
        }
    }
}

/// Inline code, each with the text behind it.
fn spans(text: &str) -> Vec<(String, String)> {
    let mut spans = Vec::new();
    let mut rest = text;
    while let Some((_, from)) = rest.split_once('`') {
        let Some((span, behind)) = from.split_once('`') else { break };
        let one_line = span.split_whitespace().collect::<Vec<_>>().join(" ");
        spans.push((one_line, behind.to_owned()));
        rest = behind;
    }
    spans
}

/// What a row of a table says of a command: the inline code behind it, up to the next command, is
/// printed.
fn claimed(behind: &str) -> Expect {
    if behind.contains("**no rule**") {
        return Expect::NoRule;
    }
    let words = spans(behind).into_iter().map(|(span, _)| span);
    let words: Vec<_> = words.take_while(|span| !is_command(span)).collect();
    if words.is_empty() { Expect::Success } else { Expect::Words(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = (String, Mark, Vec<Step>);

    fn read(text: &str) -> Result<Vec<Read>, Vec<String>> {
        let steps = |content| match content {
            Content::Commands(steps) => steps,
            Content::File(text) => vec![Step { command: text, expect: Expect::Success }],
        };
        let pieces = pieces("x", text)?;
        Ok(pieces.into_iter().map(|piece| (piece.at, piece.mark, steps(piece.content))).collect())
    }

    fn step(command: &str) -> Step {
        Step { command: command.to_owned(), expect: Expect::Success }
    }

    #[test]
    fn what_has_no_mark_or_a_wrong_one() {
        for (text, wrong) in [
            ("```sh\nls -l\n```\n", "x:1: no mark"),
            ("```toml\na = 1\n```\n", "x:1: no mark"),
            ("```json\n1\n```\n", "x:1: no test knows"),
            ("```yaml\na: 1\n```\n", "x:1: no mark"),
            ("```\n# ip a\n```\n", "x:1: ```sh or ```console"),
            ("text\nand `ip a`.\n", "x:1: no mark"),
            ("| a | b |\n|---|---|\n| `ip a` | |\n", "x:1: no mark"),
            ("<!-- run: host -->\n\ntext\n", "x:3: a mark, and nothing"),
            ("<!-- run: host -->\n", "x:2: a mark, and nothing"),
            ("<!-- run host -->\n", "x:1: no mark: \"run host\""),
            ("<!-- run: host -->\n<!-- run: host -->\n```sh\nls\n```\n", "x:2: the mark before"),
            ("<!-- run: host -->\n```toml\na = 1\n```\n", "x:2: is a file"),
            ("<!-- run: host -->\n`ip a`\n\n`ip b`\n", "x:4: no mark"),
            ("- <!-- run: host -->\n- `ip a`\n", "x:2: no mark"),
        ] {
            let complaints = read(text).expect_err(text).join("\n");
            assert!(complaints.starts_with(wrong), "{text}: {complaints}");
        }
    }

    #[test]
    fn what_is_marked() {
        let read = |text| read(text).expect(text);
        let host = Mark::parse("run: host").expect("it is one");
        assert_eq!(
            read("- a\n  <!-- run: host -->\n  ```sh\n  ls -l\n  ```\n"),
            [("x:3".into(), host.clone(), vec![step("ls -l")])]
        );
        assert_eq!(
            read("<!-- run: host -->\nSee `ip\na`, or `brctl show` (not run: why).\n"),
            [("x:2".into(), host.clone(), vec![step("ip a")])]
        );
        let row = "<!-- run: host -->\n| `ip a` | `br0`, `nft list tables` |\n| `lsmod` | (not run: x) |\n";
        let words = Expect::Words(vec!["br0".into()]);
        assert_eq!(
            read(row),
            [(
                "x:2".into(),
                host,
                vec![Step { expect: words, ..step("ip a") }, step("nft list tables")]
            )]
        );
        assert_eq!(read("Text, `br0`, and `make`.\n\n```\npicture\n```\n"), []);
    }
}
