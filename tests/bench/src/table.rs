//! The tables, in the Markdown that the document has them in.

use std::fmt::Write;

use crate::results::{Growth, Measured, Program, Results, Verb};

const NONE: &str = "–";

/// All tables of a run.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    let machine = &results.machine;
    let _ = writeln!(
        text,
        "\n{} × {}, Linux {}; load {} before, {} after; measured in {:.0} s\n",
        machine.processors,
        machine.processor,
        machine.kernel,
        machine.load[0],
        machine.load[1],
        machine.seconds
    );
    section(&mut text, results, "Wall, ms from spawn to exit: median (quartiles)", |m| {
        format!("{} ({}–{})", ms(m.wall.median), ms(m.wall.lower), ms(m.wall.upper))
    });
    section(&mut text, results, "CPU time, ms: median", |m| ms(m.cpu.median));
    section(&mut text, results, "System calls, child processes", |m| {
        format!("{}, {}", m.system_calls, m.child_processes)
    });
    section(&mut text, results, "Peak RSS of one process, KiB", |m| m.peak_rss_kib.to_string());
    against_the_floor(&mut text, results);
    let _ = writeln!(text, "What has to be known to compare:\n");
    for program in results.programs.iter().filter(|program| !program.note.is_empty()) {
        let _ = writeln!(text, "- {}: {}", program.name, program.note);
    }
    for (name, why) in &results.left_out {
        let _ = writeln!(text, "- {name} could not be measured: {why}");
    }
    growth(&mut text, &results.growth);
    let _ = writeln!(text, "\n### From QEMU's exec to the guest's first frame, ms\n");
    row(&mut text, ["script", "median (quartiles)", "rounds"]);
    row(&mut text, ["---", "---", "---"]);
    for start in &results.starts {
        let wall = &start.wall;
        let times = format!("{:.0} ({:.0}–{:.0})", wall.median, wall.lower, wall.upper);
        row(&mut text, [start.script.as_str(), &times, &start.rounds.to_string()]);
    }
    let _ = writeln!(text, "\n### Size of the programs, bytes\n");
    row(&mut text, ["program", "size"]);
    row(&mut text, ["---", "---:"]);
    for (name, size) in &results.sizes {
        row(&mut text, [name.as_str(), &size.to_string()]);
    }
    text
}

fn section(text: &mut String, results: &Results, title: &str, cell: impl Fn(&Measured) -> String) {
    let _ = writeln!(text, "### {title}\n");
    let names = Verb::ALL.map(|verb| verb.to_string());
    row(text, std::iter::once("").chain(names.iter().map(String::as_str)));
    row(text, std::iter::once("---").chain(Verb::ALL.map(|_| "---")));
    for program in &results.programs {
        let cells =
            Verb::ALL.map(|verb| program.verbs.get(&verb).map_or_else(|| NONE.to_owned(), &cell));
        row(text, std::iter::once(program.name.as_str()).chain(cells.iter().map(String::as_str)));
    }
    text.push('\n');
}

/// What kvmnet is to reach: wall within 0.3 ms (last down: 1.1×), the rest within 1.25×.
fn against_the_floor(text: &mut String, results: &Results) {
    let named = |name: &str| results.programs.iter().find(|program| program.name == name);
    let (Some(floor), Some(kvmnet)) = (named("the floor"), named("kvmnet, nftables")) else {
        return;
    };
    let _ = writeln!(text, "### kvmnet, nftables, against the floor\n");
    row(text, ["verb", "wall", "wall, ratio", "CPU time, ratio", "system calls, ratio"]);
    row(text, ["---", "---:", "---:", "---:", "---:"]);
    for verb in Verb::ALL {
        let of = |program: &'_ Program| {
            program.verbs.get(&verb).map(|measured| {
                (measured.wall.median, measured.cpu.median, measured.system_calls as f64)
            })
        };
        let (Some(floor), Some(kvmnet)) = (of(floor), of(kvmnet)) else { continue };
        row(
            text,
            [
                verb.to_string().as_str(),
                &format!("{:+.2} ms", kvmnet.0 - floor.0),
                &format!("{:.2}", kvmnet.0 / floor.0),
                &format!("{:.2}", kvmnet.1 / floor.1),
                &format!("{:.2}", kvmnet.2 / floor.2),
            ],
        );
    }
    text.push('\n');
}

fn growth(text: &mut String, all: &[Growth]) {
    let _ = writeln!(text, "\n### How wall time grows, ms: median (quartiles)\n");
    let mut what = "";
    for line in all {
        if line.what != what {
            let numbers: Vec<_> =
                line.points.iter().map(|(number, _)| number.to_string()).collect();
            if !what.is_empty() {
                text.push('\n');
            }
            what = &line.what;
            row(text, [what, ""].into_iter().chain(numbers.iter().map(String::as_str)));
            row(text, ["---", "---"].into_iter().chain(numbers.iter().map(|_| "---")));
        }
        let cells: Vec<_> = line
            .points
            .iter()
            .map(|(_, spread)| {
                format!("{} ({}–{})", ms(spread.median), ms(spread.lower), ms(spread.upper))
            })
            .collect();
        let verb = line.verb.to_string();
        row(
            text,
            [line.program.as_str(), &verb].into_iter().chain(cells.iter().map(String::as_str)),
        );
    }
}

fn row<'a>(text: &mut String, cells: impl IntoIterator<Item = &'a str>) {
    text.push('|');
    for cell in cells {
        let _ = write!(text, " {cell} |");
    }
    text.push('\n');
}

/// Three digits, as far as they mean anything.
fn ms(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}
