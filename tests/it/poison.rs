//! Tests of what dead letters cost other keys, and of redriving very many of them.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::stream::Config;
use tokio::time::Instant;
use tokio_postgres::Client;

use super::support::{
    DEADLINE, Fixture,
    daemon::{DaemonBuilder, run},
    eventually, nats,
};

/// Deadline for a hundred thousand rows on a machine that is busy with other work.
const LONG_DEADLINE: Duration = Duration::from_mins(8);

fn from_env(name: &str, usual: i64) -> i64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Inserts rows of a thousand keys. Each row has its number within its key as the aggregate
/// version.
async fn insert(client: &Client, rows: i64, payload_bytes: i32) {
    let insert = r#"INSERT INTO "postrider".outbox
        (event_type, aggregate_type, aggregate_id, aggregate_version, payload)
        SELECT 'load.made', 'load', (n % 1000)::text, n / 1000 + 1,
            json_build_object('n', n, 'pad', repeat('x', $2))
        FROM generate_series(0, $1::bigint - 1) AS n"#;
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    client.execute(insert, &[&rows, &payload_bytes]).await.unwrap();
}

/// Asserts that the rows of every key are in the stream once and in order.
async fn assert_in_order(fixture: &Fixture, keys: usize) {
    let mut last: HashMap<String, i64> = HashMap::new();
    for message in fixture.read_stream().await {
        let key = message.header("ce-subject").unwrap().to_owned();
        let version: i64 = message.header("ce-aggregateversion").unwrap().parse().unwrap();
        let before = last.insert(key.clone(), version).unwrap_or(0);
        assert_eq!(version, before + 1, "of key {key}");
    }
    assert_eq!(last.len(), keys);
}

async fn unresolved(client: &Client, state: &str) -> i64 {
    let count = r#"SELECT count(*) FROM "postrider".letter
        WHERE resolved_at IS NULL AND state = $1"#;
    client.query_one(count, &[&state]).await.unwrap().get(0)
}

/// Kind of the first event of one key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Head {
    Good,
    Poison,
}

/// Time in which a new relay publishes these rows.
async fn drained_in(rows: i64, head: Head) -> Duration {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let daemon = fixture.daemon().allow_log("became a dead letter");
    if head == Head::Poison {
        let head = r#"INSERT INTO "postrider".outbox
            (event_type, aggregate_type, aggregate_id, payload) VALUES ('x.*', 'load', '0', '{}')"#;
        client.batch_execute(head).await.unwrap();
    }
    insert(&client, rows, 200).await;
    let began = Instant::now();
    let _daemon = daemon.start();
    assert!(fixture.wait_drained(LONG_DEADLINE).await);
    let took = began.elapsed();
    let waiting = unresolved(&client, "held").await;
    assert_eq!(waiting, if head == Head::Poison { rows / 1000 } else { 0 });
    took
}

/// A dead letter at the head of one key must not slow the other 999 down by much. The bound is
/// wide, because other tests run meanwhile. Alone the ratio is near 1: `POISON_ROWS=200000
/// POISON_ROUNDS=3 cargo test poison_at_the_head`.
#[tokio::test(flavor = "multi_thread")]
async fn poison_at_the_head_of_one_of_a_thousand_keys_costs_the_others_little() {
    let rows = from_env("POISON_ROWS", 20_000);
    let mut ratios = Vec::new();
    for _ in 0..from_env("POISON_ROUNDS", 1) {
        let without = drained_in(rows, Head::Good).await;
        let with = drained_in(rows, Head::Poison).await;
        ratios.push(without.as_secs_f64() / with.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    println!("throughput with poison / without: {ratios:.3?}");
    assert!(ratios[ratios.len() / 2] > 0.5, "{ratios:.3?}");
}

/// Makes dead letters of messages that are too large for the stream, and raises the stream's limit
/// afterwards.
async fn flood(fixture: &Fixture, daemon: &DaemonBuilder, client: &Client, rows: i64) {
    let jetstream = fixture.jetstream().await;
    nats::create_stream(&jetstream, &fixture.stream, &format!("{}.>", fixture.prefix)).await;
    let config = jetstream.get_stream(&fixture.stream).await.unwrap().cached_info().config.clone();
    let small = Config { max_message_size: 1_200, ..config };
    jetstream.update_stream(&small).await.unwrap();
    let mut relay = daemon.clone().start();
    insert(client, rows, 1_000).await;
    eventually("all are dead", LONG_DEADLINE, async || unresolved(client, "dead").await == rows)
        .await;
    relay.stop().await;
    jetstream.update_stream(Config { max_message_size: -1, ..small }).await.unwrap();
}

/// Redrives 10,000 letters by default; `REDRIVE_ROWS=100000` makes it a hundred thousand.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_dead_letters_is_redriven_in_the_order_of_its_keys_in_several_goes() {
    let rows = from_env("REDRIVE_ROWS", 10_000);
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let daemon = fixture
        .daemon()
        .set("stream.create", false)
        .set("route.on_dead", "skip")
        .allow_log("became a dead letter");
    flood(&fixture, &daemon, &client, rows).await;
    assert!(fixture.read_stream().await.is_empty());

    let _relay = daemon.start();
    let toml = fixture.toml();
    let began = Instant::now();
    // The first command is killed in the middle. Its committed batches stay, and the second command
    // does the rest.
    let some = eventually("some are redriven", DEADLINE, async || {
        unresolved(&client, "dead").await <= rows - 2_000
    });
    tokio::select! {
        done = run(&toml, &["dlq", "redrive", "--all", "--yes"]) => panic!("too fast: {done:?}"),
        () = some => {}
    }
    let again = run(&toml, &["dlq", "redrive", "--all", "--yes"]).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let commanded = began.elapsed();
    fixture.wait_stored(rows.unsigned_abs(), LONG_DEADLINE).await;
    println!("{rows} redriven in {commanded:?}, published in {:?}", began.elapsed());
    assert_in_order(&fixture, 1000).await;
    let audited = r#"SELECT count(*), count(DISTINCT letter_id) FROM "postrider".audit"#;
    let row = client.query_one(audited, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (rows, rows));
}
