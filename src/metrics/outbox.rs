//! What happens at the tables, and what it costs the application's database.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    SecondsGauge, count,
    labels::{Query, QueryLabel, Route, RouteLabel, Table, TableLabel},
    seconds_histogram,
};

const TABLE: TableLabel = TableLabel { table: Table::Outbox };

/// What happens at the tables.
#[derive(Debug)]
pub struct Outbox {
    fetched: Counter,
    pending: Gauge,
    oldest_pending: SecondsGauge,
    dead_letters: Gauge,
    retention_deleted: Counter,
    queries: QueryDurations,
}

/// Measures statements; a clone belongs to each session.
#[derive(Debug, Clone)]
pub struct QueryDurations(Family<QueryLabel, Histogram, fn() -> Histogram>);

impl QueryDurations {
    /// A statement was answered, or given up.
    pub fn queried(&self, query: Query, took: Duration) {
        self.0.get_or_create(&QueryLabel { query }).observe(took.as_secs_f64());
    }
}

impl Outbox {
    pub(super) fn register(list: &mut Registry) -> Self {
        let fetched = Family::<TableLabel, Counter>::default();
        let pending = Family::<TableLabel, Gauge>::default();
        let oldest_pending = Family::<TableLabel, SecondsGauge>::default();
        let dead_letters = Family::<RouteLabel, Gauge>::default();
        let retention_deleted = Family::<TableLabel, Counter>::default();
        let queries = Family::new_with_constructor(seconds_histogram as fn() -> Histogram);
        let this = Self {
            fetched: fetched.get_or_create_owned(&TABLE),
            pending: pending.get_or_create_owned(&TABLE),
            oldest_pending: oldest_pending.get_or_create_owned(&TABLE),
            dead_letters: dead_letters.get_or_create_owned(&RouteLabel { route: Route::Default }),
            retention_deleted: retention_deleted.get_or_create_owned(&TABLE),
            queries: QueryDurations(queries.clone()),
        };
        for query in Query::ALL {
            drop(queries.get_or_create(&QueryLabel { query: *query }));
        }
        list.register("rows_fetched", "Rows read from the outbox", fetched);
        list.register("pending_messages", "Committed events that are not settled", pending);
        list.register_with_unit(
            "oldest_pending_age",
            "Age of the oldest committed event that is not settled",
            Unit::Seconds,
            oldest_pending,
        );
        list.register("dead_letters", "Dead letters that nobody has dealt with", dead_letters);
        list.register(
            "retention_deleted_rows",
            "Settled rows that retention removed",
            retention_deleted,
        );
        list.register_with_unit(
            "database_query_duration",
            "Statements of the relay at the application's database",
            Unit::Seconds,
            queries,
        );
        this
    }

    /// Rows were read.
    pub fn fetched(&self, rows: usize) {
        self.fetched.inc_by(u64::try_from(rows).unwrap_or(u64::MAX));
    }

    /// What is left to do: committed events, the oldest one's age, and dead letters.
    pub fn depth(&self, pending: u64, oldest_seconds: f64, dead_letters: u64) {
        self.pending.set(count(pending));
        self.oldest_pending.set(oldest_seconds);
        self.dead_letters.set(count(dead_letters));
    }

    /// Retention removed rows.
    pub fn retired(&self, rows: u64) {
        self.retention_deleted.inc_by(rows);
    }

    /// What measures the statements of a session.
    pub fn queries(&self) -> QueryDurations {
        self.queries.clone()
    }
}
