//! Large rows: the program's memory stays bounded, and what is too large blocks nobody.

use std::fs;

use async_nats::jetstream::stream::Config;
use serde_json::Value;

use super::support::{DEADLINE, Fixture, app, daemon::Daemon, nats};

const MIB: u64 = 1 << 20;

/// The most memory that the program ever had, in bytes.
fn memory_peak(daemon: &Daemon) -> u64 {
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
async fn two_hundred_rows_of_a_megabyte_pass_in_little_memory() {
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
        // One by one: a reader that lags behind so many bytes is cut off by the server.
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
async fn a_row_of_twenty_megabytes_is_a_dead_letter_and_blocks_nobody() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    insert_large(&fixture, 3, 20_000_000, 3).await;
    app::insert_backlog(&client, 100, 10).await;
    let daemon = fixture.daemon().allow_log("an event became a dead letter").start();
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
        // It stays in the outbox, and keeps its slot from being emptied.
        assert!(letter.get::<_, bool>(1) && letter.get::<_, bool>(2));
    }
}

#[tokio::test]
async fn hundreds_of_large_dead_letters_are_written_within_the_deadline_of_a_statement() {
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
        .allow_log("an event became a dead letter")
        .start();
    fixture.wait_stored(100, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let statement = r#"SELECT count(*) FROM "postrider".letter WHERE state = 'dead'"#;
    let letters: i64 = client.query_one(statement, &[]).await.unwrap().get(0);
    assert_eq!(letters, 400);
}
