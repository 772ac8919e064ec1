//! The closing table of `make torture`: what the campaigns wrote, a row each.

use std::env;
use std::fs;
use std::process::ExitCode;

use serde_json::Value;

const FIGURES: [&str; 5] = ["tried", "converged", "leaked", "foreign changes", "seconds"];

fn main() -> ExitCode {
    let Some(file) = env::args().nth(1) else {
        eprintln!("torture: name the file that the campaigns wrote");
        return ExitCode::FAILURE;
    };
    let lines = match fs::read_to_string(&file) {
        Ok(lines) => lines,
        Err(error) => {
            eprintln!("torture: {file}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut rows: Vec<Value> = match lines.lines().map(serde_json::from_str).collect() {
        Ok(rows) => rows,
        Err(error) => {
            eprintln!("torture: {file} isn't what campaigns write: {error}");
            return ExitCode::FAILURE;
        }
    };
    rows.sort_by_key(|row| text(row, "campaign"));
    print!("{}", table(&rows));
    let is_good = |row: &Value| row["leaked"] == 0;
    if rows.is_empty() || !rows.iter().all(is_good) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn text(row: &Value, member: &str) -> String {
    match &row[member] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// In Markdown, as docs/reliability.md has it.
fn table(rows: &[Value]) -> String {
    let mut table = String::from(
        "| campaign | tried | converged | leaked | foreign changes | seconds | |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | --- |\n",
    );
    for row in rows {
        let figures = FIGURES.map(|figure| text(row, figure)).join(" | ");
        let (campaign, remarks) = (text(row, "campaign"), text(row, "remarks"));
        table.push_str(&format!("| {campaign} | {figures} | {remarks} |\n"));
    }
    let sum = |figure: &str| -> u64 { rows.iter().filter_map(|row| row[figure].as_u64()).sum() };
    let sums = FIGURES[..4].iter().map(|figure| format!("**{}**", sum(figure)));
    let sums: Vec<String> = sums.collect();
    let seconds: f64 = rows.iter().filter_map(|row| row["seconds"].as_f64()).sum();
    table.push_str(&format!("| **all** | {} | {seconds:.0} | |\n", sums.join(" | ")));
    table
}
