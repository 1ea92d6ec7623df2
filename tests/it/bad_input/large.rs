//! Tests B12 to B15 of `docs/bad-input.md`: large rows. The relay's memory stays bounded, and a row
//! that is too large blocks no other key.

use std::fs;

use async_nats::jetstream::stream::Config;
use postrider::dev::servers::NatsOptions;
use serde_json::Value;

use super::{Row, Scene, letter};
use crate::support::{DEADLINE, Fixture, app, daemon::Daemon, nats};

const MIB: u64 = 1 << 20;

/// Peak of the program's resident memory, in bytes.
pub(super) fn memory_peak(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Rows with a payload of `bytes` each, spread over `keys` keys.
async fn insert_large(fixture: &Fixture, rows: i64, bytes: i32, keys: i64) {
    let statement = r#"INSERT INTO "postrider".outbox
            (event_type, aggregate_type, aggregate_id, payload)
        SELECT 'load.made', 'large', (n % $3::bigint)::text,
            ('{"n": ' || n || ', "pad": "' || repeat(chr(97 + (n % 26)::int), $2) || '"}')::json
        FROM generate_series(0, $1::bigint - 1) AS n"#;
    let client = fixture.connect().await;
    client.execute(statement, &[&rows, &bytes, &keys]).await.unwrap();
}

#[tokio::test]
async fn b15_two_hundred_rows_of_a_megabyte_pass_in_little_memory() {
    let fixture = Fixture::new().await;
    insert_large(&fixture, 200, 1_000_000, 7).await;
    let daemon = fixture.daemon().start();
    assert!(fixture.wait_drained(DEADLINE).await);
    let peak = memory_peak(&daemon);
    assert!(peak < 64 * MIB, "{} MiB", peak / MIB);

    let stream = fixture.jetstream().await.get_stream(&fixture.stream).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 200);
    let mut last = [None; 7];
    for seq in 1..=200 {
        // Messages are read one by one, because the server disconnects a reader that lags behind by
        // so many bytes.
        let message = stream.direct_get(seq).await.unwrap();
        let body: Value = serde_json::from_slice(&message.payload).unwrap();
        let number = body["n"].as_u64().unwrap();
        let letter = char::from(b'a' + u8::try_from(number % 26).unwrap());
        assert!(body["pad"].as_str().unwrap().chars().all(|c| c == letter));
        assert!(message.payload.len() > 1_000_000);
        let before = &mut last[usize::try_from(number % 7).unwrap()];
        assert!(*before < Some(number));
        *before = Some(number);
    }
}

#[tokio::test]
async fn b14_a_row_of_twenty_megabytes_is_a_dead_letter_and_blocks_nobody() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    insert_large(&fixture, 3, 20_000_000, 3).await;
    app::insert_backlog(&client, 100, 10).await;
    let daemon = fixture.daemon().allow_log("became a dead letter").start();
    assert_eq!(fixture.wait_stored(100, DEADLINE).await.len(), 100);
    assert!(fixture.wait_drained(DEADLINE).await);
    let peak = memory_peak(&daemon);
    assert!(peak < 64 * MIB, "{} MiB", peak / MIB);

    let statement = r#"SELECT payload_size, payload_omitted, payload IS NULL
        FROM "postrider".letter WHERE state = 'dead' AND error_code = 'payload_too_large'"#;
    let letters = client.query(statement, &[]).await.unwrap();
    assert_eq!(letters.len(), 3);
    for letter in letters {
        assert!(letter.get::<_, i64>(0) > 20_000_000);
        // The payload stays in the outbox, and retention must not empty the outbox table that
        // contains it.
        assert!(letter.get::<_, bool>(1) && letter.get::<_, bool>(2));
    }
}

#[tokio::test]
async fn b13_hundreds_of_large_dead_letters_are_written_within_the_deadline_of_a_statement() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    nats::create_stream(&jetstream, &fixture.stream, &format!("{}.>", fixture.prefix)).await;
    let stream = jetstream.get_stream(&fixture.stream).await.unwrap();
    let limited = Config { max_message_size: 100_000, ..stream.cached_info().config.clone() };
    jetstream.update_stream(limited).await.unwrap();
    let client = fixture.connect().await;
    insert_large(&fixture, 400, 1_000_000, 400).await;
    app::insert_backlog(&client, 100, 10).await;

    let _daemon = fixture
        .daemon()
        .set("database.query_timeout", "1s")
        .allow_log("became a dead letter")
        .start();
    fixture.wait_stored(100, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let statement = r#"SELECT count(*) FROM "postrider".letter WHERE state = 'dead'"#;
    let letters: i64 = client.query_one(statement, &[]).await.unwrap().get(0);
    assert_eq!(letters, 400);
}

fn of_size(bytes: usize) -> Row {
    Row::new().with("payload", format!("to_json(repeat('x', {bytes} - 2))"))
}

/// Size that the letter of a row with 1,500,000 bytes reports, less the payload: the size of the
/// headers.
fn header_bytes(error: &str) -> usize {
    let bytes_text = error.split(' ').nth(2).unwrap();
    bytes_text.parse::<usize>().unwrap() - 1_500_000
}

#[tokio::test]
async fn b12_a_message_over_the_servers_limit_is_refused_and_one_at_it_is_not() {
    let mut scene = Scene::new().await;
    // The time is a header too, so it gets a text of constant length.
    let of_size = |bytes| of_size(bytes).text("occurred_at", "2026-01-01T00:00:00.123456Z");
    let letters = scene.refuses(vec![(of_size(1_500_000), "payload_too_large")]).await;
    let error = &letters[0].error;
    assert!(error.ends_with("the broker takes at most 1048576"), "{error}");
    let room = 1_048_576 - header_bytes(error);
    scene.refuses(vec![(of_size(room + 1), "payload_too_large")]).await;
    // The key is as long as those that `refuses` gives its rows, so that the headers have the same
    // size.
    let messages = scene.publishes(vec![of_size(room).text("aggregate_id", "bad-fitted")]).await;
    assert_eq!(messages[0].payload.len(), room);
    assert!(!scene.daemon.log().contains("lost the connection"), "{}", scene.daemon.log());
}

#[tokio::test]
async fn b12_a_server_limit_that_falls_under_way_costs_one_connection_at_most() {
    let fixture = Fixture::with(None, Some(NatsOptions::default())).await;
    let change = "lost the connection to NATS";
    let mut scene = Scene::on(fixture, |daemon| daemon.allow_log(change)).await;
    scene.publishes(vec![of_size(100)]).await;
    scene.fixture.nats.own().options_mut().max_payload = 50_000;
    scene.fixture.nats.reload().await.unwrap();
    let dead = of_size(100_000).text("aggregate_id", "a").insert(&scene.client).await;
    let rows = [of_size(10_000).text("aggregate_id", "b")];
    scene.publishes(rows.to_vec()).await;
    assert_eq!(letter(&scene.client, dead).await.unwrap().code, "payload_too_large");
    // A client learns of a new limit when it connects. The first message over the limit breaks the
    // connection.
    let lost = scene.daemon.log().matches("lost the connection").count();
    assert!(lost <= 1, "{}", scene.daemon.log());
}

#[tokio::test]
async fn b12_the_limit_is_asked_again_after_a_restart_of_the_server() {
    let fixture = Fixture::with(None, Some(NatsOptions::default())).await;
    let mut scene = Scene::on(fixture, |daemon| {
        let quiet = daemon.allow_log("lost the connection to NATS").allow_log("waiting for NATS");
        quiet.allow_log("nothing can be published")
    })
    .await;
    scene.publishes(vec![of_size(600_000)]).await;
    scene.fixture.nats.own().stop().await.unwrap();
    // The relay may read this row from the outbox while it still knows the old limit.
    let id = of_size(600_000).text("aggregate_id", "falls").insert(&scene.client).await;
    scene.fixture.nats.own().options_mut().max_payload = 100_000;
    scene.fixture.nats.own().start_again().await.unwrap();
    assert!(!scene.settle().await.iter().any(|message| message.id() == id));
    let fallen = letter(&scene.client, id).await.unwrap();
    assert_eq!(fallen.code, "payload_too_large");
    assert!(fallen.error.contains("at most 100000"), "{}", fallen.error);
    scene.publishes(vec![of_size(10_000)]).await;

    scene.fixture.nats.own().stop().await.unwrap();
    scene.fixture.nats.own().options_mut().max_payload = 2 << 20;
    scene.fixture.nats.own().start_again().await.unwrap();
    // This event is published over the new connection, so the relay knows the new limit from here
    // on.
    scene.publishes(vec![of_size(10_000)]).await;
    scene.publishes(vec![of_size(1_500_000).text("aggregate_id", "rises")]).await;
}

#[tokio::test]
async fn b13_what_only_the_stream_refuses_is_a_dead_letter_too() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    nats::create_stream(&jetstream, &fixture.stream, &format!("{}.>", fixture.prefix)).await;
    let mut scene = Scene::on(fixture, |daemon| daemon).await;
    scene.publishes(vec![of_size(20_000)]).await;
    // The relay has read the stream's limits, and then they change.
    let stream = jetstream.get_stream(&scene.fixture.stream).await.unwrap();
    let limited = Config { max_message_size: 10_000, ..stream.cached_info().config.clone() };
    jetstream.update_stream(limited).await.unwrap();
    let letters = scene.refuses(vec![(of_size(20_000), "payload_too_large")]).await;
    assert!(letters[0].error.contains("10054"), "{}", letters[0].error);
    scene.publishes(vec![of_size(5_000)]).await;
}

#[tokio::test]
async fn b14_hundreds_of_megabytes_in_one_row_are_never_read() {
    let mut scene = Scene::new().await;
    // The large payloads are JSON, bytes, and JSON that another table had compressed.
    let insert = "
        CREATE TABLE kept (payload json);
        INSERT INTO kept SELECT to_json(repeat('abcdefgh', 5000000)) FROM generate_series(1, 4);
        INSERT INTO postrider.outbox (event_type, payload)
            SELECT 'large', ('\"' || repeat('x', 255000000) || '\"')::json;
        INSERT INTO postrider.outbox (event_type, payload_binary)
            SELECT 'large', repeat('x', 255000000)::bytea;
        INSERT INTO postrider.outbox (event_type, payload) SELECT 'large', payload FROM kept;
        INSERT INTO postrider.outbox (event_type, payload_binary)
            SELECT 'large', repeat('x', 10000000)::bytea FROM generate_series(1, 20);
        INSERT INTO postrider.outbox (event_type) SELECT 'small' FROM generate_series(1, 100)";
    scene.client.batch_execute(insert).await.unwrap();
    assert_eq!(scene.settle().await.len(), 100);
    let peak = memory_peak(&scene.daemon);
    assert!(peak < 64 * MIB, "{} MiB", peak / MIB);
    let copied = "SELECT count(*) FROM postrider.letter
        WHERE error_code = 'payload_too_large' AND payload_omitted
        AND payload IS NULL AND payload_binary IS NULL";
    assert_eq!(super::one::<i64>(&scene.client, copied, &[]).await, 26);
    scene.goes_on().await;
}

// Former defect: Postgres decompresses such payloads to measure them, and a page of them took
// longer than a statement may. The relay read the same page again and again.
#[tokio::test]
async fn b14_many_payloads_that_another_table_had_compressed_are_read_in_time() {
    let mut scene = Scene::with(|daemon| {
        daemon
            .set("database.query_timeout", "3s")
            .allow_log("could not read the outbox")
            .allow_log("could not settle")
    })
    .await;
    let insert = "
        CREATE TABLE kept (payload json);
        INSERT INTO kept SELECT to_json(repeat('abcdefgh', 5000000));
        INSERT INTO postrider.outbox (event_type, payload)
            SELECT 'large', payload FROM kept, generate_series(1, 70);
        INSERT INTO postrider.outbox (event_type) SELECT 'small' FROM generate_series(1, 100)";
    scene.client.batch_execute(insert).await.unwrap();
    assert_eq!(scene.settle().await.len(), 100);
    let letters = "SELECT count(*) FROM postrider.letter WHERE payload_omitted";
    assert_eq!(super::one::<i64>(&scene.client, letters, &[]).await, 70);
    scene.goes_on().await;
}
