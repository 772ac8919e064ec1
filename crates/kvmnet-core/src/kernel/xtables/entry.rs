//! One entry of a table: a rule, a policy, or the head of a chain. Nothing of it is copied, and
//! nothing trusted.

use super::Layout;
use crate::kernel::attributes::{Malformed, read_i32, read_u16};

/// `sizeof(struct xt_entry_match)` and `sizeof(struct xt_entry_target)`: size, name, revision.
const HEADER: usize = 32;
const NAME: std::ops::Range<usize> = 2..31;
const REVISION: usize = 31;
/// `XT_ERROR_TARGET`: what begins a chain, and ends a table.
const ERROR: &[u8] = b"ERROR\0";

/// An entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub layout: &'static Layout,
    /// Where it is in the table.
    pub at: usize,
    bytes: &'a [u8],
    target: usize,
}

/// What becomes of a packet that an entry speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// `XT_STANDARD_TARGET`: of 0 and more the place of a chain's first rule (or of the next rule, where
    /// nothing becomes of it), below that a verdict: -1 drops, -2 accepts.
    Standard(i32),
    /// That of an extension, by its name.
    Extension(&'a [u8]),
    /// None: this is the head of the chain of that name.
    ChainHead(&'a [u8]),
}

impl Target<'_> {
    /// What ends a table.
    pub const END: Self = Self::ChainHead(b"ERROR");
}

/// A match of an extension's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extension<'a> {
    pub name: &'a [u8],
    pub revision: u8,
    pub info: &'a [u8],
}

/// Up to the first NUL.
pub(super) fn text(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

impl<'a> Entry<'a> {
    /// The one that begins there, which must be whole.
    pub fn at(layout: &'static Layout, table: &'a [u8], at: usize) -> Result<Self, Malformed> {
        let rest = table.get(at..).ok_or(Malformed)?;
        let offset = |at| rest.get(at..).and_then(read_u16).map(usize::from).ok_or(Malformed);
        let (target, next) = (offset(layout.offsets)?, offset(layout.offsets + 2)?);
        let bytes = rest.get(..next).ok_or(Malformed)?;
        let size = bytes.get(target..).and_then(read_u16).map(usize::from).ok_or(Malformed)?;
        let fits = target >= layout.entry && size >= HEADER && target + size <= next;
        if fits { Ok(Self { layout, at, bytes, target }) } else { Err(Malformed) }
    }

    /// Where the next one begins.
    pub fn end(&self) -> usize {
        self.at + self.bytes.len()
    }

    /// What a packet must be, without the matches of extensions.
    pub fn conditions(&self) -> &'a [u8] {
        &self.bytes[..self.layout.conditions]
    }

    /// Whether it heads a chain.
    pub fn is_chain_head(&self) -> bool {
        self.bytes[self.target + NAME.start..].starts_with(ERROR)
    }

    pub fn target(&self) -> Result<Target<'a>, Malformed> {
        let target = &self.bytes[self.target..];
        let info = &target[HEADER..];
        match text(&target[NAME]) {
            b"" => read_i32(info).map(Target::Standard).ok_or(Malformed),
            _ if self.is_chain_head() => Ok(Target::ChainHead(text(info))),
            name => Ok(Target::Extension(name)),
        }
    }

    /// The matches of extensions.
    pub fn extensions(&self) -> impl Iterator<Item = Result<Extension<'a>, Malformed>> {
        let mut rest = &self.bytes[self.layout.entry..self.target];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let size = read_u16(rest).map_or(0, usize::from);
            let Some((found, behind)) = rest.split_at_checked(size).filter(|_| size >= HEADER)
            else {
                rest = &[];
                return Some(Err(Malformed));
            };
            rest = behind;
            let (name, revision) = (text(&found[NAME]), found[REVISION]);
            Some(Ok(Extension { name, revision, info: &found[HEADER..] }))
        })
    }
}
