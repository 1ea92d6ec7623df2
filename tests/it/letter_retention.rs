//! Tests of deleting old letters, old audit records, and by an operator's command everything about
//! one key.

use tokio_postgres::Client;

use super::support::{DEADLINE, Fixture, app, eventually, letters::Letters};

const LETTERS: &str = r#"SELECT count(*) FROM "postrider".letter"#;
const AUDITS: &str = r#"SELECT count(*) FROM "postrider".audit"#;

/// Makes all resolved letters and all audit records older by `days` days.
async fn age(client: &Client, days: i32) {
    let statement = format!(
        r#"UPDATE "postrider".letter SET resolved_at = resolved_at - interval '{days} days',
               next_attempt_at = NULL WHERE resolved_at IS NOT NULL;
           UPDATE "postrider".audit SET acted_at = acted_at - interval '{days} days'"#
    );
    client.batch_execute(&statement).await.unwrap();
}

/// Former defect: letters and audit records were never deleted.
#[tokio::test(flavor = "multi_thread")]
async fn old_resolved_letters_and_acts_are_deleted_and_nothing_that_waits() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 6).await;
    letters.discard(&["1", "2", "3"]).await;
    age(&letters.client, 40).await;
    letters.discard(&["4"]).await;
    // The rows of letters 1 and 2 are gone from the outbox. Letter 3 has to stay, because it keeps
    // its row from being published again.
    let gone = r#"DELETE FROM "postrider".outbox WHERE seq IN (1, 2)"#;
    letters.client.batch_execute(gone).await.unwrap();
    let mut relay = fixture.daemon().allow_log("became a dead letter").start();
    eventually("two letters gone", DEADLINE, async || letters.number(LETTERS).await == 4).await;
    assert_eq!(letters.number(AUDITS).await, 4, "acts of 40 days ago stay");
    let left = r#"SELECT string_agg(id::text, ',' ORDER BY id) FROM "postrider".letter"#;
    assert_eq!(letters.text(left).await, "3,4,5,6");
    relay.kill9();

    age(&letters.client, 400).await;
    let _relay = fixture.daemon().set("relay.audit_retention", "400d").start();
    eventually("old acts gone", DEADLINE, async || letters.number(AUDITS).await == 0).await;
    assert_eq!(letters.number(LETTERS).await, 4, "their rows are in the outbox");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_leaves_nothing_of_a_key_but_what_is_not_done_yet() {
    let fixture = Fixture::new().await;
    let secret = r#"{"name": "Ann Person"}"#;
    let insert = format!(
        r#"INSERT INTO "postrider".outbox
               (event_type, aggregate_type, aggregate_id, headers, payload)
           SELECT 'customer.made', 'customer', 'c-' || n, '{{}}', '{secret}'
           FROM generate_series(1, 3) AS n;
           INSERT INTO "postrider".outbox
               (event_type, aggregate_type, aggregate_id, headers, payload)
           VALUES ('customer.made', 'customer', 'c-1', '{{"Nats-TTL": "Ann Person"}}', '{secret}')"#
    );
    let letters = Letters::make(&fixture, &insert, 1).await;
    app::emit(&letters.client, "customer.left", Some(("customer", "c-1")), secret).await;
    let erase = ["dlq", "erase", "customer/c-1", "--reason", "ticket 17", "--yes"];
    let (code, stderr) = letters.refused(&erase[..5]).await;
    assert_eq!(code, Some(2), "{stderr}");

    // Letters and rows that are still to be published are left alone, and the command says so.
    let (code, stderr) = letters.refused(&erase).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.starts_with("left alone: 2 rows that are not settled and 1 letters"),
        "{stderr}"
    );
    let rows = r#"SELECT count(*) FROM "postrider".outbox WHERE aggregate_id = 'c-1'"#;
    assert_eq!((letters.number(rows).await, letters.number(LETTERS).await), (2, 1));

    let change = ["--header", "x=Ann Person", "--remove-header", "Nats-TTL", "--redrive"];
    letters.edit("1", &change).await;
    let mut relay = fixture.daemon().start();
    let published = r#"SELECT count(*) FROM "postrider".letter
        WHERE resolution = 'published' AND next_attempt_at IS NULL"#;
    eventually("all is done", DEADLINE, async || letters.number(published).await == 2).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    relay.kill9();
    let out = letters.done(&erase).await;
    assert_eq!(out, "erased 2 rows of the outbox and 2 letters\n");
    for table in ["outbox", "letter", "audit"] {
        let anything = format!(
            r#"SELECT count(*) FROM "postrider".{table} AS t
               WHERE t::text LIKE '%c-1%' OR t::text LIKE '%Ann%' AND t::text NOT LIKE '%c-2%'
                 AND t::text NOT LIKE '%c-3%'"#
        );
        assert_eq!(letters.number(&anything).await, 0, "{table}");
    }
    let others = r#"SELECT count(*) FROM "postrider".outbox WHERE payload IS NOT NULL"#;
    assert_eq!(letters.number(others).await, 2);
    let audit = r#"SELECT concat_ws('|', reason, before ->> 'rows', before ->> 'letters',
            length(before ->> 'key_sha256'), database_user)
        FROM "postrider".audit WHERE action = 'erase' ORDER BY id DESC LIMIT 1"#;
    assert_eq!(letters.text(audit).await, "ticket 17|2|2|64|postgres");
    // The erased events leave no gap that the relay would try to publish again.
    let _relay = fixture.daemon().start();
    app::emit(&letters.client, "customer.made", Some(("customer", "c-4")), "{}").await;
    fixture.wait_stored(6, DEADLINE).await;
    assert_eq!(fixture.read_stream().await.len(), 6);
}
