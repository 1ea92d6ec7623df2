//! Tests of `postrider why`: what a key waits for, and what to do about it.

use serde_json::json;

use super::support::{
    DEADLINE, Fixture, app, daemon, eventually,
    letters::{done, json, make, number, refused},
};

const HELD: &str = r#"INSERT INTO "postrider".outbox
        (event_type, aggregate_type, aggregate_id, subject)
    VALUES ('order.placed', 'order', 'a/1', 'no subject'), ('order.paid', 'order', 'a/1', NULL),
           ('order.sent', 'order', 'a/1', NULL), ('order.placed', 'order', 'b', NULL)"#;

#[tokio::test]
async fn a_key_behind_a_dead_letter_names_it_and_the_way_out() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let client = make(&fixture, HELD, 3).await;
    let text = done(&toml, &["why", "order/a/1"]).await;
    assert!(text.starts_with("order/a/1 waits for letter 1; 2 events wait behind it\n"), "{text}");
    assert!(text.contains("\nletter 1 is dead since 20") && text.contains("tried once"), "{text}");
    assert!(text.contains("\nsubject_outside_prefix: subject \"no subject\" "), "{text}");
    let first = "\nfirst: let [route] subject begin as the event's subject does, or edit";
    assert!(text.contains(first), "{text}");
    assert!(text.contains("\nnext: postrider dlq redrive 1\n"), "{text}");
    let report = json(&toml, &["why", "order/a/1"]).await;
    assert_eq!((&report["waits"], &report["letter"]["behind"]), (&json!(true), &json!(2)));
    assert_eq!(report["next"], "postrider dlq redrive 1");
    assert_eq!(done(&toml, &["why", "order/b"]).await, "nothing of order/b waits\n");
    assert_eq!(done(&toml, &["why", "order/c"]).await, "nothing of order/c waits\n");

    // No relay runs, so the redriven letter waits for one.
    done(&toml, &["dlq", "redrive", "1"]).await;
    let text = done(&toml, &["why", "order/a/1"]).await;
    assert!(
        text.contains("letter 1 is due to be tried again, not tried since its redrive\n"),
        "{text}"
    );
    assert!(text.ends_with("no relay runs\nnext: postrider run\n"), "{text}");

    let later = r#"UPDATE "postrider".letter SET next_attempt_at = now() + interval '1 hour',
        attempts = 3 WHERE id = 1"#;
    client.batch_execute(later).await.unwrap();
    let text = done(&toml, &["why", "order/a/1"]).await;
    assert!(text.contains("letter 1 is tried again in 3"), "{text}");
    assert!(text.contains(" s, tried 3 times, last at 20"), "{text}");
}

/// Former defect: the advice was a redrive, after which the letter died again at once.
#[tokio::test]
async fn a_letter_that_can_never_be_published_is_to_be_edited_and_a_redrive_refuses_it() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let hopeless = r#"INSERT INTO "postrider".outbox
            (event_type, aggregate_type, aggregate_id, headers)
        VALUES ('order.placed', 'order', 'a', '{"Nats-TTL": "1"}')"#;
    let client = make(&fixture, hopeless, 1).await;
    let text = done(&toml, &["why", "order/a"]).await;
    let expected = "next: postrider dlq edit 1\n   or: postrider dlq show 1, discard 1\n";
    assert!(text.ends_with(expected) && !text.contains("first: "), "{text}");
    let (code, stderr) = refused(&toml, &["dlq", "redrive", "1"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("can never be published as it is (reserved_header)"), "{stderr}");
    let bulk = daemon::run(&toml, &["dlq", "redrive", "--all", "--yes"]).await;
    assert_eq!((bulk.code, bulk.stdout.as_str()), (Some(0), "no dead letters\n"), "{bulk:?}");
    assert!(bulk.stderr.starts_with("1 dead letter left alone"), "{bulk:?}");
    let untouched = r#"SELECT count(*) FROM "postrider".letter WHERE state = 'dead'"#;
    assert_eq!(number(&client, untouched).await, 1);

    // After the edit the letter can be published, so a redrive is the advice.
    let edit = ["dlq", "edit", "1", "--remove-header", "Nats-TTL", "--reason", "a test"];
    done(&toml, &edit).await;
    assert!(done(&toml, &["why", "order/a"]).await.contains("next: postrider dlq redrive 1\n"));
    assert_eq!(done(&toml, &["dlq", "redrive", "1"]).await, "redriven 1 dead letter\n");
}

#[tokio::test]
async fn a_letter_that_was_passed_over_holds_nobody() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let client = fixture.connect().await;
    client.batch_execute(HELD).await.unwrap();
    let mut daemon =
        fixture.daemon().allow_log("became a dead letter").set("route.on_dead", "skip").start();
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.kill9();
    let text = done(&toml, &["why", "order/a/1"]).await;
    assert!(text.starts_with("order/a/1 goes on; letter 1 was passed over"), "{text}");
    assert_eq!(json(&toml, &["why", "order/a/1"]).await["waits"], false);
}

#[tokio::test]
async fn rows_that_are_not_settled_are_counted_for_their_key_alone() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let client = fixture.connect().await;
    app::insert_backlog(&client, 30, 3).await;
    // Some events wait before the relay's first start, and later one waits in a late transaction.
    let text = done(&toml, &["why", "load/1"]).await;
    let expected = "10 events of load/1 not settled in the outbox, the oldest ";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.ends_with("nothing is published: no relay runs\nnext: postrider run\n"), "{text}");

    let mut other = fixture.connect().await;
    let late = other.transaction().await.unwrap();
    app::emit(&late, "load.made", Some(("load", "1")), "{}").await;
    let mut daemon = fixture.daemon().start();
    fixture.wait_stored(30, DEADLINE).await;
    app::insert_backlog(&client, 3, 3).await;
    fixture.wait_stored(33, DEADLINE).await;
    eventually("nothing that waits", DEADLINE, async || {
        json(&toml, &["why", "load/1"]).await["waits"] == false
    })
    .await;
    daemon.kill9();
    late.commit().await.unwrap();
    app::insert_backlog(&client, 6, 3).await;
    let report = json(&toml, &["why", "load/1"]).await;
    assert_eq!((&report["pending"], &report["pending_is_exact"]), (&json!(3), &json!(true)));
    assert_eq!(json(&toml, &["why", "load/0"]).await["pending"], 2);
}

#[tokio::test]
async fn a_relay_that_is_blocked_says_what_blocks_it() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let client = fixture.connect().await;
    let _daemon = fixture.daemon().set("stream.create", false).allow_log("does not exist").start();
    app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    let text = eventually("a note of the relay", DEADLINE, async || {
        let text = done(&toml, &["why", "order/o-1"]).await;
        text.contains("just now nothing is published: misconfigured: ").then_some(text)
    })
    .await;
    assert!(text.starts_with("1 event of order/o-1 not settled in the outbox"), "{text}");
    assert!(
        text.contains("\nnext: create it, or let postrider do so with [stream] create = true"),
        "{text}"
    );
    let report = json(&toml, &["why", "order/o-1"]).await;
    assert!(report["blocked"].as_str().is_some_and(|text| text.contains(&fixture.stream)));
}
