//! Tests of the SQL functions that remove or renumber rows: retention and the rescan.

use tokio_postgres::{Client, types::ToSql};
use uuid::Uuid;

use super::{acquire, emit, page, relay, settle, span, statement, take_position};
use crate::support::Fixture;

async fn count(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM postrider.outbox", &[]).await.unwrap().get(0)
}

async fn retain(client: &Client) -> (i32, i32, bool) {
    let row = client.query_one(&statement("rotate_turns"), &[&0_f64]).await.unwrap();
    (row.get("sealed"), row.get("emptied"), row.get("rotated"))
}

#[tokio::test]
async fn retention_takes_what_is_settled_and_nothing_else() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    let (term, _) = acquire(&client).await;
    emit(&client, 3).await;
    // No row is settled, so the first call only makes new rows go to the next table.
    assert_eq!(retain(&client).await, (0, 0, true));
    assert_eq!(retain(&client).await, (0, 0, false));
    let (target, _) = span(&client, "3:3:").await;
    // Two of three rows are settled, so the table cannot be emptied yet.
    settle(&client, term, ("3:3:", &target), 2).await;
    assert_eq!(retain(&client).await, (0, 0, false));
    settle(&client, term, (&target, &target), 3).await;
    assert_eq!(retain(&client).await, (1, 0, false));
    assert_eq!(retain(&client).await, (0, 1, false));
    assert_eq!(count(&client).await, 0);
}

#[tokio::test]
async fn retention_waits_for_no_open_transaction_and_takes_none_of_its_rows() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    let mut held = fixture.connect().await;
    let (term, _) = acquire(&client).await;
    emit(&client, 3).await;
    let held = held.transaction().await.unwrap();
    emit(held.client(), 1).await;
    let (target, _) = span(&client, "3:3:").await;
    settle(&client, term, (&target, &target), 3).await;
    assert_eq!(retain(&client).await, (0, 0, true));
    // The open transaction's row is not visible but its lock on the table is, so retention leaves
    // the table alone without waiting.
    assert_eq!(retain(&client).await, (0, 0, false));
    held.commit().await.unwrap();
    assert_eq!(retain(&client).await, (0, 0, false), "the row is there and not settled");
    assert_eq!(count(&client).await, 4);
    let (target, _) = span(&client, &target).await;
    settle(&client, term, (&target, &target), 4).await;
    assert_eq!(retain(&client).await, (1, 0, false));
    assert_eq!(retain(&client).await, (0, 1, false));
}

#[tokio::test]
async fn retention_goes_round_and_a_full_round_just_grows() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    let (term, _) = acquire(&client).await;
    // Without settlement retention opens three more of the four sets of tables, and then none.
    for expected in [true, true, true, false, false] {
        emit(&client, 1).await;
        assert_eq!(retain(&client).await, (0, 0, expected));
    }
    assert_eq!(count(&client).await, 5);
    let (target, _) = span(&client, "3:3:").await;
    settle(&client, term, (&target, &target), 5).await;
    assert_eq!(retain(&client).await, (3, 0, false));
    assert_eq!(retain(&client).await, (0, 3, true));
    assert_eq!(retain(&client).await, (1, 0, false));
    assert_eq!(retain(&client).await, (0, 1, false));
    assert_eq!(count(&client).await, 0);
}

#[tokio::test]
async fn a_letter_without_its_payload_keeps_the_row() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    let (term, _) = acquire(&client).await;
    let insert = "INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id, payload)
                  VALUES ('a', 't', 'i', to_json(repeat('x', 5000)))";
    client.batch_execute(insert).await.unwrap();
    let (target, _) = span(&client, "3:3:").await;
    let (seqs, states) = (vec![1_i64], vec!["dead"]);
    let (codes, texts) = (vec!["payload_too_large"], vec!["too large"]);
    let (holds, attempts, waits) = (vec![true], vec![1_i32], vec![None::<f64>]);
    let parameters: [&(dyn ToSql + Sync); 23] = [
        &"main",
        &term,
        &target,
        &0_i64,
        &target,
        &0_i64,
        &1_i64,
        &"S",
        &1_i64,
        &1_i64,
        &Uuid::nil(),
        &0_i64,
        &10.0_f64,
        &0_i64,
        &1000_i64,
        &20_i64,
        &seqs,
        &states,
        &holds,
        &codes,
        &texts,
        &attempts,
        &waits,
    ];
    // The relay may have lost the answer to the first call, so the second one has to name the
    // letter too.
    for _ in 0..2 {
        let row = client.query_one(&statement("settle_letters"), &parameters).await.unwrap();
        let letter = (row.get::<_, i64>("settled"), row.get::<_, i64>("id"), row.get("error_code"));
        assert_eq!(letter, (1, 1, "payload_too_large"));
    }
    let page: [&(dyn ToSql + Sync); 3] = [&"main", &0_i64, &10_i64];
    let blocked = client.query(&statement("load_blocked_keys"), &page).await.unwrap();
    assert_eq!(blocked.len(), 1);
    assert_eq!(retain(&client).await, (0, 0, true));
    assert_eq!(retain(&client).await, (1, 0, false));
    assert_eq!(retain(&client).await, (0, 0, false));
    assert_eq!(count(&client).await, 1);
    let resolve = "UPDATE postrider.letter SET resolved_at = now(), resolution = 'discarded'";
    client.batch_execute(resolve).await.unwrap();
    assert_eq!(retain(&client).await, (0, 1, false));
}

#[tokio::test]
async fn a_restored_outbox_is_pending_where_it_was_not_settled() {
    let fixture = Fixture::new().await;
    let client = relay(&fixture).await;
    let (term, _) = acquire(&client).await;
    emit(&client, 3).await;
    let (target, _) = span(&client, "3:3:").await;
    settle(&client, term, ("3:3:", &target), 2).await;
    // The position looks as if the database were restored here from a cluster with higher
    // transaction numbers. One event was inserted since.
    emit(&client, 1).await;
    let elsewhere = "UPDATE postrider.position SET system_id = system_id + 1,
                         target = '9000000000:9000000000:';
                     UPDATE postrider.outbox SET tx = '8000000000' WHERE seq <= 3";
    client.batch_execute(elsewhere).await.unwrap();
    let row = take_position(&client).await;
    assert_ne!(row.get::<_, i64>("cluster_id"), row.get::<_, i64>("system_id"));
    let term: i64 = row.get("term");
    let row = client.query_one(&statement("rescan_outbox"), &[&"main", &(term - 1)]).await.unwrap();
    assert_eq!(row.get::<_, Option<i64>>("pending"), None);
    let row = client.query_one(&statement("rescan_outbox"), &[&"main", &term]).await.unwrap();
    assert_eq!(row.get::<_, Option<i64>>("pending"), Some(2));
    let row = take_position(&client).await;
    assert_eq!(row.get::<_, i64>("cluster_id"), row.get::<_, i64>("system_id"));
    let (settled, floor): (String, i64) = (row.get("snapshot"), row.get("floor"));
    emit(&client, 1).await;
    let (target, late) = span(&client, &settled).await;
    let pending = page(&client, (&settled, &target), (0, floor), late.as_deref()).await;
    assert_eq!(pending, [3, 4, 5]);
}
