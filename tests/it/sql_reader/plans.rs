//! Tests of the plans of the relay's statements, with missing, stale and fresh statistics.

use tokio_postgres::Client;

use super::{acquire, emit, relay, settle, span, statement, statements};
use crate::support::Fixture;

/// Generic plan of a prepared statement, which Postgres uses whatever the parameters are.
async fn generic_plan(client: &Client, name: &str) -> String {
    let prepared = client.prepare(&statement(name)).await.unwrap();
    let nulls = vec!["NULL"; prepared.params().len()].join(", ");
    client.batch_execute(&format!("PREPARE {name} AS {}", statement(name))).await.unwrap();
    let call = if nulls.is_empty() { name.to_owned() } else { format!("{name}({nulls})") };
    let rows = client.query(&format!("EXPLAIN EXECUTE {call}"), &[]).await.unwrap();
    client.batch_execute(&format!("DEALLOCATE {name}")).await.unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn no_statement_scans_the_table_whatever_the_statistics_say() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    let analyze = "ANALYZE postrider.outbox, postrider.letter, postrider.position";
    let off = "ALTER TABLE postrider.outbox_0 SET (autovacuum_enabled = off)";
    client.batch_execute(off).await.unwrap();
    emit(&client, 50_000).await;
    // Missing statistics, stale ones that know half of the rows, and fresh ones.
    for state in ["missing", "stale", "fresh"] {
        if state == "stale" {
            client.batch_execute(analyze).await.unwrap();
            emit(&client, 50_000).await;
        } else if state == "fresh" {
            client.batch_execute(analyze).await.unwrap();
        }
        for name in statements() {
            let plan = generic_plan(&client, &name).await;
            for table in ["outbox", "letter"] {
                let scan = format!("Seq Scan on {table}");
                assert!(!plan.contains(&scan), "{name}, {state} statistics:\n{plan}");
            }
        }
        for name in ["read_page", "read_page_late"] {
            let plan = generic_plan(&client, name).await;
            assert!(plan.contains("Index Scan using outbox_0_pkey"), "{state}:\n{plan}");
            assert!(plan.contains("Index Cond: (seq > GREATEST"), "{state}:\n{plan}");
        }
        for name in ["read_page_late", "poll_outbox", "poll_outbox_late"] {
            let plan = generic_plan(&client, name).await;
            assert!(plan.contains("Index Scan using outbox_0_tx_seq_idx"), "{state}:\n{plan}");
        }
        let range = ("poll_outbox", "Index Cond: ((tx >= ");
        let conditions =
            [range, ("poll_outbox_late", range.1), ("poll_outbox_late", "Index Cond: (tx = ANY ")];
        for (name, condition) in conditions {
            let plan = generic_plan(&client, name).await;
            assert!(plan.contains(condition), "{name}, {state}:\n{plan}");
            assert!(!plan.contains("outbox_0_pkey"), "{name}, {state}:\n{plan}");
        }
    }
}

#[tokio::test]
async fn a_page_touches_no_settled_row() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    emit(&client, 20_000).await;
    let (term, fence) = acquire(&client).await;
    let (settled, _) = span(&client, "3:3:").await;
    let floor = settle(&client, term, (&settled, &settled), fence).await;
    assert_eq!(floor, Some(20_000));
    emit(&client, 10).await;
    let (target, late) = span(&client, &settled).await;
    assert_eq!(late, None);
    let calls = [
        (
            "read_page",
            "pkey on outbox_0 r_1",
            format!("'{settled}', '{target}', 0, {fence}, 1000, 8192"),
        ),
        ("poll_outbox", "tx_seq_idx on outbox_0 n_1", format!("'{settled}', 1000, 8192")),
        ("poll_outbox_late", "tx_seq_idx on outbox_0 n_1", format!("'{settled}', 1000, 8192")),
    ];
    for (name, index, arguments) in calls {
        client.batch_execute(&format!("PREPARE {name} AS {}", statement(name))).await.unwrap();
        let explain = format!(
            "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE {name}({arguments})"
        );
        let rows = client.query(&explain, &[]).await.unwrap();
        let lines: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        let plan = lines.join("\n");
        let scan = format!("Index Scan using outbox_0_{index} (actual rows=10");
        assert!(plan.contains(&scan), "{plan}");
        // Rows may be removed from the list of formerly open transactions, because some are still
        // open, even of other tests.
        let in_vain = lines
            .windows(3)
            .any(|three| three[2].contains("Rows Removed") && !three[0].contains("Function Scan"));
        assert!(!in_vain, "{plan}");
    }
}

/// Number of blocks that one poll and its page touch, and number of rows of the page.
async fn blocks_of_a_poll(client: &Client, settled: &str, floor: i64) -> (i64, i64) {
    let (target, late) = span(client, settled).await;
    let late = late.unwrap_or_else(|| "{}".to_owned());
    let calls = [
        format!("poll_outbox_late('{settled}', 1000, 8192)"),
        format!("find_late_transactions('{settled}')"),
        format!("read_page('{settled}', '{target}', 0, {floor}, 1000, 8192)"),
        format!("read_page_late('{settled}', '{target}', 0, {floor}, 1000, 8192, '{late}')"),
    ];
    let (mut blocks, mut rows) = (0, 0);
    for call in calls {
        let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {call}");
        let read = format!("SELECT * FROM plan_of({})", literal(&explain));
        let row = client.query_one(&read, &[]).await.unwrap();
        blocks += row.get::<_, i64>("blocks");
        rows = row.get("rows");
    }
    (blocks, rows)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[tokio::test]
async fn five_million_settled_rows_cost_the_reader_nothing() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    client
        .batch_execute(
            "ALTER TABLE postrider.outbox_0 SET (autovacuum_enabled = off);
             CREATE FUNCTION plan_of(statement text, OUT blocks bigint, OUT rows bigint)
             LANGUAGE plpgsql AS $$
             DECLARE plan json;
             BEGIN
                 EXECUTE statement INTO plan;
                 blocks := (plan #>> '{0,Plan,Shared Hit Blocks}')::bigint
                           + (plan #>> '{0,Plan,Shared Read Blocks}')::bigint;
                 rows := (plan #>> '{0,Plan,Actual Rows}')::float8;
             END $$",
        )
        .await
        .unwrap();
    for name in ["poll_outbox_late", "find_late_transactions", "read_page", "read_page_late"] {
        client.batch_execute(&format!("PREPARE {name} AS {}", statement(name))).await.unwrap();
    }
    // The values of the column defaults are given, which halves the time of the insert.
    let fill = |count: i64| {
        format!(
            "INSERT INTO postrider.outbox (slot, occurred_at, event_id, event_type)
             SELECT 0, 'epoch', '01a1fbd8-abc2-7eb1-8da8-e6b4d19df3fa', 'a'
             FROM generate_series(1, {count})"
        )
    };
    client.batch_execute(&fill(50_000)).await.unwrap();
    client.batch_execute("ANALYZE postrider.outbox").await.unwrap();
    client.batch_execute(&fill(4_950_000)).await.unwrap();
    let (term, mut fence) = acquire(&client).await;
    let mut held = fixture.connect().await;
    for statistics in ["stale", "fresh"] {
        if statistics == "fresh" {
            client.batch_execute("ANALYZE postrider.outbox").await.unwrap();
        }
        let held = held.transaction().await.unwrap();
        emit(held.client(), 1).await;
        let (settled, _) = span(&client, "3:3:").await;
        let next_fence = settle(&client, term, (&settled, &settled), fence).await.unwrap();
        emit(&client, 20).await;
        held.commit().await.unwrap();
        let (blocks, rows) = blocks_of_a_poll(&client, &settled, fence).await;
        fence = next_fence;
        assert_eq!(rows, 21, "{statistics} statistics");
        assert!(blocks < 200, "{statistics} statistics: {blocks} blocks");
    }
}
