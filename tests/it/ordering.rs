//! Tests of order: committed events are published in the order of their key, however transactions
//! overlap, and nothing else is published.

use std::{collections::HashMap, time::Duration};

use postrider::dev::{checker::Order, workload::Options};
use tokio_postgres::Client;
use uuid::Uuid;

use super::support::{
    DEADLINE, Fixture, app,
    app::{StoredMessage, wait_stored},
};

const KEY: Option<(&str, &str)> = Some(("order", "o-1"));

fn ids(messages: &[StoredMessage]) -> Vec<Uuid> {
    messages.iter().map(StoredMessage::id).collect()
}

async fn emit(client: &impl tokio_postgres::GenericClient, key: &str) -> Uuid {
    app::emit(client, "order.placed", Some(("order", key)), "{}").await
}

#[tokio::test]
async fn transactions_that_commit_out_of_order_all_arrive() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().start();
    let (mut early, mut middle) = (fixture.connect().await, fixture.connect().await);
    let late = fixture.connect().await;
    for round in 0..20 {
        let early = early.transaction().await.unwrap();
        let first = emit(&early, "a").await;
        let middle = middle.transaction().await.unwrap();
        let second = emit(&middle, "b").await;
        let third = emit(&late, "c").await;
        let stored = 3 * round;
        assert_eq!(ids(&fixture.wait_stored(stored + 1, DEADLINE).await).last(), Some(&third));
        early.commit().await.unwrap();
        assert_eq!(ids(&fixture.wait_stored(stored + 2, DEADLINE).await).last(), Some(&first));
        middle.commit().await.unwrap();
        assert_eq!(ids(&fixture.wait_stored(stored + 3, DEADLINE).await).last(), Some(&second));
    }
}

#[tokio::test]
async fn a_transaction_with_an_early_number_that_writes_the_key_late_comes_late() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().start();
    let mut early = fixture.connect().await;
    let other = fixture.connect().await;
    let mut expected = Vec::new();
    for round in 0..20u64 {
        let early = early.transaction().await.unwrap();
        early.query_one("SELECT pg_current_xact_id()", &[]).await.unwrap();
        expected.push(emit(&other, "o-1").await);
        // In every other round the relay has published the first event before the second one is
        // written.
        if round % 2 == 0 {
            fixture.wait_stored(2 * round + 1, DEADLINE).await;
        }
        expected.push(emit(&early, "o-1").await);
        early.commit().await.unwrap();
    }
    assert_eq!(ids(&fixture.wait_stored(40, DEADLINE).await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn early_numbers_and_late_writes_keep_the_order_of_contended_keys() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().start();
    let options = Options {
        events: 10_000,
        writers: 16,
        keys: 8,
        keyless_percent: 0,
        early_xid_percent: 50,
        hold_max: Duration::from_millis(10),
        ..Options::default()
    };
    let ledger = fixture.work(options).await;
    let report = fixture.audit(&ledger, Order::Serial).await;
    assert_eq!(report.stored, 10_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_transactions_that_stay_open_lose_and_invert_nothing() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().start();
    let options = Options {
        events: 10_000,
        writers: 16,
        keys: 10,
        order: Order::Overlap,
        held_open_percent: 20,
        early_xid_percent: 20,
        savepoint_percent: 20,
        hold_max: Duration::from_millis(30),
        ..Options::default()
    };
    let ledger = fixture.work(options).await;
    fixture.audit(&ledger, Order::Overlap).await;
}

#[tokio::test]
async fn what_is_rolled_back_never_arrives() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().start();
    let client = fixture.connect().await;
    let mut expected = vec![emit(&client, "o-1").await];

    client.batch_execute("BEGIN").await.unwrap();
    emit(&client, "o-1").await;
    client.batch_execute("ROLLBACK").await.unwrap();

    client.batch_execute("BEGIN; SAVEPOINT one").await.unwrap();
    emit(&client, "o-1").await;
    client.batch_execute("ROLLBACK TO one; SAVEPOINT two").await.unwrap();
    expected.push(emit(&client, "o-1").await);
    client.batch_execute("RELEASE two; SAVEPOINT three").await.unwrap();
    emit(&client, "o-1").await;
    client.batch_execute("ROLLBACK TO three").await.unwrap();
    expected.push(emit(&client, "o-1").await);
    client.batch_execute("COMMIT").await.unwrap();

    // The connection is dropped in the middle of a transaction, which Postgres rolls back.
    let torn = fixture.connect().await;
    torn.batch_execute("BEGIN").await.unwrap();
    emit(&torn, "o-1").await;
    drop(torn);

    expected.push(emit(&client, "o-1").await);
    fixture.wait_stored(4, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(ids(&fixture.read_stream().await), expected);
}

#[tokio::test]
async fn a_transaction_held_open_delays_no_others_and_arrives_after_a_restart_too() {
    let fixture = Fixture::new().await;
    let mut daemon = fixture.daemon().start();
    let mut holder = fixture.connect().await;
    let client = fixture.connect().await;

    let held = holder.transaction().await.unwrap();
    let first = app::emit(&held, "order.placed", KEY, "{}").await;
    app::insert_backlog(&client, 3_000, 50).await;
    fixture.wait_stored(3_000, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.kill9();
    app::insert_backlog(&client, 1_000, 50).await;
    daemon.start_again();
    fixture.wait_stored(4_000, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let last = app::emit(&held, "order.placed", KEY, "{}").await;
    held.commit().await.unwrap();

    let messages = fixture.wait_stored(4_002, DEADLINE).await;
    assert_eq!(ids(&messages[4_000..]), [first, last]);
}

#[tokio::test]
async fn a_large_transaction_arrives_whole_beside_small_ones() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().set("relay.batch_events", 100).start();
    let mut holder = fixture.connect().await;
    let client = fixture.connect().await;
    let large = holder.transaction().await.unwrap();
    // All rows have one key, so they must be published in the order of their inserts.
    app::insert_backlog(&large, 5_000, 1).await;
    for _ in 0..50 {
        emit(&client, "o-1").await;
    }
    fixture.wait_stored(50, DEADLINE).await;
    large.commit().await.unwrap();
    for _ in 0..50 {
        emit(&client, "o-1").await;
    }
    let messages = fixture.wait_stored(5_100, DEADLINE).await;
    let numbers: Vec<u64> =
        messages.iter().filter_map(|message| message.json()["n"].as_u64()).collect();
    assert!(numbers.iter().copied().eq(0..5_000), "{} of 5,000 in order", numbers.len());
    assert_eq!(messages.len(), 5_100);
}

/// A single poll finds all late rows but keeps only what fits into `batch_bytes`. The rest is read
/// by pages of late rows.
#[tokio::test]
async fn a_late_transaction_of_more_bytes_than_a_page_arrives_whole_and_in_order() {
    let fixture = Fixture::new().await;
    let _daemon = fixture.daemon().set("relay.batch_bytes", "2KiB").start();
    let mut holder = fixture.connect().await;
    let client = fixture.connect().await;
    let late = holder.transaction().await.unwrap();
    app::insert_backlog(&late, 600, 1).await;
    emit(&client, "o-1").await;
    fixture.wait_stored(1, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    late.commit().await.unwrap();
    let messages = fixture.wait_stored(601, DEADLINE).await;
    let numbers = messages.iter().filter_map(|message| message.json()["n"].as_u64());
    assert!(numbers.eq(0..600), "600 in order");
}

/// A poll of new rows also passes over rows of open transactions. With very many of those no poll
/// ends within its deadline, and the relay reads pages instead.
#[tokio::test]
async fn an_open_transaction_of_very_many_rows_does_not_stop_the_others() {
    let fixture = Fixture::new().await;
    let mut holder = fixture.connect().await;
    let client = fixture.connect().await;
    let open = holder.transaction().await.unwrap();
    open.execute("SELECT pg_current_xact_id()", &[]).await.unwrap();
    app::insert_backlog(&client, 2_000, 10).await;
    // The values of the column defaults are given, which makes the insert faster.
    let many = "INSERT INTO postrider.outbox (slot, occurred_at, event_id, event_type)
        SELECT 0, 'epoch', '01a1fbd8-abc2-7eb1-8da8-e6b4d19df3fa', 'a'
        FROM generate_series(1, 1500000)";
    open.batch_execute(many).await.unwrap();
    let daemon = fixture
        .daemon()
        .set("database.query_timeout", "100ms")
        // On a busy machine any statement may exceed this deadline, even a small one.
        .allow_log("canceling statement due to statement timeout")
        .allow_log("no answer from the database within")
        .start();
    fixture.wait_stored(2_000, 3 * DEADLINE).await;
    open.rollback().await.unwrap();
    emit(&client, "o-1").await;
    assert_eq!(fixture.wait_stored(2_001, DEADLINE).await.len(), 2_001);
    assert!(daemon.log().contains("could not read the outbox"), "no poll took long");
}

#[tokio::test]
async fn kills_while_a_late_transaction_is_read_repeat_and_reorder_none_of_its_rows() {
    let fixture = Fixture::new().await;
    let mut daemon = fixture.daemon().set("relay.batch_events", 50).start();
    let mut holder = fixture.connect().await;
    let client = fixture.connect().await;
    let late = holder.transaction().await.unwrap();
    app::insert_backlog(&late, 10_000, 3).await;
    app::insert_backlog(&client, 1_000, 1).await;
    fixture.wait_stored(1_000, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    late.commit().await.unwrap();
    for stored in [2_000, 4_000, 6_000, 8_000] {
        wait_stored(&fixture.nats.url(), &fixture.stream, stored, DEADLINE).await;
        daemon.kill9();
        // The new rows belong to the span after the one whose reading the kill interrupted.
        app::insert_backlog(&client, 100, 1).await;
        daemon.start_again();
    }
    assert!(fixture.wait_drained(DEADLINE).await);
    let messages = fixture.read_stream().await;
    assert_eq!(messages.len(), 11_400);
    let late = messages.iter().filter_map(|message| {
        let sequence: u64 = message.header("ce-sequence").unwrap().parse().unwrap();
        (sequence <= 10_000).then_some((message.header("ce-partitionkey").unwrap(), sequence))
    });
    let mut newest = HashMap::new();
    for (key, sequence) in late {
        assert!(newest.insert(key, sequence).is_none_or(|before| before < sequence), "{sequence}");
    }
}

#[tokio::test]
async fn a_prepared_transaction_arrives_when_its_second_phase_commits() {
    let fixture = Fixture::two_phase_commit().await;
    let mut daemon = fixture.daemon().start();
    let client = fixture.connect().await;
    let prepare = async |client: &Client, name: &str| {
        client.batch_execute("BEGIN").await.unwrap();
        let id = emit(client, name).await;
        client.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).await.unwrap();
        id
    };
    let kept = prepare(&client, "kept").await;
    prepare(&client, "dropped").await;
    let other = emit(&client, "other").await;
    assert_eq!(ids(&fixture.wait_stored(1, DEADLINE).await), [other]);
    assert!(fixture.wait_drained(DEADLINE).await);

    daemon.kill9();
    daemon.start_again();
    client.batch_execute("ROLLBACK PREPARED 'dropped'").await.unwrap();
    client.batch_execute("COMMIT PREPARED 'kept'").await.unwrap();
    assert_eq!(ids(&fixture.wait_stored(2, DEADLINE).await), [other, kept]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_transactions_among_others_lose_and_invert_nothing() {
    let fixture = Fixture::two_phase_commit().await;
    let _daemon = fixture.daemon().start();
    let options = Options {
        events: 5_000,
        writers: 12,
        keys: 20,
        prepared_percent: 10,
        early_xid_percent: 10,
        hold_max: Duration::from_millis(20),
        ..Options::default()
    };
    let ledger = fixture.work(options).await;
    fixture.audit(&ledger, Order::Serial).await;
}
