//! Tests of the table properties that reading the outbox depends on. A violation is repaired, with
//! the rows passed over meanwhile, or refused with its name.

use std::collections::HashMap;

use tokio_postgres::Client;

use crate::support::{DEADLINE, Fixture, app, daemon, eventually, postgres};

/// Part of the log lines that report a repair.
const REPAIRED: &str = "repaired; rows that were inserted";

/// Asserts that every event from 0 up to but not including `count` is in the stream exactly once.
fn assert_each_once(messages: &[app::StoredMessage], count: u64) {
    let mut times: HashMap<u64, usize> = HashMap::new();
    for message in messages {
        *times.entry(message.json()["n"].as_u64().unwrap()).or_default() += 1;
    }
    let missing: Vec<_> = (0..count).filter(|n| !times.contains_key(n)).collect();
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(missing.is_empty(), "{} missing, among them {:?}", missing.len(), missing.first());
    assert!(twice.is_empty(), "{} twice", twice.len());
}

/// Asserts that the events of each key are in the order of their numbers.
fn assert_in_order(messages: &[app::StoredMessage]) {
    let mut last: HashMap<String, u64> = HashMap::new();
    for message in messages {
        let key = message.header("ce-partitionkey").unwrap_or_default().to_owned();
        let n = message.json()["n"].as_u64().unwrap();
        let before = last.insert(key.clone(), n);
        assert!(before.is_none_or(|before| before < n), "{key}: {n} after {before:?}");
    }
}

/// Inserts the events `from..to`, spread over seven keys.
async fn insert(client: &Client, from: i64, to: i64) {
    let statement = r#"
        INSERT INTO "postrider".outbox (event_type, aggregate_type, aggregate_id, payload)
        SELECT 'load.made', 'load', (n % 7)::text, json_build_object('n', n)
        FROM generate_series($1::bigint, $2::bigint - 1) AS n"#;
    client.execute(statement, &[&from, &to]).await.unwrap();
}

async fn last_drawn(client: &Client) -> i64 {
    let statement = r#"SELECT last_value FROM "postrider".outbox_seq_seq"#;
    client.query_one(statement, &[]).await.unwrap().get(0)
}

/// Former defect: two sessions that had cached a hundred numbers each inserted in turn. A page
/// began above the lower numbers, and 149 of 1,552 events were never published.
#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_with_a_cache_costs_no_event() {
    let fixture = Fixture::new().await;
    let (one, other) = (fixture.connect().await, fixture.connect().await);
    let mut daemon = fixture.daemon().allow_log(REPAIRED).start();
    daemon.wait_log("relaying", DEADLINE).await;
    one.batch_execute(r#"ALTER SEQUENCE "postrider".outbox_seq_seq CACHE 100"#).await.unwrap();
    insert(&one, 0, 10).await;
    insert(&other, 10, 20).await;
    fixture.wait_stored(20, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    // A single poll cannot read so many rows, so the relay reads pages. Some of the rows have low
    // numbers.
    daemon.freeze();
    insert(&other, 20, 1_480).await;
    insert(&one, 1_480, 1_552).await;
    daemon.thaw();
    fixture.wait_stored(1_300, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.kill9();
    daemon.start_again();
    let line = daemon.wait_log(REPAIRED, DEADLINE).await;
    assert!(line.contains("cache of 100"), "{line}");
    let messages = fixture.wait_stored(1_552, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_each_once(&messages, 1_552);
    // After the repair, sessions no longer use numbers that they had cached.
    insert(&one, 1_552, 1_553).await;
    let drawn = last_drawn(&one).await;
    insert(&other, 1_553, 1_554).await;
    assert_eq!(last_drawn(&one).await, drawn + 1);
    assert_each_once(&fixture.wait_stored(1_554, DEADLINE).await, 1_554);
}

/// The relay is not restarted: its check once a minute finds the cache.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_relay_finds_a_cache_within_a_minute() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture
        .daemon()
        .allow_log(REPAIRED)
        .allow_log("the relay stops leading for a moment and repairs this first")
        .start();
    daemon.wait_log("relaying", DEADLINE).await;
    client.batch_execute(r#"ALTER SEQUENCE "postrider".outbox_seq_seq CACHE 100"#).await.unwrap();
    insert(&client, 0, 10).await;
    daemon.wait_log(REPAIRED, DEADLINE * 2).await;
    insert(&client, 10, 20).await;
    assert_each_once(&fixture.wait_stored(20, DEADLINE).await, 20);
}

/// Former defect: when the sequence began at 1 again, the numbers were below the position's floor,
/// and none of 3,000 events were published.
#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_begins_anew_costs_no_event_and_no_order() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture
        .daemon()
        .allow_log(REPAIRED)
        .allow_log("the sequence of outbox.seq was set back")
        .start();
    insert(&client, 0, 2_000).await;
    fixture.wait_stored(2_000, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.freeze();
    client.batch_execute(r#"TRUNCATE "postrider".outbox RESTART IDENTITY"#).await.unwrap();
    insert(&client, 2_000, 3_500).await;
    daemon.thaw();
    daemon.wait_log(REPAIRED, DEADLINE).await;
    let messages = fixture.wait_stored(3_500, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_each_once(&messages, 3_500);
    assert_in_order(&messages);
    // After the repair the sequence draws no number a second time.
    insert(&client, 3_500, 3_501).await;
    assert!(last_drawn(&client).await > 2_000);
    assert_each_once(&fixture.wait_stored(3_501, DEADLINE).await, 3_501);
}

/// The sequence is set back as by a mistaken `setval`. Published rows with the same numbers still
/// exist in other tables of the outbox.
#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_was_set_back_while_no_relay_ran_costs_no_event() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture.daemon().allow_log(REPAIRED).allow_log("became a dead letter").start();
    let dead =
        r#"INSERT INTO "postrider".outbox (event_type, payload) VALUES ('order.*', '{"n": -1}')"#;
    client.batch_execute(dead).await.unwrap();
    insert(&client, 0, 1_500).await;
    fixture.wait_stored(1_500, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.stop().await;
    let back =
        r#"SELECT setval('"postrider".gate', 1), setval('"postrider".outbox_seq_seq', 1, false)"#;
    client.batch_execute(back).await.unwrap();
    // This row draws a number that already has a letter, that of the first event.
    client.batch_execute(dead).await.unwrap();
    insert(&client, 1_500, 2_900).await;
    daemon.start_again();
    daemon.wait_log("renumbered=1401", DEADLINE).await;
    let messages = fixture.wait_stored(2_900, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_each_once(&messages, 2_900);
    assert_in_order(&messages);
    let letters = r#"SELECT count(*), count(DISTINCT event_id) FROM "postrider".letter"#;
    let row = client.query_one(letters, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 2));
    let audit = daemon::run(&fixture.toml(), &["audit"]).await;
    assert_eq!(audit.code, Some(0), "{audit:?}");
}

/// Former defect: logical replication copies tables without their sequences, so new rows draw
/// numbers that copied rows have. A rescan took the new rows for settled.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_without_its_sequences_costs_no_event() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture
        .daemon()
        .arg("--rescan")
        .allow_log(REPAIRED)
        .allow_log("accepted a restored database")
        .allow_log("may have been passed over")
        .start();
    insert(&client, 0, 4_000).await;
    fixture.wait_stored(4_000, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.stop().await;
    let copied = r#"UPDATE "postrider".position SET system_id = 0;
        TRUNCATE "postrider".outbox RESTART IDENTITY"#;
    client.batch_execute(copied).await.unwrap();
    insert(&client, 4_000, 7_000).await;
    daemon.start_again();
    let messages = fixture.wait_stored(7_000, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_each_once(&messages, 7_000);
    assert_in_order(&messages);
}

/// Each entry is an alteration of the schema, the statement that undoes it, and the text that
/// reports it.
const REFUSED: [(&str, &str, &str); 9] = [
    (
        "ALTER TABLE postrider.outbox ALTER COLUMN tx SET DEFAULT '3'",
        "ALTER TABLE postrider.outbox ALTER COLUMN tx SET DEFAULT pg_current_xact_id()",
        "outbox.tx has the default",
    ),
    (
        "ALTER TABLE postrider.outbox ALTER COLUMN slot SET DEFAULT 0",
        "",
        "outbox.slot has the default 0",
    ),
    (
        "ALTER TABLE postrider.outbox DETACH PARTITION postrider.outbox_6",
        "ALTER TABLE postrider.outbox ATTACH PARTITION postrider.outbox_6 FOR VALUES IN (6)",
        "no partition for slot 6",
    ),
    (
        "DROP INDEX postrider.outbox_tx_seq",
        "CREATE INDEX outbox_tx_seq ON postrider.outbox (tx, seq)",
        "no valid index on (tx, seq)",
    ),
    (
        "ALTER TABLE postrider.outbox_2 SET UNLOGGED",
        "ALTER TABLE postrider.outbox_2 SET LOGGED",
        "is not logged",
    ),
    (
        "ALTER TABLE postrider.outbox ENABLE ROW LEVEL SECURITY;
         ALTER TABLE postrider.outbox FORCE ROW LEVEL SECURITY",
        "ALTER TABLE postrider.outbox DISABLE ROW LEVEL SECURITY;
         ALTER TABLE postrider.outbox NO FORCE ROW LEVEL SECURITY",
        "row-level security may hide rows",
    ),
    (
        "CREATE RULE aside AS ON INSERT TO postrider.outbox DO INSTEAD NOTHING",
        "DROP RULE aside ON postrider.outbox",
        "has a rule",
    ),
    (
        "INSERT INTO postrider.outbox (seq, event_type) OVERRIDING SYSTEM VALUE
         VALUES (9223372036854775807, 'order.placed')",
        "DELETE FROM postrider.outbox WHERE seq = 9223372036854775807",
        "no number comes after it",
    ),
    ("ALTER TABLE postrider.outbox ALTER COLUMN tx DROP NOT NULL", "", "outbox.tx has the default"),
];

#[tokio::test]
async fn what_only_a_person_can_change_back_is_refused_by_name() {
    for (alter, undo, said) in REFUSED {
        let fixture = Fixture::new().await;
        let client = fixture.connect().await;
        client.batch_execute(alter).await.unwrap();
        let check = daemon::run(&fixture.toml(), &["check"]).await;
        assert_eq!(check.code, Some(78), "{alter}: {check:?}");
        assert!(check.stdout.contains(said), "{alter}: {}", check.stdout);
        let status = daemon::run(&fixture.toml(), &["status", "--check"]).await;
        assert_eq!(status.code, Some(2), "{alter}: {status:?}");
        assert!(status.stdout.contains("contract_broken"), "{alter}: {status:?}");
        let listed = daemon::run(&fixture.toml(), &["status"]).await;
        assert!(listed.stdout.contains("contract_broken: "), "{alter}: {}", listed.stdout);
        let mut running = fixture.daemon().allow_log(said).start();
        assert_eq!(running.wait_exit(DEADLINE).await, Some(78), "{alter}");
        assert!(running.log().contains(said), "{alter}: {}", running.log());
        if undo.is_empty() {
            continue;
        }
        client.batch_execute(undo).await.unwrap();
        running.start_again();
        insert(&client, 0, 1).await;
        fixture.wait_stored(1, DEADLINE).await;
    }
}

#[tokio::test]
async fn what_the_relay_can_repair_it_repairs_as_its_own_role() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let url = fixture.login("relay").await.url;
    let mut daemon = fixture.daemon().set("database.url", url).allow_log(": repaired").start();
    daemon.wait_log("relaying", DEADLINE).await;
    daemon.kill9();
    let alter = r#"
        ALTER SEQUENCE "postrider".outbox_seq_seq INCREMENT 5 CYCLE;
        ALTER TABLE "postrider".outbox ALTER COLUMN seq SET GENERATED BY DEFAULT;
        ALTER TABLE "postrider".outbox_4 DISABLE TRIGGER ALL;
        DROP TRIGGER outbox_wake ON "postrider".outbox_7"#;
    client.batch_execute(alter).await.unwrap();
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    for said in ["increment 5", "GENERATED ALWAYS", "outbox_4, postrider.outbox_7"] {
        assert!(check.stdout.contains(said), "{said}: {}", check.stdout);
    }
    daemon.start_again();
    daemon.wait_log("relaying", DEADLINE).await;
    let broken = r#"SELECT code FROM "postrider".broken_contract('default')"#;
    let broken = client.query(broken, &[]).await.unwrap();
    assert!(broken.is_empty(), "{broken:?}");
}

/// A transaction that has drawn a number blocks ALTER SEQUENCE. The repair must not queue for that
/// lock, because inserts would then wait behind it.
#[tokio::test]
async fn a_repair_that_has_to_wait_keeps_nobody_from_inserting() {
    let fixture = Fixture::new().await;
    let (client, open) = (fixture.connect().await, fixture.connect().await);
    let mut daemon =
        fixture.daemon().allow_log(REPAIRED).allow_log("cannot be repaired while").start();
    daemon.wait_log("relaying", DEADLINE).await;
    daemon.kill9();
    client.batch_execute(r#"ALTER SEQUENCE "postrider".outbox_seq_seq CACHE 3"#).await.unwrap();
    open.batch_execute("BEGIN").await.unwrap();
    insert(&open, 0, 1).await;
    daemon.start_again();
    daemon.wait_log("cannot be repaired while transactions", DEADLINE).await;
    insert(&client, 1, 2).await;
    open.batch_execute("COMMIT").await.unwrap();
    daemon.wait_log(REPAIRED, DEADLINE).await;
    assert_each_once(&fixture.wait_stored(2, DEADLINE).await, 2);
}

/// Former defect: copied rows had transaction numbers above those of this cluster. They waited, and
/// no message said why.
#[tokio::test]
async fn rows_of_another_cluster_are_named_and_published_when_asked_to() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let waits = "2 rows have transaction numbers that this cluster has not come to";
    let mut daemon = fixture.daemon().admin().allow_log(waits).start();
    insert(&client, 0, 10).await;
    fixture.wait_stored(10, DEADLINE).await;
    let copied = r#"INSERT INTO "postrider".outbox (tx, event_type, payload)
        VALUES ('4000000000', 'a.copied', '{"n": 10}'), ('4000000001', 'a.copied', '{"n": 11}');
        UPDATE "postrider".outbox SET aggregate_type = 'order', aggregate_id = 'o-1' WHERE tx > '3999999999'"#;
    client.batch_execute(copied).await.unwrap();
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    assert!(check.stdout.contains(waits) && check.stdout.contains("--rescan"), "{}", check.stdout);
    for command in [["status", "--json"], ["why", "order/o-1"]] {
        let said = daemon::run(&fixture.toml(), &command).await;
        assert!(said.stdout.contains(waits), "{command:?}: {}", said.stdout);
    }
    daemon.kill9();
    daemon.start_again();
    daemon.wait_log(waits, DEADLINE).await;
    // The relay counts as starting until its leader has reported for the first time.
    eventually("the report of the leader", DEADLINE, async || {
        let status = daemon::run(&fixture.toml(), &["status", "--check"]).await;
        assert_eq!(status.code, Some(2), "{status:?}");
        status.stdout.contains("contract_broken: 2 rows have").then_some(())
    })
    .await;
    let broken = r#"postrider_finding{route="default",code="contract_broken"}"#;
    assert!(daemon.metric(broken).await > 0.0);
    daemon.kill9();
    let mut rescanning = fixture
        .daemon()
        .arg("--rescan")
        .allow_log("accepted rows of another Postgres cluster")
        .start();
    rescanning.wait_log("rows=2", DEADLINE).await;
    assert_each_once(&fixture.wait_stored(12, DEADLINE).await, 12);
}

/// Former defect: without the right to read the gate, Postgres 18 returns null where older versions
/// refuse. The rows went to slot 0 and did not wake the relay.
#[tokio::test]
async fn a_role_that_may_not_read_the_gate_is_refused_and_named() {
    let fixture = Fixture::new().await;
    let admin = fixture.connect().await;
    let role = format!("{}_writer", fixture.database);
    let create = format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA postrider TO {role};
         GRANT INSERT (event_type) ON postrider.outbox TO {role}"
    );
    admin.batch_execute(&create).await.unwrap();
    let url = fixture.database_url().replace("postgres@", &format!("{role}@"));
    let writer = postgres::connect(&url).await;
    let insert = "INSERT INTO postrider.outbox (event_type) VALUES ('order.placed')";
    let error = writer.batch_execute(insert).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "42501", "{error:?}");
    assert_eq!(error.message(), "permission denied for sequence gate");
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    let said = format!("{role} may insert into the outbox, and is refused");
    assert!(check.stdout.contains(&said), "{}", check.stdout);
    admin.batch_execute(&format!("GRANT postrider_producer TO {role}")).await.unwrap();
    writer.batch_execute(insert).await.unwrap();
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    assert!(!check.stdout.contains(&said), "{}", check.stdout);
}

/// Former defect: in Postgres 18 a role with UPDATE alone read null from the gate, and its rows
/// went to slot 0.
#[tokio::test]
async fn no_grant_on_the_gate_lets_a_row_be_routed_by_a_null() {
    const GRANTS: [&str; 3] = ["USAGE", "SELECT", "UPDATE"];
    let fixture = Fixture::new().await;
    let admin = fixture.connect().await;
    admin.batch_execute(r#"SELECT setval('"postrider".gate', 2)"#).await.unwrap();
    let mut refused = Vec::new();
    for bits in 0..8_usize {
        let role = format!("{}_{bits}", fixture.database);
        let create = format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA postrider TO {role};
             GRANT INSERT ON postrider.outbox TO {role};
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA postrider TO {role}"
        );
        admin.batch_execute(&create).await.unwrap();
        let granted: Vec<_> =
            (0..3).filter(|bit| bits >> bit & 1 == 1).map(|bit| GRANTS[bit]).collect();
        if !granted.is_empty() {
            let grant = format!("GRANT {} ON postrider.gate TO {role}", granted.join(", "));
            admin.batch_execute(&grant).await.unwrap();
        }
        let url = fixture.database_url().replace("postgres@", &format!("{role}@"));
        let writer = postgres::connect(&url).await;
        let may = granted.contains(&"USAGE") || granted.contains(&"SELECT");
        for statement in [
            "INSERT INTO postrider.outbox (event_type) VALUES ('order.placed')",
            "SELECT postrider.emit('order.placed', '{}', 'order', 'o-1')",
            "SELECT postrider.emit_many('[{\"event_type\": \"order.placed\"}]')",
        ] {
            let done = writer.batch_execute(statement).await;
            if may {
                done.unwrap();
                continue;
            }
            let error = done.unwrap_err();
            let error = error.as_db_error().unwrap();
            assert_eq!(error.code().code(), "42501", "{granted:?} {statement}: {error:?}");
            assert_eq!(error.message(), "permission denied for sequence gate", "{granted:?}");
        }
        if !may {
            refused.push(role);
        }
    }
    let astray = r#"SELECT count(*) FROM "postrider".outbox WHERE slot <> 2"#;
    assert_eq!(admin.query_one(astray, &[]).await.unwrap().get::<_, i64>(0), 0);
    let all = r#"SELECT count(*) FROM "postrider".outbox"#;
    assert_eq!(admin.query_one(all, &[]).await.unwrap().get::<_, i64>(0), 6 * 3);
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    assert_eq!(check.stdout.matches("may insert into the outbox, and is refused").count(), 2);
    for role in refused {
        assert!(check.stdout.contains(&format!("{role} may insert")), "{}", check.stdout);
    }
}

/// Without a stored value each insert would call a function, which costs as much as the rest of the
/// insert.
#[tokio::test]
async fn the_gate_has_a_value_before_a_relay_has_ever_slept() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let value = "SELECT pg_sequence_last_value('postrider.gate')";
    assert_eq!(client.query_one(value, &[]).await.unwrap().get::<_, Option<i64>>(0), Some(0));
}
