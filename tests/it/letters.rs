//! Tests of letters: an event that leaves the fast path waits as a letter, the later events of its
//! key wait behind it in order, and other keys go on.

use std::time::Duration;

use postrider::dev::servers::NatsOptions;
use tokio_postgres::Client;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{Daemon, DaemonBuilder},
    eventually,
    postgres::{allow, refuse},
    stopwatch::Stopwatch,
};

/// Configuration of a NATS server with a user who may publish everything but the events of some
/// types.
fn denying(prefix: &str, types: &str) -> String {
    format!(
        "authorization {{ users: [\n\
         {{ user: everyone, password: everything }}\n\
         {{ user: relay, password: secret, permissions {{ subscribe: [\">\"], \
         publish: {{ allow: [\">\"], deny: [\"{prefix}.{types}\"] }} }} }}\n\
         ] }}\nno_auth_user: everyone\n"
    )
}

/// A fixture whose server denies the types `denied.>`, below any prefix. The server starts before
/// the fixture chooses a prefix.
async fn denied_fixture() -> Fixture {
    let options = NatsOptions { extra: denying("*", "denied.>"), ..NatsOptions::default() };
    Fixture::with(None, Some(options)).await
}

fn retrying(fixture: &Fixture) -> DaemonBuilder {
    fixture
        .daemon()
        .set("nats.user", "relay")
        .set("nats.password", "secret")
        .set("nats.ack_timeout", "500ms")
        .set("route.on_denied", "retry")
        .set("route.delay", "600ms")
        .set("route.max_delay", "1s")
        .allow_log("the broker refused a message for now; the relay tries it again")
        .allow_log("became a dead letter")
}

/// Inserts an event that can never be published, past `emit`, which would refuse it.
async fn insert_poison(client: &Client, key: &str) {
    let insert = r#"INSERT INTO "postrider".outbox
        (event_type, aggregate_type, aggregate_id, payload) VALUES ('order.*', 'order', $1, '{}')"#;
    client.execute(insert, &[&key]).await.unwrap();
}

async fn emit(client: &Client, event_type: &str, key: &str, count: usize) {
    for _ in 0..count {
        app::emit(client, event_type, Some(("order", key)), "{}").await;
    }
}

/// Number of unresolved letters in this state.
async fn in_state(client: &Client, state: &str) -> i64 {
    let count = r#"SELECT count(*) FROM "postrider".letter
        WHERE state = $1 AND resolved_at IS NULL"#;
    client.query_one(count, &[&state]).await.unwrap().get(0)
}

async fn wait_state(client: &Client, state: &str, count: i64) {
    eventually(format!("{count} letters are {state}"), DEADLINE, async || {
        in_state(client, state).await == count
    })
    .await;
}

/// `seq` of each event of a key, in the order of the stream.
async fn stored_of(fixture: &Fixture, key: &str) -> Vec<u64> {
    let messages = fixture.read_stream().await;
    let of_key = messages.iter().filter(|message| message.header("ce-subject") == Some(key));
    of_key.map(|message| message.header("ce-sequence").unwrap().parse().unwrap()).collect()
}

/// Redrives all dead letters, as `postrider dlq redrive` does.
async fn redrive(client: &Client) {
    let statement = r#"UPDATE "postrider".letter
        SET state = 'retrying', dead_at = NULL, attempts = 0, next_attempt_at = clock_timestamp()
        WHERE state = 'dead' AND resolved_at IS NULL"#;
    client.batch_execute(statement).await.unwrap();
    client.batch_execute("NOTIFY postrider_postrider, 'letters'").await.unwrap();
}

async fn discard(client: &Client) {
    let statement = r#"UPDATE "postrider".letter
        SET resolution = 'discarded', resolved_by = 'test', resolved_at = clock_timestamp(),
            next_attempt_at = clock_timestamp()
        WHERE state = 'dead' AND resolved_at IS NULL"#;
    client.batch_execute(statement).await.unwrap();
    client.batch_execute("NOTIFY postrider_postrider, 'letters'").await.unwrap();
}

/// Makes a dead letter, 30 later events of its key that are held behind it, and 10 events of
/// another key.
async fn dead_head(fixture: &Fixture, client: &Client, daemon: &mut Daemon) {
    daemon.allow_log("became a dead letter");
    insert_poison(client, "o-1").await;
    emit(client, "order.placed", "o-1", 30).await;
    emit(client, "order.placed", "o-2", 10).await;
    wait_state(client, "held", 30).await;
    assert_eq!(in_state(client, "dead").await, 1);
    fixture.wait_stored(10, DEADLINE).await;
    assert_eq!(stored_of(fixture, "o-2").await.len(), 10);
}

#[tokio::test]
async fn an_event_that_is_denied_waits_among_the_letters_and_its_key_behind_it() {
    let mut fixture = denied_fixture().await;
    let client = fixture.connect().await;
    let daemon = retrying(&fixture).admin().start();
    emit(&client, "order.placed", "o-1", 2).await;
    emit(&client, "denied.at_first", "o-1", 1).await;
    emit(&client, "order.placed", "o-1", 20).await;
    emit(&client, "order.placed", "o-2", 20).await;
    wait_state(&client, "held", 20).await;
    wait_state(&client, "retrying", 1).await;
    // The position is past all events, and the other key was not kept waiting.
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(stored_of(&fixture, "o-2").await.len(), 20);
    assert_eq!(stored_of(&fixture, "o-1").await, [1, 2]);

    fixture.nats.own().options_mut().extra = denying("*", "nothing.>");
    fixture.nats.reload().await.unwrap();
    fixture.wait_stored(43, DEADLINE).await;
    assert_eq!(stored_of(&fixture, "o-1").await, (1..=23).collect::<Vec<_>>());
    wait_state(&client, "held", 0).await;
    assert_eq!(in_state(&client, "retrying").await, 0);
    eventually("a free key", DEADLINE, async || {
        daemon.metric(r#"postrider_blocked_aggregates{route="default"}"#).await < 0.5
    })
    .await;
    // Events of the key take the fast path again, and their order is kept.
    emit(&client, "order.placed", "o-1", 5).await;
    fixture.wait_stored(48, DEADLINE).await;
    assert!(stored_of(&fixture, "o-1").await.is_sorted());
    let letters = r#"SELECT count(*), count(*) FILTER (WHERE resolution = 'published'
            AND stream_seq IS NOT NULL) FROM "postrider".letter"#;
    let row = client.query_one(letters, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (21, 21));
}

#[tokio::test]
async fn what_is_denied_too_often_dies_and_a_restart_does_not_count_anew() {
    let fixture = denied_fixture().await;
    let client = fixture.connect().await;
    let mut daemon = retrying(&fixture).set("route.attempts", 4).start();
    emit(&client, "denied.for_ever", "o-1", 1).await;
    wait_state(&client, "retrying", 1).await;
    daemon.kill9();
    daemon.start_again();
    wait_state(&client, "dead", 1).await;
    let row = client
        .query_one(
            r#"SELECT attempts, error_code, error, fingerprint FROM "postrider".letter"#,
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (4, "permission_denied"));
    assert!(row.get::<_, &str>(2).ends_with("(tried 4 times)"), "{}", row.get::<_, &str>(2));
    assert!(row.get::<_, &str>(3).starts_with("permission_denied-"));
}

/// The server drops a denied message at the end of a batch and reports only its subject, so nobody
/// ever answers for the batch.
#[tokio::test]
async fn a_denied_subject_at_the_end_of_a_batch_does_not_keep_the_others_waiting() {
    let fixture = denied_fixture().await;
    let client = fixture.connect().await;
    let daemon = retrying(&fixture).set("stream.batches", "always");
    let _daemon = daemon.set("nats.ack_timeout", "20s").start();
    // The window of messages in flight and the batches start small, so a first backlog makes them
    // grow.
    app::insert_backlog(&client, 2_000, 1).await;
    fixture.wait_stored(2_000, DEADLINE).await;
    client.batch_execute("BEGIN").await.unwrap();
    emit(&client, "order.placed", "o-1", 40).await;
    emit(&client, "denied.for_ever", "o-2", 1).await;
    client.batch_execute("COMMIT").await.unwrap();
    let watch = Stopwatch::start();
    fixture.wait_stored(2_040, DEADLINE).await;
    let took = watch.stop();
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn a_redriven_letter_is_published_and_its_key_follows_in_order() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture.daemon().start();
    dead_head(&fixture, &client, &mut daemon).await;

    // The letter is redriven unchanged. It dies again, and the held events stay held.
    redrive(&client).await;
    let again = r#"SELECT count(*) FROM "postrider".letter
        WHERE state = 'dead' AND last_failed_at > first_failed_at + interval '1 ms'"#;
    eventually("it died again", DEADLINE, async || {
        client.query_one(again, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    assert_eq!(stored_of(&fixture, "o-1").await, [0; 0]);

    // The letter is corrected and redriven. It is published, then the held events, while new ones
    // arrive.
    let correct =
        r#"UPDATE "postrider".letter SET event_type = 'order.placed' WHERE state = 'dead'"#;
    client.batch_execute(correct).await.unwrap();
    redrive(&client).await;
    emit(&client, "order.placed", "o-1", 20).await;
    fixture.wait_stored(61, DEADLINE).await;
    let stored = stored_of(&fixture, "o-1").await;
    assert!(stored.is_sorted() && stored.len() == 51, "{stored:?}");
    wait_state(&client, "held", 0).await;
}

#[tokio::test]
async fn a_discarded_letter_lets_its_key_go_on_also_when_nobody_ran_meanwhile() {
    for stopped in [false, true] {
        let fixture = Fixture::new().await;
        let client = fixture.connect().await;
        let mut daemon = fixture.daemon().start();
        dead_head(&fixture, &client, &mut daemon).await;
        if stopped {
            daemon.kill9();
        }
        discard(&client).await;
        emit(&client, "order.placed", "o-1", 20).await;
        if stopped {
            daemon.start_again();
        }
        fixture.wait_stored(60, DEADLINE).await;
        let stored = stored_of(&fixture, "o-1").await;
        assert!(stored.is_sorted() && stored.len() == 50, "{stored:?}");
        wait_state(&client, "held", 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_survive_kills_of_the_program_in_the_middle_of_their_key() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture.daemon().allow_log("became a dead letter").start();
    insert_poison(&client, "o-1").await;
    let many = r#"INSERT INTO "postrider".outbox
        (event_type, aggregate_type, aggregate_id, payload)
        SELECT 'order.placed', 'order', 'o-1', '{}' FROM generate_series(1, 3000)"#;
    client.batch_execute(many).await.unwrap();
    wait_state(&client, "held", 3000).await;
    discard(&client).await;
    for _ in 0..5 {
        super::support::let_pass(Duration::from_millis(300)).await;
        daemon.kill9();
        daemon.start_again();
    }
    fixture.wait_stored(3000, DEADLINE).await;
    wait_state(&client, "held", 0).await;
    let stored = stored_of(&fixture, "o-1").await;
    assert_eq!(stored, (2..=3001).collect::<Vec<_>>());
}

/// Former defect: a letter gave way to a newer event of its key that had to wait too. The letter's
/// mark was removed before that event was recorded as a letter. When the program died in between,
/// no mark was left, so no relay loaded the letter again.
#[tokio::test]
async fn a_letter_that_gave_way_is_not_forgotten_when_what_it_gave_way_to_is_never_recorded() {
    let mut fixture = denied_fixture().await;
    let client = fixture.connect().await;
    let mut daemon = retrying(&fixture)
        .admin()
        .set("route.on_dead", "skip")
        // The first wait is spent in memory, with the letter behind the event. The second wait is
        // too long for that and makes the event a letter.
        .set("route.delay", "450ms")
        .set("route.jitter", 0.0)
        .set("nats.ack_timeout", "2s")
        .allow_log("could not settle, trying again")
        .start();
    insert_poison(&client, "o-1").await;
    wait_state(&client, "dead", 1).await;
    let correct = r#"UPDATE "postrider".letter SET event_type = 'order.placed'"#;
    client.batch_execute(correct).await.unwrap();
    refuse(&client, r#"BEFORE INSERT ON "postrider".letter FOR EACH ROW"#).await;
    emit(&client, "denied.at_first", "o-1", 1).await;
    eventually("a denial", DEADLINE, async || {
        let metrics = daemon.get("/metrics").await.map(|answer| answer.body).unwrap_or_default();
        metrics.lines().any(|line| {
            let is_busy = line.starts_with("postrider_publish_failures_total{");
            is_busy && line.contains("\"busy\"") && !line.ends_with(" 0")
        })
    })
    .await;
    redrive(&client).await;
    wait_state(&client, "retrying", 0).await;
    daemon.kill9();

    allow(&client).await;
    fixture.nats.own().options_mut().extra = denying("*", "nothing.>");
    fixture.nats.reload().await.unwrap();
    daemon.start_again();
    fixture.wait_stored(2, DEADLINE).await;
    let unresolved = r#"SELECT count(*) FROM "postrider".letter WHERE resolved_at IS NULL"#;
    eventually("every letter is resolved", DEADLINE, async || {
        client.query_one(unresolved, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let mut stored = stored_of(&fixture, "o-1").await;
    stored.sort_unstable();
    assert_eq!(stored, [1, 2]);
}
