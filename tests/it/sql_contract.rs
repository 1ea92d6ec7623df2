//! Tests of the SQL interface for applications: `emit` and what it refuses, plain inserts, claims,
//! and the roles.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use tokio_postgres::{Client, error::SqlState};
use uuid::Uuid;

use crate::support::Fixture;

async fn outbox(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM postrider.outbox", &[]).await.unwrap().get(0)
}

/// SQLSTATE of a statement that has to fail, and its message with its hint.
async fn refusal(client: &Client, statement: &str) -> (SqlState, String) {
    let error = client.batch_execute(statement).await.expect_err(statement);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}"));
    let hint = error.hint().unwrap_or_default();
    (error.code().clone(), format!("{} / {hint}", error.message()))
}

#[tokio::test]
async fn emit_keeps_every_field_and_the_payloads_text() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let id: Uuid = client
        .query_one(
            "SELECT postrider.emit('order.placed', '{ \"b\": 1e400,  \"a\": 2 }',
                 aggregate_type => 'order', aggregate_id => 'o-1', headers => '{\"tenant\": \"x\"}',
                 event_version => 3, aggregate_version => 7, subject => 'other.subject',
                 kind => 'integration', source => 'shop', correlation_id => 'c', causation_id => 'd',
                 actor => 'alice')",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(id.get_version_num(), 7);
    let row = client
        .query_one(
            "SELECT concat_ws('|', event_id, event_type, payload::text, aggregate_type,
                 aggregate_id, headers, event_version, aggregate_version, subject, kind, source,
                 correlation_id, causation_id, actor, content_type, slot)
             FROM postrider.outbox",
            &[],
        )
        .await
        .unwrap();
    let expected = format!(
        "{id}|order.placed|{{ \"b\": 1e400,  \"a\": 2 }}|order|o-1|{{\"tenant\": \"x\"}}|3|7|\
         other.subject|integration|shop|c|d|alice|application/json|0"
    );
    assert_eq!(row.get::<_, String>(0), expected);
}

#[tokio::test]
async fn emit_refuses_what_could_never_be_published_and_says_what_to_do() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let long_value = "v".repeat(4097);
    let many = (0..65).map(|n| format!(r#""h{n}": "1""#)).collect::<Vec<_>>().join(",");
    let large = (0..9).map(|n| format!(r#""h{n}": "{}""#, "v".repeat(4000))).collect::<Vec<_>>();
    let headers = |json: &str| format!("postrider.emit('a', '1', headers => '{json}')");
    let cases = [
        ("postrider.emit('', '1')".to_owned(), "name the event"),
        ("postrider.emit(NULL, '1')".to_owned(), "name the event"),
        ("postrider.emit('a..b', '1')".to_owned(), "single dots"),
        ("postrider.emit('.a', '1')".to_owned(), "single dots"),
        ("postrider.emit('a.', '1')".to_owned(), "single dots"),
        ("postrider.emit('a.*', '1')".to_owned(), "without *"),
        ("postrider.emit('a.>', '1')".to_owned(), "without *"),
        ("postrider.emit('a b', '1')".to_owned(), "white space"),
        ("postrider.emit(E'a\\r\\nb', '1')".to_owned(), "white space"),
        ("postrider.emit('$JS.API.STREAM.PURGE.X', '1')".to_owned(), "without $"),
        (format!("postrider.emit('{}', '1')", "a".repeat(513)), "at most 512 bytes"),
        ("postrider.emit('a', '1', subject => '$SYS.x')".to_owned(), "without $"),
        ("postrider.emit('a', '1', subject => '')".to_owned(), "single dots"),
        (format!("postrider.emit('a', '1', subject => '{}')", "s".repeat(513)), "512 bytes"),
        ("postrider.emit('a', '1', aggregate_type => 'order')".to_owned(), "give both"),
        ("postrider.emit('a', '1', aggregate_id => '1')".to_owned(), "give both"),
        ("postrider.emit('a', '1', 'order', '')".to_owned(), "give both"),
        ("postrider.emit('a', '1', event_version => 0)".to_owned(), "start at 1"),
        (headers("[]"), "pass headers like"),
        (headers(r#"{"Nats-Rollup": "all"}"#), "choose another name"),
        (headers(r#"{"nats-ttl": "1"}"#), "choose another name"),
        (headers(r#"{"ce-id": "1"}"#), "choose another name"),
        (headers(r#"{"Postrider-Null": "1"}"#), "choose another name"),
        (headers(r#"{"": "1"}"#), "1 to 128 letters"),
        (headers(r#"{"a b": "1"}"#), "1 to 128 letters"),
        (headers(r#"{"ä": "1"}"#), "1 to 128 letters"),
        (headers(&format!(r#"{{"{}": "1"}}"#, "n".repeat(129))), "1 to 128 letters"),
        (headers(r#"{"a": null}"#), "leave out what is null"),
        (headers(r#"{"a": {"b": 1}}"#), "leave out what is null"),
        (headers(r#"{"a": ["b", 1]}"#), "use strings only"),
        (headers(r#"{"a": "b\r\nNats-Rollup: all"}"#), "control characters"),
        (headers(&format!(r#"{{"a": "{long_value}"}}"#)), "within 4096 bytes"),
        (headers(&format!("{{{many}}}")), "at most 64"),
        (headers(&format!("{{{}}}", large.join(","))), "within 32768 bytes"),
        ("postrider.emit_binary('a', '', content_type => '')".to_owned(), "media type"),
        (
            "postrider.emit_binary('a', '', 'application/cloudevents+json')".to_owned(),
            "the type of the payload alone",
        ),
        ("postrider.emit_many('{}')".to_owned(), "array of objects"),
        ("postrider.emit_many('[1]')".to_owned(), "array of objects"),
        (r#"postrider.emit_many('[{"type": "a"}]')"#.to_owned(), "parameters of emit"),
        (r#"postrider.emit_many('[{"event_type": "a b"}]')"#.to_owned(), "white space"),
        ("postrider.context('[]')".to_owned(), "an object like"),
        (r#"postrider.context('{"user": "x"}')"#.to_owned(), "use correlation_id"),
        (r#"postrider.context('{"headers": {"ce-id": "x"}}')"#.to_owned(), "another name"),
        ("postrider.claim('', gen_random_uuid())".to_owned(), "same short name"),
        ("postrider.claim('me', NULL)".to_owned(), "Nats-Msg-Id"),
        ("postrider.retain('-1 day')".to_owned(), "zero or more"),
        ("postrider.processed_maintain('1 minute')".to_owned(), "1 hour to 90 days"),
    ];
    for (call, advice) in cases {
        let (code, text) = refusal(&client, &format!("SELECT {call}")).await;
        assert_eq!(code, SqlState::INVALID_PARAMETER_VALUE, "{call}: {text}");
        assert!(text.contains(advice), "{call}: {text}");
    }
    assert_eq!(outbox(&client).await, 0);
}

#[tokio::test]
async fn what_is_unusual_but_possible_is_accepted() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let calls = [
        "postrider.emit('a', NULL)",
        r#"postrider.emit('a', '"\u0000 \ud800"')"#,
        "postrider.emit('größe.geändert', '1')",
        r#"postrider.emit('a', '1', headers => '{"a": ["b", "c"], "n": 1.5, "t": true, "x": ""}')"#,
        r#"postrider.emit('a', '1', headers => '{"traceparent": "not a trace"}')"#,
        r#"postrider.emit('a', '1', headers => '{"tab": "a\tb"}')"#,
        "postrider.emit('a', '1', 'order type', '* > . $ %')",
        "postrider.emit_binary('a', '\\x00ff', 'application/x-protobuf')",
        "postrider.emit_binary('a', '')",
        "postrider.emit_many('[]')",
    ];
    for call in calls {
        client.batch_execute(&format!("SELECT {call}")).await.expect(call);
    }
    assert_eq!(outbox(&client).await, 9);
}

#[tokio::test]
async fn a_plain_insert_gets_its_defaults_and_a_rollback_leaves_nothing() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let insert = "INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id, payload)
                  VALUES ('order.placed', 'order', 'o-1', '{}')";
    let id: Uuid =
        client.query_one(&format!("{insert} RETURNING event_id"), &[]).await.unwrap().get(0);
    assert_eq!(id.get_version_num(), 7);
    client.batch_execute(&format!("BEGIN; {insert}; ROLLBACK")).await.unwrap();
    client
        .batch_execute(&format!("BEGIN; SAVEPOINT s; {insert}; ROLLBACK TO s; {insert}; COMMIT"))
        .await
        .unwrap();
    assert_eq!(outbox(&client).await, 2);
}

#[tokio::test]
async fn a_schema_without_its_sequence_values_still_takes_inserts() {
    // The sequence has no value, as after loading a dump of the schema without data.
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    client.batch_execute("SELECT setval('postrider.gate', 0, false)").await.unwrap();
    client.batch_execute("SELECT postrider.emit('a', '1')").await.unwrap();
    assert_eq!(outbox(&client).await, 1);
}

#[tokio::test]
async fn the_context_fills_in_what_emit_was_not_given_until_the_transaction_ends() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    client
        .batch_execute(
            r#"BEGIN;
            SELECT postrider.context('{"actor": "alice", "correlation_id": "c",
                "traceparent": "00-1", "headers": {"tenant": "x"}}');
            SELECT postrider.context('{"actor": "bob", "source": "shop"}');
            SELECT postrider.emit('one', '1');
            SELECT postrider.emit('two', '1', actor => 'carol', headers => '{"tenant": "y"}');
            SELECT postrider.emit_many('[{"event_type": "three"}]');
            SELECT postrider.emit_binary('four', '');
            COMMIT;
            SELECT postrider.emit('five', '1');"#,
        )
        .await
        .unwrap();
    let select = "SELECT concat_ws(' ', event_type, actor, correlation_id, source, headers)
                  FROM postrider.outbox ORDER BY seq";
    let rows = client.query(select, &[]).await.unwrap();
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let with = r#"c shop {"tenant": "x", "traceparent": "00-1"}"#;
    let two = r#"two carol c shop {"tenant": "y", "traceparent": "00-1"}"#.to_owned();
    let expected = [
        format!("one bob {with}"),
        two,
        format!("three bob {with}"),
        format!("four bob {with}"),
        "five {}".to_owned(),
    ];
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn emit_many_keeps_the_order_of_the_array() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let row = client
        .query_one(
            r#"SELECT postrider.emit_many(jsonb_agg(jsonb_build_object(
                 'event_type', 'n' || n, 'payload', n, 'aggregate_type', 't', 'aggregate_id', 'i'))
                 || '[{"event_type": "bytes", "payload_base64": "AP8="}]')
               FROM generate_series(1, 100) AS n"#,
            &[],
        )
        .await
        .unwrap();
    let ids: Vec<Uuid> = row.get(0);
    let select = "SELECT event_id, event_type, content_type, payload_binary
                  FROM postrider.outbox ORDER BY seq";
    let rows = client.query(select, &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get::<_, Uuid>(0)).collect::<Vec<_>>(), ids);
    assert_eq!(rows.len(), 101);
    for (n, row) in rows.iter().take(100).enumerate() {
        assert_eq!(row.get::<_, &str>(1), format!("n{}", n + 1));
    }
    assert_eq!(rows[100].get::<_, &str>(2), "application/octet-stream");
    assert_eq!(rows[100].get::<_, &[u8]>(3), [0, 255]);
}

#[tokio::test]
async fn a_claim_is_given_once_and_again_after_a_rollback() {
    let fixture = Fixture::new().await;
    let (mut one, other) = (fixture.connect().await, fixture.connect().await);
    let claim = "SELECT postrider.claim($1, $2)";
    // The first id contains a time (version 7), the other does not (version 4).
    for id in [Uuid::now_v7(), Uuid::new_v4()] {
        let transaction = one.transaction().await.unwrap();
        assert!(transaction.query_one(claim, &[&"a", &id]).await.unwrap().get::<_, bool>(0));
        assert!(!transaction.query_one(claim, &[&"a", &id]).await.unwrap().get::<_, bool>(0));
        transaction.rollback().await.unwrap();
        let transaction = one.transaction().await.unwrap();
        assert!(transaction.query_one(claim, &[&"a", &id]).await.unwrap().get::<_, bool>(0));
        // The second consumer waits until the first transaction has ended, and is then refused the
        // claim.
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&"a", &id];
        let (waited, committed) =
            tokio::join!(other.query_one(claim, &parameters), transaction.commit());
        committed.unwrap();
        assert!(!waited.unwrap().get::<_, bool>(0));
        assert!(other.query_one(claim, &[&"b", &id]).await.unwrap().get::<_, bool>(0));
    }
}

/// Ids come from the function, from the column's default, and from both variants of `emit`.
#[tokio::test]
async fn ids_are_of_version_7_and_contain_the_time() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let rows = client
        .query(
            "WITH made AS (INSERT INTO postrider.outbox (event_type)
                           SELECT 'a' FROM generate_series(1, 500) RETURNING event_id)
             SELECT event_id, clock_timestamp() FROM made
             UNION ALL
             SELECT postrider.uuid7(), clock_timestamp() FROM generate_series(1, 500)
             UNION ALL
             SELECT postrider.emit('a', '1', 'b', 'c'), clock_timestamp()
             UNION ALL
             SELECT postrider.emit('a', '1'), clock_timestamp()",
            &[],
        )
        .await
        .unwrap();
    let ids: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(ids.len(), 1002);
    for row in rows {
        let (id, now): (Uuid, SystemTime) = (row.get(0), row.get(1));
        assert_eq!(id.get_version_num(), 7, "{id}");
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122, "{id}");
        let milliseconds = u64::try_from(id.as_u128() >> 80).unwrap();
        // The id's time may be rounded up, so it may be up to a millisecond late.
        let then = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds - 1);
        let age = now.duration_since(then).unwrap();
        assert!(age < Duration::from_secs(5), "{id} is {age:?} old");
    }
}

#[tokio::test]
async fn old_claims_are_forgotten_and_young_ones_kept() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    // A claim per day for 92 days, with an id that contains the time, and as many without. The
    // tables rotate within 99 days. The oldest 6 claims may share a table with days that are kept.
    client
        .batch_execute(
            "INSERT INTO postrider.processed
             SELECT id, 'me', postrider.processed_slot(id), now() - make_interval(days => day)
             FROM (SELECT day, (lpad(to_hex(((date_part('epoch', now()) - day * 86400.0)
                                 * 1000)::bigint), 12, '0') || '7'
                                || substr(gen_random_uuid()::text, 16))::uuid AS id
                   FROM generate_series(0, 92) AS day) AS days
             UNION ALL
             SELECT gen_random_uuid(), 'me', -1, now() - make_interval(days => day)
             FROM generate_series(0, 92) AS day",
        )
        .await
        .unwrap();
    client.batch_execute("SELECT postrider.processed_maintain('30 days')").await.unwrap();
    let row = client
        .query_one(
            "SELECT count(*) FILTER (WHERE processed_at > now() - interval '30 days'),
                    count(*) FILTER (WHERE processed_at < now() - interval '37 days')
             FROM postrider.processed",
            &[],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (60, 0));
}

const INSERT: &str = "INSERT INTO postrider.outbox (event_type, payload) VALUES ('a', '1')";

const ALLOWED: [(&str, &[&str]); 4] = [
    (
        "producer",
        &[
            "SELECT postrider.emit('a', '1')",
            "SELECT postrider.emit_binary('a', '')",
            "SELECT postrider.emit_many('[{\"event_type\": \"a\"}]')",
            "SELECT postrider.context('{}')",
            "SELECT postrider.uuid7()",
            INSERT,
            "INSERT INTO postrider.outbox (event_type) VALUES ('a') RETURNING event_id, seq",
        ],
    ),
    ("consumer", &["SELECT postrider.claim('me', gen_random_uuid())"]),
    (
        "relay",
        &[
            "SELECT postrider.retain('1 day')",
            "SELECT postrider.processed_maintain()",
            "SELECT postrider.rescan('main', 1)",
            "SELECT setval('postrider.gate', 0)",
            "SELECT count(*) FROM postrider.outbox",
            "INSERT INTO postrider.position (relay, system_id) VALUES ('x', 1)",
            "UPDATE postrider.letter SET attempts = 2",
            "SELECT * FROM postrider.turn",
        ],
    ),
    ("operator", &["SELECT * FROM postrider.letter", "SELECT * FROM postrider.position"]),
];

const FORBIDDEN: [(&str, &[&str]); 4] = [
    (
        "producer",
        &[
            "SELECT payload FROM postrider.outbox",
            "UPDATE postrider.outbox SET kind = 'x'",
            "DELETE FROM postrider.outbox",
            "TRUNCATE postrider.outbox",
            "INSERT INTO postrider.outbox (tx, event_type) VALUES ('3', 'a')",
            "INSERT INTO postrider.outbox (slot, event_type) VALUES (1, 'a')",
            "INSERT INTO postrider.outbox_0 (event_type) VALUES ('a')",
            "SELECT setval('postrider.gate', 7)",
            "SELECT postrider.claim('me', gen_random_uuid())",
            "SELECT postrider.retain('0')",
            "SELECT * FROM postrider.position",
            "SELECT * FROM postrider.letter",
        ],
    ),
    (
        "consumer",
        &[
            INSERT,
            "SELECT postrider.emit('a', '1')",
            "SELECT * FROM postrider.processed",
            "DELETE FROM postrider.processed",
            "INSERT INTO postrider.processed VALUES (gen_random_uuid(), 'me', -1, now())",
        ],
    ),
    (
        "relay",
        &[
            INSERT,
            "UPDATE postrider.outbox SET kind = 'x'",
            "DELETE FROM postrider.outbox",
            "TRUNCATE postrider.outbox_1",
            "DELETE FROM postrider.position",
            "DELETE FROM postrider.letter",
            "UPDATE postrider.turn SET sealed_at = now()",
            "TRUNCATE postrider.processed_0",
            "SELECT postrider.claim('me', gen_random_uuid())",
        ],
    ),
    (
        "operator",
        &[INSERT, "UPDATE postrider.position SET term = 9", "SELECT postrider.retain('0')"],
    ),
];

#[tokio::test]
async fn each_role_may_do_its_part_and_nothing_else() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    for (role, statements) in ALLOWED {
        client.batch_execute(&format!("SET ROLE postrider_{role}")).await.unwrap();
        for statement in statements {
            client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{role}: {e:?}"));
        }
    }
    for (role, statements) in FORBIDDEN {
        client.batch_execute(&format!("SET ROLE postrider_{role}")).await.unwrap();
        for statement in statements {
            let (code, text) = refusal(&client, statement).await;
            assert_eq!(code, SqlState::INSUFFICIENT_PRIVILEGE, "{role}: {statement}: {text}");
        }
    }
}

/// Former defect: the documentation said that claiming an id twice never raises an error. With an
/// older snapshot it has to.
#[tokio::test]
async fn a_claim_under_any_isolation_is_true_once_and_raises_only_what_may_be_tried_again() {
    let fixture = Fixture::new().await;
    let (one, other) = (fixture.connect().await, fixture.connect().await);
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let id = Uuid::new_v4();
        let claim = format!("SELECT postrider.claim('billing', '{id}')");
        let claimed = async |client: &Client| {
            client.query_one(&claim, &[]).await.map(|row| row.get::<_, bool>(0))
        };
        one.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1")).await.unwrap();
        assert!(claimed(&other).await.unwrap());
        match claimed(&one).await {
            Ok(first) => assert!(!first && level == "READ COMMITTED", "{level}"),
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE), "{level}");
                assert_ne!(level, "READ COMMITTED");
            }
        }
        one.batch_execute("ROLLBACK").await.unwrap();
        one.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).await.unwrap();
        assert!(!claimed(&one).await.unwrap(), "{level}");
        one.batch_execute("COMMIT").await.unwrap();
    }
}

/// A function that removes rows must see everything that was committed before its lock. An older
/// snapshot would not, so it would remove too much.
#[tokio::test]
async fn what_removes_rows_runs_under_read_committed_only() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    for call in ["retain('1 day')", "processed_maintain('30 days')", "repair_contract()"] {
        for level in ["REPEATABLE READ", "SERIALIZABLE"] {
            client.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).await.unwrap();
            let (code, text) = refusal(&client, &format!("SELECT postrider.{call}")).await;
            assert_eq!(code.code(), "25001", "{call} {level}: {text}");
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        client.batch_execute(&format!("SELECT postrider.{call}")).await.unwrap();
    }
}
