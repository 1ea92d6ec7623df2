//! Tests of retention: it removes rows that are published and old, never any others, and blocks
//! nobody.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, Row};
use tokio_util::sync::CancellationToken;

use super::support::{
    DEADLINE, Fixture, app, audit::awkward, daemon::Daemon, eventually, let_pass,
};

async fn rows(client: &Client) -> i64 {
    client.query_one(r#"SELECT count(*) FROM "postrider".outbox"#, &[]).await.unwrap().get(0)
}

/// Restarts the program, which runs retention at each start and then once a minute.
async fn restart(daemon: &mut Daemon) {
    daemon.stop().await;
    daemon.start_again();
    daemon.wait_log("relaying", DEADLINE).await;
}

/// Waits until the program has run retention since `since`, a number of calls.
async fn wait_for_retention(client: &Client, since: &mut i64) {
    let calls = "SELECT coalesce(sum(calls), 0)::int8 FROM pg_stat_user_functions
        WHERE funcname = 'retain'";
    *since = eventually("a run of retention", DEADLINE, async || {
        let calls: i64 = client.query_one(calls, &[]).await.unwrap().get(0);
        (calls > *since).then_some(calls)
    })
    .await;
}

#[tokio::test]
async fn the_program_empties_what_is_published_and_old_and_keeps_the_rest() {
    let mut fixture = Fixture::own_nats().await;
    let client = fixture.connect().await;
    let track = format!("ALTER DATABASE {} SET track_functions = 'all'", fixture.database);
    client.batch_execute(&track).await.unwrap();
    let mut daemon = fixture
        .daemon()
        .set("relay.retention", "1s")
        .allow_log("lost the connection to NATS")
        .allow_log("waiting for NATS")
        .start();
    app::insert_backlog(&client, 500, 10).await;
    fixture.wait_stored(500, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let mut runs = 0;
    let end = Instant::now() + DEADLINE;
    while rows(&client).await > 0 {
        assert!(Instant::now() < end, "the slot of the published rows is not emptied");
        restart(&mut daemon).await;
        wait_for_retention(&client, &mut runs).await;
        let_pass(Duration::from_millis(300)).await;
    }

    // Rows that are not published stay, however often retention runs.
    fixture.nats.own().kill9().unwrap();
    app::insert_backlog(&client, 500, 10).await;
    for _ in 0..6 {
        restart(&mut daemon).await;
        wait_for_retention(&client, &mut runs).await;
        let_pass(Duration::from_millis(300)).await;
    }
    assert_eq!(rows(&client).await, 500);
    fixture.nats.own().start_again().await.unwrap();
    assert_eq!(fixture.wait_stored(1_000, DEADLINE).await.len(), 1_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_emptied_all_the_time_under_load_cost_nothing_and_delay_no_insert() {
    let mut fixture = Fixture::new().await;
    let mut daemon = fixture.daemon().allow_log("trying again").start();
    let emptying = fixture.connect().await;
    let inserting = fixture.connect().await;
    let stop = CancellationToken::new();

    let empty = async {
        let end = Instant::now() + Duration::from_secs(8);
        // A busy machine gets more time, but has to empty as many tables.
        let latest = end + DEADLINE;
        let (mut emptied, mut calls, mut kills) = (0, 0, 0);
        while Instant::now() < end || emptied <= 20 && Instant::now() < latest {
            let statement = r#"SELECT emptied FROM "postrider".retain('0 s')"#;
            emptied += emptying.query_one(statement, &[]).await.unwrap().get::<_, i32>(0);
            calls += 1;
            if calls > 100 * (kills + 1) {
                kills += 1;
                daemon.kill9();
                daemon.start_again();
            }
            let_pass(Duration::from_millis(10)).await;
        }
        stop.cancel();
        (emptied, calls)
    };
    let slowest = async {
        let mut slowest = Duration::ZERO;
        while !stop.is_cancelled() {
            let began = Instant::now();
            // The insert is rolled back, so that it is no event. It waits for the same locks as an
            // insert that is committed.
            inserting.batch_execute("BEGIN").await.unwrap();
            app::emit(&inserting, "order.placed", None, "{}").await;
            inserting.batch_execute("ROLLBACK").await.unwrap();
            slowest = slowest.max(began.elapsed());
            let_pass(Duration::from_millis(5)).await;
        }
        slowest
    };
    let both = async |_: &mut Fixture| tokio::join!(empty, slowest);
    let (_, ((emptied, calls), slowest)) = fixture.under_load(awkward(2_000, 100), both).await;

    assert!(emptied > 20, "only {emptied} slots were emptied by {calls} calls");
    assert!(slowest < Duration::from_secs(2), "an insert took {slowest:?}");
}

/// Retention fails here. The relay goes on, and its log has to report the failing chore.
#[tokio::test]
async fn upkeep_that_cannot_work_is_reported_and_events_still_flow() {
    const FAILING: &str = "a chore fails again and again";
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let away = r#"ALTER FUNCTION "postrider".retain(interval) RENAME TO retain_elsewhere"#;
    client.batch_execute(away).await.unwrap();
    let mut daemon = fixture.daemon().allow_log(FAILING).start();
    let line = daemon.wait_log(FAILING, DEADLINE).await;
    assert!(line.contains("retain"), "{line}");
    app::emit(&client, "order.placed", None, "{}").await;
    assert_eq!(fixture.wait_stored(1, DEADLINE).await.len(), 1);
}

/// Prepares a table of the outbox that retention empties next: its rows are published, and new rows
/// go to another table.
async fn sealed_turn(fixture: &Fixture, client: &Client) {
    let mut daemon = fixture.daemon().start();
    app::insert_backlog(client, 10, 10).await;
    fixture.wait_stored(10, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.stop().await;
    eventually("a sealed turn", DEADLINE, async || {
        client.query_one(RETAIN, &[]).await.unwrap().get::<_, i32>("sealed") == 1
    })
    .await;
}

const RETAIN: &str = r#"SELECT sealed, emptied, rotated FROM "postrider".retain('0 s')"#;

/// Query whether a transaction waits for the advisory lock number 1.
const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_locks AS l WHERE l.locktype = 'advisory'
    AND l.objid = 1 AND NOT l.granted
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))";

/// Former defect: retention read the letters before it had locked the rows. A letter that was
/// written in between, and left its payload in the outbox, lost the payload. The view makes this
/// happen each time: it waits once retention's statement has its snapshot.
#[tokio::test]
async fn a_letter_that_is_written_while_retention_decides_keeps_its_payload() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    sealed_turn(&fixture, &client).await;
    let pausing = r#"
        CREATE FUNCTION pause() RETURNS boolean LANGUAGE plpgsql STABLE AS
            'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN true; END';
        ALTER TABLE "postrider".letter RENAME TO letters;
        CREATE VIEW "postrider".letter AS SELECT * FROM "postrider".letters WHERE public.pause();
        SELECT pg_advisory_lock(1)"#;
    client.batch_execute(pausing).await.unwrap();

    let retaining = fixture.connect().await;
    let write = async {
        eventually("the letters loaded", DEADLINE, async || {
            client.query_one(WAITS, &[]).await.unwrap().get::<_, bool>(0)
        })
        .await;
        let letter = r#"INSERT INTO "postrider".letters (relay, state, holds, error_code, error,
                fingerprint, dead_at, payload_size, payload_omitted, tx, seq, slot, event_version,
                occurred_at, event_id, event_type, kind, content_type, headers)
            SELECT 'default', 'dead', true, 'payload_too_large', 'too large', 'f', now(), 1, true,
                o.tx, o.seq, o.slot, o.event_version, o.occurred_at, o.event_id, o.event_type, o.kind,
                o.content_type, o.headers
            FROM "postrider".outbox AS o ORDER BY o.seq LIMIT 1"#;
        assert_eq!(client.execute(letter, &[]).await.unwrap(), 1);
        client.query_one("SELECT pg_advisory_unlock(1)", &[]).await.unwrap();
    };
    let (retained, ()) = tokio::join!(retaining.query_one(RETAIN, &[]), write);
    assert_eq!(retained.unwrap().get::<_, i32>("emptied"), 0);
    assert_eq!(rows(&client).await, 10);
    // Once the letter is resolved, nothing keeps its row in the outbox.
    let resolve = r#"UPDATE "postrider".letters SET resolved_at = now(), resolution = 'discarded'"#;
    client.execute(resolve, &[]).await.unwrap();
    assert_eq!(retaining.query_one(RETAIN, &[]).await.unwrap().get::<_, i32>("emptied"), 1);
    assert_eq!(rows(&client).await, 0);
}

/// Only one call of retention works at a time, and a second one does not wait. The lock is on a
/// row, because anybody who may connect could take an advisory lock.
#[tokio::test]
async fn of_two_calls_of_retention_one_works_and_the_other_returns_at_once() {
    let fixture = Fixture::new().await;
    let (mut first, second) = (fixture.connect().await, fixture.connect().await);
    sealed_turn(&fixture, &second).await;
    // The ten rows are in the table that is in use, so the first call also makes new rows go to the
    // next table.
    app::insert_backlog(&second, 10, 10).await;
    // If the second call waited for the first, it would fail by this timeout.
    second.batch_execute("SET lock_timeout = '5s'").await.unwrap();
    let done = |row: Row| -> (i32, i32, bool) { (row.get(0), row.get(1), row.get(2)) };
    let working = first.transaction().await.unwrap();
    assert_eq!(done(working.query_one(RETAIN, &[]).await.unwrap()), (0, 1, true));
    assert_eq!(done(second.query_one(RETAIN, &[]).await.unwrap()), (0, 0, false));
    working.commit().await.unwrap();
    assert_eq!(rows(&second).await, 10);
}
