//! A drain beside all that a long life brings: settled rows, a backlog far larger than what is
//! drained, many keys, a transaction left open; in turns with a drain that has nothing of that.

use anyhow::Result;

use crate::{
    backlog::{self, Shape, USUAL},
    drain,
    drained::{Backlog, Extent, Rounds},
    goals,
    measure::{Measure, last, ratios},
    options::Options,
    report::Report,
    stage::{Stage, open_transaction},
    table,
};

const AGED: &str = "aged";
const FRESH: &str = "fresh";

const MANY_KEYS: Shape = Shape { keys: 1_000_000, ..USUAL };

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Report> {
    let (settled, waiting) = (options.settled_events(), options.waiting_events());
    let count = options.aged_events();
    let client = stage.database(AGED).await?;
    table::note(&format!("aged: makes {settled} settled events and {waiting} that wait"));
    backlog::insert(&client, MANY_KEYS, settled).await?;
    backlog::settle(&client).await?;
    let open = open_transaction(stage, AGED).await?;
    backlog::insert(&client, MANY_KEYS, waiting).await?;
    backlog::tidy(&client).await?;
    let (mut aged, mut fresh) = (Rounds::default(), Rounds::default());
    for round in 1..=options.rounds() {
        let whole = Backlog { database: FRESH, shape: USUAL, count, extent: Extent::Whole };
        let beginning = Backlog { database: AGED, shape: MANY_KEYS, count, extent: Extent::Part };
        let other = drain::prepare(stage, FRESH, USUAL, count).await?;
        fresh.drain(stage, &other, whole).await?;
        drop(other);
        stage.drop_database(FRESH).await?;
        aged.round(stage, &client, beginning).await?;
        // So that the broker is as young as in the other half.
        backlog::forget_stream(&client).await?;
        let ratio = last(&aged.rate) / last(&fresh.rate);
        table::note(&format!("aged ÷ fresh, {round}: {ratio:.3}"));
    }
    let row = aged.row(
        format!(
            "{} settled, {} waiting, 1,000,000 keys, an open transaction",
            table::number_of(settled),
            table::number_of(waiting)
        ),
        count,
    );
    drop((open, client));
    stage.drop_database(AGED).await?;
    let name = |what: &str| format!("{} settled, {} waiting{what}", short(settled), short(waiting));
    let measures = vec![
        Measure::new(name(" ÷ fresh"), "", ratios(&aged.rate, &fresh.rate)).goal(goals::AGED_RATIO),
        Measure::new(name(": drain"), "events/s", aged.rate),
        Measure::new(name(": Postgres CPU"), "µs/event", aged.postgres_us),
        Measure::new("fresh: drain", "events/s", fresh.rate),
        Measure::new("fresh: Postgres CPU", "µs/event", fresh.postgres_us),
    ];
    Ok(Report { measures, drains: vec![row] })
}

/// In millions or thousands.
fn short(count: u64) -> String {
    if count.is_multiple_of(1_000_000) {
        format!("{}M", count / 1_000_000)
    } else {
        format!("{}k", count / 1000)
    }
}
