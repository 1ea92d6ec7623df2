//! Compares `emit()` with a plain INSERT, by the processor time of the session that executes them.

use anyhow::{Context as _, Result};
use tokio_postgres::{Client, Statement};

use crate::{
    backlog::{AGGREGATE_TYPE, EVENT_TYPE, USUAL},
    goals,
    measure::{Measure, ratios},
    options::Options,
    proc,
    progress::note,
    report::Report,
    stage::{Stage, backend},
    twin::{self, TWIN},
};

const DATABASE: &str = "emit";

/// Statements per transaction, the same for all variants. BEGIN and COMMIT therefore cost each
/// variant the same.
const STATEMENTS: u32 = 500;

/// Transactions of each variant in one round. The variants take turns.
const TURNS: u32 = 10;

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Report> {
    let client = stage.database(DATABASE).await?;
    twin::create(&client).await?;
    let insert = |table: &str| {
        format!(
            "INSERT INTO {table} (event_type, payload, aggregate_type, aggregate_id) \
             VALUES ($1, $2::text::json, $3, $4)"
        )
    };
    let variants = [
        client.prepare(&insert(TWIN)).await?,
        client.prepare(&insert("postrider.outbox")).await?,
        client.prepare("SELECT postrider.emit($1, $2::text::json, $3, $4)").await?,
    ];
    // This unmeasured turn fills the caches of the session.
    in_turns(&client, &variants, 1).await?;
    let [mut twin, mut outbox, mut emit] = [Vec::new(), Vec::new(), Vec::new()];
    for round in 1..=options.rounds() {
        stage.checkpoint().await?;
        let [in_twin, in_outbox, by_emit] = in_turns(&client, &variants, TURNS).await?;
        twin.push(in_twin);
        outbox.push(in_outbox);
        emit.push(by_emit);
        note(&format!("emit ÷ insert, {round}: {:.3}", by_emit / in_twin));
    }
    Ok(Report::of(vec![
        Measure::new("emit() ÷ plain INSERT into an equal table", "", ratios(&emit, &twin))
            .goal(goals::EMIT_RATIO),
        Measure::new("emit() ÷ plain INSERT into the outbox", "", ratios(&emit, &outbox)),
        Measure::new("emit()", "µs of Postgres", emit),
        Measure::new("plain INSERT into an equal table", "µs of Postgres", twin),
    ]))
}

/// Processor time of one statement, in µs, for each variant.
async fn in_turns(client: &Client, variants: &[Statement; 3], turns: u32) -> Result<[f64; 3]> {
    let backend = backend(client).await?;
    let payload = USUAL.payload();
    let mut sums = [0.0; 3];
    for _ in 0..turns {
        for (sum, variant) in sums.iter_mut().zip(variants) {
            client.batch_execute("BEGIN").await?;
            let before = proc::cpu_seconds(backend)?;
            for number in 0..STATEMENTS {
                let key = number.to_string();
                client
                    .query(variant, &[&EVENT_TYPE, &payload, &AGGREGATE_TYPE, &key])
                    .await
                    .context("write an event")?;
            }
            *sum += proc::cpu_seconds(backend)? - before;
            client.batch_execute("COMMIT").await?;
        }
    }
    Ok(sums.map(|sum| sum * 1e6 / f64::from(STATEMENTS) / f64::from(turns)))
}
