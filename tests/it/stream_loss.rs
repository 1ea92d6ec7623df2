//! Tests of what the relay remembers about its stream: which stream it is, and which events it has
//! lost for good.

use serde_json::Value;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{Daemon, run},
    eventually,
    postgres::connect,
    store::StoreCopy,
    toml::Toml,
};

async fn emit(fixture: &Fixture, count: i64) {
    app::insert_backlog(&fixture.connect().await, count, 7).await;
    assert!(fixture.wait_drained(DEADLINE).await);
}

/// The program, which may log that the broker has lost events and that they are published again.
fn healing(fixture: &Fixture) -> Daemon {
    fixture
        .daemon()
        .allow_log("the broker has lost events")
        .allow_log("nothing can be published just now")
        .allow_log("publishing again from a checkpoint")
        .allow_log("became a dead letter")
        .start()
}

/// Deletes the stream with its messages, and creates an empty one with the same configuration.
async fn recreate_stream(fixture: &Fixture) {
    let jetstream = fixture.jetstream().await;
    let stream = jetstream.get_stream(&fixture.stream).await.unwrap();
    jetstream.delete_stream(&fixture.stream).await.unwrap();
    drop(jetstream.create_stream(stream.cached_info().config.clone()).await.unwrap());
}

async fn json(toml: &Toml, command: &[&str]) -> (Option<i32>, Value) {
    let finished = run(toml, command).await;
    let value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", finished.stdout, finished.stderr));
    (finished.code, value)
}

async fn wait_metric(daemon: &Daemon, line: &str) {
    eventually(line, DEADLINE, async || {
        daemon.get("/metrics").await.is_some_and(|answer| answer.body.contains(line))
    })
    .await;
}

/// Deletes the rows up to this `seq` from the outbox, as retention does.
async fn retire(fixture: &Fixture, up_to: i64) {
    let client = fixture.connect().await;
    let delete = r#"DELETE FROM "postrider".outbox WHERE seq <= $1"#;
    assert_eq!(client.execute(delete, &[&up_to]).await.unwrap(), up_to.unsigned_abs());
}

/// Former defect: a broker came back with an old store, and most of the lost events were no longer
/// in the outbox. Every output said that all was well.
#[tokio::test]
async fn a_loss_beyond_what_the_outbox_retains_is_an_alarm_until_somebody_acknowledges_it() {
    let mut fixture = Fixture::own_nats().await;
    let toml = fixture.toml();
    let mut daemon = fixture
        .daemon()
        .admin()
        .allow_log("the broker has lost events")
        .allow_log("nothing can be published just now")
        .allow_log("publishing again from a checkpoint")
        .allow_log("lost the connection to NATS")
        .allow_log("waiting for NATS")
        .allow_log("the stream has lost published events")
        .start();
    emit(&fixture, 50).await;
    let client = fixture.connect().await;
    let checkpoints = r#"SELECT count(*) FROM "postrider".checkpoint WHERE stream_seq = 50"#;
    eventually("a checkpoint", DEADLINE, async || {
        client.query_one(checkpoints, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let nats = fixture.nats.own();
    nats.stop().await.unwrap();
    let copy = StoreCopy::take(nats);
    nats.start_again().await.unwrap();
    emit(&fixture, 100).await;
    wait_metric(&daemon, "\npostrider_lost_messages{route=\"default\",table=\"outbox\"} 0\n").await;
    let nats = fixture.nats.own();
    nats.stop().await.unwrap();
    copy.put_back();
    // The stream has lost 100 events, and the outbox has the rows of only 20 of them.
    retire(&fixture, 130).await;
    fixture.nats.own().start_again().await.unwrap();

    let line = daemon.wait_log("the stream has lost published events", DEADLINE).await;
    assert!(line.contains("ERROR") && line.contains("events_at_most=80"), "{line}");
    assert_eq!(fixture.wait_stored(70, DEADLINE).await.len(), 70);
    assert!(fixture.wait_drained(DEADLINE).await);
    wait_metric(&daemon, "\npostrider_lost_messages{route=\"default\",table=\"outbox\"} 80\n")
        .await;
    let (code, audit) = json(&toml, &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"], &audit["lost"]), (Some(1), &false.into(), &80.into()));
    let (_, reconcile) = json(&toml, &["reconcile", "--dry-run", "--json"]).await;
    assert_eq!(reconcile["lost"], 80, "{reconcile}");
    let check = run(&toml, &["status", "--check"]).await;
    assert_eq!(check.code, Some(2), "{}", check.stdout);
    assert!(check.stdout.contains("80 published events are gone"), "{}", check.stdout);

    // The alarm is still there after a restart.
    daemon.kill9();
    daemon.start_again();
    wait_metric(&daemon, "\npostrider_lost_messages{route=\"default\",table=\"outbox\"} 80\n")
        .await;
    let reason = ["--acknowledge-loss", "--reason", "restored by hand", "--actor", "ann"];
    let acknowledged = run(&toml, &[&["audit"], &reason[..]].concat()).await;
    assert_eq!(acknowledged.code, Some(0), "{}", acknowledged.stderr);
    wait_metric(&daemon, "\npostrider_lost_messages{route=\"default\",table=\"outbox\"} 0\n").await;
    let (code, audit) = json(&toml, &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"]), (Some(0), &true.into()), "{audit}");
    let recorded = r#"SELECT count(*) FROM "postrider".audit WHERE action = 'acknowledge_loss'
        AND actor = 'ann' AND reason = 'restored by hand'"#;
    assert_eq!(client.query_one(recorded, &[]).await.unwrap().get::<_, i64>(0), 1);
}

/// Former defect: healing skips rows that have letters, and these letters were published before the
/// first checkpoint of the new stream. From the second loss on nobody published them again, and
/// only `audit` noticed.
#[tokio::test]
async fn a_letter_that_was_published_is_restored_whenever_its_stream_is_lost() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let mut daemon = healing(&fixture);
    let client = fixture.connect().await;
    let dead = r#"INSERT INTO "postrider".outbox (event_type) VALUES ('order.*')"#;
    client.batch_execute(dead).await.unwrap();
    emit(&fixture, 5).await;
    let correct =
        ["dlq", "edit", "1", "--event-type", "order.placed", "--reason", "a typing error"];
    for command in [&correct[..], &["dlq", "redrive", "1", "--wait"]] {
        let finished = run(&toml, command).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }
    assert_eq!(fixture.wait_stored(6, DEADLINE).await.len(), 6);
    let resolved = r#"SELECT count(*) FROM "postrider".letter WHERE resolution = 'published'"#;
    let checkpoints = r#"SELECT count(*) FROM "postrider".checkpoint"#;
    let before_all_checkpoints =
        r#"UPDATE "postrider".letter SET resolved_at = resolved_at - interval '1 hour'"#;
    for _ in 0..3 {
        eventually("a published letter", DEADLINE, async || {
            client.query_one(resolved, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        eventually("a checkpoint", DEADLINE, async || {
            client.query_one(checkpoints, &[]).await.unwrap().get::<_, i64>(0) > 0
        })
        .await;
        daemon.kill9();
        client.batch_execute(before_all_checkpoints).await.unwrap();
        recreate_stream(&fixture).await;
        daemon.start_again();
        assert_eq!(fixture.wait_stored(6, DEADLINE).await.len(), 6);
    }
    let audit = run(&toml, &["audit"]).await;
    assert_eq!(audit.code, Some(0), "{audit:?}");
}

#[tokio::test]
async fn a_loss_that_the_outbox_can_restore_is_no_alarm() {
    let fixture = Fixture::new().await;
    let mut daemon = healing(&fixture);
    let client = fixture.connect().await;
    // A dead letter was never published, so it must not count as a loss.
    let dead = r#"INSERT INTO "postrider".outbox (event_type) VALUES ('order.*')"#;
    client.batch_execute(dead).await.unwrap();
    emit(&fixture, 60).await;
    daemon.kill9();
    for _ in 0..2 {
        recreate_stream(&fixture).await;
        daemon.start_again();
        assert_eq!(fixture.wait_stored(60, DEADLINE).await.len(), 60);
        assert!(fixture.wait_drained(DEADLINE).await);
        daemon.kill9();
    }
    let losses = r#"SELECT count(*) FROM "postrider".loss"#;
    assert_eq!(client.query_one(losses, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// Former defect: the stream's creation time was compared as text of a library's type. Another
/// version of the library wrote other text, and every stream was taken for a new one.
#[tokio::test]
async fn a_stream_whose_identity_is_not_known_is_no_other_stream() {
    let fixture = Fixture::new().await;
    let mut daemon = fixture.daemon().start();
    emit(&fixture, 20).await;
    daemon.kill9();
    let client = fixture.connect().await;
    let known = r#"SELECT stream_created_ns FROM "postrider".position"#;
    let created: i64 = client.query_one(known, &[]).await.unwrap().get(0);
    let stream = fixture.jetstream().await.get_stream(&fixture.stream).await.unwrap();
    let reported = stream.cached_info().created;
    assert_eq!(i128::from(created), reported.unix_timestamp_nanos());

    let forget = r#"UPDATE "postrider".position SET stream_created_ns = NULL"#;
    client.batch_execute(forget).await.unwrap();
    daemon.start_again();
    emit(&fixture, 1).await;
    assert_eq!(fixture.read_stream().await.len(), 21);
    assert_eq!(client.query_one(known, &[]).await.unwrap().get::<_, i64>(0), created);
    assert!(!daemon.log().contains("the broker has lost events"));
}

/// Creation times that older programs have stored, in each form in which they stored them.
#[tokio::test]
async fn identities_of_older_programs_are_taken_over_to_the_nanosecond() {
    let fixture = Fixture::new().await;
    let database = format!("{}_before", fixture.database);
    let create = format!("CREATE DATABASE {database}");
    fixture.postgres.execute("postgres", &create).await.unwrap();
    let client = connect(&fixture.postgres.url(&database)).await;
    client
        .batch_execute("SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kolkata'")
        .await
        .unwrap();
    for file in [
        include_str!("../../migrations/0001_outbox.sql"),
        include_str!("../../migrations/0002_relay.sql"),
        include_str!("../../migrations/0003_emit.sql"),
        include_str!("../../migrations/0004_processed.sql"),
        include_str!("../../migrations/0005_retention.sql"),
        include_str!("../../migrations/0006_letters.sql"),
        include_str!("../../migrations/0007_refusals.sql"),
        include_str!("../../migrations/0008_operator.sql"),
        include_str!("../../migrations/0009_reconcile.sql"),
    ] {
        client.batch_execute(&format!("BEGIN; {file}; COMMIT")).await.unwrap();
    }
    let cases = [
        ("2026-11-26 5:04:03.0 +00:00:00", Some(1_795_669_443_000_000_000)),
        ("2026-11-26 22:55:51.123456789 +00:00:00", Some(1_795_733_751_123_456_789)),
        ("2026-11-26T22:55:51.123456789Z", Some(1_795_733_751_123_456_789)),
        ("2026-11-27 00:55:51.5 +02:00:00", Some(1_795_733_751_500_000_000)),
        ("2026-11-26 22:55:51.123456789 UTC", Some(1_795_733_751_123_456_789)),
        ("2026-13-26 22:55:51.0 +00:00:00", None),
        ("SystemTime { tv_sec: 7 }", None),
        ("", None),
    ];
    let insert =
        r#"INSERT INTO "postrider".position (relay, system_id, stream_created) VALUES ($1, 0, $1)"#;
    for (text, _) in cases.iter().filter(|(text, _)| !text.is_empty()) {
        client.execute(insert, &[text]).await.unwrap();
    }
    let migration = include_str!("../../migrations/0011_stream.sql");
    client.batch_execute(&format!("BEGIN; {migration}; COMMIT")).await.unwrap();
    let known = r#"SELECT stream_created_ns FROM "postrider".position WHERE relay = $1"#;
    for (text, expected) in cases.iter().filter(|(text, _)| !text.is_empty()) {
        let found: Option<i64> = client.query_one(known, &[text]).await.unwrap().get(0);
        assert_eq!(found, *expected, "{text}");
    }
}
