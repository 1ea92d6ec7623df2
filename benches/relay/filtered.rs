//! Measures a route whose filter takes one event in a hundred, and what the other events cost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::{
    backlog::{self, USUAL},
    daemon::Daemon,
    goals,
    measure::{Measure, float},
    options::Options,
    proc,
    report::Report,
    stage::{SUBJECTS, Stage},
    stream,
};

const DATABASE: &str = "filtered";
const STREAM: &str = "FILTERED";

/// The route takes one event of this many.
const ONE_IN: u64 = 100;

const DEADLINE: Duration = Duration::from_mins(1);

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Report> {
    let count = options.drain_events();
    let (mut postgres_us, mut relay_us) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds() {
        let client = stage.database(DATABASE).await?;
        insert(&client, count).await?;
        backlog::tidy(&client).await?;
        let mut daemon = relay(stage)?;
        let backend = backend_of_the_route(&client, &mut daemon).await?;
        stream::wait_for_count(&stage.jetstream, STREAM, count / ONE_IN, &mut daemon).await?;
        let per_event = |seconds: f64| seconds * 1e6 / float(count);
        postgres_us.push(per_event(proc::cpu_seconds_of_all(&[backend])?));
        relay_us.push(per_event(daemon.cpu_seconds()?));
        daemon.stop().await?;
        stream::remove(&stage.jetstream, STREAM).await?;
        drop(client);
        stage.drop_database(DATABASE).await?;
    }
    let name = |what: &str| format!("a route that takes 1 in {ONE_IN}: {what}");
    let measures = vec![
        Measure::new(name("Postgres CPU"), "µs/event", postgres_us).goal(goals::FILTERED_US),
        Measure::new(name("CPU of the program, with what counts the rest"), "µs/event", relay_us),
    ];
    Ok(Report { measures, drains: Vec::new() })
}

/// Commits events of the usual shape. Each hundredth has the type `rare.made`, which the route
/// takes.
async fn insert(client: &Client, count: u64) -> Result<()> {
    let statement = "INSERT INTO postrider.outbox \
             (event_type, aggregate_type, aggregate_id, payload) \
         SELECT CASE WHEN n % $3::bigint = 0 THEN 'rare.made' ELSE $4 END, $5, \
                floor(random() * $6::integer)::integer::text, $7::text::json \
         FROM generate_series($1::bigint, $2::bigint) AS n";
    let (keys, payload) = (i32::try_from(USUAL.keys)?, USUAL.payload());
    let (types, aggregate) = (backlog::EVENT_TYPE, backlog::AGGREGATE_TYPE);
    let one_in = i64::try_from(ONE_IN)?;
    let count = i64::try_from(count)?;
    let mut from = 1;
    while from <= count {
        let to = (from + 4_999).min(count);
        client
            .execute(statement, &[&from, &to, &one_in, &types, &aggregate, &keys, &payload])
            .await?;
        from = to + 1;
    }
    Ok(())
}

fn relay(stage: &Stage) -> Result<Daemon> {
    Daemon::start(&format!(
        "[database]\nurl = \"{}\"\n[nats]\nurl = \"{}\"\n[stream]\ncreate = true\n\
         max_bytes = \"0B\"\n[admin]\nlisten = \"off\"\n\
         [[route]]\nname = \"default\"\ntypes = [\"rare.*\"]\nstream = \"{STREAM}\"\n\
         subjects = [\"{SUBJECTS}\"]\n",
        stage.postgres.url(DATABASE),
        stage.brokers.url(),
    ))
}

/// Process id of the Postgres backend that reads the outbox for the route.
async fn backend_of_the_route(client: &Client, daemon: &mut Daemon) -> Result<u32> {
    let statement = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                     AND application_name = 'postrider/relay/default'";
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(row) = client.query_opt(statement, &[]).await? {
            return Ok(u32::try_from(row.try_get::<_, i32>(0)?)?);
        }
        daemon.ensure_alive()?;
        ensure!(Instant::now() < deadline, "the route does not begin; its log:\n{}", daemon.log());
        sleep(Duration::from_millis(5)).await;
    }
}
