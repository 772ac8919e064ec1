//! Manual pages: the literal blocks of EXAMPLES. A mark is a comment of mdoc's.

use crate::document::{Content, Piece, commands};
use crate::mark::Mark;

/// All pieces of a page, or what is wrong with it.
pub fn pieces(document: &str, text: &str) -> Result<Vec<Piece>, Vec<String>> {
    let (mut pieces, mut wrong) = (Vec::new(), Vec::new());
    let mut mark = None;
    let mut in_examples = false;
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let at = format!("{document}:{}", number + 1);
        if let Some(title) = line.strip_prefix(".Sh ") {
            in_examples = title == "EXAMPLES";
        } else if let Some(comment) = line.strip_prefix(".\\\" ").filter(|_| in_examples) {
            mark = Mark::parse(comment).map_err(|what| wrong.push(format!("{at}: {what}"))).ok();
        } else if line.starts_with(".Bd -literal") && in_examples {
            let block = lines.by_ref().map(|(_, line)| line).take_while(|&line| line != ".Ed");
            let block: String = block.map(|line| unescape(line) + "\n").collect();
            match mark.take() {
                None => {
                    wrong.push(format!("{at}: no mark says on what this is run: `.\\\" run: …`"))
                }
                Some(mark @ Mark::File(_)) => {
                    pieces.push(Piece { at, mark, content: Content::File(block) });
                }
                Some(mark) => {
                    let content = Content::Commands(commands(&block));
                    pieces.push(Piece { at, mark, content });
                }
            }
        }
    }
    if wrong.is_empty() { Ok(pieces) } else { Err(wrong) }
}

fn unescape(line: &str) -> String {
    line.replace("\\e", "\\").replace("\\(aq", "'").replace("\\(dq", "\"").replace("\\-", "-")
}

#[test]
fn examples() {
    let page = ".Sh X\n.Bd -literal\nls\n.Ed\n.Sh EXAMPLES\n.\\\" run: host\n.Bd -literal\na \\e\nb\n.Ed\n";
    let pieces = pieces("x", page).expect(page);
    assert_eq!(pieces.len(), 1);
    assert_eq!(pieces[0].content, Content::Commands(commands("a b")));
    let unmarked = page.replace(".\\\" run: host\n", "");
    assert!(self::pieces("x", &unmarked).is_err());
}
