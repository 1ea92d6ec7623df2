//! Tests of events that can never be published: they become dead letters with a reason, and other
//! keys go on.

use std::collections::HashMap;

use tokio_postgres::{Client, GenericClient, types::ToSql};
use uuid::Uuid;

use super::support::{DEADLINE, Fixture, app, app::StoredMessage, daemon::DaemonBuilder, let_pass};

/// A row that is inserted without the functions that would refuse it.
#[derive(Clone)]
struct Row {
    event_type: String,
    subject: Option<String>,
    headers: String,
    payload: String,
    payload_binary: Option<Vec<u8>>,
}

impl Row {
    fn good() -> Self {
        let (event_type, headers) = ("order.placed".to_owned(), "{}".to_owned());
        let payload = "{}".to_owned();
        Self { event_type, subject: None, headers, payload, payload_binary: None }
    }

    fn of_type(event_type: impl Into<String>) -> Self {
        Self { event_type: event_type.into(), ..Self::good() }
    }

    fn to_subject(subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..Self::good() }
    }

    fn with_headers(headers: impl Into<String>) -> Self {
        Self { headers: headers.into(), ..Self::good() }
    }

    fn with_payload_of(bytes: usize) -> Self {
        Self { payload: format!("\"{}\"", "x".repeat(bytes - 2)), ..Self::good() }
    }

    fn with_two_payloads() -> Self {
        Self { payload_binary: Some(b"{}".to_vec()), ..Self::good() }
    }

    async fn insert(&self, client: &impl GenericClient, key: Option<&str>) -> Uuid {
        let statement = r#"INSERT INTO "postrider".outbox
                (event_type, subject, headers, payload, payload_binary, aggregate_type, aggregate_id)
            VALUES ($1, $2, $3::text::jsonb, $4::text::json, $5, $6, $7) RETURNING event_id"#;
        let Self { event_type, subject, headers, payload, payload_binary } = self;
        let kind = key.map(|_| "order");
        let parameters: [&(dyn ToSql + Sync); 7] =
            [event_type, subject, headers, payload, payload_binary, &kind, &key];
        client.query_one(statement, &parameters).await.unwrap().get(0)
    }
}

/// Rows with one fault each, and the code of the letter that each becomes.
fn poison(fixture: &Fixture) -> Vec<(Row, &'static str)> {
    let own = |rest: &str| Row::to_subject(format!("{}.{rest}", fixture.prefix));
    let many: Vec<String> = (0..65).map(|n| format!(r#""h{n}": "x""#)).collect();
    let heavy: Vec<String> =
        (0..9).map(|n| format!(r#""h{n}": "{}""#, "x".repeat(4_000))).collect();
    vec![
        (Row::with_payload_of(1_100_000), "payload_too_large"),
        (Row::with_two_payloads(), "two_payloads"),
        (Row::of_type(""), "invalid_subject"),
        (Row::of_type("order..placed"), "invalid_subject"),
        (Row::of_type("order.placed."), "invalid_subject"),
        (Row::of_type("order.*"), "invalid_subject"),
        (Row::of_type("order.>"), "invalid_subject"),
        (Row::of_type("order placed"), "invalid_subject"),
        (Row::of_type("order\r\nplaced"), "invalid_subject"),
        (Row::of_type("o".repeat(600)), "subject_too_long"),
        (Row::of_type("o".repeat(8_000)), "subject_too_long"),
        (own("order..placed"), "invalid_subject"),
        (Row::to_subject("elsewhere.order"), "subject_outside_prefix"),
        (Row::to_subject(""), "subject_outside_prefix"),
        (
            Row::to_subject(format!("$JS.API.STREAM.PURGE.{}", fixture.stream)),
            "subject_outside_prefix",
        ),
        (Row::to_subject("$SYS.REQ.SERVER.PING"), "subject_outside_prefix"),
        (Row::with_headers(r#"{"bad name": "x"}"#), "invalid_header"),
        (Row::with_headers(r#"{"": "x"}"#), "invalid_header"),
        (Row::with_headers(r#"{"Tenant": "a\r\nNats-Rollup: all"}"#), "invalid_header"),
        (Row::with_headers(r#"{"Tenant": {"nested": true}}"#), "invalid_header"),
        (Row::with_headers(r#"{"Tenant": null}"#), "invalid_header"),
        (Row::with_headers(r#"["Tenant"]"#), "invalid_header"),
        (Row::with_headers(format!(r#"{{"Tenant": "{}"}}"#, "x".repeat(5_000))), "invalid_header"),
        (Row::with_headers(r#"{"Nats-Rollup": "all"}"#), "reserved_header"),
        (Row::with_headers(r#"{"nats-msg-id": "x"}"#), "reserved_header"),
        (Row::with_headers(r#"{"Nats-Expected-Stream": "X"}"#), "reserved_header"),
        (Row::with_headers(r#"{"Ce-Id": "x"}"#), "reserved_header"),
        (Row::with_headers(format!("{{{}}}", many.join(","))), "headers_too_large"),
        (Row::with_headers(format!("{{{}}}", heavy.join(","))), "headers_too_large"),
    ]
}

/// Rows of all kinds of faults in one transaction, each beside good rows.
struct Poisoned {
    /// Good rows that have other keys, or none.
    neighbours: Vec<Uuid>,
    /// Good rows of the faulty rows' keys, inserted after the faulty ones.
    followers: Vec<Uuid>,
    /// Good rows of the faulty rows' keys, inserted before the faulty ones.
    leaders: Vec<Uuid>,
    poison: HashMap<Uuid, &'static str>,
}

impl Poisoned {
    async fn insert(fixture: &Fixture) -> Self {
        let mut client = fixture.connect().await;
        let mut made = Self {
            neighbours: Vec::new(),
            followers: Vec::new(),
            leaders: Vec::new(),
            poison: HashMap::new(),
        };
        let transaction = client.transaction().await.unwrap();
        for (n, (row, code)) in poison(fixture).into_iter().enumerate() {
            let (key, other) = (format!("p-{n}"), format!("n-{n}"));
            let good = Row::good();
            made.neighbours.push(good.insert(&transaction, Some(&other)).await);
            made.leaders.push(good.insert(&transaction, Some(&key)).await);
            made.poison.insert(row.insert(&transaction, Some(&key)).await, code);
            made.followers.push(good.insert(&transaction, Some(&key)).await);
            made.neighbours.push(good.insert(&transaction, Some(&other)).await);
            made.poison.insert(row.insert(&transaction, None).await, code);
            made.neighbours.push(good.insert(&transaction, None).await);
        }
        transaction.commit().await.unwrap();
        made
    }
}

/// State and code of each letter, by the id of its event.
async fn letters(client: &Client) -> HashMap<Uuid, (String, String)> {
    let statement = r#"SELECT event_id, state, error_code FROM "postrider".letter"#;
    let rows = client.query(statement, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

async fn stored(fixture: &Fixture) -> Vec<Uuid> {
    assert!(fixture.wait_drained(DEADLINE).await);
    let mut ids: Vec<Uuid> = fixture.read_stream().await.iter().map(StoredMessage::id).collect();
    ids.sort();
    ids
}

fn sorted(parts: &[&[Uuid]]) -> Vec<Uuid> {
    let mut ids = parts.concat();
    ids.sort();
    ids
}

fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture.daemon().allow_log("became a dead letter")
}

#[tokio::test]
async fn each_kind_of_poison_is_a_dead_letter_that_holds_its_key_and_nobody_else() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = daemon(&fixture).start();
    let made = Poisoned::insert(&fixture).await;

    assert_eq!(stored(&fixture).await, sorted(&[&made.neighbours, &made.leaders]));
    let letters = letters(&client).await;
    for (id, code) in &made.poison {
        assert_eq!(letters[id], ("dead".to_owned(), (*code).to_owned()), "{id}");
    }
    for id in &made.followers {
        assert_eq!(letters[id].0, "held", "{id}");
    }
    assert_eq!(letters.len(), made.poison.len() + made.followers.len());

    // After a restart the keys are still blocked, and new events of such a key are held too.
    daemon.kill9();
    daemon.start_again();
    let late = Row::good().insert(&client, Some("p-0")).await;
    let free = Row::good().insert(&client, Some("n-0")).await;
    assert_eq!(stored(&fixture).await, sorted(&[&made.neighbours, &made.leaders, &[free]]));
    assert_eq!(self::letters(&client).await[&late].0, "held");
}

#[tokio::test]
async fn half_an_aggregate_is_a_dead_letter_that_holds_nobody() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let _daemon = daemon(&fixture).start();
    let half = r#"INSERT INTO "postrider".outbox (event_type, aggregate_type, aggregate_id)
        VALUES ('order.placed', $1, $2) RETURNING event_id"#;
    let mut dead = Vec::new();
    for (kind, id) in [(Some("order"), None), (None, Some("o-1")), (Some("invoice"), Some(""))] {
        dead.push(client.query_one(half, &[&kind, &id]).await.unwrap().get::<_, Uuid>(0));
    }
    let free = Row::good().insert(&client, Some("o-1")).await;
    assert_eq!(stored(&fixture).await, [free]);
    let letters = letters(&client).await;
    for id in dead {
        assert_eq!(letters[&id], ("dead".to_owned(), "missing_field".to_owned()));
    }
}

#[tokio::test]
async fn with_skip_the_later_events_of_the_key_go_on() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = daemon(&fixture).set("route.on_dead", "skip").start();
    let made = Poisoned::insert(&fixture).await;
    let good = [&made.neighbours[..], &made.leaders, &made.followers];
    assert_eq!(stored(&fixture).await, sorted(&good));
    let letters = letters(&client).await;
    assert_eq!(letters.len(), made.poison.len());
    assert!(letters.values().all(|(state, _)| state == "dead"));

    daemon.kill9();
    daemon.start_again();
    let late = Row::good().insert(&client, Some("p-0")).await;
    assert_eq!(stored(&fixture).await, sorted(&[&good.concat(), &[late]]));
}

#[tokio::test]
async fn a_dead_letter_in_every_batch_keeps_the_order_of_the_others() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = daemon(&fixture).set("relay.batch_events", 50).start();
    let fill = async {
        for round in 0..40 {
            app::insert_backlog(&client, 100, 10).await;
            Row::of_type("order.*").insert(&client, Some(&format!("p-{round}"))).await;
        }
    };
    let kills = async {
        for _ in 0..5 {
            let_pass(std::time::Duration::from_millis(150)).await;
            daemon.kill9();
            daemon.start_again();
        }
    };
    tokio::join!(fill, kills);
    assert!(fixture.wait_drained(DEADLINE).await);
    let messages = fixture.read_stream().await;
    assert_eq!(messages.len(), 4_000);
    let mut last: HashMap<String, String> = HashMap::new();
    for message in &messages {
        let key = message.header("ce-partitionkey").unwrap().to_owned();
        let sequence = message.header("ce-sequence").unwrap().to_owned();
        let before = last.insert(key, sequence.clone());
        assert!(before.is_none_or(|before| before < sequence), "{sequence}");
    }
    assert_eq!(letters(&client).await.len(), 40);
}

#[tokio::test]
async fn thousands_behind_one_dead_letter_are_held_and_the_other_keys_do_not_wait_for_them() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = daemon(&fixture).start();
    Row::of_type("order.*").insert(&client, Some("p")).await;
    let followers = r#"INSERT INTO "postrider".outbox
            (event_type, aggregate_type, aggregate_id, payload)
        SELECT 'order.placed', 'order', 'p', '{}' FROM generate_series(1, 20000)"#;
    client.batch_execute(followers).await.unwrap();
    app::insert_backlog(&client, 1_000, 10).await;
    fixture.wait_stored(1, DEADLINE).await;
    daemon.kill9();
    daemon.start_again();
    assert_eq!(stored(&fixture).await.len(), 1_000);
    let letters = letters(&client).await;
    assert_eq!(letters.values().filter(|(state, _)| state == "held").count(), 20_000);
    assert_eq!(letters.len(), 20_001);
}
