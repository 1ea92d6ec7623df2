//! A key with many events goes in atomic batches: once, in order, and never because it has to.

use tokio_postgres::Client;

use super::support::{DEADLINE, Fixture, app::StoredMessage, eventually, nats};

const EVENTS: i64 = 6_000;

/// Events of one key, each with its number in its payload; the one at `odd` has this event type.
async fn insert(client: &Client, odd: i64, event_type: &str) {
    let statement = r#"INSERT INTO "postrider".outbox
        (event_type, aggregate_type, aggregate_id, payload)
        SELECT CASE n WHEN $2 THEN $3 ELSE 'load.made' END, 'load', 'hot',
            json_build_object('n', n)
        FROM generate_series(0, $1::bigint - 1) AS n"#;
    client.execute(statement, &[&EVENTS, &odd, &event_type]).await.unwrap();
}

fn numbers(messages: &[StoredMessage]) -> Vec<i64> {
    messages.iter().map(|message| message.json()["n"].as_i64().unwrap()).collect()
}

/// How many of them came in batches.
fn in_batches(messages: &[StoredMessage]) -> usize {
    messages.iter().filter(|message| message.header("Nats-Batch-Id").is_some()).count()
}

fn all() -> Vec<i64> {
    (0..EVENTS).collect()
}

#[tokio::test]
async fn a_hot_key_goes_in_batches_and_keeps_its_order() {
    let fixture = Fixture::new().await;
    insert(&fixture.connect().await, -1, "").await;
    let _daemon = fixture.daemon().set("stream.batches", "always").start();
    let stored = fixture.wait_stored(EVENTS.unsigned_abs(), DEADLINE).await;
    assert_eq!(numbers(&stored), all());
    let together = in_batches(&stored);
    assert!(together > stored.len() / 2, "{together} in batches");
    assert!(fixture.wait_drained(DEADLINE).await);
}

#[tokio::test]
async fn a_stream_that_takes_no_batches_gets_none() {
    let fixture = Fixture::new().await;
    let subjects = format!("{}.>", fixture.prefix);
    nats::create_stream(&fixture.jetstream().await, &fixture.stream, &subjects).await;
    insert(&fixture.connect().await, -1, "").await;
    let _daemon = fixture.daemon().set("stream.batches", "always").start();
    let stored = fixture.wait_stored(EVENTS.unsigned_abs(), DEADLINE).await;
    assert_eq!(numbers(&stored), all());
    assert_eq!(in_batches(&stored), 0);
}

#[tokio::test]
async fn an_event_that_cannot_be_sent_ends_its_batch_and_dies_alone() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    insert(&client, 3_000, "x.*").await;
    let daemon = fixture.daemon().set("stream.batches", "always").set("route.on_dead", "skip");
    let _daemon = daemon.allow_log("became a dead letter").start();
    let stored = fixture.wait_stored(EVENTS.unsigned_abs() - 1, DEADLINE).await;
    let others: Vec<i64> = all().into_iter().filter(|n| *n != 3_000).collect();
    assert_eq!(numbers(&stored), others);
    assert!(in_batches(&stored) > stored.len() / 2);
    eventually("a dead letter", DEADLINE, async || {
        let count =
            r#"SELECT count(*) FROM "postrider".letter WHERE error_code = 'invalid_subject'"#;
        client.query_one(count, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
}
