//! Report of a run: the measures with their goals, and a line for each drain.

use crate::measure::Measure;

/// Lines of both tables of the report.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) measures: Vec<Measure>,
    /// A line for each shape of backlog that was drained.
    pub(crate) drains: Vec<Row>,
}

impl Report {
    /// Makes a report of measures, without lines for drains.
    pub(crate) fn of(measures: Vec<Measure>) -> Self {
        Self { measures, drains: Vec::new() }
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.measures.extend(other.measures);
        self.drains.extend(other.drains);
    }
}

/// Line of the second table: the medians of all rounds of a drain.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) events: u64,
    pub(crate) ceiling_rate: f64,
    pub(crate) rate: f64,
    pub(crate) ratio: f64,
    pub(crate) relay_us: f64,
    pub(crate) postgres_us: f64,
    pub(crate) nats_us: f64,
    pub(crate) wal_bytes: f64,
    pub(crate) resident: f64,
}
