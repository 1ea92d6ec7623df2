//! Formats the report as text: two tables in Markdown.

use crate::{
    goals::Goal,
    machine::Machine,
    measure::{Measure, sorted},
    number::{number, number_of},
    report::{Report, Row},
};

const HEADINGS: [&str; 5] = ["measure", "median", "rounds", "target", ""];

const DRAIN_HEADINGS: [&str; 10] = [
    "drain",
    "events",
    "bare publish/s",
    "drained/s",
    "ratio",
    "relay µs",
    "Postgres µs",
    "nats µs",
    "WAL B",
    "RSS MiB",
];

/// Largest number of rounds whose values are listed one by one. Of more rounds the lowest and the
/// highest value are shown.
const ROUNDS_SHOWN: usize = 5;

/// Formats the whole report.
pub(crate) fn text(machine: &Machine, report: &Report) -> String {
    let mut text = format!("{machine}\n\n");
    let rows: Vec<_> = report.measures.iter().map(measure_row).collect();
    push_table(&mut text, HEADINGS, &rows);
    let missed = report.measures.iter().filter(|measure| measure.verdict() == Some(false)).count();
    let judged = report.measures.iter().filter(|measure| measure.goal.is_some()).count();
    let reached = format!("\n{} of {judged} targets reached\n", judged - missed);
    text.push_str(&reached);
    if !report.drains.is_empty() {
        text.push_str(
            "\nDrains: 500 B and 10,000 keys, R1 on files, unless the name says otherwise\n\n",
        );
        let rows: Vec<_> = report.drains.iter().map(drain_row).collect();
        push_table(&mut text, DRAIN_HEADINGS, &rows);
    }
    text
}

fn push_table<const N: usize>(text: &mut String, headings: [&str; N], rows: &[[String; N]]) {
    let headings = headings.map(str::to_owned);
    let mut widths = [0; N];
    for row in rows.iter().chain([&headings]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let rules = widths.map(|width| "-".repeat(width));
    for row in [&headings, &rules].into_iter().chain(rows) {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str("| ");
        text.push_str(&cells.join(" | "));
        text.push_str(" |\n");
    }
}

fn measure_row(measure: &Measure) -> [String; 5] {
    let Measure { name, unit, .. } = measure;
    let verdict = match measure.verdict() {
        None => "",
        Some(true) => "ok",
        Some(false) => "miss",
    };
    let name = if unit.is_empty() { name.clone() } else { format!("{name} ({unit})") };
    let target = measure.goal.map(goal).unwrap_or_default();
    [name, number(measure.median()), rounds(&measure.values), target, verdict.to_owned()]
}

/// Values of all rounds in one cell of the table.
fn rounds(values: &[f64]) -> String {
    if values.len() <= ROUNDS_SHOWN {
        return values.iter().map(|value| number(*value)).collect::<Vec<_>>().join(" · ");
    }
    let in_order = sorted(values.to_vec());
    let ends = in_order.first().zip(in_order.last());
    ends.map(|(low, high)| format!("{}–{}", number(*low), number(*high))).unwrap_or_default()
}

/// Formats a goal for people, as in `≥ 0.9`.
pub(crate) fn goal(goal: Goal) -> String {
    match goal {
        Goal::AtLeast(bound) => format!("≥ {}", plain(bound)),
        Goal::AtMost(bound) => format!("≤ {}", plain(bound)),
    }
}

fn plain(bound: f64) -> String {
    if bound >= 1000.0 { number(bound) } else { bound.to_string() }
}

fn drain_row(row: &Row) -> [String; 10] {
    [
        row.name.clone(),
        number_of(row.events),
        number(row.ceiling_rate),
        number(row.rate),
        number(row.ratio),
        number(row.relay_us),
        number(row.postgres_us),
        number(row.nats_us),
        number(row.wal_bytes),
        number(row.resident),
    ]
}
