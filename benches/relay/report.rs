//! Report of a run: measures with their goals, and a line for each drain.

use crate::measure::Measure;

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
}

/// A line of the second table: medians of a drain.
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
