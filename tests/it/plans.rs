//! Tests that the statements of the data path use their indexes in every situation, with any
//! statistics.
//!
//! `sql_reader` tests one situation in a table of 5 million rows. This file tests the others.

use postrider::outbox::{SESSION_SETTINGS, with_columns};
use serde_json::Value;
use tokio_postgres::{Client, GenericClient, SimpleQueryMessage};

use super::support::Fixture;

/// Number of rows in the table when the statistics are taken that are stale later.
const FIRST_ROWS: i64 = 10;

const SETTLED_ROWS: i64 = 300_000;

/// A statement of the relay, prepared as the relay prepares it.
struct Prepared {
    name: &'static str,
    arguments: String,
}

/// Plan of a statement and its measured cost.
struct Plan {
    text: String,
    buffers: i64,
    rows: i64,
    faults: Vec<String>,
}

async fn session(fixture: &Fixture) -> Client {
    let client = fixture.connect().await;
    for (name, value) in SESSION_SETTINGS {
        client.batch_execute(&format!("SET {name} = {value}")).await.unwrap();
    }
    let statements = [
        ("late", "text", include_str!("../../src/outbox/sql/find_late_transactions.sql")),
        (
            "page",
            "text, text, bigint, bigint, bigint, integer",
            include_str!("../../src/outbox/sql/read_page.sql"),
        ),
        (
            "page_late",
            "text, text, bigint, bigint, bigint, integer, text",
            include_str!("../../src/outbox/sql/read_page_late.sql"),
        ),
        ("poll", "text, bigint, integer", include_str!("../../src/outbox/sql/poll_outbox.sql")),
        (
            "poll_late",
            "text, bigint, integer",
            include_str!("../../src/outbox/sql/poll_outbox_late.sql"),
        ),
        ("payloads", "bigint[]", include_str!("../../src/outbox/sql/read_payloads.sql")),
    ];
    for (name, types, statement) in statements {
        let statement = with_columns(statement);
        client.batch_execute(&format!("PREPARE {name} ({types}) AS {statement}")).await.unwrap();
    }
    client
}

async fn explain(client: &Client, statement: &Prepared) -> Plan {
    let Prepared { name, arguments } = statement;
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {name} ({arguments})");
    let row = client.query_one(&explain, &[]).await.unwrap();
    let text: String = row.get::<_, Json>(0).0;
    let plan: Value = serde_json::from_str(&text).unwrap();
    let top = &plan[0]["Plan"];
    let number = |name: &str| whole(&top[name]);
    let buffers = number("Shared Hit Blocks") + number("Shared Read Blocks");
    Plan { buffers, rows: number("Actual Rows"), faults: faults(top), text }
}

/// Whole part of a number in a plan. From version 18 of Postgres on, row counts have decimals.
fn whole(number: &Value) -> i64 {
    let text = number.to_string();
    text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0)
}

/// Text of a value of type `json`.
struct Json(String);

impl tokio_postgres::types::FromSql<'_> for Json {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &[u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(String::from_utf8(raw.to_vec())?))
    }

    fn accepts(ty: &tokio_postgres::types::Type) -> bool {
        *ty == tokio_postgres::types::Type::JSON
    }
}

/// Fills one table of the outbox with settled rows, as the relay leaves them.
async fn fill(client: &Client) {
    // The table is unlogged to make filling it faster, because the cost of inserts is not tested
    // here.
    client.batch_execute(r#"ALTER TABLE "postrider".outbox_0 SET UNLOGGED"#).await.unwrap();
    client
        .batch_execute(r#"ALTER TABLE "postrider".outbox_0 SET (autovacuum_enabled = off)"#)
        .await
        .unwrap();
    let statement = r#"INSERT INTO "postrider".outbox_0
            (tx, seq, slot, event_id, occurred_at, event_type, aggregate_type, aggregate_id, payload)
        OVERRIDING SYSTEM VALUE
        SELECT pg_current_xact_id(), n, 0, '00000000-0000-7000-8000-000000000000',
            '2026-01-01', 'e', 'a', 'k', '{}'
        FROM generate_series($1::bigint + 1, $2::bigint) AS n"#;
    client.execute(statement, &[&FIRST_ROWS, &SETTLED_ROWS]).await.unwrap();
    let sequence = r#"SELECT setval('"postrider".outbox_seq_seq', $1::bigint)"#;
    client.query_one(sequence, &[&SETTLED_ROWS]).await.unwrap();
}

async fn text(client: &Client, statement: &str) -> String {
    client.query_one(statement, &[]).await.unwrap().get(0)
}

async fn insert(client: &impl GenericClient, rows: i64) {
    let statement = r#"INSERT INTO "postrider".outbox (event_type)
        SELECT 'e' FROM generate_series(1, $1::bigint)"#;
    client.execute(statement, &[&rows]).await.unwrap();
}

const SNAPSHOT: &str = "SELECT pg_current_snapshot()::text";
const FENCE: &str = r#"SELECT pg_sequence_last_value('"postrider".outbox_seq_seq')::text"#;

/// A statement in one situation in which the relay runs it, with the rows that it must return. It
/// may touch at most `buffers_max` pages of the database.
struct Situation {
    name: &'static str,
    statement: Prepared,
    rows: i64,
    buffers_max: i64,
}

/// Makes all situations. A page has at most 1,000 rows here.
async fn situations(fixture: &Fixture, client: &Client) -> Vec<Situation> {
    let mut holder = fixture.connect().await;
    let late = holder.transaction().await.unwrap();
    insert(&late, 3).await;
    // A transaction is late only when another one has inserted after it and committed before it.
    insert(client, 1).await;
    let (floor_p, p) = (text(client, FENCE).await, text(client, SNAPSHOT).await);
    insert(client, 200).await;
    late.commit().await.unwrap();
    let (floor_c, c) = (text(client, FENCE).await, text(client, SNAPSHOT).await);
    insert(client, 200).await;
    let d = text(client, SNAPSHOT).await;
    let polled = client.simple_query(&format!("EXECUTE late ('{p}')")).await.unwrap();
    let row = polled.iter().find_map(|message| {
        if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None }
    });
    let late = row.and_then(|row| row.get(0)).expect("a late transaction");

    let half = SETTLED_ROWS / 2;
    let page = |from: &str, to: &str, bookmark: i64, floor: &str| {
        let arguments = format!("'{from}', '{to}', {bookmark}, {floor}, 1000, 8388");
        Prepared { name: "page", arguments }
    };
    let page_late = {
        let Prepared { arguments, .. } = page(&p, &c, 0, &floor_p);
        Prepared { name: "page_late", arguments: format!("{arguments}, '{late}'") }
    };
    let left_out: Vec<String> = (half..half + 100).map(|seq| seq.to_string()).collect();
    let left_out = format!("'{{{}}}'", left_out.join(","));
    let payloads = Prepared { name: "payloads", arguments: left_out };
    let late = |from: &str| Prepared { name: "late", arguments: format!("'{from}'") };
    let poll = |name, from: &str, rows| {
        let arguments = format!("'{from}', {rows}, 8388");
        Prepared { name, arguments }
    };
    let begin = "3:3:";
    let situation =
        |name, statement, rows, buffers_max| Situation { name, statement, rows, buffers_max };
    vec![
        situation("no late transaction", late(&d), 1, 30),
        situation("a late transaction", late(&p), 1, 60),
        situation("a poll and nothing new", poll("poll", &d, 1_001), 1, 60),
        situation("a poll and a few new rows", poll("poll", &c, 1_001), 201, 300),
        situation("a poll of a backlog", poll("poll", begin, 1_001), 1_002, 400),
        situation("a poll and late rows", poll("poll_late", &p, 1_001), 404, 800),
        situation("a poll of more late rows than it may have", poll("poll_late", &p, 2), 3, 400),
        situation(
            "a poll of more late and new rows than it may have",
            poll("poll_late", &p, 9),
            10,
            400,
        ),
        situation("nothing new", page(&d, &d, 0, &floor_c), 0, 60),
        situation("a few new rows behind all settled ones", page(&c, &d, 0, &floor_c), 200, 300),
        situation("new and late rows", page_late, 203, 400),
        situation("left out payloads", payloads, 100, 2_500),
        situation("the first page of a backlog", page(begin, &d, 0, "0"), 1_000, 400),
        situation("a page inside a backlog", page(begin, &d, half, "0"), 1_000, 400),
        situation("the last page of a backlog", page(begin, &d, SETTLED_ROWS, "0"), 404, 400),
    ]
}

/// Faults of a plan: scans of a whole table, and sorts of more rows than a page.
fn faults(plan: &Value) -> Vec<String> {
    let kind = plan["Node Type"].as_str().unwrap_or_default();
    let rows = whole(&plan["Actual Rows"]);
    let table = plan["Relation Name"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    if (kind == "Seq Scan" || kind.starts_with("Bitmap")) && table.starts_with("outbox") {
        found.push(format!("{kind} on {table}"));
    }
    if kind.contains("Sort") && rows > 1_000 {
        found.push(format!("{kind} of {rows} rows"));
    }
    let removed = whole(&plan["Rows Removed by Filter"]);
    if removed > 1_000 {
        found.push(format!("{kind} on {table} reads {removed} rows in vain"));
    }
    let children = plan["Plans"].as_array().into_iter().flatten();
    found.extend(children.flat_map(faults));
    found
}

#[tokio::test]
async fn the_fetch_stays_on_its_indexes_in_every_situation() {
    // The server is the test's own, because open transactions of other tests would count as late
    // ones. Each late transaction costs a probe of every table.
    let fixture = Fixture::own_postgres().await;
    let admin = fixture.connect().await;
    insert(&admin, FIRST_ROWS).await;
    admin.batch_execute(r#"ANALYZE "postrider".outbox"#).await.unwrap();
    fill(&admin).await;
    let situations = situations(&fixture, &session(&fixture).await).await;

    let forget = "DELETE FROM pg_statistic USING pg_class
            WHERE starelid = oid AND relname LIKE 'outbox%';
        UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE relname LIKE 'outbox%'";
    let lie = "UPDATE pg_class SET reltuples = 1e9, relpages = 1 WHERE relname LIKE 'outbox%'";
    let statistics = [
        ("of when there were ten rows", "SELECT"),
        ("missing", forget),
        ("fresh", r#"ANALYZE "postrider".outbox"#),
        ("absurd", lie),
    ];
    for (state, change) in statistics {
        admin.batch_execute(change).await.unwrap();
        let client = session(&fixture).await;
        for Situation { name, statement, rows, buffers_max } in &situations {
            // This unmeasured run sets hint bits and fills the catalogue's caches.
            explain(&client, statement).await;
            let plan = explain(&client, statement).await;
            let context = || format!("statistics {state}, {name}:\n{}", plan.text);
            assert_eq!(plan.rows, *rows, "{}", context());
            assert!(plan.faults.is_empty(), "{:?}, {}", plan.faults, context());
            assert!(plan.buffers <= *buffers_max, "{} pages, {}", plan.buffers, context());
        }
    }
}
