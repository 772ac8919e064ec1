//! The real ufw, in a host.

use crate::host::Host;

/// ufw as it comes: what comes in and what is forwarded is dropped.
#[derive(Debug)]
pub struct Ufw<'host>(&'host Host);

impl Host {
    /// Enables ufw. The host is one with firewalls.
    #[track_caller]
    #[must_use]
    pub fn ufw(&self) -> Ufw<'_> {
        let ufw = Ufw(self);
        ufw.enable();
        ufw
    }
}

impl Ufw<'_> {
    /// Runs ufw with the arguments of a line, which must succeed, and returns what it said.
    #[track_caller]
    pub fn command(&self, line: &str) -> String {
        self.0.ok(&format!("ufw {line}"))
    }

    /// Enables it, for the next boot, too.
    #[track_caller]
    pub fn enable(&self) {
        // Without force it asks a question.
        self.command("--force enable");
    }

    /// Disables it.
    #[track_caller]
    pub fn disable(&self) {
        self.command("disable");
    }

    /// Loads its rules again.
    #[track_caller]
    pub fn reload(&self) {
        self.command("reload");
    }

    /// What it says of itself.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> String {
        self.command("status verbose")
    }
}
