//! Tests of the throwaway PgBouncer that other tests use, with an application that works through
//! it.

use std::{collections::HashSet, future::Future, time::Duration};

use postrider::dev::servers::{Pgbouncer, PgbouncerOptions, PoolMode};
use tokio_postgres::{Client, SimpleQueryMessage, types::Type};

use crate::support::{DEADLINE, Fixture, eventually, postgres};

/// First column of the first row of a statement, by the simple protocol, as psql sends it.
async fn ask(client: &Client, statement: &str) -> Result<String, tokio_postgres::Error> {
    let messages = client.simple_query(statement).await?;
    let first = messages.iter().find_map(|message| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        row.get(0).map(str::to_owned)
    });
    Ok(first.unwrap_or_default())
}

/// Commits a transaction of an application: a row in its own table and an event. Returns the
/// process id of the backend.
async fn place_order(client: &mut Client, n: i32) -> String {
    let order = format!("o-{n}");
    let transaction = client.transaction().await.unwrap();
    // The query is sent with types and without a name, because a named statement could be missing
    // in the next session that the pooler lends.
    let insert = "INSERT INTO orders VALUES ($1)";
    transaction.query_typed(insert, &[(&n, Type::INT4)]).await.unwrap();
    let emit = r#"SELECT "postrider".emit('order.placed', '{"n": 1}'::json, 'order', $1)"#;
    transaction.query_typed(emit, &[(&order, Type::TEXT)]).await.unwrap();
    let pid = transaction.query_typed("SELECT pg_backend_pid()::text", &[]).await.unwrap();
    transaction.commit().await.unwrap();
    pid.first().unwrap().get(0)
}

async fn with_orders(options: PgbouncerOptions) -> (Fixture, Pgbouncer) {
    let fixture = Fixture::new().await;
    fixture.connect().await.batch_execute("CREATE TABLE orders (n int)").await.unwrap();
    let pooler = fixture.pooler(options).await;
    (fixture, pooler)
}

async fn count(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

/// Result of a future that must not complete before `turned` has completed. A statement that a
/// pause holds up is an example.
async fn not_before<T>(work: impl Future<Output = T>, turned: impl AsyncFnOnce()) -> T {
    let mut work = Box::pin(work);
    tokio::select! { biased;
        _ = &mut work => panic!("it did not wait"),
        () = turned() => {}
    }
    tokio::time::timeout(DEADLINE, work).await.expect("an end")
}

#[tokio::test]
async fn two_clients_share_one_session_in_transaction_mode() {
    let options = PgbouncerOptions { pool_size: 1, ..PgbouncerOptions::default() };
    let (fixture, pooler) = with_orders(options).await;
    let url = pooler.url(&fixture.database);
    let (mut one, mut other) = (postgres::connect(&url).await, postgres::connect(&url).await);
    let mut pids = HashSet::new();
    for n in 0..10 {
        pids.insert(place_order(&mut one, n).await);
        pids.insert(place_order(&mut other, n).await);
    }
    assert_eq!(pids.len(), 1, "{pids:?}");
    // A setting that one client changes is there for the other client, because both share the
    // session.
    ask(&one, "SET application_name = 'left_behind'").await.unwrap();
    ask(&one, "SET work_mem = '123kB'").await.unwrap();
    assert_eq!(ask(&other, "SHOW work_mem").await.unwrap(), "123kB");

    let direct = fixture.connect().await;
    assert_eq!(count(&direct, "orders").await, 20);
    assert_eq!(count(&direct, "postrider.outbox").await, 20);
    let servers = pooler.servers().await.unwrap();
    let ours: Vec<_> =
        servers.iter().filter(|server| server["database"] == fixture.database).collect();
    assert_eq!(ours.len(), 1, "{servers:?}");
    assert!(pids.contains(&ours[0]["remote_pid"]), "{servers:?}");
}

#[tokio::test]
async fn a_session_belongs_to_one_client_in_session_mode() {
    let options = PgbouncerOptions { pool_mode: PoolMode::Session, ..PgbouncerOptions::default() };
    let (fixture, pooler) = with_orders(options).await;
    let url = pooler.url(&fixture.database);
    let (mut one, mut other) = (postgres::connect(&url).await, postgres::connect(&url).await);
    let (first, second) = (place_order(&mut one, 1).await, place_order(&mut other, 1).await);
    assert_ne!(first, second);
    assert_eq!(place_order(&mut one, 2).await, first);
    // The two sessions are in use, so a third client waits until one of the others disconnects.
    let mut third = postgres::connect(&url).await;
    let pid = not_before(place_order(&mut third, 3), async || {
        eventually("a waiting client", DEADLINE, async || {
            pooler.pools().await.unwrap().iter().any(|pool| pool["cl_waiting"] == "1")
        })
        .await;
        drop(one);
    })
    .await;
    assert_eq!(pid, first);
}

#[tokio::test]
async fn a_pause_makes_clients_wait_and_a_reconnect_gives_them_another_session() {
    let options = PgbouncerOptions { pool_size: 1, ..PgbouncerOptions::default() };
    let (fixture, pooler) = with_orders(options).await;
    let mut client = postgres::connect(&pooler.url(&fixture.database)).await;
    let first = place_order(&mut client, 1).await;

    pooler.reconnect().await.unwrap();
    let second = eventually("another session", DEADLINE, async || {
        Some(place_order(&mut client, 2).await).filter(|pid| *pid != first)
    })
    .await;

    pooler.pause(&fixture.database).await.unwrap();
    let third = not_before(place_order(&mut client, 3), async || {
        eventually("a waiting client", DEADLINE, async || {
            pooler.pools().await.unwrap().iter().any(|pool| pool["cl_waiting"] == "1")
        })
        .await;
        pooler.resume(&fixture.database).await.unwrap();
    })
    .await;
    assert_ne!(third, second);
}

#[tokio::test]
async fn a_kill_cuts_an_open_transaction_and_nothing_of_it_stays() {
    let (fixture, pooler) = with_orders(PgbouncerOptions::default()).await;
    let url = pooler.url(&fixture.database);
    let client = postgres::connect(&url).await;
    ask(&client, "BEGIN").await.unwrap();
    ask(&client, "INSERT INTO orders VALUES (1)").await.unwrap();
    pooler.kill_sessions(&fixture.database).await.unwrap();
    assert!(ask(&client, "COMMIT").await.is_err());
    pooler.resume(&fixture.database).await.unwrap();

    let mut client = postgres::connect(&url).await;
    place_order(&mut client, 2).await;
    let direct = fixture.connect().await;
    assert_eq!(count(&direct, "orders").await, 1);
    assert_eq!(count(&direct, "postrider.outbox").await, 1);
}

#[tokio::test]
async fn a_pooler_that_was_killed_comes_back_on_its_port_with_new_options() {
    let (fixture, mut pooler) = with_orders(PgbouncerOptions::default()).await;
    let port = pooler.port();
    let url = pooler.url(&fixture.database);
    let mut client = postgres::connect(&url).await;
    place_order(&mut client, 1).await;
    pooler.kill9().unwrap();
    assert!(ask(&client, "SELECT 1").await.is_err());
    pooler.options_mut().users = vec![("postgres".to_owned(), "s3cret".to_owned())];
    pooler.start_again().await.unwrap();
    assert_eq!(pooler.port(), port);

    // The pooler asks for a password now, so the URL without one is refused.
    assert!(tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_err());
    let mut client = postgres::connect(&pooler.url(&fixture.database)).await;
    place_order(&mut client, 2).await;

    pooler.freeze().unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(200), ask(&client, "SELECT 1"));
    assert!(answer.await.is_err(), "a frozen pooler answered");
    pooler.thaw().unwrap();
    place_order(&mut client, 3).await;
}
