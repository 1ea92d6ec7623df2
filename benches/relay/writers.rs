//! What the outbox costs writers that do nothing else, without a relay: pgbench on two tables.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use postrider::dev::servers::postgres_bin;
use tokio::{process::Command, time::sleep};
use tokio_postgres::Client;

use crate::{
    measure::Measure,
    options::Options,
    stage::{AGGREGATE_TYPE, EVENT_TYPE, KEYS, Stage, payload, wait_for_relay},
    table,
};

/// Databases: one that never had a relay, and one whose relay was killed in its sleep.
const NEVER: &str = "writers_never";
const ASLEEP: &str = "writers_asleep";

const STREAM: &str = "WRITERS";
const OUTBOX: &str = "postrider.outbox";
const CLIENTS: u32 = 32;

/// The tables that are compared.
const VARIANTS: [(&str, &str); 3] = [(NEVER, "id_only"), (ASLEEP, OUTBOX), (NEVER, OUTBOX)];

/// How long one of them has its turn: shorter than the machine's moods last.
const TURN: Duration = Duration::from_secs(2);

/// Long enough for an idle relay to fall asleep.
const LULL: Duration = Duration::from_secs(3);

/// Longer than the wake-up gate of a dead relay stays open.
const EXPIRY: Duration = Duration::from_secs(20);

/// What somebody writes who needs an outbox: the event, and a number to remember it by.
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

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Vec<Measure>> {
    let never = stage.database(NEVER).await?;
    never.batch_execute(ID_ONLY).await?;
    let asleep = stage.database(ASLEEP).await?;
    leave_gate_open(stage, &asleep).await?;
    let mut rates = VARIANTS.map(|_| Vec::new());
    for round in 1..=options.rounds {
        let tables = format!("TRUNCATE {OUTBOX}");
        asleep.batch_execute(&tables).await?;
        never.batch_execute(&format!("{tables}, id_only")).await?;
        stage.checkpoint().await?;
        for (rates, rate) in rates.iter_mut().zip(in_turns(stage, options).await?) {
            rates.push(rate);
        }
        let last: Vec<f64> = rates.iter().filter_map(|rates| rates.last().copied()).collect();
        table::note(&format!(
            "writers {round}: id only, gate expired, never a relay: {last:.0?}/s"
        ));
    }
    let [id_only, expired, untouched] = rates;
    let ratio = |outbox: &[f64]| -> Vec<f64> {
        outbox.iter().zip(&id_only).map(|(with, alone)| with / alone).collect()
    };
    let (expired_ratio, untouched_ratio) = (ratio(&expired), ratio(&untouched));
    Ok(vec![
        Measure::new("32 writers, outbox ÷ id-only table", "", expired_ratio).at_least(0.85),
        Measure::new("32 writers, the same before any relay", "", untouched_ratio),
        Measure::new("32 writers, outbox", "transactions/s", expired),
        Measure::new("32 writers, id-only table", "transactions/s", id_only),
    ])
}

/// Leaves what a relay leaves that was killed in its sleep: the gate open, its time over.
async fn leave_gate_open(stage: &Stage, client: &Client) -> Result<()> {
    let mut daemon = stage.relay(ASLEEP, STREAM)?;
    wait_for_relay(client, &mut daemon).await?;
    sleep(LULL).await;
    daemon.kill()?;
    sleep(EXPIRY).await;
    Ok(())
}

/// The variants' rates, each the mean of several turns.
async fn in_turns(stage: &Stage, options: &Options) -> Result<[f64; 3]> {
    let turns = u32::try_from(options.load_time().as_secs().div_ceil(TURN.as_secs()))?;
    let mut sums = [0.0; 3];
    for _ in 0..turns {
        for ((database, table), sum) in VARIANTS.into_iter().zip(&mut sums) {
            *sum += pgbench(&stage.postgres.url(database), table, TURN).await?;
        }
    }
    Ok(sums.map(|sum| sum / f64::from(turns)))
}

/// Inserts as fast as it goes. Returns transactions a second.
async fn pgbench(url: &str, table: &str, time: Duration) -> Result<f64> {
    let home = tempfile::tempdir()?;
    let script = home.path().join("insert.sql");
    let insert = format!(
        "\\set key random(1, {KEYS})\n\
         INSERT INTO {table} (event_type, aggregate_type, aggregate_id, payload) \
         VALUES ('{EVENT_TYPE}', '{AGGREGATE_TYPE}', (:key::integer)::text, '{}');\n",
        payload()
    );
    fs::write(&script, insert)?;
    let output = Command::new(program()?)
        .args(["-n", "-M", "prepared", "-c", &CLIENTS.to_string(), "-j", "2"])
        .args(["-T", &time.as_secs().to_string(), "-f"])
        .arg(&script)
        .arg(url)
        .kill_on_drop(true)
        .output()
        .await
        .context("run pgbench")?;
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "pgbench: {errors}");
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let number = line.and_then(|line| line.split(' ').next()).context("pgbench tells no tps")?;
    Ok(number.parse()?)
}

fn program() -> Result<PathBuf> {
    let beside = postgres_bin()?.join("pgbench");
    Ok(if beside.is_file() { beside } else { Path::new("pgbench").to_owned() })
}
