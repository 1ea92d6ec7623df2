//! Measures how fast backlogs are drained: the usual one against the ceilings of publishing and
//! reading, a large one for its memory, and harder ones with goals of their own.

use anyhow::Result;
use tokio_postgres::Client;

use crate::{
    backlog::{self, Shape, USUAL},
    ceiling::{self, Headers},
    drained::{Backlog, Extent, Rounds},
    goals,
    measure::Measure,
    number::number_of,
    options::Options,
    reading::Readings,
    report::Report,
    stage::Stage,
};

const DATABASE: &str = "drain";

/// Creates a database with `count` events that wait to be published.
pub(crate) async fn prepare(stage: &Stage, name: &str, shape: Shape, count: u64) -> Result<Client> {
    let client = stage.database(name).await?;
    backlog::insert(&client, shape, count).await?;
    backlog::tidy(&client).await?;
    Ok(client)
}

/// Drains a backlog of one shape several times. Each round has a database of its own and measures
/// its ceiling too.
pub(crate) async fn rounds(
    stage: &Stage,
    name: &str,
    shape: Shape,
    count: u64,
    times: u32,
) -> Result<Rounds> {
    let mut rounds = Rounds::default();
    let backlog = Backlog { database: name, shape, count, extent: Extent::Whole };
    for _ in 0..times {
        let client = prepare(stage, name, shape, count).await?;
        rounds.round(stage, &client, backlog).await?;
        drop(client);
        stage.drop_database(name).await?;
    }
    Ok(rounds)
}

/// Drains the usual backlog, and measures everything that its drain is compared with.
pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Report> {
    let count = options.drain_events();
    let (mut rounds, mut readings) = (Rounds::default(), Readings::default());
    let (mut id_rate, mut id_us) = (Vec::new(), Vec::new());
    let backlog = Backlog { database: DATABASE, shape: USUAL, count, extent: Extent::Whole };
    for _ in 0..options.rounds() {
        let client = prepare(stage, DATABASE, USUAL, count).await?;
        rounds.round(stage, &client, backlog).await?;
        let id_alone = ceiling::run(stage, USUAL, count, Headers::IdAlone).await?;
        id_rate.push(id_alone.rate);
        id_us.push(id_alone.client_us);
        // No row has been deleted, so all of them can be read once more.
        readings.read(stage, DATABASE, count).await?;
        drop(client);
        stage.drop_database(DATABASE).await?;
    }
    let row = rounds.row("500 B, 10,000 keys", count);
    let mut measures = measures(rounds);
    measures.push(Measure::new("bare publish, message id alone", "events/s", id_rate));
    measures.push(Measure::new("bare publish, message id alone: client CPU", "µs/event", id_us));
    measures.extend(readings.measures());
    Ok(Report { measures, drains: vec![row] })
}

fn measures(rounds: Rounds) -> Vec<Measure> {
    vec![
        Measure::new("drain ÷ bare publish", "", rounds.ratios()).goal(goals::DRAIN_RATIO),
        Measure::new("drain", "events/s", rounds.rate),
        Measure::new("bare publish", "events/s", rounds.ceiling_rate),
        Measure::new("drain: relay CPU", "µs/event", rounds.relay_us).goal(goals::RELAY_US),
        Measure::new("drain: Postgres CPU", "µs/event", rounds.postgres_us)
            .goal(goals::POSTGRES_US),
        Measure::new("drain: nats-server CPU", "µs/event", rounds.nats_us),
        Measure::new("drain: WAL", "bytes/event", rounds.wal_bytes).goal(goals::WAL_BYTES),
        Measure::new("drain: dead tuples in all", "", rounds.dead_tuples),
        Measure::new("drain: relay RSS peak", "MiB", rounds.resident),
        Measure::new("bare publish: client CPU", "µs/event", rounds.ceiling_client_us),
        Measure::new("bare publish: nats-server CPU", "µs/event", rounds.ceiling_server_us),
    ]
}

/// Drains a large backlog, to measure the relay's memory.
pub(crate) async fn large(stage: &Stage, options: &Options) -> Result<Report> {
    let count = options.large_events();
    let rounds = rounds(stage, "large", USUAL, count, options.rounds()).await?;
    let row = rounds.row("a large backlog", count);
    let name = format!("RSS peak, drain of {}", number_of(count));
    let resident = Measure::new(name, "MiB", rounds.resident).goal(goals::RESIDENT_MIB);
    Ok(Report { measures: vec![resident], drains: vec![row] })
}

/// Drains into a cluster that keeps three copies of each message.
pub(crate) async fn replicated(stage: &Stage, options: &Options) -> Result<Report> {
    let count = options.drain_events();
    let rounds = rounds(stage, "replicated", USUAL, count, options.rounds()).await?;
    let row = rounds.row("R3", count);
    let measures = vec![
        Measure::new("R3: drain ÷ bare publish", "", rounds.ratios()).goal(goals::REPLICATED_RATIO),
        Measure::new("R3: drain", "events/s", rounds.rate),
        Measure::new("R3: bare publish", "events/s", rounds.ceiling_rate),
        Measure::new("R3: CPU of the nats-servers", "µs/event", rounds.nats_us),
    ];
    Ok(Report { measures, drains: vec![row] })
}

/// Drains into a broker that syncs each message to disk before it acknowledges.
pub(crate) async fn fsyncing(stage: &Stage, options: &Options) -> Result<Report> {
    let count = options.fsyncing_events();
    let rounds = rounds(stage, "fsyncing", USUAL, count, options.rounds()).await?;
    let row = rounds.row("sync_interval: always", count);
    let name = |what: &str| format!("sync_interval always: {what}");
    let measures = vec![
        Measure::new(name("drain ÷ bare publish"), "", rounds.ratios()),
        Measure::new(name("drain"), "events/s", rounds.rate).goal(goals::FSYNCED_RATE),
        Measure::new(name("bare publish"), "events/s", rounds.ceiling_rate),
    ];
    Ok(Report { measures, drains: vec![row] })
}

/// Drains events that all belong to one key, and so have to keep their order.
pub(crate) async fn hot(stage: &Stage, options: &Options) -> Result<Report> {
    let count = options.hot_events();
    let shape = Shape { keys: 1, ..USUAL };
    let rounds = rounds(stage, "hot", shape, count, options.rounds()).await?;
    let row = rounds.row("1 key", count);
    let measures = vec![
        Measure::new("one hot key: drain", "events/s", rounds.rate).goal(goals::HOT_KEY_RATE),
        Measure::new("one hot key: bare publish without order", "events/s", rounds.ceiling_rate),
    ];
    Ok(Report { measures, drains: vec![row] })
}
