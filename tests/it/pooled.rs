//! Tests of a relay behind a connection pooler that lends sessions for one transaction each. An
//! application uses the same pool.

use std::{collections::BTreeMap, time::Duration};

use postrider::dev::servers::{Pgbouncer, PgbouncerOptions};
use tokio_postgres::{Client, SimpleQueryMessage, types::Type};

use super::support::{
    DEADLINE, Fixture, app,
    audit::steady,
    daemon::{DaemonBuilder, run},
    let_pass, postgres,
    stopwatch::Stopwatch,
};

fn pool() -> PgbouncerOptions {
    PgbouncerOptions { pool_size: 3, ..PgbouncerOptions::default() }
}

fn daemon(fixture: &Fixture, pooler: &Pgbouncer) -> DaemonBuilder {
    fixture
        .daemon()
        .set("database.url", pooler.url(&fixture.database))
        .set("relay.lease", "3s")
        .allow_log("the relay stopped leading")
        .allow_log("waiting for Postgres")
}

/// All settings of the session that the pooler lends now. Settings that the pooler itself or the
/// application's first function call changes are left out.
async fn settings(client: &Client) -> BTreeMap<String, String> {
    let asked = "SELECT name, setting FROM pg_settings WHERE name <> 'application_name'
        AND name NOT LIKE 'plpgsql.%'";
    let rows = client.simple_query(asked).await.unwrap();
    rows.iter()
        .filter_map(|message| {
            let SimpleQueryMessage::Row(row) = message else { return None };
            Some((row.get(0)?.to_owned(), row.get(1)?.to_owned()))
        })
        .collect()
}

/// Asserts that all settings are the same, and prints only those that differ.
fn assert_same(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>, when: &str) {
    let names = before.keys().chain(now.keys());
    let differs = |name: &&String| before.get(*name) != now.get(*name);
    let different: Vec<_> = names.filter(differs).map(|name| (name, now.get(name))).collect();
    assert!(different.is_empty(), "{when}: {different:?}");
}

/// Commits an application's transaction: a row in its own table, named without a schema, and an
/// event.
async fn place_order(client: &mut Client, n: i32) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.query_typed("INSERT INTO orders VALUES ($1)", &[(&n, Type::INT4)]).await?;
    let emit = r#"SELECT "postrider".emit('order.placed', '{"n": 1}'::json, 'order', $1)"#;
    transaction.query_typed(emit, &[(&(n % 7).to_string(), Type::TEXT)]).await?;
    transaction.commit().await
}

/// Former defect: the relay's settings stayed in the sessions that the application got next. All 60
/// transactions of the application failed with `relation "orders" does not exist`.
#[tokio::test]
async fn an_application_in_the_same_pool_notices_nothing_of_the_relay() {
    let fixture = Fixture::new().await;
    let direct = fixture.connect().await;
    direct.batch_execute("CREATE TABLE orders (n int)").await.unwrap();
    let pooler = fixture.pooler(pool()).await;
    let mut client = postgres::connect(&pooler.url(&fixture.database)).await;
    let before = settings(&client).await;

    let mut daemon = daemon(&fixture, &pooler).start();
    daemon.wait_log("relaying", DEADLINE).await;
    for n in 0..60 {
        place_order(&mut client, n).await.unwrap();
        assert_same(&before, &settings(&client).await, &format!("beside the relay, order {n}"));
    }
    fixture.wait_stored(60, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.stop().await;
    assert_same(&before, &settings(&client).await, "after the relay");
    // No session of the pool has a prepared statement of the relay left.
    let prepared = "SELECT statement FROM pg_prepared_statements";
    let left = client.query_typed(prepared, &[]).await.unwrap();
    let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
    assert!(left.is_empty(), "statements that the relay has left: {left:?}");
    let stored = fixture.read_stream().await;
    assert_eq!(stored.len(), 60);
}

/// Former defect: behind a pooler two instances shared a session and so could take the same lock,
/// and both led. Or neither led.
#[tokio::test]
async fn one_of_two_leads_through_a_pool_and_the_other_takes_over() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let pooler = fixture.pooler(pool()).await;
    let mut first = daemon(&fixture, &pooler).start();
    first.wait_log("relaying", DEADLINE).await;
    let mut second = daemon(&fixture, &pooler).start();
    second.wait_log("another instance leads this relay", DEADLINE).await;
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(10, DEADLINE).await;

    first.kill9();
    let watch = Stopwatch::start();
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(20, DEADLINE).await;
    let took = watch.stop();
    assert!(took < Duration::from_secs(5), "took over after {took:?}");
    second.stop().await;
    assert_eq!(fixture.read_stream().await.len(), 20);
}

#[tokio::test]
async fn status_check_and_the_commands_work_through_a_pool_and_say_so() {
    let fixture = Fixture::new().await;
    let pooler = fixture.pooler(pool()).await;
    let mut daemon = daemon(&fixture, &pooler).start();
    daemon.wait_log("relaying", DEADLINE).await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(10, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);

    let toml = fixture.toml().set("database.url", pooler.url(&fixture.database));
    let status = run(&toml, &["status"]).await;
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    assert!(status.stdout.contains("through a connection pooler"), "{}", status.stdout);
    let check = run(&toml, &["check"]).await;
    assert_eq!(check.code, Some(0), "{}{}", check.stdout, check.stderr);
    assert!(check.stdout.contains("a connection pooler"), "{}", check.stdout);
    for command in
        [&["audit"][..], &["dlq", "list"], &["why", "load/1"], &["reconcile", "--dry-run"]]
    {
        let done = run(&toml, command).await;
        assert_eq!(done.code, Some(0), "{command:?}: {}{}", done.stdout, done.stderr);
    }
    let migrate = run(&toml, &["migrate"]).await;
    assert_eq!(migrate.code, Some(78), "{}", migrate.stderr);
    assert!(migrate.stderr.contains("connection pooler"), "{}", migrate.stderr);
}

/// Through a pooler a few sessions serve any number of clients, so a low limit of sessions must not
/// prevent a start.
#[tokio::test]
async fn a_limit_of_sessions_that_a_pool_keeps_within_is_no_obstacle() {
    let fixture = Fixture::new().await;
    let role = format!("{}_relay", fixture.database);
    let create = format!("CREATE ROLE {role} LOGIN IN ROLE postrider_relay CONNECTION LIMIT 2");
    fixture.connect().await.batch_execute(&create).await.unwrap();
    let users = vec![(role.clone(), String::new())];
    let pooler = fixture.pooler(PgbouncerOptions { users, ..PgbouncerOptions::default() }).await;
    let url = pooler.url_as(&role, &fixture.database);
    let check = run(&fixture.toml().set("database.url", url.as_str()), &["check"]).await;
    assert_eq!(check.code, Some(0), "{check:?}");
    // The pool has only two sessions, so the lease may be renewed late, and the log may warn of it.
    let mut daemon = fixture
        .daemon()
        .set("database.url", url)
        .allow_log("publishing pauses until postgres confirms the lease")
        .start();
    daemon.wait_log("relaying", DEADLINE).await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(10, DEADLINE).await;
}

/// The pooler gets the commands RECONNECT, KILL and PAUSE over and over, and no event is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_reconnects_kills_and_pauses_costs_nothing() {
    let mut fixture = Fixture::new().await;
    let pooler = fixture.pooler(pool()).await;
    let mut daemon = daemon(&fixture, &pooler).allow_log("could not").start();
    daemon.wait_log("relaying", DEADLINE).await;

    let strikes = async |fixture: &mut Fixture| {
        for strike in 0..6 {
            let_pass(Duration::from_millis(400)).await;
            match strike % 3 {
                0 => pooler.reconnect().await.unwrap(),
                1 => {
                    pooler.kill_sessions(&fixture.database).await.unwrap();
                    pooler.resume(&fixture.database).await.unwrap();
                }
                _ => {
                    pooler.pause(&fixture.database).await.unwrap();
                    let_pass(Duration::from_millis(300)).await;
                    pooler.resume(&fixture.database).await.unwrap();
                }
            }
        }
    };
    fixture.under_load(steady(500, 50), strikes).await;

    // Each KILL ended the relay's session, so the relay has become the leader more than once.
    let client = fixture.connect().await;
    let term = r#"SELECT term FROM "postrider".position"#;
    let term: i64 = client.query_one(term, &[]).await.unwrap().get(0);
    assert!(term >= 2, "two kills, and only {term} term");
    let stored = fixture.read_stream().await.len() as u64;
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(stored + 10, DEADLINE).await;
}
