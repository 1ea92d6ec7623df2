//! Tests of the fixture that the other tests use: its database, its stream and its servers.

use crate::support::{DEADLINE, Fixture, app, nats};

async fn outbox_rows(fixture: &Fixture) -> i64 {
    let client = fixture.connect().await;
    client.query_one(r#"SELECT count(*) FROM "postrider".outbox"#, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn each_test_has_a_migrated_database_of_its_own() {
    let (one, other) = tokio::join!(Fixture::new(), Fixture::new());
    let client = one.connect().await;
    app::emit(&client, "order.placed", Some(("order", "o-1")), r#"{"n": 1}"#).await;
    app::insert_backlog(&client, 99, 10).await;
    assert_eq!(outbox_rows(&one).await, 100);
    assert_eq!(outbox_rows(&other).await, 0);
}

#[tokio::test]
async fn a_server_of_its_own_is_migrated_too_and_may_be_broken() {
    let mut fixture = Fixture::own_postgres().await;
    assert_eq!(outbox_rows(&fixture).await, 0);
    fixture.postgres.own().kill9().unwrap();
    fixture.postgres.own().start_again().await.unwrap();
    assert_eq!(outbox_rows(&fixture).await, 0);
}

#[tokio::test]
async fn the_stream_is_read_back_whole_and_in_order() {
    let fixture = Fixture::new().await;
    assert!(fixture.read_stream().await.is_empty());
    let jetstream = fixture.jetstream().await;
    nats::create_stream(&jetstream, &fixture.stream, &format!("{}.>", fixture.prefix)).await;
    assert!(fixture.read_stream().await.is_empty());
    for n in 0..500 {
        let subject = fixture.subject("load.made");
        drop(jetstream.publish(subject, format!("{{\"n\":{n}}}").into()).await.unwrap());
    }
    let messages = fixture.wait_stored(500, DEADLINE).await;
    assert_eq!(messages.len(), 500);
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(message.seq, n as u64 + 1);
        assert_eq!(message.json()["n"], n);
    }
}
