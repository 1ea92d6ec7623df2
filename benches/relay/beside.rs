//! Measures what a running relay costs others on the same cores: writers that insert into the
//! outbox as fast as they can, and unrelated traffic in the same database.

use anyhow::{Context as _, Result};
use tokio_postgres::Client;

use crate::{
    backlog::USUAL,
    daemon::Daemon,
    goals,
    measure::{Measure, float, last, ratios},
    options::Options,
    pgbench,
    progress::note,
    report::Report,
    stage::{Stage, wait_asleep, wait_for_relay},
    stream,
};

const WITH: &str = "shared_with";
const WITHOUT: &str = "shared_without";
const NEIGHBOURS: &str = "neighbours";
const STREAM: &str = "BESIDE";

const OUTBOX: &str = "postrider.outbox";
const WRITERS: u32 = 16;
const CLIENTS: u32 = 8;

/// Scale of pgbench: a million accounts, which fit into the cache.
const SCALE: u32 = 10;

/// Measures saturating writers, without a relay and with one that publishes what they write.
pub(crate) async fn writers(stage: &Stage, options: &Options) -> Result<Report> {
    let (with, without) = (stage.database(WITH).await?, stage.database(WITHOUT).await?);
    let (mut relayed, mut alone, mut published) = (Vec::new(), Vec::new(), Vec::new());
    let time = options.load_time();
    for round in 1..=options.rounds() {
        stage.checkpoint().await?;
        let url = stage.postgres.url(WITHOUT);
        alone.push(pgbench::insert(&url, OUTBOX, USUAL, WRITERS, time).await?);
        without.batch_execute("TRUNCATE postrider.outbox").await?;
        stage.checkpoint().await?;
        let mut daemon = stage.relay(WITH, STREAM)?;
        wait_for_relay(&with, &mut daemon).await?;
        wait_asleep(&with, &mut daemon).await?;
        let before = stream::settled_count(&stage.jetstream, STREAM).await?;
        let url = stage.postgres.url(WITH);
        relayed.push(pgbench::insert(&url, OUTBOX, USUAL, WRITERS, time).await?);
        let stored = stream::state(&stage.jetstream, STREAM).await?.messages;
        let rows = with.query_one("SELECT count(*) FROM postrider.outbox", &[]).await?;
        let written = u64::try_from(rows.try_get::<_, i64>(0)?)?;
        published.push(float(stored - before) / float(written));
        // The rest of the backlog is drained outside the measurement, so that each round begins
        // with an empty outbox.
        let all = before + written;
        stream::wait_for_count(&stage.jetstream, STREAM, all, &mut daemon).await?;
        daemon.stop().await?;
        with.batch_execute("TRUNCATE postrider.outbox").await?;
        let ratio = last(&relayed) / last(&alone);
        note(&format!("16 writers with ÷ without relay, {round}: {ratio:.3}"));
    }
    let name = |what: &str| format!("16 writers, {what}");
    Ok(Report::of(vec![
        Measure::new(name("with ÷ without relay"), "", ratios(&relayed, &alone))
            .goal(goals::SHARED_RATIO),
        Measure::new(name("with relay"), "transactions/s", relayed),
        Measure::new(name("without relay"), "transactions/s", alone),
        Measure::new(name("published by their end"), "of written", published),
    ]))
}

/// Measures unrelated traffic, without a relay and with one that sleeps.
pub(crate) async fn neighbours(stage: &Stage, options: &Options) -> Result<Report> {
    let client = stage.database(NEIGHBOURS).await?;
    let url = stage.postgres.url(NEIGHBOURS);
    pgbench::initialise(&url, SCALE).await?;
    let (mut relayed, mut alone) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds() {
        stage.checkpoint().await?;
        let mut sums = [0.0; 2];
        // Each variant comes first equally often, because the tables grow from turn to turn.
        for turn in 0..options.turns() {
            for half in [(round + turn) % 2, (round + turn + 1) % 2] {
                let daemon = if half == 1 { Some(asleep(stage, &client).await?) } else { None };
                let rate = pgbench::simple_update(&url, CLIENTS, options.turn()).await?;
                *sums.get_mut(usize::try_from(half)?).context("two halves")? += rate;
                if let Some(daemon) = daemon {
                    daemon.stop().await?;
                }
            }
        }
        let [without, with] = sums.map(|sum| sum / f64::from(options.turns()));
        alone.push(without);
        relayed.push(with);
        note(&format!("neighbours with ÷ without relay, {round}: {:.3}", with / without));
    }
    let name = |what: &str| format!("unrelated traffic, {what}");
    Ok(Report::of(vec![
        Measure::new(name("with ÷ without idle relay"), "", ratios(&relayed, &alone))
            .goal(goals::NEIGHBOURS_RATIO),
        Measure::new(name("without relay"), "transactions/s", alone),
    ]))
}

async fn asleep(stage: &Stage, client: &Client) -> Result<Daemon> {
    // The relay of the previous turn may have left the wake-up gate open.
    client.batch_execute("SELECT setval('postrider.gate'::regclass, 0)").await?;
    let mut daemon = stage.relay(NEIGHBOURS, STREAM)?;
    wait_for_relay(client, &mut daemon).await?;
    wait_asleep(client, &mut daemon).await?;
    Ok(daemon)
}
