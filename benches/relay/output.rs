//! Writes the report: a table for people, JSON for programs, and charts for web pages.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{
    chart,
    goals::Goal,
    machine::Machine,
    measure::{Measure, sorted},
    options::Options,
    report::{Report, Row},
    table,
};

/// Writes the four files of the report into `target/bench/`. Returns their paths.
pub(crate) fn write(report: &Report, machine: &Machine) -> Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = directory.parent().context("a directory for what is built")?.join("bench");
    fs::create_dir_all(&directory)?;
    let files = [
        ("relay.md", table::text(machine, report)),
        ("relay.json", as_json(report, machine)?),
        ("goals.svg", chart::goals(machine, &report.measures)),
        ("drains.svg", chart::drains(machine, &report.drains)),
    ];
    let write = |(name, text): (&str, String)| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    };
    files.into_iter().map(write).collect()
}

/// Prints the tables on standard output, or the JSON where the options ask for it.
pub(crate) fn print(report: &Report, machine: &Machine, options: &Options) -> Result<()> {
    let text = if options.json { as_json(report, machine)? } else { table::text(machine, report) };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn as_json(report: &Report, machine: &Machine) -> Result<String> {
    let measures: Vec<Value> = report.measures.iter().map(measure_json).collect();
    let drains: Vec<Value> = report.drains.iter().map(row_json).collect();
    let whole = json!({ "machine": machine.to_string(), "measures": measures, "drains": drains });
    Ok(serde_json::to_string_pretty(&whole)? + "\n")
}

fn measure_json(measure: &Measure) -> Value {
    let goal = measure.goal.map(|goal| match goal {
        Goal::AtLeast(bound) => json!({ "at_least": bound }),
        Goal::AtMost(bound) => json!({ "at_most": bound }),
    });
    let in_order = sorted(measure.values.clone());
    json!({
        "measure": measure.name, "unit": measure.unit, "values": measure.values,
        "median": measure.median(), "min": in_order.first(), "max": in_order.last(),
        "goal": goal, "ok": measure.verdict(),
    })
}

fn row_json(row: &Row) -> Value {
    json!({
        "drain": row.name, "events": row.events, "bare_publish_per_second": row.ceiling_rate,
        "drained_per_second": row.rate, "ratio": row.ratio, "relay_us": row.relay_us,
        "postgres_us": row.postgres_us, "nats_us": row.nats_us, "wal_bytes": row.wal_bytes,
        "resident_mib": row.resident,
    })
}
