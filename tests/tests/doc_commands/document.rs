//! The commands of a document, and what is said of each.

use std::fs;
use std::path::{Path, PathBuf};

use crate::mark::Mark;
use crate::{manual, markdown};

/// What a command has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Succeed.
    Success,
    /// Print this.
    Output(String),
    /// Print these words, among others.
    Words(Vec<String>),
    /// List no rule.
    NoRule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub command: String,
    pub expect: Expect,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Commands(Vec<Step>),
    /// A network file, or one of another program's.
    File(String),
}

/// What stands behind one mark: a fenced block, a table, or the inline code of a paragraph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where, for who reads the test's output.
    pub at: String,
    pub mark: Mark,
    pub content: Content,
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All documents that there are: another one can't be forgotten.
pub fn documents() -> Vec<String> {
    let mut documents = vec!["README.md".to_owned()];
    for (directory, wanted) in [("docs", &["md"][..]), ("docs/man", &["1", "5", "7", "8"])] {
        for entry in fs::read_dir(repository().join(directory)).expect("it is a directory") {
            let entry = entry.expect("a directory can be read");
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            // Two programs share a page by a link.
            let is_link = entry.file_type().expect("it has a type").is_symlink();
            if !is_link && extension.is_some_and(|extension| wanted.contains(&extension)) {
                let name = entry.file_name();
                documents.push(format!("{directory}/{}", name.to_str().expect("it is ASCII")));
            }
        }
    }
    documents.sort_unstable();
    documents
}

/// The pieces of a document; panics at one without a mark.
#[track_caller]
pub fn read(document: &str) -> Vec<Piece> {
    let text = fs::read_to_string(repository().join(document))
        .unwrap_or_else(|error| panic!("{document}: {error}"));
    let pieces = if document.ends_with(".md") {
        markdown::pieces(document, &text)
    } else {
        manual::pieces(document, &text)
    };
    pieces.unwrap_or_else(|wrong| panic!("{}", wrong.join("\n")))
}

/// The commands of a block: lines, those that end in a backslash with the next one.
pub fn commands(block: &str) -> Vec<Step> {
    let joined = block.replace("\\\n", "");
    let lines = joined.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| Step { command: line.to_owned(), expect: comment(line) }).collect()
}

/// A comment of one word is what the command prints; others are for the reader.
fn comment(line: &str) -> Expect {
    match line.rsplit_once("  # ") {
        Some((_, word)) if !word.contains(' ') => Expect::Words(vec![word.to_owned()]),
        _ => Expect::Success,
    }
}

/// The commands of a block that shows a terminal, each with what it prints.
pub fn console(block: &str) -> Vec<Step> {
    let mut steps: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("# ").or_else(|| line.strip_prefix("$ ")) {
            Some(command) => steps.push((command.to_owned(), String::new())),
            None => {
                let (_, output) = steps.last_mut().expect("a command comes before its output");
                *output += line;
                output.push('\n');
            }
        }
    }
    let step = |(command, output)| Step { command, expect: Expect::Output(output) };
    steps.into_iter().map(step).collect()
}

/// Programs that documents may name and this machine may lack.
const PROGRAMS: [&str; 17] = [
    "bridge",
    "firewall-cmd",
    "ip",
    "iptables",
    "journalctl",
    "kvmnet",
    "lsmod",
    "make",
    "netplan",
    "networkctl",
    "nft",
    "nmcli",
    "sudo",
    "sysctl",
    "systemctl",
    "ufw",
    "virsh",
];

/// Where programs are.
const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Spoken of, and not meant to be typed as they stand.
const MENTIONED: [&str; 2] = ["nft -f", "nft flush table"];

/// Whether inline code is a command that somebody may type. `man` has a test of its own; a
/// word alone names a program, and `…` stands for what the reader fills in.
pub fn is_command(span: &str) -> bool {
    let is_setting = |word: &&str| {
        word.split_once('=')
            .is_some_and(|(name, _)| !name.contains(|c: char| !c.is_uppercase() && c != '_'))
    };
    let mut words = span.split_whitespace().skip_while(is_setting);
    let (Some(program), argument) = (words.next(), words.next()) else { return false };
    let exists = || {
        let is_name = !program.contains('/');
        is_name && PATH.iter().any(|path| Path::new(path).join(program).is_file())
    };
    let is_program =
        PROGRAMS.contains(&program) || program.starts_with("/usr/libexec/kvmnet-") || exists();
    let is_table = argument.is_some_and(|word| word.starts_with("kvmnet-"));
    let alone = ["lsmod"].contains(&span);
    is_program
        && (argument.is_some() || alone)
        && !is_table
        && !span.contains('…')
        && program != "man"
        && !MENTIONED.contains(&span)
}

#[test]
fn which_inline_code_is_a_command() {
    for span in [
        "ip a",
        "lsmod",
        "bridge link",
        "kvmnet status",
        "/usr/libexec/kvmnet-natdown gone",
        "KVMNET_LOG=debug ip a",
        "sudo KVMNET_NETWORK=lab qemu-system-x86_64 ...",
        "grep . /sys/class/net/*/ifalias",
        "make help",
    ] {
        assert!(is_command(span), "{span}");
    }
    for span in [
        "br0",
        "ip kvmnet-default",
        "ip",
        "mode = \"nat\"",
        "ip link set br0 address …",
        "KVMNET_LOG=debug",
        "ExecStopPost=/usr/libexec/kvmnet-natdown TAP",
        "man kvmnet-network",
        "/etc/kvmnet/lab.toml",
    ] {
        assert!(!is_command(span), "{span}");
    }
}

#[test]
fn blocks_are_taken_apart() {
    let step = |command: &str, expect| Step { command: command.to_owned(), expect };
    let words = Expect::Words(vec!["kvmnet:lab".into()]);
    assert_eq!(
        commands("# a remark\nls  \\\n  -l   # two words\n\ncat x   # kvmnet:lab\n"),
        [step("ls    -l   # two words", Expect::Success), step("cat x   # kvmnet:lab", words)]
    );
    assert_eq!(
        console("# ls\na\nb\n$ true\n"),
        [step("ls", Expect::Output("a\nb\n".into())), step("true", Expect::Output(String::new()))]
    );
}
