//! Tests B25 and B26 of `docs/bad-input.md`: huge transactions, and tables that somebody has
//! changed.

use super::{Row, Scene, large::memory_peak, one};
use crate::support::{DEADLINE, Fixture, app, postgres};

#[tokio::test]
async fn b25_two_hundred_thousand_rows_of_one_transaction_stop_nobody() {
    let mut scene = Scene::new().await;
    let mut huge = scene.fixture.connect().await;
    let transaction = huge.transaction().await.unwrap();
    app::insert_backlog(&transaction, 200_000, 20_000).await;
    // While the huge transaction is open, events with lower and with higher sequence numbers are
    // published.
    for _ in 0..20 {
        scene.goes_on().await;
    }
    let before = scene.settle().await.len();
    transaction.commit().await.unwrap();
    let late = Row::new().text("aggregate_id", "late").insert(&scene.client).await;
    let expected = before as u64 + 200_001;
    app::wait_stored(&scene.fixture.nats.url(), &scene.fixture.stream, expected, DEADLINE * 2)
        .await;
    let peak = memory_peak(&scene.daemon);
    assert!(peak < 96 << 20, "{} MiB", peak >> 20);
    assert!(scene.fixture.wait_drained(DEADLINE).await);
    let stream = scene.fixture.jetstream().await;
    let mut stream = stream.get_stream(&scene.fixture.stream).await.unwrap();
    let state = &stream.info().await.unwrap().state;
    assert_eq!((state.messages, state.last_sequence), (expected, expected));
    let last = stream.get_last_raw_message_by_subject(&scene.fixture.subject("order.placed")).await;
    let id = last.unwrap().headers.get("Nats-Msg-Id").unwrap().to_string();
    assert_eq!(id, late.to_string());
}

#[tokio::test]
async fn b26_columns_that_an_application_adds_or_shortens_change_nothing() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let alter = "
        ALTER TABLE postrider.outbox ADD COLUMN junk integer DEFAULT 5;
        ALTER TABLE postrider.outbox ADD COLUMN tenant text, ADD COLUMN noted timestamptz;
        ALTER TABLE postrider.outbox DROP COLUMN junk;
        ALTER TABLE postrider.outbox ALTER COLUMN actor TYPE varchar(50);
        ALTER TABLE postrider.outbox ADD CHECK (kind <> 'forbidden');
        CREATE INDEX ON postrider.outbox (tenant)";
    client.batch_execute(alter).await.unwrap();
    let mut scene = Scene::on(fixture, |daemon| daemon).await;
    let late = scene.fixture.connect().await;
    late.batch_execute("BEGIN; SELECT postrider.emit('late', '1')").await.unwrap();
    let row = Row::new().text("tenant", "acme").text("actor", "ann");
    let messages = scene.publishes(vec![row]).await;
    assert_eq!(messages[0].header("ce-authid"), Some("ann"));
    late.batch_execute("COMMIT").await.unwrap();
    scene.refuses(vec![(Row::new().text("event_type", ""), "invalid_subject")]).await;
    let long = "INSERT INTO postrider.outbox (event_type, actor) VALUES ('a', repeat('x', 51))";
    assert_eq!(late.batch_execute(long).await.unwrap_err().code().unwrap().code(), "22001");
    scene.goes_on().await;
}

/// Changes the table under a running program. Asserts that the program logs `complaint` and
/// publishes nothing. Repairs the table, and asserts that the waiting event is published then,
/// without a restart.
async fn waits_until_repaired(breaking: &str, complaint: &str, repair: &str) {
    let mut scene = Scene::with(|daemon| {
        daemon.allow_log("the relay stopped leading").allow_log("waiting for Postgres")
    })
    .await;
    scene.goes_on().await;
    scene.client.batch_execute(breaking).await.unwrap();
    let insert = "INSERT INTO postrider.outbox (event_type) VALUES ('while.broken')";
    scene.client.batch_execute(insert).await.unwrap();
    scene.daemon.wait_log("waiting for Postgres", DEADLINE).await;
    scene.daemon.wait_log(complaint, DEADLINE).await;
    scene.client.batch_execute(repair).await.unwrap();
    let stored = scene.fixture.wait_stored(2, DEADLINE).await;
    assert_eq!(stored[1].header("ce-type"), Some("while.broken"));
    scene.still_publishes().await;
}

#[tokio::test]
async fn b26_a_missing_column_is_named_and_waited_for() {
    let alter = "ALTER TABLE postrider.outbox RENAME COLUMN actor TO gone";
    let repair = "ALTER TABLE postrider.outbox RENAME COLUMN gone TO actor";
    waits_until_repaired(alter, "actor does not exist", repair).await;
}

#[tokio::test]
async fn b26_a_column_of_another_type_is_named_and_waited_for() {
    let alter = |to: &str| format!("ALTER TABLE postrider.outbox ALTER COLUMN payload TYPE {to}");
    let complaint = "column \"payload\" of the outbox has the type jsonb, and should have json";
    waits_until_repaired(&alter("jsonb"), complaint, &alter("json")).await;
}

// Without the refusal the hidden rows would be passed over as settled, and be lost.
#[tokio::test]
async fn b26_row_level_security_stops_the_relay_instead_of_hiding_rows() {
    let fixture = Fixture::new().await;
    let url = fixture.login("relay").await.url;
    let mut scene = Scene::on(fixture, |daemon| {
        daemon
            .set("database.url", url.clone())
            .allow_log("the relay stopped leading")
            .allow_log("waiting for Postgres")
            .allow_log("could not")
    })
    .await;
    scene.goes_on().await;
    let enable = "ALTER TABLE postrider.outbox ENABLE ROW LEVEL SECURITY";
    scene.client.batch_execute(enable).await.unwrap();
    let id = Row::new().insert(&scene.client).await;
    let line = scene.daemon.wait_log("row-level security policy", DEADLINE).await;
    assert!(line.contains("outbox"), "{line}");
    let relay = postgres::connect(&url).await;
    let count = "SELECT count(*) FROM postrider.outbox";
    assert_eq!(one::<i64>(&relay, count, &[]).await, 0, "the policy hides nothing");
    scene.client.batch_execute(&enable.replace("ENABLE", "DISABLE")).await.unwrap();
    let stored = scene.fixture.wait_stored(2, DEADLINE).await;
    assert_eq!(stored[1].id(), id);
    scene.still_publishes().await;
}

#[tokio::test]
async fn b26_a_trigger_that_raises_fails_its_own_insert_and_nothing_of_ours() {
    let mut scene = Scene::new().await;
    let triggers = "
        CREATE FUNCTION moan() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP <> 'INSERT' OR NEW.event_type = 'bad' THEN
                RAISE EXCEPTION 'no %', TG_OP;
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER moan BEFORE INSERT OR UPDATE OR DELETE ON postrider.outbox
            FOR EACH ROW EXECUTE FUNCTION moan()";
    scene.client.batch_execute(triggers).await.unwrap();
    let error = scene.client.batch_execute("SELECT postrider.emit('bad', '1')").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "P0001");
    // The triggers forbid UPDATE and DELETE, and the relay publishes all the same, because it uses
    // neither.
    scene.publishes(vec![Row::new()]).await;
    scene.refuses(vec![(Row::new().text("event_type", ""), "invalid_subject")]).await;
}
