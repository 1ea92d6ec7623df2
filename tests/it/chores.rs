//! Tests of the chores (retention, measurements and the like): one that fails stops no other, and
//! outdated figures show their age.

use std::time::Duration;

use tokio_postgres::Client;

use super::support::{DEADLINE, Fixture, app, eventually, let_pass, postgres};

/// Number of calls that Postgres has counted for a function of the schema.
async fn calls(client: &Client, function: &str) -> i64 {
    let statement = "SELECT coalesce(sum(calls), 0)::int8 FROM pg_stat_user_functions
        WHERE funcname = $1";
    client.query_one(statement, &[&function]).await.unwrap().get(0)
}

async fn track_functions(fixture: &Fixture, client: &Client) {
    let track = format!("ALTER DATABASE {} SET track_functions = 'all'", fixture.database);
    client.batch_execute(&track).await.unwrap();
}

const MEASURED: &str = r#"postrider_measurement_age_seconds{route="default",measurement="depth"}"#;
const PENDING: &str = r#"postrider_pending_messages{route="default",table="outbox"}"#;
const OLDEST: &str = r#"postrider_oldest_pending_age_seconds{route="default",table="outbox"}"#;

/// Former defect: all chores ran one after the other, and a failure stopped every later one,
/// retention first of all.
#[tokio::test]
async fn a_chore_that_fails_is_named_and_stops_no_other() {
    const FAILING: &str = "a chore fails again and again";
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    track_functions(&fixture, &client).await;
    let mut daemon = fixture.daemon().admin().allow_log(FAILING).start();
    app::emit(&client, "order.placed", None, "{}").await;
    fixture.wait_stored(1, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.stop().await;
    let before = calls(&client, "retain").await;
    postgres::refuse(&client, r#"BEFORE INSERT ON "postrider".checkpoint FOR EACH STATEMENT"#)
        .await;
    daemon.start_again();
    eventually("a round of retention and one of consumers' keys", DEADLINE, async || {
        calls(&client, "retain").await > before && calls(&client, "processed_maintain").await > 0
    })
    .await;
    let line = daemon.wait_log(FAILING, DEADLINE).await;
    assert!(line.contains("chore=\"checkpoint\""), "{line}");
    assert!(
        daemon.metric(r#"postrider_chore_failing{route="default",chore="checkpoint"}"#).await
            >= 3.0
    );
    assert!(
        daemon.metric(r#"postrider_chore_failing{route="default",chore="retention"}"#).await < 1.0
    );
    assert!(daemon.metric(MEASURED).await < 15.0);
    postgres::allow(&client).await;
    eventually("a checkpoint", DEADLINE, async || {
        daemon.metric(r#"postrider_chore_failing{route="default",chore="checkpoint"}"#).await < 1.0
    })
    .await;
}

/// Former defect: a report that could not be written counted as new and was written again at once,
/// which used a whole core.
#[tokio::test]
async fn a_note_that_fails_costs_no_processor_time() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let daemon = fixture.daemon().admin().allow_log("a chore fails").start();
    app::emit(&client, "order.placed", None, "{}").await;
    assert!(fixture.wait_drained(DEADLINE).await);
    postgres::refuse(
        &client,
        r#"BEFORE UPDATE OF report ON "postrider".position FOR EACH STATEMENT"#,
    )
    .await;
    eventually(
        "a failing note, which is a finding and so something to note",
        DEADLINE,
        async || {
            daemon.metric(r#"postrider_chore_failing{route="default",chore="note"}"#).await >= 3.0
        },
    )
    .await;
    let before = cpu_ticks(daemon.pid());
    let_pass(Duration::from_secs(3)).await;
    // The limit is 45 of the 300 ticks that a core has in 3 s; an idle relay takes one or two.
    let taken = cpu_ticks(daemon.pid()) - before;
    assert!(taken < 45, "{taken} ticks of processor time in 3 s");
}

/// Processor time of a process, in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = |place| fields.split_whitespace().nth(place).unwrap().parse::<u64>().unwrap();
    ticks(11) + ticks(12)
}

/// Former defect: the gauge for alerts kept its last value, 0, while the outbox could not be read.
#[tokio::test]
async fn the_age_of_the_oldest_event_grows_while_the_database_is_away() {
    let mut fixture = Fixture::own_postgres().await;
    let daemon = fixture
        .daemon()
        .admin()
        .allow_log("the relay stopped leading")
        .allow_log("waiting for Postgres")
        .start();
    eventually("a first measurement", DEADLINE, async || {
        daemon.metric_if_up(MEASURED).await.is_some_and(|age| age < 5.0)
            && daemon.metric(r#"postrider_leader{route="default"}"#).await > 0.0
    })
    .await;
    fixture.postgres.own().stop_fast().await.unwrap();
    eventually("an age that grows", DEADLINE, async || daemon.metric(OLDEST).await > 17.0).await;
    assert!(daemon.metric(MEASURED).await > 17.0);
    fixture.postgres.own().start_again().await.unwrap();
    eventually("an age as measured", DEADLINE, async || daemon.metric(OLDEST).await < 1.0).await;
}

/// Former defect: 1,201 events were stuck as retrying letters for two minutes, and every figure
/// said 0.
#[tokio::test]
async fn letters_that_are_tried_again_count_as_backlog_and_by_their_age() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    // The letters wait for one hour. A wait above `route.max_delay` would count as due, so the
    // limit is two hours.
    let daemon = fixture.daemon().admin().set("route.max_delay", "2h").start();
    assert!(fixture.wait_drained(DEADLINE).await);
    eventually("nothing that waits", DEADLINE, async || daemon.metric(PENDING).await < 1.0).await;

    let letters = r#"INSERT INTO "postrider".letter (relay, state, holds, error_code, error,
            fingerprint, payload_size, payload_omitted, tx, seq, slot, event_version, occurred_at,
            event_id, event_type, kind, aggregate_type, aggregate_id, content_type, headers,
            next_attempt_at, dead_at)
        SELECT 'default', state, true, 'permission_denied', 'not allowed', 'f', 2, false,
            pg_current_xact_id(), 1000000 + n, 0, 1, now() - n * interval '100 s',
            gen_random_uuid(), 'order.placed', 'domain', 'order', 'stuck', 'application/json',
            '{}', CASE state WHEN 'retrying' THEN now() + interval '1 hour' END,
            CASE state WHEN 'dead' THEN now() END
        FROM (VALUES (1, 'dead'), (2, 'held'), (3, 'retrying')) AS l (n, state)"#;
    client.batch_execute(letters).await.unwrap();
    eventually("two that wait", DEADLINE, async || daemon.metric(PENDING).await > 1.5).await;
    assert!(daemon.metric(OLDEST).await >= 300.0);
    for state in ["dead", "held", "retrying"] {
        let series = format!(r#"postrider_letters{{route="default",state="{state}"}}"#);
        assert!((daemon.metric(&series).await - 1.0).abs() < 0.1, "{state}");
    }
    assert!((daemon.metric(r#"postrider_dead_letters{route="default"}"#).await - 1.0).abs() < 0.1);
}

/// Former defect: leader, standby and `status` prepared the statement anew for each measurement.
#[tokio::test]
async fn what_waits_is_measured_with_a_statement_that_is_prepared_once() {
    const STATEMENT: &str = "Measures the unsettled events of a relay";
    let fixture = Fixture::own_postgres().await;
    let log = || std::fs::read_to_string(fixture.postgres.log_path()).unwrap();
    let times = |step: &str| {
        let is_it = |line: &&str| line.contains(step) && line.contains(STATEMENT);
        log().lines().filter(is_it).count()
    };
    let client = fixture.connect().await;
    let all = format!("ALTER DATABASE {} SET log_min_duration_statement = 0", fixture.database);
    client.batch_execute(&all).await.unwrap();
    let mut leader = fixture.daemon().start();
    leader.wait_log("relaying", DEADLINE).await;
    eventually("three measurements", DEADLINE, async || times("ms  execute ") >= 3).await;
    // On a busy machine a session may be lost, and each new session prepares the statement once.
    assert!(times("ms  parse ") * 3 <= times("ms  execute "), "{}", log());
    // The standby measures every twelve seconds, over the session with which it waits for the
    // lease.
    let mut standby = fixture.daemon().start();
    standby.wait_log("standing by", DEADLINE).await;
    eventually("some more", DEADLINE * 2, async || times("ms  execute ") >= 9).await;
    assert!(times("ms  parse ") * 3 <= times("ms  execute "), "{}", log());
}
