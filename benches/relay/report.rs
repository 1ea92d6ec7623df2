//! What was measured, and where it goes: a table for people, JSON for machines, charts for pages.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{
    chart,
    drained::Row,
    goals::Goal,
    machine::Machine,
    measure::{Measure, sorted},
    options::Options,
    table,
};

/// The lines of both tables.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) measures: Vec<Measure>,
    /// Drains of different shapes.
    pub(crate) drains: Vec<Row>,
}

impl Report {
    /// Measures without drains.
    pub(crate) fn of(measures: Vec<Measure>) -> Self {
        Self { measures, drains: Vec::new() }
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.measures.extend(other.measures);
        self.drains.extend(other.drains);
    }

    /// Writes the files, into `target/bench/`. Returns their paths.
    pub(crate) fn write(&self, machine: &Machine) -> Result<Vec<PathBuf>> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = directory.parent().context("a directory for what is built")?.join("bench");
        fs::create_dir_all(&directory)?;
        let files = [
            ("relay.md", table::text(machine, self)),
            ("relay.json", self.json(machine)?),
            ("goals.svg", chart::goals(machine, &self.measures)),
            ("drains.svg", chart::drains(machine, &self.drains)),
        ];
        let write = |(name, text): (&str, String)| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
            Ok(path)
        };
        files.into_iter().map(write).collect()
    }

    /// Says it on the standard output.
    pub(crate) fn print(&self, machine: &Machine, options: &Options) -> Result<()> {
        let text = if options.json { self.json(machine)? } else { table::text(machine, self) };
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }

    fn json(&self, machine: &Machine) -> Result<String> {
        let measures: Vec<Value> = self.measures.iter().map(measure_json).collect();
        let drains: Vec<Value> = self.drains.iter().map(row_json).collect();
        let whole =
            json!({ "machine": machine.to_string(), "measures": measures, "drains": drains });
        Ok(serde_json::to_string_pretty(&whole)? + "\n")
    }
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
