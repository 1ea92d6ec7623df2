//! A backlog is drained, and what that costs everybody; divided by the ceiling of the same round.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::{
    ceiling,
    daemon::Daemon,
    measure::{Measure, float},
    options::Options,
    proc,
    stage::{Stage, insert_backlog, wait_for_relay},
    stream, table,
};

const STREAM: &str = "DRAIN";
const DATABASE: &str = "drain";

/// Long enough for the relay to settle the last events.
const AFTERMATH: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Rounds {
    ceiling_rate: Vec<f64>,
    ceiling_client_us: Vec<f64>,
    ceiling_server_us: Vec<f64>,
    ratio: Vec<f64>,
    rate: Vec<f64>,
    relay_us: Vec<f64>,
    postgres_us: Vec<f64>,
    nats_us: Vec<f64>,
    wal_bytes: Vec<f64>,
    resident: Vec<f64>,
}

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Vec<Measure>> {
    let count = options.drain_events();
    let mut rounds = Rounds::default();
    for round in 1..=options.rounds {
        let client = stage.database(DATABASE).await?;
        insert_backlog(&client, count).await?;
        // Statistics and dirty pages are the writers' business, and come before the drain.
        client.batch_execute("ANALYZE").await?;
        stage.checkpoint().await?;
        let ceiling = ceiling::run(stage, count).await?;
        rounds.ceiling_rate.push(ceiling.rate);
        rounds.ceiling_client_us.push(ceiling.client_us);
        rounds.ceiling_server_us.push(ceiling.server_us);
        drain(stage, &client, count, &mut rounds).await?;
        drop(client);
        stage.drop_database(DATABASE).await?;
        let last = |values: &[f64]| values.last().copied().unwrap_or(f64::NAN);
        table::note(&format!(
            "drain {round}: ceiling {:.0}/s, drained {:.0}/s, ratio {:.3}",
            ceiling.rate,
            last(&rounds.rate),
            last(&rounds.ratio)
        ));
    }
    Ok(rounds.measures())
}

async fn drain(stage: &Stage, client: &Client, count: u64, rounds: &mut Rounds) -> Result<()> {
    let wal_before = wal_position(client).await?;
    let nats_before = stage.nats_cpu_seconds()?;
    let mut daemon = stage.relay(DATABASE, STREAM)?;
    let backends = wait_for_relay(client, &mut daemon).await?;
    stream::wait_for_count(&stage.jetstream, STREAM, count, &mut daemon).await?;
    let per_event = |seconds: f64| seconds * 1e6 / float(count);
    rounds.relay_us.push(per_event(daemon.cpu_seconds()?));
    rounds.nats_us.push(per_event(stage.nats_cpu_seconds()? - nats_before));
    rounds.postgres_us.push(per_event(proc::cpu_seconds_of_all(&backends)?));
    sleep(AFTERMATH).await;
    rounds.wal_bytes.push((wal_position(client).await? - wal_before) / float(count));
    rounds.resident.push(daemon.resident_peak()?);
    finish(stage, daemon).await?;
    let rate = stream::rate(&stage.jetstream, STREAM, count).await?;
    stream::remove(&stage.jetstream, STREAM).await?;
    let ceiling = rounds.ceiling_rate.last().copied().unwrap_or(f64::NAN);
    rounds.rate.push(rate);
    rounds.ratio.push(rate / ceiling);
    Ok(())
}

async fn finish(stage: &Stage, daemon: Daemon) -> Result<()> {
    daemon.stop().await?;
    // What comes twice comes late: nothing may follow the last event.
    stream::settled_count(&stage.jetstream, STREAM).await?;
    Ok(())
}

/// Bytes of WAL that were ever written, less a constant.
async fn wal_position(client: &Client) -> Result<f64> {
    let statement = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8";
    Ok(client.query_one(statement, &[]).await?.try_get(0)?)
}

impl Rounds {
    fn measures(self) -> Vec<Measure> {
        vec![
            Measure::new("drain ÷ ceiling", "", self.ratio).at_least(0.75),
            Measure::new("drain", "events/s", self.rate),
            Measure::new("ceiling", "events/s", self.ceiling_rate),
            Measure::new("drain: Postgres CPU", "µs/event", self.postgres_us).at_most(1.5),
            Measure::new("drain: WAL", "bytes/event", self.wal_bytes).at_most(1.0),
            Measure::new("drain: relay RSS peak", "MiB", self.resident).at_most(48.0),
            Measure::new("drain: relay CPU", "µs/event", self.relay_us),
            Measure::new("drain: nats-server CPU", "µs/event", self.nats_us),
            Measure::new("ceiling: client CPU", "µs/event", self.ceiling_client_us),
            Measure::new("ceiling: nats-server CPU", "µs/event", self.ceiling_server_us),
        ]
    }
}
