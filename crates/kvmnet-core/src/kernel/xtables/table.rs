//! A table, gone through once.

use super::Layout;
use super::ask::{self, Answer};
use super::entry::{Entry, Target};
use super::rule::{self, DROP};
use crate::kernel::KernelError;
use crate::kernel::attributes::Malformed;
use crate::model::{
    CHAIN_PREFIX, DOCKER_USER, FORWARD, FilterView, FoundAccept, RuleId, RulePlace, Variant,
};

/// What a table of iptables-legacy comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyTable {
    /// Of one that forwards what accepts are planned by. (To be deleted by iptables-legacy a rule would
    /// have to be known as that prints it.)
    pub filter: Option<FilterView>,
    /// Whether it has chains by kvmnet's names.
    pub has_own_chains: bool,
}

/// Looks at a table of iptables-legacy that is in use for this family (`NFPROTO_IPV4` or `NFPROTO_IPV6`).
/// One that isn't would be made. It takes CAP_NET_ADMIN.
///
/// # Errors
/// [`KernelError::System`] where the kernel doesn't give it, [`KernelError::Answer`] where it makes no
/// sense.
pub fn legacy_table(family: u8, name: &str) -> Result<LegacyTable, KernelError> {
    let what = || format!("read table {name} of iptables-legacy");
    let layout = Layout::of(family);
    let answer = ask::table(layout, name).map_err(|error| KernelError::system(what(), error))?;
    look(layout, &answer).map_err(|Malformed| KernelError::Answer {
        what: what(),
        problem: "is not what a table looks like",
    })
}

/// Goes through the entries.
pub(super) fn look(layout: &'static Layout, answer: &Answer) -> Result<LegacyTable, Malformed> {
    let (forward, entries) = (answer.forward.as_ref(), answer.entries());
    let is_forward = |at| forward.is_some_and(|chain| chain.contains(&at));
    let policy = forward.map(|chain| chain.end);
    let mut look = Look::default();
    let mut at = 0;
    loop {
        let entry = Entry::at(layout, entries, at)?;
        at = entry.end();
        if at == entries.len() && entry.target()? == Target::END {
            break;
        }
        if is_forward(entry.at) {
            look.forward(&entry)?;
        } else if Some(entry.at) == policy {
            look.policy = Some(entry.target()?);
        } else if entry.is_chain_head() {
            look.chain(&entry)?;
        } else if look.is_in_docker_user {
            look.accept(DOCKER_USER, &entry)?;
        }
    }
    let has_own_chains = look.has_own_chains;
    let filter = policy.map(|_| look.view(layout.family)).transpose()?;
    Ok(LegacyTable { filter, has_own_chains })
}

#[derive(Default)]
struct Look<'a> {
    policy: Option<Target<'a>>,
    /// What the forward chain's last rule does with all that is left.
    last: Option<Target<'a>>,
    /// The chains that all that is forwarded comes by, each by the place of its first rule.
    passed: Vec<i32>,
    is_in_docker_user: bool,
    /// Where that begins.
    docker_user: Option<usize>,
    has_own_chains: bool,
    accepts: Vec<FoundAccept>,
}

impl<'a> Look<'a> {
    /// A rule of the forward chain.
    fn forward(&mut self, entry: &Entry<'a>) -> Result<(), Malformed> {
        self.last = rule::unconditional(entry)?;
        if let Some(Target::Standard(place @ 0..)) = self.last {
            self.passed.push(place);
        }
        self.accept(FORWARD, entry)
    }

    fn chain(&mut self, entry: &Entry<'a>) -> Result<(), Malformed> {
        let Target::ChainHead(name) = entry.target()? else { return Ok(()) };
        self.is_in_docker_user = name == DOCKER_USER.as_bytes();
        if self.is_in_docker_user {
            self.docker_user = Some(entry.end());
        }
        self.has_own_chains |= name.starts_with(CHAIN_PREFIX.as_bytes());
        Ok(())
    }

    fn accept(&mut self, chain: &str, entry: &Entry<'a>) -> Result<(), Malformed> {
        if let Some((owner, rule)) = rule::accept(entry)? {
            let at = RulePlace { chain: chain.to_owned(), id: RuleId::Offset(entry.at) };
            self.accepts.push(FoundAccept { at, owner, rule });
        }
        Ok(())
    }

    fn view(self, family: u8) -> Result<FilterView, Malformed> {
        // There is always one, also of a chain without rules.
        let drops_by_policy = self.policy.ok_or(Malformed)? == Target::Standard(DROP);
        let stops = [Target::Standard(DROP), Target::Extension(b"REJECT")];
        let drops = drops_by_policy || self.last.is_some_and(|target| stops.contains(&target));
        let leads_to =
            |place: usize| self.passed.iter().any(|&its| usize::try_from(its) == Ok(place));
        let is_docker = self.docker_user.is_some_and(leads_to);
        Ok(FilterView {
            variant: Variant::Legacy,
            family,
            chain: if is_docker { DOCKER_USER } else { FORWARD }.to_owned(),
            drops,
            has_own_chains: false,
            accepts: self.accepts,
        })
    }
}
