//! Tests of the relay's SQL statements against a real Postgres: the rows that they return.

mod plans;
mod retention;

use std::{
    fs,
    future::poll_fn,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use postrider::{
    dev::servers::PostgresOptions,
    outbox::{SESSION_SETTINGS, with_columns},
};
use tokio_postgres::{
    AsyncMessage, Client, NoTls, Row,
    types::{FromSql, ToSql, Type},
};
use uuid::Uuid;

use crate::support::Fixture;

/// Accepts a value of any type, to assert only that it is there.
struct Present;

impl<'a> FromSql<'a> for Present {
    fn from_sql(_: &Type, _: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Text of a statement from `src/outbox/sql`, as the relay runs it.
fn statement(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/outbox/sql");
    with_columns(&fs::read_to_string(directory.join(format!("{name}.sql"))).unwrap())
}

fn statements() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/outbox/sql");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> =
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// Opens a session with the relay's settings.
async fn relay(fixture: &Fixture) -> Client {
    let client = fixture.connect().await;
    for (name, value) in SESSION_SETTINGS {
        client.batch_execute(&format!("SET {name} = '{value}'")).await.unwrap();
    }
    client
}

/// Row that taking the lease of the relay `main` returns.
async fn take_position(client: &Client) -> Row {
    let (instance, ended, process) = (Uuid::nil(), None::<i64>, None::<String>);
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&"main", &"test", &instance, &10_f64, &ended, &true, &process];
    client.query_one(&statement("acquire_lease"), &parameters).await.unwrap()
}

/// Takes the lease of a new position. Returns its term and its fence.
async fn acquire(client: &Client) -> (i64, i64) {
    let row = take_position(client).await;
    (row.get("term"), row.get("fence"))
}

/// Current snapshot, and the transactions that are late between `settled` and that snapshot.
async fn span(client: &Client, settled: &str) -> (String, Option<String>) {
    let snapshot = client.query_one("SELECT pg_current_snapshot()::text", &[]).await.unwrap();
    let late = client.query_one(&statement("find_late_transactions"), &[&settled]).await.unwrap();
    (snapshot.get(0), late.get("late"))
}

/// Snapshot that a poll returns, and the `seq` of each of its rows.
async fn poll(client: &Client, settled: &str, rows: i64) -> (String, Vec<i64>) {
    let name = if settled.ends_with(':') { "poll_outbox" } else { "poll_outbox_late" };
    let parameters: [&(dyn ToSql + Sync); 3] = [&settled, &rows, &8192_i32];
    let rows = client.query(&statement(name), &parameters).await.unwrap();
    let (first, rest) = rows.split_first().unwrap();
    assert_eq!(first.get::<_, Option<i64>>("seq"), None, "the first row has the snapshot");
    // A poll returns its rows in no particular order.
    let mut seqs: Vec<i64> = rest.iter().map(|row| row.get("seq")).collect();
    seqs.sort_unstable();
    (first.get("event_type"), seqs)
}

/// `seq` of each row of a page.
async fn page(
    client: &Client,
    (settled, target): (&str, &str),
    (bookmark, floor): (i64, i64),
    late: Option<&str>,
) -> Vec<i64> {
    let (rows, inline) = (1000_i64, 8192_i32);
    let mut parameters: Vec<&(dyn ToSql + Sync)> =
        vec![&settled, &target, &bookmark, &floor, &rows, &inline];
    let name = if late.is_some() { "read_page_late" } else { "read_page" };
    if let Some(late) = &late {
        parameters.push(late);
    }
    let rows = client.query(&statement(name), &parameters).await.unwrap();
    rows.iter().map(|row| row.get("seq")).collect()
}

/// Writes a position. Returns the fence: a floor for snapshots that are taken from now on, and not
/// for those that this call writes. `None` when the term is no longer the current one.
async fn settle(
    client: &Client,
    term: i64,
    (settled, target): (&str, &str),
    bookmark: i64,
) -> Option<i64> {
    let id = Uuid::nil();
    let parameters: [&(dyn ToSql + Sync); 14] = [
        &"main", &term, &settled, &0_i64, &target, &0_i64, &bookmark, &"S", &1_i64, &1_i64, &id,
        &0_i64, &10.0_f64, &0_i64,
    ];
    let row = client.query_opt(&statement("settle_position"), &parameters).await.unwrap();
    row.map(|row| row.get("fence"))
}

async fn emit(client: &Client, count: i64) {
    let insert = "INSERT INTO postrider.outbox (event_type, payload)
                  SELECT 'a', '{}' FROM generate_series(1, $1::bigint)";
    client.execute(insert, &[&count]).await.unwrap();
}

#[tokio::test]
async fn every_statement_can_be_prepared_and_explains_itself() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    for name in statements() {
        let text = statement(&name);
        client.prepare(&text).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(text.starts_with("-- "), "{name} has no comment");
        assert!(text.contains("-- Rows: ") && text.contains("Locks: "), "{name}: rows and locks");
    }
}

#[tokio::test]
async fn a_poll_sees_what_its_snapshot_says_and_what_a_page_up_to_there_would() {
    let fixture = Fixture::own_postgres().await;
    let client = relay(&fixture).await;
    let mut open = fixture.connect().await;
    emit(&client, 10).await;
    let (settled, _) = span(&client, "3:3:").await;
    assert!(settled.ends_with(':'), "nobody is open: {settled}");
    emit(&client, 5).await;
    let open = open.transaction().await.unwrap();
    emit(open.client(), 3).await;
    emit(&client, 2).await;
    let (seen, seqs) = poll(&client, &settled, 1000).await;
    assert_eq!(seqs, [11, 12, 13, 14, 15, 19, 20]);
    let (now, _) = span(&client, &settled).await;
    assert_eq!(seen, now, "nothing ended since");
    open.commit().await.unwrap();
    assert_eq!(page(&client, (&settled, &seen), (0, 0), None).await, seqs);
}

/// A poll meets all kinds of transactions: one that was open and has committed, one that is still
/// open, and one that was rolled back. A fourth has a low `seq`, and is younger than the settled
/// snapshot.
#[tokio::test]
async fn a_poll_gives_late_rows_among_the_others_and_none_of_the_open() {
    let fixture = Fixture::own_postgres().await;
    let client = relay(&fixture).await;
    let begin = async |rows| {
        let client = fixture.connect().await;
        client.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
        emit(&client, rows).await;
        client
    };
    let late = begin(2).await;
    let rolled_back = begin(1).await;
    let open = begin(1).await;
    emit(&client, 1).await;
    // This transaction is at or beyond the settled snapshot's end, which follows the last
    // transaction that had ended.
    let young = begin(1).await;
    let (_, fence) = acquire(&client).await;
    let (settled, _) = span(&client, "3:3:").await;
    emit(&client, 2).await;
    emit(&late, 1).await;
    for (client, end) in [(&late, "COMMIT"), (&rolled_back, "ROLLBACK"), (&young, "COMMIT")] {
        client.batch_execute(end).await.unwrap();
    }
    let (seen, seqs) = poll(&client, &settled, 1000).await;
    assert_eq!(seqs, [1, 2, 6, 7, 8, 9]);
    let (_, late) = span(&client, &settled).await;
    assert_eq!(page(&client, (&settled, &seen), (0, fence), late.as_deref()).await, seqs);
    assert_eq!(poll(&client, &seen, 1000).await.1, [0; 0]);
    open.batch_execute("COMMIT").await.unwrap();
    assert_eq!(poll(&client, &seen, 1000).await.1, [4]);
}

#[tokio::test]
async fn a_poll_gives_no_more_rows_than_it_may() {
    let fixture = Fixture::own_postgres().await;
    let client = relay(&fixture).await;
    let (settled, _) = span(&client, "3:3:").await;
    let held = fixture.connect().await;
    held.batch_execute("BEGIN").await.unwrap();
    emit(&held, 6).await;
    emit(&client, 1).await;
    let (with_open, _) = span(&client, "3:3:").await;
    emit(&client, 5).await;
    assert_eq!(poll(&client, &settled, 6).await.1, [7, 8, 9, 10, 11, 12]);
    assert_eq!(poll(&client, &settled, 5).await.1.len(), 5);
    held.batch_execute("COMMIT").await.unwrap();
    assert_eq!(poll(&client, &with_open, 11).await.1, [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]);
    assert_eq!(poll(&client, &with_open, 8).await.1.len(), 8);
}

#[tokio::test]
async fn a_transaction_that_runs_past_the_snapshots_end_is_not_lost() {
    // A snapshot ends after the last transaction that has *ended*. A transaction with a higher
    // number may already run, and its `seq` may be lower than the highest one visible.
    // The server is the test's own, because transactions of other tests would move the snapshot's
    // end.
    let fixture = Fixture::own_postgres().await;
    let client = relay(&fixture).await;
    let (mut early, mut young) = (fixture.connect().await, fixture.connect().await);
    let (_, fence) = acquire(&client).await;
    let early = early.transaction().await.unwrap();
    early.execute("SELECT pg_current_xact_id()", &[]).await.unwrap();
    let young = young.transaction().await.unwrap();
    emit(young.client(), 1).await;
    emit(early.client(), 1).await;
    early.commit().await.unwrap();
    let (settled, _) = span(&client, "3:3:").await;
    assert_eq!(page(&client, ("3:3:", &settled), (0, 0), None).await, [2]);
    // The first page is settled. Its fence was read before its snapshot was taken.
    young.commit().await.unwrap();
    let (target, late) = span(&client, &settled).await;
    assert_eq!(late, None, "its number is behind the snapshot's end");
    assert_eq!(page(&client, (&settled, &target), (0, fence), None).await, [1]);
    // With the highest visible `seq` as the floor, the row would have been lost.
    assert_eq!(page(&client, (&settled, &target), (0, 2), None).await, [0; 0]);
}

#[tokio::test]
async fn late_rows_come_in_seq_order_with_the_others() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    let mut held = fixture.connect().await;
    let (_, floor) = acquire(&client).await;
    let held = held.transaction().await.unwrap();
    emit(held.client(), 2).await;
    emit(&client, 2).await;
    let (settled, _) = span(&client, "3:3:").await;
    assert_eq!(page(&client, ("3:3:", &settled), (0, 0), None).await, [3, 4]);
    emit(&client, 1).await;
    emit(held.client(), 1).await;
    // The late transaction is still open, and events of others are read.
    let (target, late) = span(&client, &settled).await;
    assert_eq!(late, None);
    assert_eq!(page(&client, (&settled, &target), (0, floor), None).await, [5]);
    held.commit().await.unwrap();
    let (target, late) = span(&client, &settled).await;
    let late = late.expect("the held transaction is late");
    let all = page(&client, (&settled, &target), (0, floor), Some(&late)).await;
    assert_eq!(all, [1, 2, 5, 6]);
    let rest = page(&client, (&settled, &target), (2, floor), Some(&late)).await;
    assert_eq!(rest, [5, 6]);
}

#[tokio::test]
async fn large_payloads_stay_behind_and_have_their_size() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    client
        .batch_execute(
            "CREATE TABLE copied (payload json, payload_binary bytea);
             INSERT INTO copied VALUES (to_json(repeat('c', 2000000)), NULL);
             INSERT INTO postrider.outbox (event_type, payload, payload_binary) VALUES
                 ('small', '{}', NULL), ('none', NULL, NULL), ('both', '1', '\\x01'),
                 ('json', to_json(repeat('j', 20000)), NULL),
                 ('bytes', NULL, decode(repeat('00', 30000), 'hex')),
                 ('empty', NULL, '');
             INSERT INTO postrider.outbox (event_type, payload) SELECT 'copied', payload FROM copied;
             INSERT INTO postrider.outbox (event_type, headers)
             SELECT 'wide', jsonb_object_agg('h' || n, repeat('v', 100))
             FROM generate_series(1, 1000) AS n",
        )
        .await
        .unwrap();
    let (target, _) = span(&client, "3:3:").await;
    let parameters: [&(dyn ToSql + Sync); 6] =
        [&"3:3:", &target, &0_i64, &0_i64, &1000_i64, &8192_i32];
    let rows = client.query(&statement("read_page"), &parameters).await.unwrap();
    let columns =
        "SELECT p.seq IS NOT NULL, p.payload IS NOT NULL FROM postrider.outbox AS p LIMIT 0";
    client.prepare(columns).await.unwrap();
    let comes_along = |row: &Row| {
        row.get::<_, Option<Present>>("payload").is_some()
            || row.get::<_, Option<&[u8]>>("payload_binary").is_some()
    };
    let read: Vec<(&str, Option<i32>, bool, Option<&str>)> = rows
        .iter()
        .map(|row| {
            (row.get("event_type"), row.get("payload_size"), comes_along(row), row.get("headers"))
        })
        .collect();
    let expected = [
        ("small", None, true, None),
        ("none", None, false, None),
        ("both", Some(-1), true, None),
        ("json", Some(20_002), false, None),
        ("bytes", Some(30_000), false, None),
        ("empty", None, true, None),
        ("copied", Some(2_000_002), false, None),
        ("wide", None, false, Some("\"too large\"")),
    ];
    assert_eq!(read, expected);
    for row in &rows {
        let binary: Option<&[u8]> = row.get("payload_binary");
        assert!(binary.is_none_or(|bytes| bytes.len() <= 8192));
    }
    let seqs: Vec<i64> = vec![4, 5, 7];
    let rows = client.query(&statement("read_payloads"), &[&seqs]).await.unwrap();
    assert_eq!(rows.len(), 3);
}

/// Rows lie in every place where something can be pending. They are late for the settled snapshot,
/// late for the target, begun after the target with a low `seq`, or newer than everything.
#[tokio::test]
async fn the_depth_is_what_is_not_settled_wherever_the_bookmark_stands() {
    let fixture = Fixture::own_postgres().await;
    let client = relay(&fixture).await;
    acquire(&client).await;
    let begin = async || {
        let client = fixture.connect().await;
        client.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
        client
    };
    let now = async || {
        let statement = "SELECT pg_current_snapshot()::text,
            coalesce(pg_sequence_last_value('postrider.outbox_seq_seq'), 0)";
        let row = client.query_one(statement, &[]).await.unwrap();
        (row.get::<_, String>(0), row.get::<_, i64>(1))
    };
    let late_for_both = begin().await;
    let late_for_settled = begin().await;
    for client in [&client, &late_for_both, &late_for_settled] {
        emit(client, 1).await;
    }
    let (settled, floor) = now().await;
    let late_for_target = begin().await;
    let first = begin().await;
    let second = begin().await;
    for client in [&late_for_target, &second, &first, &late_for_settled] {
        emit(client, 1).await;
    }
    first.batch_execute("COMMIT").await.unwrap();
    late_for_settled.batch_execute("COMMIT").await.unwrap();
    let (target, _) = now().await;
    emit(&client, 2).await;
    for client in [&late_for_both, &late_for_target, &second] {
        client.batch_execute("COMMIT").await.unwrap();
    }
    let place = "UPDATE postrider.position SET snapshot = $1::text::pg_snapshot, floor = $2,
        target = $3::text::pg_snapshot, target_floor = $2, bookmark = $4";
    let expected = "SELECT count(*) FROM postrider.outbox
        WHERE NOT pg_visible_in_snapshot(tx, $1::text::pg_snapshot)
          AND NOT (pg_visible_in_snapshot(tx, $2::text::pg_snapshot) AND seq <= $3)";
    let mut counts = Vec::new();
    for bookmark in 0..=9_i64 {
        client.execute(place, &[&settled, &floor, &target, &bookmark]).await.unwrap();
        let expected = client.query_one(expected, &[&settled, &target, &bookmark]).await.unwrap();
        let depth =
            client.query_one(&statement("measure_depth"), &[&"main", &10_000_i64]).await.unwrap();
        let pending: i64 = depth.get("pending");
        assert_eq!(pending, expected.get::<_, i64>(0), "bookmark {bookmark}");
        counts.push(pending);
    }
    assert_eq!((counts.first(), counts.last()), (Some(&8), Some(&5)));
}

#[tokio::test]
async fn metadata_that_does_not_fit_into_a_block_is_refused_at_the_insert() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let insert = "INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id)
                  VALUES ('a', 'order', repeat('x', 1000000))";
    let error = client.batch_execute(insert).await.unwrap_err();
    assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("54000"));
}

#[tokio::test]
async fn a_settlement_of_a_lost_term_writes_nothing() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    let (old, _) = acquire(&client).await;
    let (new, _) = acquire(&client).await;
    assert_eq!(new, old + 1);
    assert_eq!(settle(&client, old, ("9:9:", "9:9:"), 9).await, None);
    let position = "SELECT bookmark FROM postrider.position";
    assert_eq!(client.query_one(position, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn the_gate_wakes_while_it_is_open_and_is_closed_when_its_time_is_over() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    let (listener, notified) = notified(&fixture.database_url()).await;
    listener.batch_execute("LISTEN postrider_postrider").await.unwrap();
    let producer = fixture.connect().await;
    producer.batch_execute("SET ROLE postrider_producer").await.unwrap();
    let insert = "INSERT INTO postrider.outbox (event_type) VALUES ('a')";
    let slot = "SELECT slot FROM postrider.outbox ORDER BY seq DESC LIMIT 1";
    let gate = async |seconds: i64| {
        client.query_one(&statement("open_gate"), &[&seconds]).await.unwrap();
    };
    // The gate is closed, then open, then closed again. Only the second and the third insert
    // notify.
    producer.batch_execute(insert).await.unwrap();
    gate(60).await;
    producer.batch_execute(insert).await.unwrap();
    producer.batch_execute("SELECT postrider.emit('b', '1')").await.unwrap();
    gate(0).await;
    producer.batch_execute(insert).await.unwrap();
    listener.batch_execute("SELECT").await.unwrap();
    assert_eq!(notified.load(Ordering::SeqCst), 2);
    assert_eq!(client.query_one(slot, &[]).await.unwrap().get::<_, i16>(0), 0);
    // The gate was left open by a relay that died, and the first insert closes it.
    gate(60).await;
    client.batch_execute("SELECT setval('postrider.wake_until', 1)").await.unwrap();
    for expected in [4_i16, 0] {
        producer.batch_execute(insert).await.unwrap();
        assert_eq!(client.query_one(slot, &[]).await.unwrap().get::<_, i16>(0), expected);
    }
    listener.batch_execute("SELECT").await.unwrap();
    assert_eq!(notified.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_open_gate_lets_transactions_be_prepared() {
    let two_phase = PostgresOptions { max_prepared_transactions: 5, ..Default::default() };
    let fixture = Fixture::with(Some(two_phase), None).await;
    let client = relay(&fixture).await;
    client.query_one(&statement("open_gate"), &[&60_i64]).await.unwrap();
    let name = &fixture.database;
    let prepare = format!(
        "BEGIN; INSERT INTO postrider.outbox (event_type) VALUES ('a'); PREPARE TRANSACTION '{name}'"
    );
    client.batch_execute(&prepare).await.unwrap();
    let writers = client.query_one(&statement("find_open_writers"), &[]).await.unwrap();
    assert_eq!(writers.get::<_, i64>(0), 1, "a prepared transaction is an open writer");
    client.batch_execute(&format!("COMMIT PREPARED '{name}'")).await.unwrap();
    let writers = client.query_one(&statement("find_open_writers"), &[]).await.unwrap();
    assert_eq!(writers.get::<_, i64>(0), 0);
}

/// A connection, and the number of notifications that it has received.
#[expect(clippy::disallowed_methods, reason = "the program's tasks are not the tests' tasks")]
async fn notified(url: &str) -> (Client, Arc<AtomicUsize>) {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (client, count)
}
