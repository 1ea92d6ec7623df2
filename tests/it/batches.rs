//! Tests of batches: a key with many events is published in atomic or fast batches, each event once
//! and in order.

use async_nats::{HeaderMap, jetstream::stream::Config};
use tokio_postgres::Client;
use uuid::Uuid;

use super::support::{DEADLINE, Fixture, app::StoredMessage, daemon::Daemon, eventually, nats};

const EVENTS: i64 = 6_000;

/// Inserts events of one key, each with its number in the payload. The event at number `odd` has
/// the given type.
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

/// Counts the messages that were published in atomic batches.
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
    wait_dead(&client, "invalid_subject").await;
}

/// Waits until exactly one letter exists, with this code.
async fn wait_dead(client: &Client, code: &str) {
    eventually("a dead letter", DEADLINE, async || {
        let letters = r#"SELECT error_code FROM "postrider".letter"#;
        let letters = client.query(letters, &[]).await.unwrap();
        letters.len() == 1 && letters[0].get::<_, Option<&str>>(0) == Some(code)
    })
    .await;
}

/// Number of batches with this result, from the program's metrics.
async fn batches(daemon: &Daemon, result: &str) -> f64 {
    let labels = format!(r#"{{route="default",result="{result}"}}"#);
    daemon.metric(&format!("postrider_publish_batches_total{labels}")).await
}

#[tokio::test]
async fn a_hot_key_goes_in_fast_batches_and_keeps_its_order() {
    let fixture = Fixture::new().await;
    insert(&fixture.connect().await, -1, "").await;
    let daemon = fixture.daemon().admin().allow_log("one replica").set("stream.batches", "fast");
    let daemon = daemon.start();
    let stored = fixture.wait_stored(EVENTS.unsigned_abs(), DEADLINE).await;
    assert_eq!(numbers(&stored), all());
    assert_eq!(in_batches(&stored), 0, "fast batches leave nothing in a message");
    assert!(fixture.wait_drained(DEADLINE).await);
    let (committed, refused) =
        (batches(&daemon, "committed").await, batches(&daemon, "refused").await);
    assert!(committed >= 6.0 && refused < 1.0, "{committed} committed, {refused} refused");
}

/// The first message for which the stream has no room ends its batch, and no later message
/// overtakes it.
#[tokio::test]
async fn a_stream_that_is_full_in_the_middle_of_a_fast_batch_takes_the_rest_later() {
    const ROOM: u64 = 2_500;
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    let config = takes_fast_batches(&fixture);
    let small = Config { max_messages: ROOM.cast_signed(), ..config.clone() };
    jetstream.create_stream(small).await.unwrap();
    insert(&fixture.connect().await, -1, "").await;
    let daemon = fixture.daemon().admin().allow_log("one replica").set("stream.batches", "fast");
    let mut daemon = daemon.allow_log("maximum messages exceeded").start();
    let stored = fixture.wait_stored(ROOM, DEADLINE).await;
    assert_eq!(numbers(&stored), all()[..2_500]);
    daemon.wait_log("maximum messages exceeded (JetStream code 10077)", DEADLINE).await;
    jetstream.update_stream(config).await.unwrap();
    let stored = fixture.wait_stored(EVENTS.unsigned_abs(), DEADLINE).await;
    assert_eq!(numbers(&stored), all());
    assert!(fixture.wait_drained(DEADLINE).await);
    assert!(batches(&daemon, "refused").await > 0.0);
}

/// The stream's answer to a fast batch also counts messages that it dropped as duplicates. A
/// dropped message may differ from the stored one with the same id.
#[tokio::test]
async fn another_message_under_the_id_of_one_in_a_fast_batch_is_noticed() {
    // The id is taken by an event of the first batch, and then by an event of a later batch.
    for number in [5, 3_000] {
        let fixture = Fixture::new().await;
        let jetstream = fixture.jetstream().await;
        jetstream.create_stream(takes_fast_batches(&fixture)).await.unwrap();
        let client = fixture.connect().await;
        insert(&client, -1, "").await;
        let taken = r#"SELECT event_id FROM "postrider".outbox WHERE (payload->>'n')::bigint = $1"#;
        let taken: Uuid = client.query_one(taken, &[&number]).await.unwrap().get(0);
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", taken.to_string());
        let subject = format!("{}.elsewhere", fixture.prefix);
        let other = jetstream.publish_with_headers(subject, headers, "another".into());
        other.await.unwrap().await.unwrap();
        let daemon = fixture.daemon().admin().allow_log("one replica");
        let daemon = daemon.set("stream.batches", "fast").set("route.on_dead", "skip");
        let daemon = daemon.allow_log("became a dead letter").start();
        let stored = fixture.wait_stored(EVENTS.unsigned_abs(), DEADLINE).await;
        let others: Vec<i64> = all().into_iter().filter(|n| *n != number).collect();
        assert_eq!(numbers(&stored[1..]), others);
        wait_dead(&client, "msg_id_collision").await;
        assert!(batches(&daemon, "committed").await > 0.0);
    }
}

fn takes_fast_batches(fixture: &Fixture) -> Config {
    Config {
        name: fixture.stream.clone(),
        subjects: vec![format!("{}.>", fixture.prefix)],
        discard: async_nats::jetstream::stream::DiscardPolicy::New,
        allow_direct: true,
        allow_batch_publish: true,
        ..Config::default()
    }
}
