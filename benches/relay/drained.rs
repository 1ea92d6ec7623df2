//! Measures one drain and its cost to relay, Postgres and broker, beside the ceiling of the same
//! round.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::{
    backlog::Shape,
    brokers::Kind,
    ceiling::{self, Ceiling, Headers},
    measure::{float, last, median, ratios},
    proc,
    progress::note,
    report::Row,
    stage::{Stage, wait_for_no_relay, wait_for_relay},
    stream,
};

const STREAM: &str = "DRAIN";

/// Time that the relay gets to settle the last events.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Largest number of messages with which a ceiling is measured. More messages would not make the
/// figure better.
const CEILING_EVENTS_MAX: u64 = 500_000;

/// Largest number of messages of a ceiling on a broker that syncs each one, which may take a
/// millisecond per message.
const CEILING_EVENTS_MAX_SYNCED: u64 = 10_000;

/// Database with a backlog, and how much of the backlog is to be drained.
#[derive(Clone, Copy)]
pub(crate) struct Backlog<'a> {
    pub(crate) database: &'a str,
    pub(crate) shape: Shape,
    /// Number of events that are drained.
    pub(crate) count: u64,
    /// Whether `count` is the whole backlog.
    pub(crate) extent: Extent,
}

/// Part of the backlog that is drained.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The whole backlog. The stream must contain each event once.
    Whole,
    /// The beginning of the backlog. The relay is killed after `count` events.
    Part,
}

/// Measured values, one per round in each list.
#[derive(Default)]
pub(crate) struct Rounds {
    pub(crate) ceiling_rate: Vec<f64>,
    pub(crate) ceiling_client_us: Vec<f64>,
    pub(crate) ceiling_server_us: Vec<f64>,
    pub(crate) rate: Vec<f64>,
    pub(crate) relay_us: Vec<f64>,
    pub(crate) postgres_us: Vec<f64>,
    pub(crate) nats_us: Vec<f64>,
    pub(crate) wal_bytes: Vec<f64>,
    pub(crate) dead_tuples: Vec<f64>,
    pub(crate) resident: Vec<f64>,
}

impl Rounds {
    /// Measures a ceiling and a drain. Their order changes from round to round.
    pub(crate) async fn round(
        &mut self,
        stage: &Stage,
        client: &Client,
        backlog: Backlog<'_>,
    ) -> Result<()> {
        let Backlog { shape, count, .. } = backlog;
        let most = match stage.brokers.kind {
            Kind::Fsyncing => CEILING_EVENTS_MAX_SYNCED,
            Kind::Plain | Kind::Cluster => CEILING_EVENTS_MAX,
        };
        let bare = async || ceiling::run(stage, shape, count.min(most), Headers::Relay).await;
        if self.rate.len().is_multiple_of(2) {
            self.take(&bare().await?);
            self.drain(stage, client, backlog).await?;
        } else {
            self.drain(stage, client, backlog).await?;
            self.take(&bare().await?);
        }
        note(&format!(
            "{}: ceiling {:.0}/s, drained {:.0}/s, ratio {:.3}",
            backlog.database,
            last(&self.ceiling_rate),
            last(&self.rate),
            last(&self.ratios())
        ));
        Ok(())
    }

    fn take(&mut self, ceiling: &Ceiling) {
        self.ceiling_rate.push(ceiling.rate);
        self.ceiling_client_us.push(ceiling.client_us);
        self.ceiling_server_us.push(ceiling.server_us);
    }

    /// Measures a drain without its ceiling, into a new stream.
    pub(crate) async fn drain(
        &mut self,
        stage: &Stage,
        client: &Client,
        backlog: Backlog<'_>,
    ) -> Result<()> {
        let Backlog { count, extent, .. } = backlog;
        let dead_before = dead_tuples(client).await?;
        let wal_before = wal_position(client).await?;
        let nats_before = stage.brokers.cpu_seconds()?;
        let mut daemon = stage.relay(backlog.database, STREAM)?;
        let backends = wait_for_relay(client, &mut daemon).await?;
        let drained = stream::wait_for_count(&stage.jetstream, STREAM, count, &mut daemon).await?;
        let per_event = |seconds: f64| seconds * 1e6 / float(drained);
        self.relay_us.push(per_event(daemon.cpu_seconds()?));
        self.nats_us.push(per_event(stage.brokers.cpu_seconds()? - nats_before));
        self.postgres_us.push(per_event(proc::cpu_seconds_of_all(&backends)?));
        if extent == Extent::Whole {
            sleep(AFTERMATH).await;
        }
        self.wal_bytes.push((wal_position(client).await? - wal_before) / float(drained));
        self.resident.push(daemon.resident_peak()?);
        match extent {
            Extent::Whole => daemon.stop().await?,
            // The relay is killed here, because a regular stop would first publish everything that
            // is committed.
            Extent::Part => {
                daemon.kill()?;
                wait_for_no_relay(client).await?;
            }
        }
        // A duplicate would come after the last event, so the count is taken once the stream is at
        // rest.
        let stored = stream::settled_count(&stage.jetstream, STREAM).await?;
        ensure!(extent == Extent::Part || stored == count, "{stored} messages, expected {count}");
        self.rate.push(stream::rate(&stage.jetstream, STREAM).await?.1);
        stream::remove(&stage.jetstream, STREAM).await?;
        // Sessions report their statistics when they end, so the figure is complete only now.
        self.dead_tuples.push(dead_tuples(client).await? - dead_before);
        Ok(())
    }

    /// Rate of the drain divided by that of the ceiling, for each round.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        ratios(&self.rate, &self.ceiling_rate)
    }

    /// Line of the second table: the medians of all rounds.
    pub(crate) fn row(&self, name: impl Into<String>, events: u64) -> Row {
        Row {
            name: name.into(),
            events,
            ceiling_rate: median(&self.ceiling_rate),
            rate: median(&self.rate),
            ratio: median(&self.ratios()),
            relay_us: median(&self.relay_us),
            postgres_us: median(&self.postgres_us),
            nats_us: median(&self.nats_us),
            wal_bytes: median(&self.wal_bytes),
            resident: median(&self.resident),
        }
    }
}

/// Bytes of WAL written since the cluster was created, up to a constant.
async fn wal_position(client: &Client) -> Result<f64> {
    let statement = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8";
    Ok(client.query_one(statement, &[]).await?.try_get(0)?)
}

/// Number of dead row versions that UPDATE and DELETE have made in all tables of Postrider.
async fn dead_tuples(client: &Client) -> Result<f64> {
    let statement = "SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::float8 \
                     FROM pg_stat_user_tables WHERE schemaname = 'postrider'";
    Ok(client.query_one(statement, &[]).await?.try_get(0)?)
}
