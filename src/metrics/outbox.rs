//! Metrics of the tables, and of the relay's cost to the application's database.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{
    Measured, SecondsGauge, count,
    labels::{
        LetterState, LetterStateLabel, Measurement, MeasurementLabel, Query, QueryLabel, Table,
        TableLabel,
    },
    seconds_histogram,
};

const TABLE: TableLabel = TableLabel { table: Table::Outbox };

/// The metrics of the tables.
#[derive(Debug)]
pub struct OutboxMetrics {
    fetched: Counter,
    pending: Gauge,
    oldest_pending: SecondsGauge,
    dead_letters: Gauge,
    letters: Family<LetterStateLabel, Gauge>,
    measurement_age: SecondsGauge,
    measured: Mutex<Measured>,
    lost: Gauge,
    retention_deleted: Counter,
    queries: QueryDurations,
}

/// Measures how long the statements of the relay take. Each session has a clone.
#[derive(Debug, Clone)]
pub struct QueryDurations(Family<QueryLabel, Histogram, fn() -> Histogram>);

impl QueryDurations {
    pub(super) fn register(list: &mut Registry) -> Self {
        let queries = Family::new_with_constructor(seconds_histogram as fn() -> Histogram);
        for query in Query::ALL {
            drop(queries.get_or_create(&QueryLabel { query: *query }));
        }
        list.register_with_unit(
            "database_query_duration",
            "Statements of the relay at the application's database",
            Unit::Seconds,
            queries.clone(),
        );
        Self(queries)
    }

    /// Records the duration of a statement that was answered or given up.
    pub fn queried(&self, query: Query, took: Duration) {
        self.0.get_or_create(&QueryLabel { query }).observe(took.as_secs_f64());
    }
}

impl OutboxMetrics {
    pub(super) fn register(list: &mut Registry, queries: QueryDurations) -> Self {
        let fetched = Family::<TableLabel, Counter>::default();
        let pending = Family::<TableLabel, Gauge>::default();
        let oldest_pending = Family::<TableLabel, SecondsGauge>::default();
        let gone = Family::<TableLabel, Gauge>::default();
        let retention_deleted = Family::<TableLabel, Counter>::default();
        let this = Self {
            fetched: fetched.get_or_create_owned(&TABLE),
            pending: pending.get_or_create_owned(&TABLE),
            oldest_pending: oldest_pending.get_or_create_owned(&TABLE),
            dead_letters: Gauge::default(),
            letters: letters(list),
            measurement_age: measurement_age(list),
            measured: Mutex::new(Measured::never(Instant::now())),
            lost: gone.get_or_create_owned(&TABLE),
            retention_deleted: retention_deleted.get_or_create_owned(&TABLE),
            queries,
        };
        list.register("rows_fetched", "Rows read from the outbox", fetched);
        let help = "Committed events that wait to be published";
        list.register("pending_messages", help, pending);
        list.register_with_unit(
            "oldest_pending_age",
            "Age of the oldest committed event that waits to be published",
            Unit::Seconds,
            oldest_pending,
        );
        list.register(
            "lost_messages",
            "Published events that the stream and the outbox have lost, at most, until acknowledged",
            gone,
        );
        let help = "Dead letters that nobody has dealt with";
        list.register("dead_letters", help, this.dead_letters.clone());
        list.register(
            "retention_deleted_rows",
            "Settled rows that retention removed",
            retention_deleted,
        );
        this
    }

    /// Counts rows that were read.
    pub fn fetched(&self, rows: usize) {
        self.fetched.inc_by(u64::try_from(rows).unwrap_or(u64::MAX));
    }

    /// Notes a measurement of the backlog.
    pub fn measured(&self, measured: Measured) {
        *self.measured.lock().unwrap_or_else(PoisonError::into_inner) = measured;
    }

    /// Sets the gauges to the values that follow from the last measurement and its age.
    pub(super) fn refresh(&self, now: Instant) {
        let measured = *self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        let depth = measured.depth;
        self.pending.set(count(depth.backlog()));
        self.oldest_pending.set(measured.oldest_seconds(now));
        self.measurement_age.set(measured.age(now).as_secs_f64());
        self.dead_letters.set(count(depth.dead));
        for state in LetterState::ALL {
            let letters = match state {
                LetterState::Retrying => depth.retrying,
                LetterState::Held => depth.held,
                LetterState::Dead => depth.dead,
            };
            let label = LetterStateLabel { state: *state };
            self.letters.get_or_create(&label).set(count(letters));
        }
    }

    /// Sets the number of published events that are gone for good. It is an upper bound, without
    /// the losses that an operator has acknowledged.
    pub fn lost(&self, events: u64) {
        self.lost.set(count(events));
    }

    /// Counts rows that retention removed.
    pub fn retired(&self, rows: u64) {
        self.retention_deleted.inc_by(rows);
    }

    /// The handle with which a session measures its statements.
    pub fn queries(&self) -> QueryDurations {
        self.queries.clone()
    }
}

fn letters(list: &mut Registry) -> Family<LetterStateLabel, Gauge> {
    let family = Family::<LetterStateLabel, Gauge>::default();
    for state in LetterState::ALL {
        let label = LetterStateLabel { state: *state };
        drop(family.get_or_create(&label));
    }
    list.register("letters", "Unresolved letters, by what they wait for", family.clone());
    family
}

fn measurement_age(list: &mut Registry) -> SecondsGauge {
    let family = Family::<MeasurementLabel, SecondsGauge>::default();
    let gauge = family.get_or_create_owned(&MeasurementLabel { measurement: Measurement::Depth });
    let help = "How old the figures are that the metrics of what waits rest on";
    list.register_with_unit("measurement_age", help, Unit::Seconds, family);
    gauge
}
