//! Prints what was measured: one table for people, or one JSON object for machines.

use std::io::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    machine::Machine,
    measure::{Measure, Target},
};

const HEADINGS: [&str; 5] = ["measure", "median", "min–max", "target", ""];

/// A line about how it goes, on standard error.
pub(crate) fn note(text: &str) {
    // Nobody is there to be told that nobody listens.
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// The table.
pub(crate) fn text(machine: &Machine, measures: &[Measure]) -> Result<()> {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(measures.iter().map(row));
    let mut widths = [0; HEADINGS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{machine}\n")?;
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "| {} |", cells.join(" | "))?;
        if number == 0 {
            let rules = widths.map(|width| "-".repeat(width));
            writeln!(out, "| {} |", rules.join(" | "))?;
        }
    }
    let missed = measures.iter().filter(|measure| measure.verdict() == Some(false)).count();
    let judged = measures.iter().filter(|measure| measure.target.is_some()).count();
    writeln!(out, "\n{} of {judged} targets reached", judged - missed)?;
    Ok(())
}

fn row(measure: &Measure) -> [String; 5] {
    let Measure { name, unit, target, .. } = measure;
    let target = target.map_or(String::new(), |target| match target {
        Target::AtLeast(bound) => format!("≥ {bound}"),
        Target::AtMost(bound) => format!("≤ {bound}"),
    });
    let verdict = match measure.verdict() {
        None => "",
        Some(true) => "ok",
        Some(false) => "miss",
    };
    let name = if unit.is_empty() { name.clone() } else { format!("{name} ({unit})") };
    let range = format!("{}–{}", number(measure.min()), number(measure.max()));
    [name, number(measure.median()), range, target, verdict.to_owned()]
}

/// Three digits that matter, and thousands apart.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if !(0.0005..1.0).contains(&size) => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, _)| {
        (whole, text.get(whole.len()..).unwrap_or_default())
    });
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// The same as JSON, with the values of all rounds.
pub(crate) fn json(machine: &Machine, measures: &[Measure]) -> Result<()> {
    let measures: Vec<Value> = measures
        .iter()
        .map(|measure| {
            let target = measure.target.map(|target| match target {
                Target::AtLeast(bound) => json!({ "at_least": bound }),
                Target::AtMost(bound) => json!({ "at_most": bound }),
            });
            json!({
                "measure": measure.name, "unit": measure.unit, "values": measure.values(),
                "median": measure.median(), "min": measure.min(), "max": measure.max(),
                "target": target, "ok": measure.verdict(),
            })
        })
        .collect();
    let whole = json!({ "machine": machine.to_string(), "measures": measures });
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&whole)?)?;
    Ok(())
}
