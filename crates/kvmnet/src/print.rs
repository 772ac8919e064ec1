//! Printing: in columns, in colours where a terminal shows them, and never in a panic.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use kvmnet_core::output::printable;

/// What works.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What deserves a look.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// What is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What matters less.
pub const FAINT: Style = Style::new().dimmed();
/// A table's head.
pub const HEAD: Style = Style::new().bold();

/// Text in a style. Control characters, as a VM's name can hold them, don't reach the terminal.
#[must_use]
pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{}{style:#}", printable(text))
}

/// Rows in columns that are as wide as their widest entry.
#[must_use]
pub fn columns(rows: &[Vec<String>]) -> String {
    let mut writer = tabwriter::TabWriter::new(Vec::new()).padding(2).ansi(true);
    for row in rows {
        // Memory takes everything.
        let _ = writeln!(writer, "{}", row.join("\t"));
    }
    let bytes = writer.into_inner().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Prints to stdout, in colours where it is a terminal and `NO_COLOR` isn't set.
///
/// # Errors
/// Those of writing.
pub fn coloured(text: &str) -> io::Result<()> {
    whole(&mut anstream::stdout().lock(), text.as_bytes())
}

/// Writes it whole. A reader that has seen enough is no error.
///
/// # Errors
/// Those of writing.
pub fn whole(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_with_or_without_colours() {
        let rows = [
            vec![styled(HEAD, "NETWORK"), styled(HEAD, "MODE")],
            vec![styled(GOOD, "a"), "nat".to_owned()],
            vec!["longer-than-head".to_owned(), String::new()],
        ];
        let text = anstream::adapter::strip_str(&columns(&rows)).to_string();
        assert_eq!(text, "NETWORK           MODE\na                 nat\nlonger-than-head\n");
    }

    #[test]
    fn no_name_steers_the_terminal() {
        assert_eq!(styled(Style::new(), "a\x1b[2Jb\nc"), "a?[2Jb?c");
    }
}
