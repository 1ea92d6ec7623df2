//! Who leads: a lease that expires, whatever became of the leader, and what a late leader may do.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::ToSql;

use super::support::{
    DEADLINE, Fixture, app,
    audit::steady,
    daemon::{DaemonBuilder, STANDS_BY, WATCHDOG, pair, run},
    eventually, let_pass,
    stopwatch::Stopwatch,
    wait_for_other_sessions_to_end,
};

/// The shortest lease that may be configured.
const LEASE: Duration = Duration::from_secs(3);

/// Longer than the lease is trusted: the watchdog ends a leader that was frozen so long at work.
const FROZEN: Duration = Duration::from_millis(2_600);

/// The session of the leader.
const SESSION: &str = r#"SELECT backend_pid FROM "postrider".position"#;

fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture
        .daemon()
        .set("relay.lease", "3s")
        .allow_log("the relay stopped leading")
        .allow_log("waiting for NATS")
}

/// A frozen leader's session stands, and its lock used to keep everybody else waiting for ever.
#[tokio::test]
async fn a_frozen_leader_is_replaced_when_its_lease_is_over() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let (mut first, mut second) = pair(|| daemon(&fixture)).await;
    app::insert_backlog(&client, 10, 10).await;
    assert!(fixture.wait_drained(DEADLINE).await);

    first.freeze();
    let watch = Stopwatch::start();
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(20, DEADLINE).await;
    let beyond = watch.stop_beyond(LEASE);
    assert!(beyond < Duration::from_secs(2), "replaced {beyond:?} after the lease was over");
    second.wait_log("relaying", DEADLINE).await;

    first.thaw();
    first.wait_log(STANDS_BY, DEADLINE).await;
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(30, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(fixture.read_stream().await.len(), 30);
}

/// An advisory lock could be taken by anybody who may connect, and stopped all relays.
#[tokio::test]
async fn a_lock_that_a_stranger_takes_stops_nobody() {
    let fixture = Fixture::new().await;
    let stranger = fixture.connect().await;
    let lock = r#"SELECT pg_advisory_lock(hashtextextended('"postrider" relay default', 0))"#;
    stranger.execute(lock, &[]).await.unwrap();
    let mut first = daemon(&fixture).start();
    first.wait_log("relaying", DEADLINE).await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(10, DEADLINE).await;
    // A program that has led before is not kept waiting either.
    first.kill9();
    first.start_again();
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(20, DEADLINE).await;
}

#[tokio::test]
async fn a_stop_hands_over_at_once() {
    let fixture = Fixture::new().await;
    let (mut first, mut second) = pair(|| daemon(&fixture)).await;
    first.stop().await;
    let watch = Stopwatch::start();
    second.wait_log("relaying", DEADLINE).await;
    let took = watch.stop();
    assert!(took < Duration::from_millis(900), "handed over after {took:?}");
}

/// Frozen in the middle of a backlog, its session ended, another published all of it and the window
/// went by: 3 of 20 that woke up published old events again, out of order. What the client library
/// has taken over and not yet written would go before the loop turns, so the process ends first.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_wakes_after_the_window_publishes_nothing() {
    const EVENTS: u64 = 400;
    let mut fixture = Fixture::own_nats().await;
    let client = fixture.connect().await;
    let build = || {
        daemon(&fixture)
            .set("stream.duplicate_window", "2s")
            .set("nats.ack_timeout", "400ms")
            .set("relay.in_flight_bytes", "32MiB")
            .allow_log("nothing can be published just now")
    };
    let mut first = build().start();
    first.wait_log("relaying", DEADLINE).await;
    let mut second = build().start();
    second.wait_log(STANDS_BY, DEADLINE).await;
    for round in 1..=3 {
        // More than the socket takes while the server does not read.
        fixture.nats.own().freeze().unwrap();
        insert_large(&client, EVENTS).await;
        let_pass(Duration::from_millis(300)).await;
        first.freeze();
        fixture.nats.own().thaw().unwrap();
        let frozen = Instant::now();
        let pid: i32 = client.query_one(SESSION, &[]).await.unwrap().get(0);
        client.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
        let stored = round * EVENTS;
        app::wait_stored(&fixture.nats.url(), &fixture.stream, stored, DEADLINE).await;
        // The window of the last one of them.
        let_pass(Duration::from_millis(2_100)).await;
        let_pass(FROZEN.saturating_sub(frozen.elapsed())).await;
        first.thaw();
        assert_eq!(first.wait_exit(DEADLINE).await, Some(WATCHDOG));
        first.start_again();
        first.wait_log(STANDS_BY, DEADLINE).await;
        assert_eq!(fixture.read_stream().await.len() as u64, stored, "stored again");
        std::mem::swap(&mut first, &mut second);
    }
    assert!(fixture.wait_drained(DEADLINE).await);
}

/// Inserts events with payloads of 50 KB.
async fn insert_large(client: &tokio_postgres::Client, count: u64) {
    let statement = r#"
        INSERT INTO "postrider".outbox (event_type, aggregate_type, aggregate_id, payload)
        SELECT 'load.made', 'load', n::text, json_build_object('n', n, 'x', repeat('x', 50000))
        FROM generate_series(1, $1::bigint) AS n"#;
    client.execute(statement, &[&count.cast_signed()]).await.unwrap();
}

/// A crash of the server took the last half second of asynchronous commits with it: how far a
/// leader may have sent, too, so that the next one did not scan for all of it.
#[tokio::test]
async fn how_far_a_leader_may_send_survives_a_crash_of_the_server() {
    let fixture = Fixture::own_postgres().await;
    let client = fixture.connect().await;
    let mut daemon = daemon(&fixture).start();
    daemon.wait_log("relaying", DEADLINE).await;
    daemon.stop().await;
    client.batch_execute("SET synchronous_commit = off").await.unwrap();
    let renew = client.prepare(include_str!("../../src/outbox/sql/renew_lease.sql")).await.unwrap();
    let position = r#"SELECT term, sent_to FROM "postrider".position"#;
    let row = client.query_one(position, &[]).await.unwrap();
    let (term, sent_to): (i64, i64) = (row.get(0), row.get(1));
    let flushed = "SELECT pg_current_wal_flush_lsn() >= pg_current_wal_insert_lsn()";
    let mut durable = 0;
    for more in 1..=20_i64 {
        let parameters: [&(dyn ToSql + Sync); 4] = [&"default", &term, &3.0, &(sent_to + more)];
        assert_eq!(client.query(&renew, &parameters).await.unwrap().len(), 1);
        durable += i32::from(client.query_one(flushed, &[]).await.unwrap().get::<_, bool>(0));
    }
    // The server itself may write something in between.
    assert!(durable >= 15, "{durable} of 20 were durable when they were answered");
}

/// An idle leader has nothing that could be written late: a machine that sleeps need not end it.
#[tokio::test]
async fn a_leader_without_messages_goes_on_after_it_was_frozen() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = daemon(&fixture).start();
    daemon.wait_log("relaying", DEADLINE).await;
    app::insert_backlog(&client, 10, 10).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.freeze();
    let_pass(LEASE + FROZEN).await;
    app::insert_backlog(&client, 10, 10).await;
    daemon.thaw();
    fixture.wait_stored(20, DEADLINE).await;
    assert_eq!(fixture.read_stream().await.len(), 20);
}

/// Uncertainty was dated by a clock that stands still while the machine sleeps: what had been sent
/// before counted as young, and went again although the stream had forgotten its id.
#[tokio::test]
async fn what_was_sent_before_the_machine_slept_is_scanned_for_before_it_goes_again() {
    let mut fixture = Fixture::own_nats().await;
    let directory = tempfile::tempdir().unwrap();
    let slept = directory.path().join("slept");
    std::fs::write(&slept, "0").unwrap();
    let mut daemon = daemon(&fixture)
        .set("stream.duplicate_window", "2s")
        .set("nats.ack_timeout", "400ms")
        .env("SLEPT", slept.to_str().unwrap())
        .allow_log("NATS")
        .allow_log("nothing can be published just now")
        .start();
    daemon.wait_log("relaying", DEADLINE).await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(10, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    fixture.nats.own().freeze().unwrap();
    app::insert_backlog(&client, 50, 50).await;
    // They are on their way when the machine falls asleep.
    daemon.wait_log("lost the connection to NATS", DEADLINE).await;
    std::fs::write(&slept, "600000").unwrap();
    fixture.nats.own().thaw().unwrap();
    let_pass(Duration::from_millis(2_500)).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(fixture.read_stream().await.len(), 60);
    assert!(daemon.log().contains("stood still"), "{}", daemon.log());
}

/// A run read as many rows as an earlier one can have had in memory, and took that for
/// all it can have sent; a large transaction that was open until then went in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_does_not_hide_what_an_earlier_run_has_sent() {
    let fixture = Fixture::new().await;
    // A busy machine may let Postgres take longer than a lease of 3 s or a statement may.
    let build = || {
        daemon(&fixture)
            .set("stream.duplicate_window", "2s")
            .set("nats.ack_timeout", "400ms")
            .allow_log("publishing pauses until postgres")
            .allow_log("could not ask which messages are ours")
            .allow_log("waiting for Postgres")
    };
    let mut open = fixture.connect().await;
    let large = open.transaction().await.unwrap();
    app::insert_backlog(&large, 140_000, 140_000).await;
    // It dies with some of these stored and none settled.
    let mut first = build().env("FP", "settle:1").start();
    first.wait_log("relaying", DEADLINE).await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 500, 500).await;
    assert_eq!(first.wait_exit(DEADLINE).await, None);
    assert!(!fixture.read_stream().await.is_empty(), "it died before it sent anything");
    large.commit().await.unwrap();
    let_pass(Duration::from_millis(2_500)).await;
    let mut second = build().start();
    second.wait_log("relaying", DEADLINE).await;
    let (url, stream) = (fixture.nats.url(), fixture.stream.as_str());
    app::wait_stored(&url, stream, 140_500, 4 * DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(fixture.read_stream().await.len(), 140_500);
    // Reading so many rows takes longer than the window: it scans more than once, and goes on each
    // time where the last scan ended.
    let log = second.log();
    let scans = log.lines().filter(|line| line.contains("scanned the stream"));
    let messages = scans.filter_map(|line| line.split_once(" messages=")?.1.split(' ').next());
    let scanned: u64 = messages.map(|count| count.parse::<u64>().unwrap()).sum();
    assert!((1..=2 * 140_500).contains(&scanned), "{scanned} messages were scanned");
}

/// Each session failed at the same statement, was given up at once and cost an update: tens of them a
/// second, for ever.
#[tokio::test]
async fn a_grant_that_is_revoked_costs_a_session_now_and_then() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let role = format!("r_{}", fixture.database);
    let make = format!(
        r#"CREATE ROLE "{role}" LOGIN IN ROLE postrider_relay;
           GRANT USAGE ON SCHEMA "postrider" TO "{role}""#
    );
    client.batch_execute(&make).await.unwrap();
    let url = fixture.database_url().replacen("postgres@", &format!("{role}@"), 1);
    let mut daemon = daemon(&fixture)
        .set("database.url", url)
        .allow_log("permission")
        .allow_log("lacks a grant")
        .allow_log("a chore fails")
        .allow_log("waiting for Postgres")
        .allow_log("postgres")
        .start();
    daemon.wait_log("relaying", DEADLINE).await;
    let revoke = r#"REVOKE SELECT ON "postrider".outbox FROM postrider_relay"#;
    client.batch_execute(revoke).await.unwrap();
    app::insert_backlog(&client, 10, 10).await;
    daemon.wait_log("could not read the outbox", DEADLINE).await;
    let counted = async || -> (i64, i64) {
        let asked = r#"SELECT term, (SELECT sessions FROM pg_stat_database
            WHERE datname = current_database()) FROM "postrider".position"#;
        let row = client.query_one(asked, &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    let before = counted().await;
    let_pass(Duration::from_secs(4)).await;
    let now = counted().await;
    // It tries again, so that it goes on by itself once it may; but not often.
    let (terms, sessions) = (now.0 - before.0, now.1 - before.1);
    assert!(terms <= 8, "{terms} terms in 4 s");
    assert!((1..=16).contains(&sessions), "{sessions} sessions in 4 s");
    client.batch_execute(r#"GRANT SELECT ON "postrider".outbox TO postrider_relay"#).await.unwrap();
    fixture.wait_stored(10, DEADLINE).await;
}

/// Frozen, replaced and thawed under load: first when the server ends the session, as it does when
/// a machine is gone, then when the lease is over.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_and_thawed_under_load_nothing_is_lost_or_repeated() {
    let mut fixture = Fixture::new().await;
    let (mut first, mut second) = pair(|| daemon(&fixture)).await;

    let freezes = async |fixture: &mut Fixture| {
        let client = fixture.connect().await;
        for ends_session in [true, false] {
            let_pass(Duration::from_millis(300)).await;
            first.freeze();
            if ends_session {
                let pid: i32 = client.query_one(SESSION, &[]).await.unwrap().get(0);
                client.query_one("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
            }
            second.wait_log("relaying", DEADLINE).await;
            let_pass(Duration::from_millis(300)).await;
            if !first.thaw_at_work(STANDS_BY, DEADLINE).await {
                // A log counts from the last start on.
                first.kill9();
                first.start_again();
            }
            first.wait_log(STANDS_BY, DEADLINE).await;
            std::mem::swap(&mut first, &mut second);
        }
    };
    fixture.under_load(steady(1_000, 50), freezes).await;

    eventually("one leader", DEADLINE, async || {
        let leads = r#"SELECT lease_until > clock_timestamp() FROM "postrider".position"#;
        let client = fixture.connect().await;
        client.query_one(leads, &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
}

/// Without a hint the program ended with 70, or waited for ever.
#[tokio::test]
async fn a_lease_that_no_instance_can_have_written_does_not_last() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = daemon(&fixture).allow_log("longer than any instance").start();
    daemon.wait_log("relaying", DEADLINE).await;
    daemon.kill9();
    wait_for_other_sessions_to_end(&client).await;
    for (column, value) in [
        ("lease_until", "'infinity'"),
        ("lease_until", "'-infinity'"),
        ("updated_at", "'infinity'"),
        ("acquired_at", "'infinity'"),
        ("reported_at", "'infinity'"),
        ("term", "9223372036854775807"),
    ] {
        let set = format!("UPDATE postrider.position SET {column} = {value}");
        let error = client.batch_execute(&set).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "23514", "{set}: {error:?}");
    }
    // The server's clock was ahead, and the leader was on another machine and is gone.
    let ahead = "UPDATE postrider.position SET lease_until = '9999-12-31', process = NULL,
        backend_pid = NULL, reported_at = clock_timestamp() - interval '6 minutes'";
    client.batch_execute(ahead).await.unwrap();
    let list = run(&fixture.toml(), &["relay", "list"]).await;
    assert!(list.stdout.contains("not running"), "{list:?}");
    let status = run(&fixture.toml(), &["status", "--check"]).await;
    assert_eq!(status.code, Some(2), "{status:?}");
    daemon.start_again();
    daemon.wait_log("longer than any instance", DEADLINE).await;
    let left = "SELECT date_part('epoch', lease_until - clock_timestamp()) FROM postrider.position";
    let left: f64 = client.query_one(left, &[]).await.unwrap().get(0);
    assert!((200.0..=300.0).contains(&left), "{left}");
    // The test does not wait five minutes.
    let over = "UPDATE postrider.position SET lease_until = clock_timestamp()";
    client.batch_execute(over).await.unwrap();
    daemon.wait_log("relaying", DEADLINE).await;
}

/// A leader that lives puts its lease right itself, and nobody takes it from it.
#[tokio::test]
async fn a_leader_that_lives_keeps_an_overlong_lease_until_it_renews_it() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let (_first, mut second) = pair(|| daemon(&fixture)).await;
    second.allow_log("longer than any instance");
    let term = "SELECT term FROM postrider.position";
    let before: i64 = client.query_one(term, &[]).await.unwrap().get(0);
    client.batch_execute("UPDATE postrider.position SET lease_until = '9999-12-31'").await.unwrap();
    eventually("a lease as it should be", DEADLINE, async || {
        let is =
            "SELECT lease_until < clock_timestamp() + interval '4 seconds' FROM postrider.position";
        client.query_one(is, &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(10, DEADLINE).await;
    assert_eq!(client.query_one(term, &[]).await.unwrap().get::<_, i64>(0), before);
}
