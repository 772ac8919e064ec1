//! Looking at one link, for udev's rule.

use super::link::{self, Which};
use super::{KernelError, System};
use crate::model::Link;

impl System {
    /// The link with that index, and what it is a port of.
    ///
    /// # Errors
    /// [`KernelError`] where the kernel doesn't answer.
    pub fn port(&mut self, index: u32) -> Result<Option<(Link, Option<Link>)>, KernelError> {
        let Some(link) = link::one(&mut self.route, Which::Index(index))? else {
            return Ok(None);
        };
        let master = match link.master {
            Some(master) => link::one(&mut self.route, Which::Index(master))?,
            None => None,
        };
        Ok(Some((link, master)))
    }
}
