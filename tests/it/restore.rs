//! Tests of a database that was restored into another cluster: the relay notices it, and accepts it
//! only with `--rescan`.

use postrider::dev::stream_reader::count_messages;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::support::{DEADLINE, Fixture, app, app::StoredMessage, daemon};

/// Changes the database as if it had been restored into another cluster. The position has another
/// system identifier, and the rows' `tx` no longer names the transaction that wrote them.
async fn pretend_restore(client: &tokio_postgres::Client) {
    // A restore inserts rows in transactions of its own.
    let restored = r#"UPDATE "postrider".position SET system_id = system_id + 1;
        UPDATE "postrider".outbox SET event_type = event_type"#;
    client.batch_execute(restored).await.unwrap();
}

/// Runs transactions that do not touch the outbox, until the value is dropped.
async fn keep_busy(fixture: &Fixture) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let client = fixture.connect().await;
        tasks.spawn(async move {
            while client.batch_execute("SELECT pg_current_xact_id()").await.is_ok() {}
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_stops_the_program_and_rescan_accepts_it() {
    let mut fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture.daemon().allow_log("restored").start();
    // Each settlement includes a dead letter.
    let dead = r#"INSERT INTO "postrider".outbox (event_type) VALUES ('order.*')"#;
    daemon.allow_log("became a dead letter");
    for _ in 0..3 {
        client.batch_execute("BEGIN").await.unwrap();
        app::insert_backlog(&client, 100, 10).await;
        client.batch_execute(dead).await.unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        assert!(fixture.wait_stored(1, DEADLINE).await.len() <= 300);
        assert!(fixture.wait_drained(DEADLINE).await);
    }
    daemon.kill9();
    pretend_restore(&client).await;
    let mut pending = Vec::new();
    for _ in 0..5 {
        let id: Uuid = app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
        pending.push(id);
    }

    let check = daemon::run(&fixture.toml(), &["check"]).await;
    assert_eq!(check.code, Some(78), "{check:?}");
    assert!(check.stdout.contains("restored into another Postgres cluster"), "{check:?}");
    daemon.start_again();
    assert_eq!(daemon.wait_exit(DEADLINE).await, Some(78));
    let log = daemon.log();
    assert!(log.contains("restored into another Postgres cluster"), "{log}");
    assert!(log.contains("postrider run --rescan"), "{log}");

    // Other sessions use the cluster too, so transactions begin and end during the rescan.
    let others = keep_busy(&fixture).await;

    // The relay gets a new stream, which knows no ids. Every event that is published again is
    // visible there.
    let jetstream = fixture.jetstream().await;
    assert_eq!(count_messages(&jetstream, &fixture.stream).await.unwrap(), 300);
    jetstream.delete_stream(&fixture.stream).await.unwrap();
    fixture.stream.push_str("_2");
    let mut rescanning = fixture.daemon().arg("--rescan").allow_log("restored").start();
    let line = rescanning.wait_log("accepted a restored database", DEADLINE).await;
    assert!(line.contains("pending=5"), "{line}");
    let messages = fixture.wait_stored(5, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    drop(others);
    let ids: Vec<Uuid> = messages.iter().map(StoredMessage::id).collect();
    assert_eq!(ids, pending);
    assert_eq!(fixture.read_stream().await.len(), 5);
    rescanning.kill9();

    // After the rescan the database is like any other, even when the command still has the option.
    app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    rescanning.start_again();
    fixture.wait_stored(6, DEADLINE).await;
    rescanning.kill9();
    let _without_it = fixture.daemon().start();
    app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    assert_eq!(fixture.wait_stored(7, DEADLINE).await.len(), 7);
}

/// Former defect: `pg_upgrade` changes the system identifier and keeps rows and transaction
/// numbers. The relay took such a cluster for a restored database and ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_pg_upgrade_has_made_is_gone_on_with() {
    // The server is the test's own, because transactions of other tests that are older than the
    // position prove nothing here.
    let fixture = Fixture::own_postgres().await;
    let client = fixture.connect().await;
    let mut daemon = fixture.daemon().start();
    app::insert_backlog(&client, 50, 10).await;
    fixture.wait_stored(50, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.kill9();
    let upgraded = r#"UPDATE "postrider".position SET system_id = system_id + 1;
        UPDATE "postrider".checkpoint SET system_id = system_id + 1"#;
    client.batch_execute(upgraded).await.unwrap();
    for _ in 0..5 {
        app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    }
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains("Postgres was upgraded by pg_upgrade"), "{check:?}");
    daemon.start_again();
    daemon.wait_log("Postgres was upgraded by pg_upgrade", DEADLINE).await;
    assert_eq!(fixture.wait_stored(55, DEADLINE).await.len(), 55);
    assert!(fixture.wait_drained(DEADLINE).await);
}

/// Former defect: an empty outbox was always taken for one that `pg_upgrade` had kept. A row of an
/// open transaction then counted as settled, and was never published.
#[tokio::test]
async fn an_empty_outbox_is_taken_over_only_when_no_open_number_counts_as_settled() {
    // The server is the test's own, because transactions of other tests that are older than the
    // position prove nothing here.
    let fixture = Fixture::own_postgres().await;
    let client = fixture.connect().await;
    let mut open = fixture.connect().await;
    let mut daemon = fixture.daemon().allow_log("restored").start();
    daemon.wait_log("relaying", DEADLINE).await;
    daemon.kill9();
    let writer = open.transaction().await.unwrap();
    app::emit(&writer, "order.placed", Some(("order", "o-1")), "{}").await;
    // The position looks as if it were written in another cluster, whose transaction numbers were
    // higher.
    client.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
    let foreign = r#"UPDATE "postrider".position AS p SET system_id = system_id + 1,
            snapshot = format('%1$s:%1$s:', n.next)::pg_snapshot,
            target = format('%1$s:%1$s:', n.next)::pg_snapshot
        FROM (SELECT pg_snapshot_xmax(pg_current_snapshot()) AS next) AS n"#;
    client.batch_execute(foreign).await.unwrap();
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    assert!(check.stdout.contains("restored into another Postgres cluster"), "{check:?}");
    daemon.start_again();
    assert_eq!(daemon.wait_exit(DEADLINE).await, Some(78), "{}", daemon.log());
    writer.commit().await.unwrap();
    let mut accepting = fixture.daemon().arg("--rescan").allow_log("restored").start();
    accepting.wait_log("accepted a restored database", DEADLINE).await;
    assert_eq!(fixture.wait_stored(1, DEADLINE).await.len(), 1);
}

/// The restored rows have transaction numbers that the new cluster has not reached. A new position
/// has no other system identifier that would reveal the restore, so these numbers have to.
#[tokio::test(flavor = "multi_thread")]
async fn rows_from_the_future_are_those_of_a_restored_database() {
    const ROWS: i64 = 2_500;
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, ROWS, 10).await;
    let later = r#"UPDATE "postrider".outbox SET tx = (tx::text::bigint + 1000000000)::text::xid8"#;
    assert_eq!(client.execute(later, &[]).await.unwrap(), 2_500);

    let mut daemon = fixture.daemon().allow_log("restored").start();
    assert_eq!(daemon.wait_exit(DEADLINE).await, Some(78));
    assert!(daemon.log().contains("postrider run --rescan"), "{}", daemon.log());
    let _rescanning = fixture.daemon().arg("--rescan").allow_log("restored").start();
    assert_eq!(fixture.wait_stored(2_500, DEADLINE).await.len(), 2_500);
    assert!(fixture.wait_drained(DEADLINE).await);
}
