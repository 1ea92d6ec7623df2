//! Tests that operators' commands about a few letters stay cheap beside very many others, with
//! missing and with fresh statistics.

use std::time::SystemTime;

use tokio_postgres::Client;

use super::support::{
    DEADLINE, Fixture, eventually,
    letters::{done, number, refused},
    wait_for_other_sessions_to_end,
};

const LETTERS: i64 = 150_000;

/// Largest number of blocks of the letter table and its indexes that a command may touch, for at
/// most fifty letters. The whole table has fifty times as many blocks.
const BLOCKS_MAX: i64 = 150;

/// Inserts letters, of which a third is resolved, a third dead, and a third held. Each key has
/// thirty.
async fn fill(client: &Client) {
    let settings = r#"ALTER TABLE "postrider".letter SET (autovacuum_enabled = off)"#;
    client.batch_execute(settings).await.unwrap();
    let statement = r#"INSERT INTO "postrider".letter (
            relay, state, holds, error_code, error, fingerprint, dead_at, payload_size,
            payload_omitted, tx, seq, slot, event_version, occurred_at, event_id, event_type, kind,
            aggregate_type, aggregate_id, content_type, headers, payload, resolved_at, resolution)
        SELECT 'default', CASE WHEN n % 3 < 2 THEN 'dead' ELSE 'held' END, true, 'code', 'text',
            'code', CASE WHEN n % 3 < 2 THEN clock_timestamp() END, 300, false, '5', n, 0, 1, now(),
            '00000000-0000-7000-8000-000000000000', 'order.placed', 'domain', 'order',
            (n % 5000)::text, 'application/json', '{}', to_json(repeat('x', 300)),
            CASE WHEN n % 3 = 0 THEN now() END, CASE WHEN n % 3 = 0 THEN 'published' END
        FROM generate_series(1, $1::bigint) AS n"#;
    client.execute(statement, &[&LETTERS]).await.unwrap();
}

/// Number of blocks of the letter table and its indexes that ended sessions have read, from cache
/// or disk. Blocks of the catalogue are not counted, because a vacuum that runs meanwhile reads
/// thousands of them.
async fn blocks(client: &Client) -> i64 {
    wait_for_other_sessions_to_end(client).await;
    // Up to version 14 of Postgres these statistics come from a file that may be half a second old.
    // Without this wait, reads of one command would be counted for the next one.
    let ended: SystemTime = client.query_one("SELECT clock_timestamp()", &[]).await.unwrap().get(0);
    let newer = "SELECT coalesce(pg_stat_get_snapshot_timestamp() > $1, true)";
    eventually("figures of after their end", DEADLINE, async || {
        client.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
        client.query_one(newer, &[&ended]).await.unwrap().get::<_, bool>(0)
    })
    .await;
    let read = "SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read
            + coalesce(toast_blks_hit + toast_blks_read + tidx_blks_hit + tidx_blks_read, 0)
        FROM pg_statio_user_tables WHERE relname = 'letter'";
    number(client, read).await
}

#[tokio::test]
async fn a_page_a_key_and_an_id_touch_few_blocks_beside_very_many_letters() {
    let fixture = Fixture::new().await;
    fill(&fixture.connect().await).await;
    let client = fixture.connect().await;
    let all = r#"SELECT pg_relation_size('"postrider".letter') / 8192"#;
    assert!(number(&client, all).await > 50 * BLOCKS_MAX);
    let toml = fixture.toml();
    let cheap: [&[&str]; 10] = [
        &["dlq", "list"],
        &["dlq", "list", "--after", "75001"],
        &["dlq", "list", "--state", "held"],
        &["dlq", "list", "--state", "held", "--after", "75002"],
        &["dlq", "list", "--state", "retrying"],
        &["dlq", "list", "--key", "order/77"],
        &["dlq", "list", "--state", "held", "--key", "order/77"],
        &["dlq", "redrive", "--key", "order/77", "--dry-run"],
        &["dlq", "show", "75001"],
        &["why", "order/77"],
    ];
    let forget = "DELETE FROM pg_statistic USING pg_class
            WHERE starelid = oid AND relname LIKE 'letter%';
        UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE relname LIKE 'letter%'";
    let fresh = r#"ANALYZE "postrider".letter"#;
    let mut key = 100;
    for (state, change) in [("missing", forget), ("fresh", fresh)] {
        fixture.postgres.execute(&fixture.database, change).await.unwrap();
        // This unmeasured reading sets hint bits and fills the catalogue's caches.
        done(&toml, &["dlq", "list"]).await;
        for command in cheap {
            let before = blocks(&client).await;
            done(&toml, command).await;
            let touched = blocks(&client).await - before;
            assert!(touched < BLOCKS_MAX, "statistics {state}, {command:?}: {touched} blocks");
        }
        key += 1;
        let before = blocks(&client).await;
        let one = format!("order/{key}");
        done(&toml, &["dlq", "discard", "--key", &one, "--yes", "--reason", "a test"]).await;
        let id = (3 * key + 1).to_string();
        done(&toml, &["dlq", "redrive", &id]).await;
        refused(&toml, &["dlq", "redrive", &id, "3", "999999"]).await;
        let touched = blocks(&client).await - before;
        assert!(touched < 4 * BLOCKS_MAX, "statistics {state}, changes: {touched} blocks");
    }
}
