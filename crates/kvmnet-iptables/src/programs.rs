//! The host's programs: `iptables`, whichever variant the distribution's alternatives choose, and the
//! other variant where rules may be left in it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kvmnet_core::kernel::{KernelError, legacy_tables};
use kvmnet_core::model::Variant;

use crate::listing::Listing;

/// Where programs are looked for; never by `PATH`, which may hold anything.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// What to do where a network's own rules can't be made.
const ELSEWHERE: &str = "install iptables, or have the rules elsewhere: firewall = \"nftables\" in the \
                         network's file";
/// How long to wait for another program that works on the tables, in seconds.
const PATIENCE: u32 = 5;

/// Whose packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The kernel's number for it (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Ipv4 => libc::NFPROTO_IPV4 as u8,
            Self::Ipv6 => libc::NFPROTO_IPV6 as u8,
        }
    }

    /// The tables that hold rules of kvmnet's.
    #[must_use]
    pub fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Ipv4 => &["filter", "nat"],
            Self::Ipv6 => &["filter"],
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Ipv4 => "iptables",
            Self::Ipv6 => "ip6tables",
        }
    }

    /// The family of that number.
    #[must_use]
    pub fn of_number(number: u8) -> Self {
        if number == Self::Ipv4.number() { Self::Ipv4 } else { Self::Ipv6 }
    }

    /// Whether iptables-legacy has that table in use here.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't say.
    pub fn has_legacy(self, table: &str) -> Result<bool, KernelError> {
        Ok(legacy_tables(self.number())?.iter().any(|name| name == table))
    }
}

/// A program that lists and one that writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Whose packets.
    pub family: Family,
    /// Which interface of the kernel it works on.
    pub variant: Variant,
    list: PathBuf,
    restore: PathBuf,
}

impl Program {
    /// The one that the host uses.
    ///
    /// # Errors
    /// [`KernelError::Iptables`] where there is none.
    pub fn chosen(family: Family) -> Result<Self, KernelError> {
        let name = family.program();
        let (list, restore) = pair(name, ELSEWHERE)?;
        let variant = match variant_by_name(&list) {
            Some(variant) => variant,
            None => variant_by_version(&list)?,
        };
        Ok(Self { family, variant, list, restore })
    }

    /// The one of this variant.
    ///
    /// # Errors
    /// [`KernelError::Iptables`] where there is none.
    pub fn of(family: Family, variant: Variant) -> Result<Self, KernelError> {
        if let Some(chosen) = Self::chosen(family).ok().filter(|found| found.variant == variant) {
            return Ok(chosen);
        }
        let ending = match variant {
            Variant::Nft => "nft",
            Variant::Legacy => "legacy",
        };
        // What is in its tables is there, whatever a network's file says.
        let (list, restore) = pair(&format!("{}-{ending}", family.program()), "install it")?;
        Ok(Self { family, variant, list, restore })
    }

    /// Why it can't be of use on a kernel without nf_tables. Its own words for that are of generations and
    /// of invalid arguments.
    #[must_use]
    pub fn without_nf_tables(&self) -> KernelError {
        let name = self.family.program();
        let problem = format!(
            "is the variant for nf_tables, which this kernel lacks; load it: modprobe nf_tables, or use \
             the other variant: update-alternatives --set {name} /usr/sbin/{name}-legacy"
        );
        failed("work on the rules".to_owned(), &self.list, problem)
    }

    /// What a table holds.
    ///
    /// # Errors
    /// [`KernelError::Iptables`] in the program's own words.
    pub fn list(&self, table: &str) -> Result<Listing, KernelError> {
        self.list_within(table, PATIENCE)
    }

    /// [`Program::list`], with so many seconds of patience.
    ///
    /// # Errors
    /// As [`Program::list`].
    pub fn list_within(&self, table: &str, patience: u32) -> Result<Listing, KernelError> {
        // The crate takes the path as a text that stays; so few are needed that it may.
        let path: &'static str = Box::leak(self.list.display().to_string().into_boxed_str());
        let program = iptables::IPTables {
            cmd: path,
            has_check: true,
            // Its own wait has no end.
            has_wait: false,
            is_numeric: false,
        };
        let what = || format!("list table {table}");
        let output = program
            .execute(table, &format!("-w {patience} -S"))
            .map_err(|error| failed(what(), &self.list, format!("can't be run: {error}")))?;
        judge(what, &self.list, &output)?;
        Ok(Listing::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Changes tables, each in one transaction.
    ///
    /// # Errors
    /// [`KernelError::Iptables`] in the program's own words.
    pub fn restore(&self, script: &str) -> Result<(), KernelError> {
        log::debug!("{}: {script}", self.restore.display());
        let what = || "change the rules".to_owned();
        let run = || -> std::io::Result<Output> {
            let mut child = Command::new(&self.restore)
                .args(["--noflush", &format!("--wait={PATIENCE}")])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            let stdin = child.stdin.take();
            let written = stdin.map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
            let output = child.wait_with_output()?;
            // One that failed says itself what it hasn't understood, and may not have read to the end.
            if output.status.success() {
                written?;
            }
            Ok(output)
        };
        let output = run()
            .map_err(|error| failed(what(), &self.restore, format!("can't be run: {error}")))?;
        judge(what, &self.restore, &output)
    }
}

fn judge(
    what: impl FnOnce() -> String,
    program: &Path,
    output: &Output,
) -> Result<(), KernelError> {
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let words: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let problem = match words.as_slice() {
        [] => format!("failed ({})", output.status),
        words => format!("says: {}", words.join(" ")),
    };
    Err(failed(what(), program, problem))
}

fn failed(what: String, program: &Path, problem: String) -> KernelError {
    KernelError::Iptables { what, program: program.display().to_string(), problem }
}

/// The program of that name, and the one that restores.
fn pair(name: &str, remedy: &str) -> Result<(PathBuf, PathBuf), KernelError> {
    let find = |name: String| {
        let paths = DIRECTORIES.iter().map(|directory| Path::new(directory).join(&name));
        let mut paths = paths.filter(|path| path.is_file());
        paths.next().ok_or_else(|| KernelError::Iptables {
            what: "work on the rules".to_owned(),
            program: name,
            problem: format!("is in none of {}; {remedy}", DIRECTORIES.join(", ")),
        })
    };
    Ok((find(name.to_owned())?, find(format!("{name}-restore"))?))
}

/// By the file that the alternatives lead to, which saves running it.
fn variant_by_name(program: &Path) -> Option<Variant> {
    let file = program.canonicalize().ok()?;
    let name = file.file_name().and_then(OsStr::to_str)?;
    match (name.contains("nft"), name.contains("legacy")) {
        (true, false) => Some(Variant::Nft),
        (false, true) => Some(Variant::Legacy),
        _ => None,
    }
}

/// Since 1.8 the version says it; before, there was only one.
fn variant_by_version(program: &Path) -> Result<Variant, KernelError> {
    let output = Command::new(program).arg("--version").output().map_err(|error| {
        let what = "ask for the version".to_owned();
        failed(what, program, format!("can't be run: {error}"))
    })?;
    let is_nft = String::from_utf8_lossy(&output.stdout).contains("nf_tables");
    Ok(if is_nft { Variant::Nft } else { Variant::Legacy })
}
