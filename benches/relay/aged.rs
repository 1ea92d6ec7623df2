//! Measures a drain in an aged database: settled rows, a backlog far larger than what is drained, a
//! million keys and an open transaction. Rounds alternate with a drain in a fresh database that has
//! none of that.

use std::{env, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    backlog::{self, Shape, USUAL},
    drain,
    drained::{Backlog, Extent, Rounds},
    goals,
    measure::{Measure, last, ratios},
    options::Options,
    progress::note,
    report::Report,
    stage::{Stage, open_transaction},
};

const AGED: &str = "aged";
const FRESH: &str = "fresh";

/// Disk space, in bytes: of one event with its indexes, and of the server's WAL and the stream
/// together.
const BYTES: u64 = 850;
const BYTES_BESIDES: u64 = 3_000_000_000;

const MANY_KEYS: Shape = Shape { keys: 1_000_000, ..USUAL };

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Report> {
    let (settled, waiting) = (options.settled_events(), options.waiting_events());
    let count = options.aged_events();
    ensure_space((settled + waiting) * BYTES)?;
    let client = stage.database(AGED).await?;
    note(&format!("aged: makes {settled} settled events and {waiting} that wait"));
    backlog::insert(&client, MANY_KEYS, settled).await?;
    backlog::settle(&client).await?;
    let open = open_transaction(stage, AGED).await?;
    backlog::insert(&client, MANY_KEYS, waiting).await?;
    backlog::tidy(&client).await?;
    let (mut aged, mut fresh) = (Rounds::default(), Rounds::default());
    for round in 1..=options.rounds() {
        let beginning = Backlog { database: AGED, shape: MANY_KEYS, count, extent: Extent::Part };
        // The two databases take turns in being drained first.
        if !round.is_multiple_of(2) {
            drain_fresh(stage, &mut fresh, count).await?;
        }
        aged.round(stage, &client, beginning).await?;
        // The next round starts with a new stream, because the fresh database gets a new one too.
        backlog::forget_stream(&client).await?;
        if round.is_multiple_of(2) {
            drain_fresh(stage, &mut fresh, count).await?;
        }
        let ratio = last(&aged.rate) / last(&fresh.rate);
        note(&format!("aged ÷ fresh, {round}: {ratio:.3}"));
    }
    let (settled, waiting) = (short(settled), short(waiting));
    let hard = format!("{settled} settled, {waiting} waiting, 1M keys, open transaction");
    let row = aged.row(hard, count);
    drop((open, client));
    stage.drop_database(AGED).await?;
    let name = |what: &str| format!("{settled} settled, {waiting} waiting{what}");
    let measures = vec![
        Measure::new(name(" ÷ fresh"), "", ratios(&aged.rate, &fresh.rate)).goal(goals::AGED_RATIO),
        Measure::new(name(": drain"), "events/s", aged.rate),
        Measure::new(name(": Postgres CPU"), "µs/event", aged.postgres_us),
        Measure::new("fresh: drain", "events/s", fresh.rate),
        Measure::new("fresh: Postgres CPU", "µs/event", fresh.postgres_us),
    ];
    Ok(Report { measures, drains: vec![row] })
}

/// Drains a fresh database, which contains nothing but the events to be drained.
async fn drain_fresh(stage: &Stage, fresh: &mut Rounds, count: u64) -> Result<()> {
    let client = drain::prepare(stage, FRESH, USUAL, count).await?;
    let whole = Backlog { database: FRESH, shape: USUAL, count, extent: Extent::Whole };
    fresh.drain(stage, &client, whole).await?;
    drop(client);
    stage.drop_database(FRESH).await
}

/// Fails when the temporary directory lacks the space. A full disk would be found only after
/// minutes, and would harm other programs too.
fn ensure_space(bytes: u64) -> Result<()> {
    let directory = env::temp_dir();
    let output = Command::new("df").arg("-Pk").arg(&directory).output().context("run df")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let kib = text.lines().nth(1).and_then(|line| line.split_whitespace().nth(3));
    let free = kib.context("df prints no free space")?.parse::<u64>()? * 1024;
    let needed = (bytes + BYTES_BESIDES) / 1_000_000_000;
    ensure!(
        free / 1_000_000_000 >= needed,
        "{} has {} GB free, and this part needs {needed} GB: set TMPDIR to another place",
        directory.display(),
        free / 1_000_000_000
    );
    Ok(())
}

/// Formats a count in millions, as in `5M`, or else in thousands, as in `100k`.
fn short(count: u64) -> String {
    if count.is_multiple_of(1_000_000) {
        format!("{}M", count / 1_000_000)
    } else {
        format!("{}k", count / 1000)
    }
}
