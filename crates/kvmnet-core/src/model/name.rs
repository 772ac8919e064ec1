//! Names that are checked once, at the edge: whoever holds one holds a valid one.

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::fmt;

use thiserror::Error;

/// Longest interface name in bytes: `IFNAMSIZ` (16, `linux/if.h`) less the terminating NUL.
const INTERFACE_NAME_MAX: usize = 15;

/// Why a string is no interface name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// The empty string.
    #[error("it is empty")]
    Empty,
    /// More than 15 bytes; the kernel would refuse it, and cutting it would name another interface.
    #[error("it has {0} bytes, the kernel allows 15")]
    TooLong(usize),
    /// Bytes that are no UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// `.` and `..` are directories of sysfs.
    #[error("it is the name of a directory")]
    Dots,
    /// `all` and `default` stand for interfaces in the names of sysctls.
    #[error("the kernel keeps that name for itself")]
    Reserved,
    /// A leading `-`: an option to every other program.
    #[error("it begins with '-'")]
    LeadingDash,
    /// A character that the kernel forbids, or that would be taken for something else.
    #[error("it contains {}", describe(*.0))]
    Character(char),
}

fn describe(character: char) -> String {
    match character {
        ' ' => "a space".to_owned(),
        c if c.is_control() || c.is_whitespace() => {
            format!("the character U+{:04X}", u32::from(c))
        }
        c => format!("'{c}'"),
    }
}

/// The name of a network interface, as `dev_valid_name` in the kernel's `net/core/dev.c` has it and
/// a little stricter: no `%` (the kernel's template character), no leading `-`, no control
/// characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`NameError`] says what is wrong with it; a long name is refused, never cut.
    pub fn parse(name: &OsStr) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > INTERFACE_NAME_MAX {
            return Err(NameError::TooLong(name.len()));
        }
        let name = name.to_str().ok_or(NameError::NotUtf8)?;
        if name == "." || name == ".." {
            return Err(NameError::Dots);
        }
        if name == "all" || name == "default" {
            return Err(NameError::Reserved);
        }
        if name.starts_with('-') {
            return Err(NameError::LeadingDash);
        }
        match name.chars().find(|&c| forbidden_in_interface_name(c)) {
            Some(c) => Err(NameError::Character(c)),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn forbidden_in_interface_name(c: char) -> bool {
    matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control()
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Borrow<str> for InterfaceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The name of a kvmnet network: `[a-z0-9][a-z0-9_-]{0,14}`, so that it fits an interface name, an
/// nftables table name, a file name and a link's alias alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);

impl NetworkName {
    /// Checks `name`; `None` where it isn't of the form above.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let lower_or_digit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let (&first, rest) = name.as_bytes().split_first()?;
        let valid = name.len() <= INTERFACE_NAME_MAX
            && lower_or_digit(first)
            && rest.iter().all(|&b| lower_or_digit(b) || b == b'_' || b == b'-');
        valid.then(|| Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    fn parse(name: &[u8]) -> Result<InterfaceName, NameError> {
        InterfaceName::parse(OsStr::from_bytes(name))
    }

    #[test]
    fn names_the_kernel_takes_are_taken() {
        for name in ["t", "vnet0", "vnet0.0", "exactly15bytes_", "tap@lab", "ü", "..."] {
            assert_eq!(parse(name.as_bytes()).map(|n| n.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn every_other_name_is_refused_with_its_reason() {
        let cases: [(&[u8], &str); 17] = [
            (b"all", "the kernel keeps that name for itself"),
            (b"default", "the kernel keeps that name for itself"),
            (b"", "it is empty"),
            (b"sixteen_bytes_ab", "it has 16 bytes, the kernel allows 15"),
            (b"a/b", "it contains '/'"),
            (b"a:b", "it contains ':'"),
            (b"a b", "it contains a space"),
            (b"a\tb", "it contains the character U+0009"),
            (b"a\n", "it contains the character U+000A"),
            (b"a\x1bb", "it contains the character U+001B"),
            (b"tap%d", "it contains '%'"),
            (b".", "it is the name of a directory"),
            (b"..", "it is the name of a directory"),
            (b"-h", "it begins with '-'"),
            (b"--help", "it begins with '-'"),
            (b"a\xff", "it is not UTF-8"),
            ("a\u{a0}b".as_bytes(), "it contains the character U+00A0"),
        ];
        for (name, reason) in cases {
            assert_eq!(parse(name).unwrap_err().to_string(), reason, "{name:?}");
        }
    }

    #[test]
    fn network_names() {
        for name in ["default", "0", "lab-2_x", "fifteen_bytes_x"] {
            assert!(NetworkName::parse(name).is_some(), "{name}");
        }
        for name in ["", "Lab", "-lab", "_lab", "a.b", "a/b", "sixteen_bytes_xx", "a b", "ü"] {
            assert!(NetworkName::parse(name).is_none(), "{name}");
        }
    }
}
