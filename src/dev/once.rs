//! Runs a workload through the relay once, and compares what arrived with what was committed.

use std::{io, time::Duration};

use futures_util::future::{Either, select};
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    checker::{CheckerReport, Ledger, Observed, Order, TransactionFate, check},
    stage::{STREAM, Stage},
    stream_reader::{ReadError, count_messages, read_stream},
    workload::{self, Workload, WorkloadError},
};
use crate::tasks;

/// Longest time without an arrival; after it the run waits for no further event.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);

/// The report of a run: its figures, and the checker's findings.
#[derive(Debug)]
pub struct RunReport {
    /// The result of comparing what was committed with what the stream contains.
    pub report: CheckerReport,
    /// Number of transactions of the workload, however they ended.
    pub transactions: u64,
    /// Number of events that were inserted and rolled back.
    pub rolled_back: u64,
    /// Number of different keys of the committed events.
    pub keys: u64,
    /// The time from the first insert to the last arrival.
    pub elapsed: Duration,
    /// The relay's peak memory in bytes, where the system reports it.
    pub relay_memory_bytes: Option<u64>,
    /// The errors in the relay's log.
    pub relay_errors: Vec<String>,
    /// Exit code of the relay that was asked to stop; `None` when a signal ended it.
    pub relay_exit: Option<i32>,
}

impl RunReport {
    /// Whether the checker found no fault, every committed event was stored, none is a dead letter,
    /// and the relay stopped without an error.
    pub fn is_clean(&self) -> bool {
        self.report.is_clean()
            && self.report.dead == 0
            && self.report.committed == self.report.stored
            && self.relay_errors.is_empty()
            && self.relay_exit == Some(0)
    }

    /// Committed events for each second from the first insert to the last arrival.
    pub fn events_per_second(&self) -> u64 {
        let micros = self.elapsed.as_micros().max(1);
        let rate = u128::from(self.report.committed) * 1_000_000 / micros;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

/// Reason why a run gave no outcome.
#[derive(Debug, Error)]
pub enum OnceError {
    /// The workload could not go on.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The stream cannot be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The stream cannot be watched.
    #[error("watch the stream: {0}")]
    Nats(String),
    /// The dead letters cannot be read.
    #[error("read the dead letters: {0}")]
    Letters(#[from] tokio_postgres::Error),
    /// The relay ended before the run was over.
    #[error("the relay ended; the end of its log:\n{log}")]
    RelayEnded {
        /// Last lines of the relay's log.
        log: String,
    },
    /// The relay could not be stopped.
    #[error("stop the relay: {0}")]
    Stop(#[from] io::Error),
}

/// Sends a workload through the stage's relay, stops the relay, and checks what the stream
/// contains.
///
/// `progress` is called at intervals with the numbers of committed and of stored events.
///
/// # Errors
/// When the run ends before the comparison. Faults that the comparison finds, and events that never
/// arrive, are no errors: they are in the report.
///
/// # Cancel safety
/// Dropping the future ends the workload. The servers and the relay of `stage` go on.
pub async fn run(
    stage: &mut Stage,
    options: workload::Options,
    mut progress: impl FnMut(u64, u64),
) -> Result<RunReport, OnceError> {
    let order = options.order;
    let workload = Workload::new(options);
    let counters = workload.progress();
    let stop = CancellationToken::new();
    let client = async_nats::connect(stage.nats_url()).await;
    let context = async_nats::jetstream::new(client.map_err(|e| OnceError::Nats(e.to_string()))?);

    let started = Instant::now();
    let mut writing = Some(Box::pin(workload.run(&stop)));
    let mut ledger = Ledger::default();
    let mut arrived = (0, started);
    loop {
        let tick = Box::pin(sleep(Duration::from_millis(20)));
        // Each pass of the loop wakes up when the writers end or the timer ticks. Once they have
        // ended, only the timer wakes it.
        match writing.take() {
            Some(run) => match select(run, tick).await {
                Either::Left((result, _)) => ledger = result?,
                Either::Right(((), run)) => writing = Some(run),
            },
            None => tick.await,
        }
        if stage.relay.has_ended() {
            return Err(OnceError::RelayEnded { log: stage.relay.log_tail() });
        }
        let stored = count_messages(&context, STREAM).await;
        let stored = stored.map_err(|error| OnceError::Nats(error.to_string()))?;
        if stored != arrived.0 {
            arrived = (stored, Instant::now());
        }
        progress(counters.committed(), stored);
        let is_complete = writing.is_none() && stored >= counters.committed();
        if is_complete || writing.is_none() && arrived.1.elapsed() > STANDSTILL_MAX {
            break;
        }
    }
    compare(stage, &ledger, order, arrived.1 - started).await
}

/// Stops the relay, so that no event moves any more, and compares the stream with the ledger.
async fn compare(
    stage: &mut Stage,
    ledger: &Ledger,
    order: Order,
    elapsed: Duration,
) -> Result<RunReport, OnceError> {
    let relay_memory_bytes = stage.relay.memory_bytes_max();
    let relay_exit = stage.relay.stop().await?;
    let (dead, pending) = letters(&stage.database_url()).await?;
    let stream = read_stream(&stage.nats_url(), STREAM).await?;
    let observed = Observed { stream, dead, pending };
    Ok(RunReport {
        report: check(ledger, &observed, order),
        transactions: ledger.transactions.len() as u64,
        rolled_back: ledger.events(TransactionFate::RolledBack),
        keys: ledger.keys(),
        elapsed,
        relay_memory_bytes,
        relay_errors: stage.relay.errors(),
        relay_exit,
    })
}

/// The ids of the events that are dead letters, and of those in other unresolved letters.
async fn letters(url: &str) -> Result<(Vec<Uuid>, Vec<Uuid>), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tasks::drive(async move { drop(connection.await) });
    let row = client.query_one(include_str!("letters.sql"), &[]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
