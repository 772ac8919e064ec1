//! What a rule says: whose it is, and what of it kvmnet could have written.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;

use ipnet::Ipv4Net;

use super::entry::{Entry, Extension, Target, text};
use crate::kernel::attributes::Malformed;
use crate::model::{AcceptOwner, InterfaceName, Match, Rule, Verdict};

/// `IFNAMSIZ`.
const INTERFACE: usize = 16;
/// `IPT_INV_VIA_IN`, of both families.
const OTHER_INPUT: u8 = 1;
/// `-NF_DROP - 1` and `-NF_ACCEPT - 1`.
pub(super) const DROP: i32 = -1;
pub(super) const ACCEPT: i32 = -2;

/// `sizeof(struct xt_conntrack_mtinfo3)` (`linux/netfilter/xt_conntrack.h`), 164, rounded up to
/// eight bytes as `XT_ALIGN` has it.
const CONNTRACK_LENGTH: usize = 168;
/// Where its `match_flags` and its `state_mask` are, both `__u16`.
const CONNTRACK_FLAGS: usize = 146;
const CONNTRACK_STATE_MASK: usize = 150;
/// `XT_CONNTRACK_STATE`.
const MATCH_STATE: u16 = 1;
/// `XT_CONNTRACK_STATE_BIT` of established and related, and `XT_CONNTRACK_STATE_DNAT`.
const ESTABLISHED_OR_RELATED: u16 = (1 << 1) | (1 << 2);
const DESTINATION_TRANSLATED: u16 = 1 << 7;

/// The info of `-m conntrack`, revision 3, that asks for such a connection; none of a match that isn't
/// about connections.
pub(in crate::kernel) fn connection(condition: &Match) -> Option<[u8; CONNTRACK_LENGTH]> {
    let states = match condition {
        Match::Answering => ESTABLISHED_OR_RELATED,
        Match::DestinationTranslated => DESTINATION_TRANSLATED,
        _ => return None,
    };
    let mut info = [0; CONNTRACK_LENGTH];
    info[CONNTRACK_FLAGS..CONNTRACK_FLAGS + 2].copy_from_slice(&MATCH_STATE.to_ne_bytes());
    info[CONNTRACK_STATE_MASK..CONNTRACK_STATE_MASK + 2].copy_from_slice(&states.to_ne_bytes());
    Some(info)
}

/// What becomes of every packet that comes to this rule; none where it holds for some alone. A name that
/// no bit of its mask asks for, such as that of `-i +`, fits any interface.
pub(super) fn unconditional<'a>(entry: &Entry<'a>) -> Result<Option<Target<'a>>, Malformed> {
    let layout = entry.layout;
    let names = layout.interfaces..layout.interfaces + 2 * INTERFACE;
    let is_idle = |(at, &byte): (usize, &u8)| {
        let is_idle_flag = at == layout.flags && byte & !layout.idle_flags == 0;
        byte == 0 || names.contains(&at) || is_idle_flag
    };
    if !entry.conditions().iter().enumerate().all(is_idle) {
        return Ok(None);
    }
    for extension in entry.extensions() {
        if extension?.name != b"comment" {
            return Ok(None);
        }
    }
    entry.target().map(Some)
}

/// What a rule is of ours: for whose sake it is there, and what it says where that is of a form that
/// kvmnet writes. Rules that don't accept are nobody's but the administrator's, whatever their
/// comment says.
pub(super) fn accept(entry: &Entry<'_>) -> Result<Option<(AcceptOwner, Option<Rule>)>, Malformed> {
    if entry.target()? != Target::Standard(ACCEPT) {
        return Ok(None);
    }
    let extensions: Vec<Extension<'_>> = entry.extensions().collect::<Result<_, _>>()?;
    let mut comments = extensions.iter().filter(|extension| extension.name == b"comment");
    let comment = comments.next().map(|comment| String::from_utf8_lossy(text(comment.info)));
    let Some(owner) = comment.and_then(|comment| AcceptOwner::parse(&comment)) else {
        return Ok(None);
    };
    let is_alone = comments.next().is_none();
    let others = extensions.iter().filter(|extension| extension.name != b"comment");
    let matches = by_header(entry).filter(|_| is_alone).and_then(|mut matches| {
        matches.extend(others.map(by_extension).collect::<Option<Vec<_>>>()?);
        Some(matches)
    });
    Ok(Some((owner, matches.map(|matches| Rule { matches, verdict: Verdict::Accept }))))
}

/// What an entry itself asks of a packet, in the order in which kvmnet's own rules have it; none where
/// that is anything that kvmnet doesn't write.
fn by_header(entry: &Entry<'_>) -> Option<Vec<Match>> {
    let (layout, bytes) = (entry.layout, entry.conditions());
    let (flags, inverted) = (bytes[layout.flags], bytes[layout.flags + 1]);
    let part = |at: usize, length: usize| &bytes[at..at + length];
    // The protocol, and the type of service.
    let others = &bytes[layout.interfaces + 4 * INTERFACE..layout.flags];
    let has_others = others.iter().any(|&byte| byte != 0) || flags & !layout.idle_flags != 0;
    if has_others || inverted & !OTHER_INPUT != 0 {
        return None;
    }
    let interface = |number: usize| {
        let at = layout.interfaces + number * INTERFACE;
        interface(part(at, INTERFACE), part(at + 2 * INTERFACE, INTERFACE))
    };
    let prefix = |number: usize| {
        let at = number * layout.address;
        prefix(part(at, layout.address), part(at + 2 * layout.address, layout.address))
    };
    let is_other = inverted & OTHER_INPUT != 0;
    let input = interface(0)?;
    if is_other && input.is_none() {
        return None;
    }
    let input =
        input.map(|name| if is_other { Match::InputOther(name) } else { Match::Input(name) });
    let output = interface(1)?.map(Match::Output);
    let source = prefix(0)?.map(Match::Source);
    let destination = prefix(1)?.map(Match::Destination);
    Some([input, output, source, destination].into_iter().flatten().collect())
}

/// An interface by its whole name: `Some(None)` where any will do, none where it is another form, such
/// as the beginning of a name.
fn interface(name: &[u8], mask: &[u8]) -> Option<Option<InterfaceName>> {
    if mask.iter().all(|&byte| byte == 0) {
        return Some(None);
    }
    let name = text(name);
    let whole = name.len() + 1;
    let is_whole =
        mask.iter().enumerate().all(|(at, &byte)| byte == if at < whole { 0xff } else { 0 });
    is_whole.then(|| InterfaceName::parse(OsStr::from_bytes(name)).ok()).flatten().map(Some)
}

/// An IPv4 prefix: `Some(None)` where any address will do, none where it is of another kind.
fn prefix(address: &[u8], mask: &[u8]) -> Option<Option<Ipv4Net>> {
    if address.iter().chain(mask).all(|&byte| byte == 0) {
        return Some(None);
    }
    let octets = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
    Ipv4Net::with_netmask(octets(address)?, octets(mask)?).ok().map(Some)
}

fn by_extension(found: &Extension<'_>) -> Option<Match> {
    let known = [Match::Answering, Match::DestinationTranslated];
    let is_conntrack = found.name == b"conntrack" && found.revision == 3;
    let is_it = |one: &Match| connection(one).is_some_and(|info| info == found.info);
    known.into_iter().find(|one| is_conntrack && is_it(one))
}
