//! Tests of `postrider audit`'s figures: every committed row counts as published, pending, dead or
//! discarded, and the counts add up.

use postrider::{
    config::{DatabaseConfig, secret::SecretUrl},
    outbox::{ACCOUNTING_SETTINGS, Accounting, Inspection},
    pg::{connect::connect, schema::Schema},
};

use super::support::{
    DEADLINE, Fixture, app,
    letters::{done, relay},
};

async fn accounting_as(url: String) -> Accounting {
    let database = DatabaseConfig { url: SecretUrl::new(url), ..DatabaseConfig::default() };
    let connection = connect(&database, "audit", &ACCOUNTING_SETTINGS).await.unwrap();
    let inspection = Inspection::new(connection, Schema::parse("postrider").unwrap());
    inspection.accounting("default").await.unwrap()
}

async fn accounting(fixture: &Fixture) -> Accounting {
    accounting_as(fixture.database_url()).await
}

/// Numbers of published, pending, dead and discarded rows, in this order.
fn places(found: &Accounting) -> [u64; 4] {
    [found.published(), found.pending(), found.dead(), found.discarded()]
}

/// Fifteen rows on five keys. The first row of each key becomes a dead letter, and two wait behind
/// it.
const LETTERS: &str = r#"INSERT INTO "postrider".outbox
        (event_type, aggregate_type, aggregate_id, subject)
    SELECT 'order.placed', 'order', (n / 3)::text, CASE WHEN n % 3 = 0 THEN 'no subject' END
    FROM generate_series(0, 14) AS n"#;

#[tokio::test]
async fn every_committed_row_is_in_one_place() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let mut client = fixture.connect().await;
    app::insert_backlog(&client, 20, 4).await;
    // Before the relay's first start all rows are pending.
    let found = accounting(&fixture).await;
    assert_eq!((found.committed(), found.settled(), places(&found)), (20, 0, [0, 20, 0, 0]));

    client.batch_execute(LETTERS).await.unwrap();
    let mut other = fixture.connect().await;
    let late = other.transaction().await.unwrap();
    app::insert_backlog(&late, 2, 1).await;
    let rolled_back = client.transaction().await.unwrap();
    app::insert_backlog(&rolled_back, 7, 1).await;
    rolled_back.rollback().await.unwrap();
    relay(&fixture, &client, 15).await;
    let found = accounting(&fixture).await;
    assert_eq!((found.committed(), found.settled(), places(&found)), (35, 35, [20, 10, 5, 0]));
    assert_eq!((found.letters("dead", None), found.letters("held", None)), (5, 10));

    // Two rows commit late and three are new. The operator redrives one letter and discards two.
    late.commit().await.unwrap();
    app::insert_backlog(&client, 3, 1).await;
    done(&toml, &["dlq", "redrive", "--key", "order/0", "--yes"]).await;
    for key in ["order/1", "order/2"] {
        done(&toml, &["dlq", "discard", "--key", key, "--yes", "--reason", "a test"]).await;
    }
    let found = accounting(&fixture).await;
    assert_eq!((found.committed(), found.settled(), places(&found)), (40, 35, [20, 16, 2, 2]));
    assert_eq!(found.letters("retrying", None), 1);
    assert_eq!(found.letters("dead", Some("discarded")), 2);
    assert!(found.is_balanced(), "{found:?}");

    // A user with the operator's role gets the same figures.
    let url = fixture.login("operator").await.url;
    assert_eq!(accounting_as(url).await, found);
}

#[tokio::test]
async fn letters_whose_row_is_gone_are_counted_apart_and_a_lost_payload_is_seen() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    client.batch_execute(LETTERS).await.unwrap();
    relay(&fixture, &client, 15).await;
    let discard = ["dlq", "discard", "--key", "order/1", "--yes", "--reason", "a test"];
    done(&fixture.toml(), &discard).await;
    // Retention empties a table in the same way, once all rows in it are settled and old.
    client.batch_execute(r#"TRUNCATE "postrider".outbox"#).await.unwrap();
    app::insert_backlog(&client, 1, 1).await;
    let found = accounting(&fixture).await;
    assert_eq!((found.committed(), places(&found)), (1, [0, 1, 0, 0]));
    assert_eq!((found.unresolved_without_row(), found.resolved_without_row()), (14, 1));
    assert!(found.is_balanced());

    let lose = r#"UPDATE "postrider".letter SET payload_omitted = true WHERE seq = 1"#;
    client.batch_execute(lose).await.unwrap();
    let found = accounting(&fixture).await;
    assert_eq!((found.payloads_lost, found.is_balanced()), (1, false));
}

#[tokio::test]
async fn a_letter_of_another_event_than_its_row_is_seen_unless_it_was_edited() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    client.batch_execute(LETTERS).await.unwrap();
    relay(&fixture, &client, 15).await;
    let edit = ["dlq", "edit", "1", "--subject", "", "--reason", "a test"];
    done(&fixture.toml(), &edit).await;
    assert!(accounting(&fixture).await.is_balanced());
    let change = r#"UPDATE "postrider".letter SET event_id = "postrider".uuid7() WHERE seq = 4"#;
    client.batch_execute(change).await.unwrap();
    let found = accounting(&fixture).await;
    assert_eq!((found.strangers, found.is_balanced()), (1, false));
}

#[tokio::test]
async fn the_places_add_up_at_every_moment_while_events_flow() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let daemon = fixture.daemon().set("relay.batch_events", 50).start();
    for _ in 0..10 {
        app::insert_backlog(&client, 500, 20).await;
        let found = accounting(&fixture).await;
        assert_eq!(found.committed(), found.published() + found.pending(), "{found:?}");
        assert!(found.is_balanced());
    }
    assert!(fixture.wait_drained(DEADLINE).await);
    let found = accounting(&fixture).await;
    assert_eq!((found.committed(), found.settled(), found.published()), (5_000, 5_000, 5_000));
    drop(daemon);
}
