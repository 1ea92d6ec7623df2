//! Tests of leadership: the lease ends whatever happened to the leader, and a leader that comes
//! late publishes nothing.

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

/// Time of a freeze that is longer than the lease is trusted. Then the watchdog ends a leader that
/// had work to do.
const FROZEN: Duration = Duration::from_millis(2_600);

/// Query for the process id of the Postgres backend of the leader's session.
const SESSION: &str = r#"SELECT backend_pid FROM "postrider".position"#;

fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture
        .daemon()
        .set("relay.lease", "3s")
        .allow_log("the relay stopped leading")
        .allow_log("waiting for NATS")
}

/// Former defect: the session of a frozen leader stayed open, and its lock kept all other instances
/// waiting for ever.
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

/// Former defect: anybody who may connect could take the advisory lock, and thereby stop all
/// relays.
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
    // A program that has led before and was killed gets the lease again.
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

/// Former defect: a leader froze with a backlog in memory, and another instance published all of
/// it. The stream then forgot the ids. In 3 of 20 cases the woken leader published old events
/// again, out of order.
/// Messages that the client library holds would go out before the relay can check its lease. The
/// watchdog therefore ends the process first.
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
        // The server is frozen, and the events are more than the socket takes meanwhile. The rest
        // stays in the leader.
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
        // This time exceeds the duplicate window of the last event.
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

/// Former defect: a crash of the server loses the last half second of asynchronous commits. The
/// bound up to which a leader may have sent was lost too, so the next leader scanned too little of
/// the stream.
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
    // Postgres may write to the WAL in between, so not every record can be proved durable.
    assert!(durable >= 15, "{durable} of 20 were durable when they were answered");
}

/// An idle leader has nothing that could be published late, so a freeze need not end it.
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

/// Former defect: the age of an uncertain event was measured with a clock that stops while the
/// machine sleeps. Such an event counted as young and was sent again, although the stream had
/// forgotten its id.
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
    // The messages are in flight when the machine falls asleep.
    daemon.wait_log("lost the connection to NATS", DEADLINE).await;
    std::fs::write(&slept, "600000").unwrap();
    fixture.nats.own().thaw().unwrap();
    let_pass(Duration::from_millis(2_500)).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(fixture.read_stream().await.len(), 60);
    assert!(daemon.log().contains("stood still"), "{}", daemon.log());
}

/// Former defect: a run scanned for as many rows as the earlier run can have had in memory. Rows of
/// a large transaction that was open until then lay in between, and hid rows that had been sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_does_not_hide_what_an_earlier_run_has_sent() {
    let fixture = Fixture::new().await;
    // On a busy machine Postgres may answer later than a lease of 3 s or a statement allows.
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
    // The first run dies with some of these events stored and none settled.
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
    // Reading so many rows takes longer than the duplicate window. The relay therefore scans more
    // than once, and each scan begins where the last one ended.
    let log = second.log();
    let scans = log.lines().filter(|line| line.contains("scanned the stream"));
    let messages = scans.filter_map(|line| line.split_once(" messages=")?.1.split(' ').next());
    let scanned: u64 = messages.map(|count| count.parse::<u64>().unwrap()).sum();
    assert!((1..=2 * 140_500).contains(&scanned), "{scanned} messages were scanned");
}

/// Former defect: without the grant each session failed at the same statement, was replaced at once
/// and cost an update. That happened tens of times a second, for ever.
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
    // The relay tries again now and then, so that it resumes by itself once the grant is back.
    let (terms, sessions) = (now.0 - before.0, now.1 - before.1);
    assert!(terms <= 8, "{terms} terms in 4 s");
    assert!((1..=16).contains(&sessions), "{sessions} sessions in 4 s");
    client.batch_execute(r#"GRANT SELECT ON "postrider".outbox TO postrider_relay"#).await.unwrap();
    fixture.wait_stored(10, DEADLINE).await;
}

/// The leader is frozen, replaced and thawed under load. The first time Postgres ends its session,
/// as when a machine is gone; the second time only its lease ends.
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
                // The program is restarted, because `log()` contains only lines since its last
                // start.
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

/// Former defect: with such a lease in the table the program ended with exit code 70, or waited for
/// ever.
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
    // The lease is as if the server's clock had been ahead, and its leader had run on another
    // machine and is gone.
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
    // The lease is ended here, so that the test does not wait for five minutes.
    let over = "UPDATE postrider.position SET lease_until = clock_timestamp()";
    client.batch_execute(over).await.unwrap();
    daemon.wait_log("relaying", DEADLINE).await;
}

/// A living leader corrects an overlong lease when it renews it, and no other instance takes the
/// lease.
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
