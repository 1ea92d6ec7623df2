//! The workload: concurrent writers that fill an outbox with all kinds of transactions, and note
//! what they did.
//!
//! Every transaction is drawn from the seed (see `plan`). Its rows get their number within their
//! key under that key's lock, and its end is noted in the [`Ledger`]. When a connection breaks in
//! the middle of COMMIT, the writer finds out afterwards whether the transaction was committed, so
//! that a run through crashes of Postgres leaves no transaction uncertain.

mod expected;
mod insert;
mod plan;
mod session;
mod writer;

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::checker::{Ledger, Nanos, Order};
pub(in crate::dev) use expected::{ANY_SEQUENCE, ANY_TIME};

/// The settings of a workload. The default is 10,000 events by 8 writers, without a limit of the
/// rate.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database, with the outbox in it.
    pub url: String,
    /// The schema of the outbox.
    pub schema: String,
    /// Number of events to commit, exactly.
    pub events: u64,
    /// Number of connections that write at once.
    pub writers: u32,
    /// Number of different keys; a fifth of the writes goes to three of them.
    pub keys: u32,
    /// Bytes of one payload, from and to. At least 40 are used.
    pub payload_bytes: RangeInclusive<u32>,
    /// Committed events a second at most, all writers together.
    pub events_per_second: Option<u32>,
    /// The seed from which the transactions are drawn.
    pub seed: u64,
    /// Whether writers lock the keys that they write to.
    pub order: Order,
    /// Percentage of events that have no key.
    pub keyless_percent: u32,
    /// Percentage of events that have no payload.
    pub null_percent: u32,
    /// Percentage of transactions that are rolled back as a whole.
    pub rolled_back_percent: u32,
    /// Percentage of transactions that insert some rows and roll them back to a savepoint.
    pub savepoint_percent: u32,
    /// Percentage of transactions that stay open for a while after their inserts.
    pub held_open_percent: u32,
    /// Percentage of transactions that draw their id a while before their first insert.
    pub early_xid_percent: u32,
    /// Percentage of transactions that are committed in two phases with a pause between.
    pub prepared_percent: u32,
    /// The longest pause, inclusive, of a transaction that stays open, waits before its inserts, or
    /// waits between its two phases.
    pub hold_max: Duration,
    /// Longest time in which a writer tries to connect again; then the run fails.
    pub reconnect_timeout: Duration,
    /// The beginning of every subject: the part of the route before `{event_type}`.
    pub subject_prefix: String,
    /// The `ce-source` to expect: the relay's configured source.
    pub source: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: "postgresql://postgres@127.0.0.1/postgres".to_owned(),
            schema: "postrider".to_owned(),
            events: 10_000,
            writers: 8,
            keys: 1_000,
            payload_bytes: 40..=800,
            events_per_second: None,
            seed: 1,
            order: Order::Serial,
            keyless_percent: 5,
            null_percent: 1,
            rolled_back_percent: 15,
            savepoint_percent: 5,
            held_open_percent: 0,
            early_xid_percent: 1,
            prepared_percent: 0,
            hold_max: Duration::from_millis(50),
            reconnect_timeout: Duration::from_mins(1),
            subject_prefix: "events.".to_owned(),
            source: "postrider".to_owned(),
        }
    }
}

/// Reason why a workload could not go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// The database was away for longer than the writers retry.
    #[error("connect to the database within {} s: {source}", .reconnect_timeout.as_secs())]
    Unreachable {
        /// How long the writer tried to connect.
        reconnect_timeout: Duration,
        /// The error of the last attempt.
        source: tokio_postgres::Error,
    },
    /// A statement failed for a reason that trying again does not change.
    #[error("write to the outbox: {0}; run `postrider migrate` first if it is missing")]
    Statement(#[source] tokio_postgres::Error),
    /// A writer ended without a result.
    #[error("a writer ended early: {0}")]
    Writer(#[from] tokio::task::JoinError),
}

/// Progress of a workload, readable while it runs.
#[derive(Debug, Default)]
pub struct WorkloadProgress {
    committed: AtomicU64,
    rolled_back: AtomicU64,
    transactions: AtomicU64,
}

impl WorkloadProgress {
    /// Events committed so far.
    pub fn committed(&self) -> u64 {
        self.committed.load(Relaxed)
    }

    /// Events inserted and rolled back so far.
    pub fn rolled_back(&self) -> u64 {
        self.rolled_back.load(Relaxed)
    }

    /// Transactions ended so far, one way or the other.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Relaxed)
    }
}

/// A set of writers, ready to run.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
}

/// The state that the writers of a workload share.
#[derive(Debug)]
struct Shared {
    options: Options,
    progress: Arc<WorkloadProgress>,
    started: Instant,
    /// Number of events that no writer has undertaken to commit yet.
    unclaimed: AtomicU64,
    /// The last number given to an event of each key. Guarded by the key's lock in the database.
    key_seqs: Vec<AtomicU64>,
}

impl Workload {
    /// Prepares the writers; nothing is connected yet.
    pub fn new(options: Options) -> Self {
        let shared = Shared {
            progress: Arc::new(WorkloadProgress::default()),
            started: Instant::now(),
            unclaimed: AtomicU64::new(options.events),
            key_seqs: (0..options.keys).map(|_| AtomicU64::new(0)).collect(),
            options,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The progress of the workload, which can be read while the workload runs.
    pub fn progress(&self) -> Arc<WorkloadProgress> {
        Arc::clone(&self.shared.progress)
    }

    /// Runs the writers until all events are committed, or until `stop` is cancelled.
    ///
    /// # Errors
    /// When the database stays away or refuses what is inserted. What was committed until then
    /// stays in the outbox, and the ledger is lost.
    ///
    /// # Cancel safety
    /// Dropping the future ends the writers; open transactions are rolled back by the database.
    pub async fn run(&self, stop: &CancellationToken) -> Result<Ledger, WorkloadError> {
        let stop = stop.child_token();
        let mut writers = JoinSet::new();
        for number in 0..self.shared.options.writers {
            let writer = writer::Writer::new(Arc::clone(&self.shared), number);
            writers.spawn(writer.run(stop.clone()));
        }
        let mut ledger = Ledger::default();
        while let Some(result) = writers.join_next().await {
            // The first failure drops the set, which ends the others.
            ledger.absorb(result??);
        }
        Ok(ledger)
    }
}

impl Shared {
    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Reserves up to `wanted` events of the workload for a writer; returns how many it may commit.
    fn claim(&self, wanted: u64) -> u64 {
        let rest = |unclaimed: u64| Some(unclaimed.saturating_sub(wanted));
        let before = self.unclaimed.fetch_update(Relaxed, Relaxed, rest);
        wanted.min(before.unwrap_or(0))
    }

    /// Gives back reserved events that were not committed.
    fn unclaim(&self, events: u64) {
        self.unclaimed.fetch_add(events, Relaxed);
    }

    /// The next number within a key. With `Order::Serial` the caller has the key's lock.
    fn next_key_seq(&self, key: u32) -> u64 {
        self.key_seqs.get(key as usize).map_or(0, |last| last.fetch_add(1, Relaxed) + 1)
    }

    /// The time at which the next transaction may begin, so that the rate is kept. `None` without a
    /// limit of the rate.
    fn due(&self) -> Option<Instant> {
        let rate = u64::from(self.options.events_per_second?.max(1));
        let claimed = self.options.events.saturating_sub(self.unclaimed.load(Relaxed));
        Some(self.started + Duration::from_micros(claimed.saturating_mul(1_000_000) / rate))
    }
}
