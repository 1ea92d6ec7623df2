//! Tests of statements that cannot be done within their deadline: they are divided, so that a large
//! amount of work never stops the relay.

use std::{collections::HashMap, time::Duration};

use tokio_postgres::Client;

use super::support::{
    DEADLINE, Fixture,
    daemon::{Daemon, DaemonBuilder},
    eventually,
    proxy::{Mode, Modes, Proxy},
};

/// The program, which may log that a statement exceeded its deadline.
fn giving_up(daemon: DaemonBuilder) -> DaemonBuilder {
    daemon
        .allow_log("canceling statement due to statement timeout")
        .allow_log("no answer from the database within")
        .allow_log("waiting for Postgres")
        .allow_log("became a dead letter")
        .allow_log("publishing pauses until postgres confirms the lease")
}

async fn count(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Makes each INSERT or UPDATE of a letter take this long, as on a slow disk.
async fn slow_letters(client: &Client, act: &str, each: Duration) {
    let sql = format!(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
             $$BEGIN PERFORM pg_catalog.pg_sleep({}); RETURN NEW; END$$;
         CREATE TRIGGER slow BEFORE {act} ON postrider.letter
             FOR EACH ROW EXECUTE FUNCTION slow()",
        each.as_secs_f64()
    );
    client.batch_execute(&sql).await.unwrap();
}

/// Former defect: a settlement that exceeded its deadline was tried again unchanged, for ever.
#[tokio::test]
async fn a_settlement_of_more_letters_than_a_statement_can_write_is_written_in_parts() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    slow_letters(&client, "INSERT", Duration::from_millis(100)).await;
    let insert = "INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id)
        SELECT CASE WHEN n % 4 = 0 THEN 'order.placed' ELSE 'no subject' END, 'order', n
        FROM generate_series(1, 160) AS n";
    client.batch_execute(insert).await.unwrap();

    let daemon = giving_up(fixture.daemon()).set("database.query_timeout", "1s").start();

    // Writing 120 letters takes 12 s, and a statement has one second.
    eventually("a settled position", DEADLINE, async || {
        let settled = "SELECT count(*) FROM postrider.letter WHERE error_code = 'invalid_subject'";
        let position = "SELECT coalesce(max(published), 0) FROM postrider.position";
        (count(&client, settled).await, count(&client, position).await) == (120, 40)
    })
    .await;
    assert_eq!(fixture.wait_stored(40, DEADLINE).await.len(), 40);
    assert!(daemon.log().contains("could not settle"), "{}", daemon.log());
}

/// Former defect: the outcomes of letters were written in one statement. When it exceeded its
/// deadline, the same statement was tried again for ever.
#[tokio::test]
async fn records_of_more_letters_than_a_statement_can_write_are_written_in_parts() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    // The first event of each key is refused, and the others wait behind it. There are ten keys
    // with few letters, and one key with more letters than one part writes.
    let insert = "INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id, payload)
        SELECT CASE n WHEN 1 THEN 'no subject' ELSE 'order.placed' END, 'order', key, to_jsonb(n)
        FROM generate_series(0, 10) AS key, generate_series(1, 60) AS n
        WHERE key = 0 OR n <= 6 ORDER BY n, key";
    client.batch_execute(insert).await.unwrap();
    let daemon = giving_up(fixture.daemon()).set("database.query_timeout", "1s").start();
    let letters = "SELECT count(*) FROM postrider.letter";
    eventually("120 letters", DEADLINE, async || count(&client, letters).await == 120).await;

    client.batch_execute("BEGIN").await.unwrap();
    let correct = "UPDATE postrider.letter
        SET event_type = 'order.placed', state = 'retrying', dead_at = NULL,
            next_attempt_at = clock_timestamp()
        WHERE state = 'dead'";
    client.batch_execute(correct).await.unwrap();
    slow_letters(&client, "UPDATE", Duration::from_millis(100)).await;
    client.batch_execute("COMMIT").await.unwrap();

    // Each update takes 100 ms, and a statement has one second.
    let open = "SELECT count(*) FROM postrider.letter
        WHERE resolved_at IS NULL OR next_attempt_at IS NOT NULL";
    eventually("all recorded", DEADLINE, async || count(&client, open).await == 0).await;
    let mut last = HashMap::new();
    for message in fixture.wait_stored(120, DEADLINE).await {
        let number: u32 = str::from_utf8(&message.payload).unwrap().parse().unwrap();
        let key = message.header("ce-subject").unwrap().to_owned();
        let before = last.insert(key, number).unwrap_or(0);
        assert_eq!(number, before + 1);
    }
    assert_eq!(last.len(), 11);
    let given_up = "could not record the results of letters";
    assert!(daemon.log().contains(given_up), "{}", daemon.log());
}

/// Runs a relay whose database is behind a narrow link. The link cannot carry the waiting events
/// within one deadline.
async fn behind_a_narrow_link(
    fixture: &Fixture,
    change: impl FnOnce(DaemonBuilder) -> DaemonBuilder,
) -> (Proxy, Daemon) {
    let client = fixture.connect().await;
    // The payloads are bytes that cannot be compressed.
    let insert = "INSERT INTO postrider.outbox (event_type, payload_binary)
        SELECT 'order.placed', string_agg(sha512((n || '-' || i)::bytea), NULL)
        FROM generate_series(1, 40) AS n, generate_series(1, 3000) AS i GROUP BY n";
    client.batch_execute(insert).await.unwrap();
    let proxy = Proxy::start(fixture.postgres.port()).await.unwrap();
    proxy.set(Modes::to_client(Mode::Narrow(400_000)));
    let url = fixture.database_url();
    let port = format!(":{}/", fixture.postgres.port());
    let url = url.replace(&port, &format!(":{}/", proxy.port()));
    assert_ne!(url, fixture.database_url());
    let daemon =
        giving_up(fixture.daemon()).set("database.url", url).set("database.query_timeout", "3s");
    (proxy, change(daemon).start())
}

/// Former defect: the relay reduced its pages only when the server cancelled a statement, and
/// forgot the size with the session. Over a link that needs longer than the deadline for one page,
/// nothing was ever read.
#[tokio::test]
async fn a_page_that_a_narrow_link_does_not_bring_in_time_is_read_in_parts() {
    let fixture = Fixture::new().await;
    let (_proxy, daemon) = behind_a_narrow_link(&fixture, |daemon| daemon).await;
    assert_eq!(fixture.wait_stored(40, DEADLINE).await.len(), 40);
    assert!(daemon.log().contains("no answer from the database within"), "{}", daemon.log());
}

#[tokio::test]
async fn a_route_behind_a_narrow_link_reads_its_pages_in_parts_too() {
    let fixture = Fixture::new().await;
    let (_proxy, daemon) = behind_a_narrow_link(&fixture, |daemon| {
        daemon.config(|toml| toml.set("route.types", vec!["order.*".to_owned()]))
    })
    .await;
    assert_eq!(fixture.wait_stored(40, DEADLINE).await.len(), 40);
    assert!(daemon.log().contains("no answer from the database within"), "{}", daemon.log());
}
