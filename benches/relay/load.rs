//! Runs writers at a given rate. Each commits at fixed times, whether or not earlier transactions
//! were slow.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures_util::future::{try_join, try_join_all};
use postrider::dev::random::Random;
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::{
    backlog::{AGGREGATE_TYPE, EVENT_TYPE, USUAL},
    measure::float,
    stage::connect,
};

const WRITERS: u32 = 4;

/// Time in which all writers connect, before the first event is due.
const PREPARATION: Duration = Duration::from_millis(500);

const INSERT: &str = "INSERT INTO postrider.outbox \
    (event_id, event_type, aggregate_type, aggregate_id, payload) \
    VALUES ($1, $2, $3, $4, $5::text::json)";

/// A committed event, as its writer saw it.
pub(crate) struct Committed {
    pub(crate) id: Uuid,
    /// Moment at which COMMIT returned.
    pub(crate) at: Instant,
    /// Duration of the COMMIT.
    pub(crate) commit: Duration,
    /// Duration of the whole transaction.
    pub(crate) transaction: Duration,
}

/// Rate at which events are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Events per second of all writers together.
    pub(crate) events: u32,
    /// Events per transaction.
    pub(crate) together: u32,
}

/// Commits events at this rate for this time. Returns each committed event.
pub(crate) async fn run(url: &str, rate: Rate, time: Duration) -> Result<Vec<Committed>> {
    let mut writers = JoinSet::new();
    let start = Instant::now() + PREPARATION;
    for number in 0..WRITERS {
        let url = url.to_owned();
        let Rate { events, together } = rate;
        let interval = Duration::from_secs(1) * WRITERS * together / events;
        let transactions = time.as_secs_f64() / interval.as_secs_f64();
        let plan = Plan { number, start, interval, transactions, together };
        // Each writer has a thread of its own, because a sleeping thread wakes closer to its time
        // than a timer.
        writers.spawn_blocking(move || write(&url, &plan));
    }
    let mut committed = Vec::new();
    while let Some(written) = writers.join_next().await {
        committed.extend(written??);
    }
    Ok(committed)
}

struct Plan {
    number: u32,
    start: Instant,
    interval: Duration,
    transactions: f64,
    together: u32,
}

fn write(url: &str, plan: &Plan) -> Result<Vec<Committed>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (client, insert) = runtime.block_on(prepare(url))?;
    let mut random = Random::fork(1, u64::from(plan.number));
    let payload = USUAL.payload();
    let mut committed = Vec::new();
    let mut begun = 0_u64;
    while float(begun) < plan.transactions {
        // The moment is random within its interval, so that writers and the relay's polls do not
        // fall into step.
        let jitter = plan.interval.mul_f64(f64::from(random.below(1000)) / 1000.0);
        let due = plan.start + plan.interval.mul_f64(float(begun)) + jitter;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut event = || (Uuid::now_v7(), random.below(USUAL.keys).to_string());
        let events: Vec<_> = (0..plan.together).map(|_| event()).collect();
        committed.extend(runtime.block_on(commit(&client, &insert, &events, &payload))?);
        begun += 1;
    }
    Ok(committed)
}

async fn prepare(url: &str) -> Result<(Client, Statement)> {
    let client = connect(url).await.context("connect a writer")?;
    let insert = client.prepare(INSERT).await?;
    // The first insert of a session fills caches, so one is made here and rolled back.
    client.batch_execute("BEGIN").await?;
    insert_one(&client, &insert, Uuid::now_v7(), "0", &USUAL.payload()).await?;
    client.batch_execute("ROLLBACK").await?;
    Ok((client, insert))
}

async fn commit(
    client: &Client,
    insert: &Statement,
    events: &[(Uuid, String)],
    payload: &str,
) -> Result<Vec<Committed>> {
    let from = Instant::now();
    // BEGIN and all inserts go in one round trip, as drivers with pipelining send them.
    let begin = async { Ok(client.batch_execute("BEGIN").await?) };
    let inserts = events.iter().map(|(id, key)| insert_one(client, insert, *id, key, payload));
    try_join(begin, try_join_all(inserts)).await?;
    let inserted = Instant::now();
    client.batch_execute("COMMIT").await?;
    let at = Instant::now();
    let (commit, transaction) = (at - inserted, at - from);
    Ok(events.iter().map(|(id, _)| Committed { id: *id, at, commit, transaction }).collect())
}

async fn insert_one(
    client: &Client,
    insert: &Statement,
    id: Uuid,
    key: &str,
    payload: &str,
) -> Result<()> {
    client.execute(insert, &[&id, &EVENT_TYPE, &AGGREGATE_TYPE, &key, &payload]).await?;
    Ok(())
}
