//! What lies in a script's place: a script of two or three lines that runs kvmnet's own program.
//!
//! A file, and no link to the program: a package manager that purges the script's package would follow
//! the link, and take the program away.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use kvmnet_core::model::NetworkName;

use super::{BACKUP, NAME_OF_UNDO};

/// How the line begins that says what it is, and all that undoing needs.
pub const SIGN: &str = "# kvmnet adopt: ";

/// A wrapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapper {
    /// The script's path.
    pub script: PathBuf,
    /// The program.
    pub helper: PathBuf,
    /// The network that it chooses, where that isn't the program's own choice.
    pub network: Option<NetworkName>,
}

impl Wrapper {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        let (script, helper) = (self.script.display(), self.helper.display());
        let network = self.network.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let mut text = format!(
            "#!/bin/sh\n{SIGN}{script} {helper}{network}\n\
             # The script that was here is {script}{BACKUP}. To have it back:\n\
             # {NAME_OF_UNDO} {script}\n"
        );
        if let Some(name) = &self.network {
            // Memory takes everything.
            let _ = writeln!(text, "KVMNET_NETWORK=${{KVMNET_NETWORK:-{name}}}");
            text.push_str("export KVMNET_NETWORK\n");
        }
        let _ = writeln!(text, "exec {helper} \"$@\"");
        text
    }

    /// Reads one back, however its other lines were changed.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let sign = text.lines().take(8).find_map(|line| line.strip_prefix(SIGN))?;
        let mut words = sign.split(' ');
        let (script, helper) = (words.next()?, words.next()?);
        let network = match words.next() {
            None => None,
            Some(name) => Some(NetworkName::parse(name)?),
        };
        let absolute = script.starts_with('/') && helper.starts_with('/') && words.next().is_none();
        absolute.then(|| Self { script: script.into(), helper: helper.into(), network })
    }
}

/// Whether a path can stand in a wrapper as it is, without quotes.
#[must_use]
pub fn can_name(path: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+@-".contains(c);
    path.to_str().is_some_and(|path| path.starts_with('/') && path.chars().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapper(network: Option<&str>) -> Wrapper {
        Wrapper {
            script: "/etc/qemu-natup".into(),
            helper: "/usr/libexec/kvmnet-natup".into(),
            network: network.and_then(NetworkName::parse),
        }
    }

    #[test]
    fn text_and_back() {
        for wrapper in [wrapper(None), wrapper(Some("lab"))] {
            assert_eq!(Wrapper::read(&wrapper.text()), Some(wrapper));
        }
        assert_eq!(
            wrapper(Some("lab")).text(),
            "#!/bin/sh\n\
             # kvmnet adopt: /etc/qemu-natup /usr/libexec/kvmnet-natup lab\n\
             # The script that was here is /etc/qemu-natup.before-kvmnet. To have it back:\n\
             # kvmnet adopt --undo --yes /etc/qemu-natup\n\
             KVMNET_NETWORK=${KVMNET_NETWORK:-lab}\n\
             export KVMNET_NETWORK\n\
             exec /usr/libexec/kvmnet-natup \"$@\"\n"
        );
    }

    #[test]
    fn what_is_none() {
        for text in [
            "",
            "#!/bin/sh\nexec /usr/libexec/kvmnet-natup \"$@\"\n",
            "# kvmnet adopt: \n",
            "# kvmnet adopt: a b\n",
            "# kvmnet adopt: /a /b Not/A/Name\n",
            "# kvmnet adopt: /a /b lab more\n",
        ] {
            assert_eq!(Wrapper::read(text), None, "{text}");
        }
    }

    #[test]
    fn paths_that_the_shell_would_take_apart() {
        assert!(can_name(Path::new("/etc/qemu-ifup")));
        for path in ["etc/x", "/etc/a b", "/etc/$x", "/etc/a\nb", "/etc/'x'"] {
            assert!(!can_name(Path::new(path)), "{path}");
        }
    }
}
