//! Tests of rows that Postgres or the driver cannot read: each becomes a dead letter, and all other
//! keys go on.

use std::{
    fs::OpenOptions,
    io::{Seek as _, SeekFrom, Write as _},
    path::PathBuf,
};

use tokio_postgres::Client;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{Daemon, DaemonBuilder},
    eventually,
    letters::{number, text},
};

const BLOCK: u64 = 8192;

/// Path of a table's file, which may be changed once the server has stopped.
async fn file_of(fixture: &Fixture, client: &Client, table: &str) -> PathBuf {
    let path = format!("SELECT pg_relation_filepath({table})");
    let directory = fixture.postgres.log_path();
    directory.parent().unwrap().join("data").join(text(client, &path).await)
}

/// Overwrites blocks of a file with bytes that are no valid page.
fn destroy(file: &PathBuf, first: u64, blocks: u64) {
    let mut file = OpenOptions::new().write(true).open(file).unwrap();
    assert!(file.metadata().unwrap().len() >= (first + blocks) * BLOCK);
    file.seek(SeekFrom::Start(first * BLOCK)).unwrap();
    let garbage = vec![0x5a; usize::try_from(blocks * BLOCK).unwrap()];
    file.write_all(&garbage).unwrap();
    file.sync_all().unwrap();
}

async fn letters(client: &Client, state: &str, code: &str) -> i64 {
    let count = r#"SELECT count(*) FROM "postrider".letter
        WHERE relay = 'default' AND state = $1 AND error_code = $2 AND resolved_at IS NULL"#;
    client.query_one(count, &[&state, &code]).await.unwrap().get(0)
}

fn relay(fixture: &Fixture) -> Daemon {
    fixture.daemon().allow_log("became a dead letter").start()
}

/// Number of terms so far. Each session with which the relay became the leader has taken one.
async fn terms(client: &Client) -> i64 {
    number(client, r#"SELECT term FROM "postrider".position WHERE relay = 'default'"#).await
}

/// Former defect: each attempt to read a row with an unreadable payload ended the session, tens of
/// times a second. No event of any key was published any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_on_a_damaged_page_is_set_aside_and_only_its_key_waits() {
    let mut fixture = Fixture::own_postgres().await;
    let client = fixture.connect().await;
    for n in 0..50 {
        app::emit(&client, "order.placed", Some(("order", &format!("o-{n}"))), "{}").await;
    }
    let large = format!("\"{}\"", "x".repeat(100_000));
    app::emit(&client, "order.placed", Some(("order", "bad")), "{}").await;
    app::emit(&client, "order.large", Some(("order", "bad")), &large).await;
    app::emit(&client, "order.sent", Some(("order", "bad")), "{}").await;
    for n in 50..100 {
        app::emit(&client, "order.placed", Some(("order", &format!("o-{n}"))), "{}").await;
    }
    let toast = r#"(SELECT reltoastrelid::regclass FROM pg_class
        WHERE oid = '"postrider".outbox_0'::regclass)"#;
    let file = file_of(&fixture, &client, toast).await;
    fixture.postgres.own().stop_fast().await.unwrap();
    destroy(&file, 3, 2);
    fixture.postgres.own().start_again().await.unwrap();

    let client = fixture.connect().await;
    let _relay = relay(&fixture);
    fixture.wait_stored(101, DEADLINE).await;
    eventually("the row is set aside", DEADLINE, async || {
        letters(&client, "dead", "unreadable_row").await == 1
            && letters(&client, "held", "held").await == 1
    })
    .await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let types: Vec<_> = fixture.read_stream().await.into_iter().collect();
    assert!(!types.iter().any(|message| message.header("ce-type") == Some("order.large")));
    assert!(!types.iter().any(|message| message.header("ce-type") == Some("order.sent")));
    // The payload stays in the outbox, and retention must keep the table that contains it until an
    // operator has decided.
    let kept = r#"SELECT count(*) FROM "postrider".letter WHERE payload_omitted
        AND event_type = 'order.large' AND aggregate_id = 'bad' AND error LIKE '%XX001%'"#;
    assert_eq!(number(&client, kept).await, 1);
    app::emit(&client, "order.placed", Some(("order", "later")), "{}").await;
    fixture.wait_stored(102, DEADLINE).await;
    assert_eq!(terms(&client).await, 1);
}

/// On a damaged page of the table itself, only the place of each row can be known.
#[tokio::test(flavor = "multi_thread")]
async fn rows_on_a_damaged_page_of_the_table_are_set_aside_and_none_before_them_is_passed_over() {
    a_damaged_page_of_the_table(|daemon| daemon).await;
}

/// A filter cannot judge a row that nobody can read, so the route sets the row aside too.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_with_a_filter_sets_rows_on_a_damaged_page_aside_too() {
    let types = ["load.*", "order.*"].map(str::to_owned).to_vec();
    a_damaged_page_of_the_table(|daemon| {
        daemon.config(|toml| toml.set("route.types", types)).allow_log("no route takes")
    })
    .await;
}

async fn a_damaged_page_of_the_table(change: impl FnOnce(DaemonBuilder) -> DaemonBuilder) {
    let mut fixture = Fixture::own_postgres().await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 2_000, 2_000).await;
    let block = r#"SELECT count(*) FROM "postrider".outbox_0
        WHERE (ctid::text::point)[0]::integer = 7"#;
    let lost = number(&client, block).await;
    assert!(lost > 10, "{lost} rows on the page");
    // Further rows lie in another of the outbox's tables, so the first row of each table is not the
    // first of all rows.
    client.batch_execute(r#"SELECT setval('"postrider".gate', 1)"#).await.unwrap();
    app::insert_backlog(&client, 1_000, 1_000).await;
    let file = file_of(&fixture, &client, r#"'"postrider".outbox_0'"#).await;
    fixture.postgres.own().stop_fast().await.unwrap();
    destroy(&file, 7, 1);
    fixture.postgres.own().start_again().await.unwrap();

    let client = fixture.connect().await;
    let _relay = change(fixture.daemon().allow_log("became a dead letter")).start();
    eventually("the rows are set aside", DEADLINE, async || {
        letters(&client, "dead", "unreadable_row").await == lost
    })
    .await;
    fixture.wait_stored(3_000 - lost.unsigned_abs(), DEADLINE).await;
    let one_leaf = r#"SELECT count(DISTINCT slot) FROM "postrider".letter
        WHERE relay = 'default' AND slot = 0"#;
    assert_eq!(number(&client, one_leaf).await, 1);
    app::emit(&client, "order.placed", Some(("order", "later")), "{}").await;
    fixture.wait_stored(3_001 - lost.unsigned_abs(), DEADLINE).await;
    assert_eq!(terms(&client).await, 1);
    assert_eq!(fixture.read_stream().await.len(), usize::try_from(3_001 - lost).unwrap());
}

/// Former defect: a text with invalid bytes, as a damaged disk leaves it, made the driver fail the
/// whole page.
#[tokio::test]
async fn a_text_that_the_driver_cannot_decode_is_set_aside_and_only_its_key_waits() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    // This cast keeps the bytes as they are. Functions that convert bytes to text would reject
    // them.
    client.batch_execute("CREATE CAST (bytea AS text) WITHOUT FUNCTION").await.unwrap();
    app::insert_backlog(&client, 100, 100).await;
    let bad = r#"INSERT INTO "postrider".outbox
            (event_type, aggregate_type, aggregate_id, source, actor, payload)
        VALUES ('order.placed', 'order', 'bad', '\x6f6bff'::bytea::text, 'somebody', '{}'),
               ('order.placed', 'order', 'bad', NULL, NULL, '{}')"#;
    client.batch_execute(bad).await.unwrap();
    app::insert_backlog(&client, 100, 100).await;
    let _relay = relay(&fixture);
    fixture.wait_stored(200, DEADLINE).await;
    eventually("the row is set aside", DEADLINE, async || {
        letters(&client, "dead", "unreadable_row").await == 1
            && letters(&client, "held", "held").await == 1
    })
    .await;
    let legible = r#"SELECT source FROM "postrider".letter WHERE aggregate_id = 'bad'
        AND state = 'dead' AND actor = 'somebody'"#;
    assert_eq!(text(&client, legible).await, r"ok\377");
    app::emit(&client, "order.placed", Some(("order", "later")), "{}").await;
    fixture.wait_stored(201, DEADLINE).await;
    assert_eq!(terms(&client).await, 1);
}
