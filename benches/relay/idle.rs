//! Measures an idle relay: its queries to the database and its processor time while the outbox gets
//! no events.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::{
    goals,
    measure::Measure,
    options::Options,
    proc,
    progress::note,
    report::Report,
    stage::{Stage, wait_for_relay},
};

const DATABASE: &str = "idle";
const STREAM: &str = "IDLE";

/// Time before the measurement, in which the relay falls asleep and the sessions report their
/// counters.
const LULL: Duration = Duration::from_secs(12);

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Report> {
    let client = stage.database(DATABASE).await?;
    let mut daemon = stage.relay(DATABASE, STREAM)?;
    let backends = wait_for_relay(&client, &mut daemon).await?;
    drop(client);
    // This session is in another database, so its queries do not count among those of the relay's
    // database.
    let outside = stage.connect("postgres").await?;
    sleep(LULL).await;
    let (mut queries, mut relay, mut postgres) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds() {
        let begun = Instant::now();
        let transactions = transactions(&outside).await?;
        let relay_before = daemon.cpu_seconds()?;
        let postgres_before = proc::cpu_seconds_of_all(&backends)?;
        sleep(options.idle_time()).await;
        let seconds = begun.elapsed().as_secs_f64();
        let share = |time: f64| time / seconds * 100.0;
        relay.push(share(daemon.cpu_seconds()? - relay_before));
        postgres.push(share(proc::cpu_seconds_of_all(&backends)? - postgres_before));
        queries.push((self::transactions(&outside).await? - transactions) / seconds);
        note(&format!("idle {round}: {queries:.2?} queries/s, relay {relay:.3?} %"));
    }
    daemon.stop().await?;
    Ok(Report::of(vec![
        Measure::new("idle: queries", "/s", queries).goal(goals::IDLE_QUERIES),
        Measure::new("idle: relay CPU", "% of a core", relay).goal(goals::IDLE_PERCENT),
        Measure::new("idle: Postgres CPU", "% of a core", postgres),
    ]))
}

/// Number of transactions that have ended in the relay's database. Each query of the relay is one
/// transaction.
async fn transactions(outside: &Client) -> Result<f64> {
    let statement =
        "SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database WHERE datname = $1";
    Ok(outside.query_one(statement, &[&DATABASE]).await?.try_get(0)?)
}
