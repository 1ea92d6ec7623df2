//! Test of a million keys that wait behind dead letters: memory stays bounded, a restart succeeds,
//! and each key keeps its order.

use std::{fs, time::Duration};

use tokio_postgres::Client;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::Daemon,
    eventually,
    letters::{done, number},
};

/// Number of keys, each with a dead letter.
const KEYS: i64 = 1_000_000;

/// Deadline for a million rows on a machine that is busy with other work.
const LONG_DEADLINE: Duration = Duration::from_mins(5);

/// Largest growth of resident memory, in megabytes, while so many blocked keys are loaded and kept.
const MEGABYTES_MAX: i64 = 40;

/// Inserts a dead letter for each key. The row of each letter is gone from the outbox, as after
/// retention.
async fn fill(client: &Client) {
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    let insert = r#"INSERT INTO "postrider".letter (
            relay, state, holds, attempts, error_code, error, fingerprint, dead_at, payload_size,
            payload_omitted, tx, seq, slot, event_version, occurred_at, event_id, event_type, kind,
            aggregate_type, aggregate_id, content_type, headers, payload)
        SELECT 'default', 'dead', true, 1, 'invalid_subject', 'text', 'code', now(), 2, false, '5', n,
            0, 1, now(), gen_random_uuid(), 'order.placed', 'domain', 'order', 'o-' || n,
            'application/json', '{}', '{}'
        FROM generate_series(1, $1::bigint) AS n"#;
    client.execute(insert, &[&KEYS]).await.unwrap();
    let sequence = r#"SELECT setval('"postrider".outbox_seq_seq', $1::bigint)"#;
    client.query_one(sequence, &[&KEYS]).await.unwrap();
}

/// Peak of the program's resident memory, in megabytes.
fn peak_megabytes(daemon: &Daemon) -> i64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() / 1024
}

async fn stored(fixture: &Fixture, key: &str) -> Vec<String> {
    let messages = fixture.read_stream().await;
    let of_key = messages.iter().filter(|message| message.header("ce-subject") == Some(key));
    of_key.map(|message| message.header("ce-type").unwrap().to_owned()).collect()
}

/// Former defect: all blocked keys were read by one statement and kept in full. A million keys took
/// 150 MB, and a restart failed for ever when the statement exceeded its deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_blocked_keys_take_little_memory_and_a_restart_keeps_their_order() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture.daemon().start();
    app::emit(&client, "order.placed", Some(("order", "free")), "{}").await;
    fixture.wait_stored(1, DEADLINE).await;
    let before = peak_megabytes(&daemon);
    daemon.kill9();
    fill(&client).await;

    // The statement deadline is the shortest one that may be configured.
    let toml = fixture.toml();
    let mut daemon = fixture
        .daemon()
        .set("database.query_timeout", "1s")
        // On a busy machine any statement may exceed this deadline, even a small one.
        .allow_log("canceling statement due to statement timeout")
        .allow_log("no answer from the database within")
        .admin()
        .start();
    daemon.wait_log("loaded the blocked keys", LONG_DEADLINE).await;
    let keys = [("free", 0), ("o-1", 1), ("o-999999", 999_999)];
    for (key, _) in keys {
        app::emit(&client, "order.paid", Some(("order", key)), "{}").await;
    }
    fixture.wait_stored(2, DEADLINE).await;
    assert_eq!(stored(&fixture, "free").await, ["order.placed", "order.paid"]);
    let held = r#"SELECT count(*) FROM "postrider".letter
        WHERE state = 'held' AND next_attempt_at IS NULL AND resolved_at IS NULL"#;
    eventually("two wait", DEADLINE, async || number(&client, held).await == 2).await;
    let peak = peak_megabytes(&daemon);
    println!("{before} MB without, {peak} MB with {KEYS} blocked keys");
    assert!(peak - before < MEGABYTES_MAX, "{before} MB before, {peak} MB after");

    for (key, id) in &keys[1..] {
        assert_eq!(stored(&fixture, key).await, [""; 0]);
        done(&toml, &["dlq", "redrive", &id.to_string()]).await;
        eventually("the key in order", DEADLINE, async || {
            stored(&fixture, key).await == ["order.placed", "order.paid"]
        })
        .await;
        app::emit(&client, "order.sent", Some(("order", key)), "{}").await;
        eventually("what follows", DEADLINE, async || stored(&fixture, key).await.len() == 3).await;
    }
    eventually("two keys are free again", DEADLINE, async || {
        daemon.metric("postrider_blocked_aggregates{route=\"default\"}").await.to_bits()
            == 999_998.0_f64.to_bits()
    })
    .await;
}
