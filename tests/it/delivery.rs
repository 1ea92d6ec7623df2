//! Tests of ordinary delivery: a committed event arrives soon, and a relay that waits for the next
//! one costs next to nothing.

use std::{fs, time::Duration};

use async_nats::Subscriber;
use futures_util::StreamExt as _;
use postrider::dev::random::Random;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;
use uuid::Uuid;

use super::support::{
    DEADLINE, Fixture, app, let_pass, postgres::without_two_phase_commit, stopwatch::Stopwatch,
};

const INSERT: &str = r#"INSERT INTO "postrider".outbox (event_type, payload)
    VALUES ('order.placed', '{"n": 1}') RETURNING event_id"#;

/// Longest time to arrive for an event that wakes the relay. It is far shorter than `idle_interval`
/// in these tests.
const AWAKE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn what_is_emitted_and_what_is_inserted_arrives_as_the_row_says() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().start();
    let client = fixture.connect().await;
    let payload = "{ \"b\":1.0e2, \"a\" : \"\\u00e9\" ,\"a\":null}";
    let emitted = app::emit(&client, "order.placed", Some(("order", "o 1/é")), payload).await;
    let inserted: Uuid = client
        .query_one(
            r#"INSERT INTO "postrider".outbox
                (event_type, payload_binary, content_type, headers, correlation_id)
            VALUES ('image.made', '\x00ff0a', 'image/x', '{"Tenant": "acme"}', 'c-1')
            RETURNING event_id"#,
            &[],
        )
        .await
        .unwrap()
        .get(0);

    let messages = fixture.wait_stored(2, DEADLINE).await;

    assert_eq!(messages.len(), 2);
    let first = &messages[0];
    assert_eq!((first.id(), &*first.payload), (emitted, payload.as_bytes()));
    assert_eq!(first.subject, fixture.subject("order.placed"));
    assert_eq!(first.header("ce-type"), Some("order.placed"));
    assert_eq!(first.header("ce-partitionkey"), Some("order/o%201/%C3%A9"));
    assert_eq!(first.header("ce-sequence"), Some("00000000000000000001"));
    let second = &messages[1];
    assert_eq!((second.id(), &*second.payload), (inserted, &b"\x00\xff\n"[..]));
    assert_eq!(second.subject, fixture.subject("image.made"));
    assert_eq!(second.header("ce-datacontenttype"), Some("image/x"));
    assert_eq!(second.header("ce-correlationid"), Some("c-1"));
    assert_eq!(second.header("Tenant"), Some("acme"));
    assert_eq!(second.header("ce-partitionkey"), None);
}

#[tokio::test]
async fn an_idle_relay_is_woken_by_emit_and_by_a_plain_insert() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().set("relay.idle_interval", "10s").start();
    let client = fixture.connect().await;
    app::emit(&client, "order.placed", None, "{}").await;
    fixture.wait_stored(1, DEADLINE).await;
    let mut watching = fixture.watch().await;

    let mut waits = Vec::new();
    for n in 0..20 {
        fixture.wait_gate_open(&client).await;
        let began = Instant::now();
        if n % 2 == 0 {
            app::emit(&client, "order.placed", None, "{}").await;
        } else {
            client.query_one(INSERT, &[]).await.unwrap();
        }
        assert!(is_woken(&mut watching).await, "event {n} waits for the slow poll");
        waits.push(began.elapsed());
    }

    waits.sort();
    assert!(waits[10] < Duration::from_millis(500), "{waits:?}");
}

#[tokio::test]
async fn a_relay_that_nobody_may_notify_polls_often_enough() {
    let fixture = Fixture::two_phase_commit().await;
    let _daemon = fixture.daemon().set("relay.idle_interval", "10s").start();
    let client = fixture.connect().await;
    app::emit(&client, "order.placed", None, "{}").await;
    fixture.wait_stored(1, DEADLINE).await;
    let mut watching = fixture.watch().await;
    for _ in 0..5 {
        // After this time without events the relay has fallen asleep.
        let_pass(Duration::from_millis(200)).await;
        client.query_one(INSERT, &[]).await.unwrap();
        assert!(is_woken(&mut watching).await);
    }
}

#[tokio::test]
async fn an_idle_relay_asks_postgres_at_most_twice_a_second() {
    let settings = [("log_statement", "all"), ("log_line_prefix", "%a|")];
    let mut postgres = without_two_phase_commit();
    postgres.settings.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let fixture = Fixture::with(Some(postgres), None).await;
    let _daemon = fixture.daemon().start();
    let client = fixture.connect().await;
    app::emit(&client, "order.placed", None, "{}").await;
    fixture.wait_stored(1, DEADLINE).await;
    fixture.wait_gate_open(&client).await;

    let statements = || {
        let log = fs::read_to_string(fixture.postgres.log_path()).unwrap();
        let asked = |line: &&str| line.starts_with("postrider/") && !line.contains("|DETAIL");
        log.lines().filter(asked).count()
    };
    // The relay needs a moment to open the wake-up gate and fall asleep.
    let_pass(Duration::from_secs(1)).await;
    let before = statements();
    assert!(before > 10, "the statements of the program are not in the log");
    let_pass(Duration::from_secs(11)).await;
    let asked = statements() - before;

    assert!(asked <= 22, "{asked} statements in 11 s");
    assert!(asked > 0, "the slow poll has to go on");
}

#[tokio::test]
async fn an_event_that_comes_while_the_relay_falls_asleep_does_not_wait_for_the_slow_poll() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().set("relay.idle_interval", "10s").start();
    let client = fixture.connect().await;
    let others = fixture.connect().await;
    let mut watching = fixture.watch().await;
    let mut random = Random::new(7);

    let straddle = async {
        for n in 0..200 {
            client.query_one(INSERT, &[]).await.unwrap();
            let is_woken = is_woken(&mut watching).await;
            assert!(is_woken || n == 0, "event {n} came at the wrong moment and waits");
            // The relay prepares to sleep 100 ms after its last event, so the next one comes at
            // about that time.
            let micros = random.between(80_000, 130_000);
            let_pass(Duration::from_micros(micros.into())).await;
        }
    };
    // Other transactions, without events, make each poll of the relay see a new snapshot.
    let noise = async {
        loop {
            others.batch_execute("SELECT pg_current_xact_id()").await.unwrap();
            let_pass(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = straddle => {}
        () = noise => {}
    }
}

#[tokio::test]
async fn a_transaction_that_inserted_before_the_relay_slept_is_noticed_at_its_commit() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().set("relay.idle_interval", "10s").start();
    let mut client = fixture.connect().await;
    let observer = fixture.connect().await;
    app::emit(&client, "order.placed", None, "{}").await;
    fixture.wait_stored(1, DEADLINE).await;
    let mut watching = fixture.watch().await;
    for _ in 0..5 {
        close_gate(&observer).await;
        let transaction = client.transaction().await.unwrap();
        app::emit(&transaction, "order.placed", None, "{}").await;
        fixture.wait_gate_open(&observer).await;
        transaction.commit().await.unwrap();
        assert!(
            is_woken(&mut watching).await,
            "a commit that did not notify waits for the slow poll"
        );
    }
}

/// Closes the wake-up gate, as if the relay were awake. The next insert then does not notify it.
async fn close_gate(client: &Client) {
    // The two lowest bits of the sequence are not part of the gate: they say into which table rows
    // are inserted.
    let statement = r#"SELECT setval('"postrider".gate'::regclass,
        coalesce(pg_sequence_last_value('"postrider".gate'::regclass), 0) & 3)"#;
    client.batch_execute(statement).await.unwrap();
}

/// Whether the next message arrives as soon as a wake-up would bring it.
async fn is_woken(watching: &mut Subscriber) -> bool {
    let watch = Stopwatch::start();
    let arrived = timeout(DEADLINE, watching.next()).await;
    watch.stop() < AWAKE && arrived.is_ok()
}
