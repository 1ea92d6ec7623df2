//! Tests of events that the stream has lost: they are found, reported, and published again in order
//! and under the same ids.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use serde_json::Value;
use tokio::time::Instant;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{Daemon, DaemonBuilder, run},
    eventually, let_pass, nats,
    postgres::{allow, refuse},
    store::StoreCopy,
    toml::Toml,
};

async fn emit(fixture: &Fixture, keys: usize, count: usize) {
    let client = fixture.connect().await;
    for n in 0..count {
        let key = format!("o-{}", n % keys);
        app::emit(&client, "order.placed", Some(("order", &key)), "{}").await;
    }
}

/// The program, which may log that its stream has lost events.
fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture
        .daemon()
        .admin()
        .allow_log("the broker has lost events")
        .allow_log("nothing can be published just now")
        .allow_log("publishing again from a checkpoint")
}

/// Publishes messages to the stream that are not Postrider's.
async fn publish_others(fixture: &Fixture, count: usize) {
    let jetstream = fixture.jetstream().await;
    for _ in 0..count {
        let published = jetstream.publish(fixture.subject("of.others"), "{}".into()).await;
        published.unwrap().await.unwrap();
    }
}

/// Waits until the publishing gate is closed because the broker has lost events, and the program
/// waits for an operator.
async fn wait_regressed(fixture: &Fixture, daemon: &Daemon) {
    let client = fixture.connect().await;
    let regressed =
        r#"SELECT count(*) FROM "postrider".position WHERE note LIKE 'broker_regressed%'"#;
    eventually("a gate that says why", DEADLINE, async || {
        let answer = daemon.get("/readyz?verbose").await;
        answer.is_some_and(|answer| answer.body.contains("broker_regressed"))
            && client.query_one(regressed, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
}

/// Exit code and JSON output of a command.
async fn outcome_of(toml: &Toml, command: &[&str]) -> (Option<i32>, Value) {
    let finished = run(toml, command).await;
    let value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", finished.stdout, finished.stderr));
    (finished.code, value)
}

/// Asserts that every event is in the stream once. The events that were lost, and those that were
/// not, must each be in the order of their key.
async fn assert_whole(fixture: &Fixture, count: usize, lost: &[u64]) {
    let mut messages = fixture.read_stream().await;
    messages.retain(|message| !message.subject.ends_with("of.others"));
    let seq = |message: &app::StoredMessage| {
        message.header("ce-sequence").unwrap().parse::<u64>().unwrap()
    };
    let mut all: Vec<u64> = messages.iter().map(seq).collect();
    for is_lost in [false, true] {
        let some = messages.iter().filter(|message| lost.contains(&seq(message)) == is_lost);
        let mut by_key: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
        for message in some {
            let key = message.header("ce-subject").unwrap().to_owned();
            let before = by_key.insert(key, seq(message)).unwrap_or(0);
            assert!(before < seq(message), "{} follows {before}", seq(message));
        }
    }
    all.sort_unstable();
    assert_eq!(all, (1..=count as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn messages_that_are_gone_are_missed_by_the_audit_and_come_back_by_reconcile() {
    let fixture = Fixture::new().await;
    let builder = fixture.toml();
    // The duplicate window is short. Within it the broker drops a repeated id, although it has lost
    // the message.
    let daemon = fixture
        .daemon()
        .set("nats.ack_timeout", "500ms")
        .set("stream.duplicate_window", "3s")
        .set("route.max_delay", "1s")
        .allow_log("still recognises its id")
        .start();
    emit(&fixture, 7, 100).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let (code, audit) = outcome_of(&builder, &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"]), (Some(0), &Value::Bool(true)), "{audit}");
    assert_eq!((&audit["committed"], &audit["stream"]["held"]), (&100.into(), &100.into()));

    let lost: Vec<u64> = (20..60).collect();
    let stream = fixture.jetstream().await.get_stream(&fixture.stream).await.unwrap();
    for seq in &lost {
        stream.delete_message(*seq).await.unwrap();
    }
    let (code, audit) = outcome_of(&builder, &["audit", "--json"]).await;
    assert_eq!((code, &audit["stream"]["missing"]), (Some(1), &40.into()), "{audit}");
    let (code, dry) = outcome_of(&builder, &["reconcile", "--dry-run", "--json"]).await;
    assert_eq!((code, &dry["missing"], &dry["published_again"]), (Some(1), &40.into(), &0.into()));
    assert_eq!(fixture.read_stream().await.len(), 60);

    let (code, done) = outcome_of(&builder, &["reconcile", "--json", "--actor", "ann"]).await;
    assert_eq!((code, &done["published_again"]), (Some(0), &40.into()), "{done}");
    assert_eq!(fixture.wait_stored(100, DEADLINE).await.len(), 100);
    assert_whole(&fixture, 100, &lost).await;
    let (code, audit) = outcome_of(&builder, &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"]), (Some(0), &Value::Bool(true)), "{audit}");
    let client = fixture.connect().await;
    let recorded = r#"SELECT count(*) FROM "postrider".audit
        WHERE action = 'reconcile' AND actor = 'ann'"#;
    assert_eq!(client.query_one(recorded, &[]).await.unwrap().get::<_, i64>(0), 40);
    drop(daemon);
}

#[tokio::test]
async fn with_manual_healing_nothing_goes_before_an_operator_says_so() {
    let fixture = Fixture::new().await;
    let builder = fixture.toml();
    let mut daemon = daemon(&fixture).set("stream.heal", "manual").start();
    emit(&fixture, 7, 100).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    create_anew(&fixture).await;
    // The relay notices the loss within a minute, or as soon as it publishes something.
    emit(&fixture, 7, 1).await;
    let line = daemon.wait_log("the broker has lost events", DEADLINE).await;
    assert!(line.contains("postrider reconcile"), "{line}");
    emit(&fixture, 7, 10).await;
    wait_regressed(&fixture, &daemon).await;
    assert!(fixture.read_stream().await.len() <= 1);

    let (code, done) = outcome_of(&builder, &["reconcile", "--json"]).await;
    assert_eq!(code, Some(0), "{done}");
    assert_eq!(fixture.wait_stored(111, DEADLINE).await.len(), 111);
    assert!(fixture.wait_drained(DEADLINE).await);
    let (code, audit) = outcome_of(&builder, &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"]), (Some(0), &Value::Bool(true)), "{audit}");
}

#[tokio::test]
async fn what_a_stream_drops_by_its_limits_is_not_missing() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    nats::create_stream(&jetstream, &fixture.stream, &format!("{}.>", fixture.prefix)).await;
    let config = jetstream.get_stream(&fixture.stream).await.unwrap().cached_info().config.clone();
    let short = Config { max_messages: 30, discard: DiscardPolicy::Old, ..config };
    jetstream.update_stream(short).await.unwrap();
    let _daemon =
        fixture.daemon().set("stream.create", false).allow_log("drops its oldest messages").start();
    let client = fixture.connect().await;
    let checkpoints = r#"SELECT count(*) FROM "postrider".checkpoint"#;
    for count in 1..=2 {
        emit(&fixture, 7, 50).await;
        assert!(fixture.wait_drained(DEADLINE).await);
        eventually("a checkpoint", DEADLINE, async || {
            client.query_one(checkpoints, &[]).await.unwrap().get::<_, i64>(0) >= count
        })
        .await;
    }
    let (code, audit) = outcome_of(&fixture.toml(), &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"]), (Some(0), &Value::Bool(true)), "{audit}");
    let stream = &audit["stream"];
    assert_eq!((&stream["held"], &stream["dropped"]), (&30.into(), &70.into()), "{audit}");
}

/// Former defect: the result of the first scan was used for as long as the program ran. When the
/// stream lost one of those events later, the letter that `reconcile` made was recorded as
/// published, and never sent.
#[tokio::test]
async fn what_a_scan_found_at_the_start_comes_back_when_the_stream_loses_it_later() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture
        .daemon()
        .set("nats.ack_timeout", "500ms")
        .set("stream.duplicate_window", "3s")
        .set("route.max_delay", "1s")
        .allow_log("could not settle, trying again")
        .allow_log("still recognises its id")
        .start();
    // The refusal keeps all events unsettled although they are stored, so the next run finds them
    // by its scan.
    refuse(&client, r#"BEFORE UPDATE OF bookmark ON "postrider".position FOR EACH ROW"#).await;
    emit(&fixture, 7, 100).await;
    fixture.wait_stored(100, DEADLINE).await;
    daemon.kill9();
    allow(&client).await;
    daemon.start_again();
    let line = daemon.wait_log("scanned the stream", DEADLINE).await;
    assert!(line.contains("ours=100"), "{line}");
    assert!(fixture.wait_drained(DEADLINE).await);

    let lost: Vec<u64> = (20..60).collect();
    let stream = fixture.jetstream().await.get_stream(&fixture.stream).await.unwrap();
    for seq in &lost {
        stream.delete_message(*seq).await.unwrap();
    }
    let (code, done) = outcome_of(&fixture.toml(), &["reconcile", "--json"]).await;
    assert_eq!((code, &done["published_again"]), (Some(0), &40.into()), "{done}");
    assert_eq!(fixture.wait_stored(100, DEADLINE).await.len(), 100);
    assert_whole(&fixture, 100, &lost).await;
}

/// Former defect: after others had written over the lost part, nobody can tell which events are
/// left. The relay healed such a stream from its beginning, as if it were empty.
#[tokio::test]
async fn a_stream_that_others_wrote_over_waits_for_an_operator_and_is_reconciled() {
    let mut fixture = Fixture::own_nats().await;
    let builder = fixture.toml();
    let mut daemon = daemon(&fixture)
        .allow_log("lost the connection to NATS")
        .allow_log("waiting for NATS")
        .start();
    emit(&fixture, 7, 50).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let nats = fixture.nats.own();
    nats.stop().await.unwrap();
    let copy = StoreCopy::take(nats);
    nats.start_again().await.unwrap();
    emit(&fixture, 7, 50).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.kill9();
    // An old copy of the store is put back, and others publish before the relay does.
    let nats = fixture.nats.own();
    nats.stop().await.unwrap();
    copy.put_back();
    nats.start_again().await.unwrap();
    publish_others(&fixture, 80).await;

    daemon.start_again();
    let line = daemon.wait_log("the broker has lost events", DEADLINE).await;
    assert!(line.contains("contains another message under sequence 100"), "{line}");
    wait_regressed(&fixture, &daemon).await;
    emit(&fixture, 7, 10).await;
    // The stream must stay as it is, however often the relay verifies it.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        assert!(!daemon.log().contains("publishing again"), "{}", daemon.log());
        assert_eq!(fixture.read_stream().await.len(), 130);
        let_pass(Duration::from_millis(100)).await;
    }

    let (code, done) = outcome_of(&builder, &["reconcile", "--json"]).await;
    assert_eq!((code, &done["published_again"]), (Some(0), &50.into()), "{done}");
    assert_eq!(fixture.wait_stored(190, DEADLINE).await.len(), 190);
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_whole(&fixture, 110, &(51..=100).collect::<Vec<_>>()).await;
    let (code, audit) = outcome_of(&builder, &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"]), (Some(0), &Value::Bool(true)), "{audit}");
}

/// In a stream that was created anew none of our events is left, whatever others have published
/// there. It must not wait for an operator.
#[tokio::test]
async fn a_stream_created_anew_is_healed_at_once_although_others_have_filled_it() {
    let fixture = Fixture::new().await;
    let mut daemon = daemon(&fixture).start();
    emit(&fixture, 7, 50).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.kill9();
    create_anew(&fixture).await;
    publish_others(&fixture, 80).await;
    daemon.start_again();
    let line = daemon.wait_log("the broker has lost events", DEADLINE).await;
    assert!(line.contains("was created anew"), "{line}");
    assert_eq!(fixture.wait_stored(130, DEADLINE).await.len(), 130);
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_whole(&fixture, 50, &[]).await;
}

/// Former defect: with many letters the healing took longer than a statement may, and never
/// succeeded.
#[tokio::test]
async fn a_healing_may_take_longer_than_other_statements() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    // A renewal of the lease may have to wait for a lock that the healing holds.
    let mut daemon = daemon(&fixture)
        .set("database.query_timeout", "1s")
        .allow_log("could not renew the lease, trying again")
        .start();
    emit(&fixture, 7, 50).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.kill9();
    create_anew(&fixture).await;
    // The trigger takes as long as updating some hundred thousand letters.
    let slow = r#"CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM pg_sleep(3); RETURN NULL; END$$;
        CREATE TRIGGER slow AFTER UPDATE ON "postrider".letter
            FOR EACH STATEMENT EXECUTE FUNCTION public.slow()"#;
    client.batch_execute(slow).await.unwrap();
    daemon.start_again();
    assert_eq!(fixture.wait_stored(50, DEADLINE).await.len(), 50);
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_whole(&fixture, 50, &[]).await;
}

/// Deletes the stream and creates an empty one with the same configuration.
async fn create_anew(fixture: &Fixture) {
    let jetstream = fixture.jetstream().await;
    let config = jetstream.get_stream(&fixture.stream).await.unwrap().cached_info().config.clone();
    jetstream.delete_stream(&fixture.stream).await.unwrap();
    jetstream.create_stream(config).await.unwrap();
}
