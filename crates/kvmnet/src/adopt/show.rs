//! What is told of a plan: in words, and as a diff of each file.

use std::path::Path;

use kvmnet_core::output::printable;
use similar::TextDiff;

use super::plan::{NewFile, Outcome, Plan, ScriptPlan};
use super::reading::{ROUTE, Reading, Remark, UNKNOWN};

/// How a file changes, as `diff -u` shows it.
#[must_use]
pub fn diff(path: &Path, before: Option<&str>, after: Option<&str>) -> String {
    let path = path.display().to_string();
    let name = |text: Option<&str>| text.map_or("/dev/null".to_owned(), |_| path.clone());
    let diff = TextDiff::from_lines(before.unwrap_or_default(), after.unwrap_or_default());
    let text = diff.unified_diff().header(&name(before), &name(after)).to_string();
    // A script's text must not steer the terminal; a tab is as good as it looks.
    text.lines()
        .map(|line| format!("{}\n", line.split('\t').map(printable).collect::<Vec<_>>().join("\t")))
        .collect()
}

/// What becomes of each script, and why.
#[must_use]
pub fn describe(plan: &Plan) -> String {
    plan.scripts.iter().map(script).collect::<Vec<_>>().join("\n")
}

/// The diffs of all files that are to be written.
#[must_use]
pub fn diffs(plan: &Plan) -> String {
    let files = plan
        .files
        .iter()
        .map(|NewFile { path, written, .. }| diff(path, None, Some(&written.text())));
    let scripts = plan.scripts.iter().filter_map(|script| match &script.outcome {
        Outcome::Adopted { wrapper, text, .. } => {
            Some(diff(&script.path, Some(text), Some(&wrapper.text())))
        }
        _ => None,
    });
    files.chain(scripts).collect::<Vec<_>>().join("\n")
}

fn script(script: &ScriptPlan) -> String {
    let path = script.path.display();
    let mut lines = vec![match &script.outcome {
        Outcome::Already => format!("{path}: is kvmnet's already"),
        Outcome::Stays(_) => format!("{path}: stays as it is"),
        Outcome::Adopted { wrapper, .. } => format!("{path}: becomes {}", wrapper.helper.display()),
    }];
    if let Outcome::Stays(reasons) = &script.outcome {
        lines.extend(reasons.iter().map(|why| format!("  because      {why}")));
    }
    if let Some(network) = &script.network {
        lines.push(format!("  network      {network}"));
    }
    if let Some(reading) = &script.reading {
        lines.extend(does(reading).into_iter().map(|what| format!("  it does      {what}")));
        let left_out = reading.left_out.iter().map(left_out);
        lines.extend(left_out.map(|what| format!("  left out     {what}")));
    }
    lines.extend(script.notes.iter().map(|note| format!("  mind         {note}")));
    lines.iter().map(|line| format!("{}\n", printable(line))).collect()
}

fn left_out(remark: &Remark) -> String {
    format!("line {}: {}: {}", remark.line, remark.text, remark.why)
}

fn bridge(name: &str) -> String {
    match name {
        ROUTE => "the bridge with the default route".to_owned(),
        UNKNOWN => "its bridge".to_owned(),
        name => name.to_owned(),
    }
}

/// What a script does, in words.
fn does(reading: &Reading) -> Vec<String> {
    let mut done = Vec::new();
    done.extend(reading.makes.iter().map(|name| format!("makes the bridge {name}")));
    let mut addresses = reading.addresses.clone();
    addresses.dedup();
    done.extend(addresses.iter().map(|(name, address)| {
        let prefix = address.prefix.map(|prefix| format!("/{prefix}")).unwrap_or_default();
        format!("gives {} the address {}{prefix}", bridge(name), address.address)
    }));
    let mut masquerades = reading.masquerades.clone();
    masquerades.dedup();
    done.extend(masquerades.iter().map(|masquerade| {
        let whom = masquerade.source.as_deref().unwrap_or("everybody");
        let over = masquerade.over.as_ref().map(|name| format!(" by {name}")).unwrap_or_default();
        format!("masquerades {whom}{over}")
    }));
    done.extend(reading.forwards.then(|| "turns forwarding on".to_owned()));
    done.extend(reading.mtus.first().map(|mtu| format!("sets the MTU to {mtu}")));
    done.extend(reading.dhcp.first().map(|first| format!("serves DHCP (line {})", first.line)));
    done.extend(reading.joins.iter().map(|name| format!("puts the tap on {}", bridge(name))));
    done.extend(reading.leaves.iter().map(|name| format!("takes the tap off {}", bridge(name))));
    done.extend(reading.deletes.iter().map(|name| format!("deletes the bridge {name}")));
    if done.is_empty() && reading.problems.is_empty() {
        done.push("nothing".to_owned());
    }
    done
}
