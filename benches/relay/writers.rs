//! Measures what the outbox costs writers that insert as fast as they can, without a relay: pgbench
//! on several tables.

use anyhow::Result;
use tokio_postgres::Client;

use crate::{
    backlog::USUAL,
    goals,
    measure::{Measure, ratios},
    options::Options,
    pgbench,
    progress::note,
    report::Report,
    stage::{Stage, wait_asleep, wait_for_relay},
    twin::{self, TWIN},
};

/// Databases: one in which no relay ever ran, and one whose relay was killed while it slept.
const NEVER: &str = "writers_never";
const ASLEEP: &str = "writers_asleep";

const STREAM: &str = "WRITERS";
const OUTBOX: &str = "postrider.outbox";
const CLIENTS: u32 = 32;

/// The tables that are compared, each with its database.
const VARIANTS: [(&str, &str); 4] =
    [(NEVER, "id_only"), (ASLEEP, OUTBOX), (NEVER, OUTBOX), (NEVER, TWIN)];

/// The simplest table that could be an outbox: the event, and a number that identifies the row.
const ID_ONLY: &str = "CREATE TABLE id_only (
    id             bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id       uuid        NOT NULL DEFAULT gen_random_uuid(),
    occurred_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    event_type     text        NOT NULL,
    aggregate_type text,
    aggregate_id   text,
    headers        jsonb       NOT NULL DEFAULT '{}',
    payload        json);
    ALTER TABLE id_only ALTER COLUMN payload SET STORAGE EXTERNAL";

/// Ends the time for which a relay had opened the wake-up gate, as if that relay had been killed
/// some time ago.
const EXPIRE: &str = "SELECT setval('postrider.wake_until'::regclass,
    floor(date_part('epoch', clock_timestamp()))::bigint - 1)";

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Report> {
    let never = stage.database(NEVER).await?;
    never.batch_execute(ID_ONLY).await?;
    twin::create(&never).await?;
    let asleep = stage.database(ASLEEP).await?;
    leave_gate_open(stage, &asleep).await?;
    let mut rates = VARIANTS.map(|_| Vec::new());
    for round in 1..=options.rounds() {
        asleep.batch_execute(&format!("TRUNCATE {OUTBOX}")).await?;
        never.batch_execute(&format!("TRUNCATE {OUTBOX}, {TWIN}, id_only")).await?;
        stage.checkpoint().await?;
        for (rates, rate) in rates.iter_mut().zip(in_turns(stage, options).await?) {
            rates.push(rate);
        }
        let last: Vec<f64> = rates.iter().filter_map(|rates| rates.last().copied()).collect();
        note(&format!(
            "writers {round}: id only, gate expired, never a relay, no gate: {last:.0?}/s"
        ));
    }
    Ok(Report::of(measures(&rates)))
}

fn measures([id_only, expired, untouched, gateless]: &[Vec<f64>; 4]) -> Vec<Measure> {
    let name = |what: &str| format!("32 writers, {what}");
    vec![
        Measure::new(name("outbox ÷ id-only table"), "", ratios(expired, id_only))
            .goal(goals::WRITERS_RATIO),
        Measure::new(name("the same before any relay"), "", ratios(untouched, id_only)),
        Measure::new(name("outbox ÷ the same without gate"), "", ratios(expired, gateless))
            .goal(goals::GATE_RATIO),
        Measure::new(name("outbox"), "transactions/s", expired.clone()),
        Measure::new(name("id-only table"), "transactions/s", id_only.clone()),
    ]
}

/// Leaves the database as a relay does that is killed while it sleeps: the wake-up gate is open,
/// and its time is over.
async fn leave_gate_open(stage: &Stage, client: &Client) -> Result<()> {
    let mut daemon = stage.relay(ASLEEP, STREAM)?;
    wait_for_relay(client, &mut daemon).await?;
    wait_asleep(client, &mut daemon).await?;
    daemon.kill()?;
    Ok(client.batch_execute(EXPIRE).await?)
}

/// Transactions per second of each variant, the mean of several turns.
async fn in_turns(stage: &Stage, options: &Options) -> Result<[f64; 4]> {
    let mut sums = VARIANTS.map(|_| 0.0);
    for _ in 0..options.turns() {
        for ((database, table), sum) in VARIANTS.into_iter().zip(&mut sums) {
            let url = stage.postgres.url(database);
            *sum += pgbench::insert(&url, table, USUAL, CLIENTS, options.turn()).await?;
        }
    }
    Ok(sums.map(|sum| sum / f64::from(options.turns())))
}
