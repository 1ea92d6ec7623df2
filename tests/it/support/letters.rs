//! Letters that the real relay has made, and the operator's commands about them.

use serde_json::Value;
use tokio_postgres::Client;

use super::{
    DEADLINE, Fixture,
    daemon::{self, Finished},
    eventually,
    toml::Toml,
};

/// Inserts a poison row and followers: an event of this type, dead at once, that holds its key.
pub(crate) const POISON: &str = r#"INSERT INTO "postrider".outbox
    (event_type, aggregate_type, aggregate_id, subject, payload)
    SELECT 'order.placed', 'order', 'o-' || n, 'no subject', json_build_object('n', n)
    FROM generate_series(1, $1::bigint) AS n"#;

/// Runs statements, has the relay make `letters` letters of what they insert, and stops it.
pub(crate) async fn make(fixture: &Fixture, statements: &str, letters: i64) -> Client {
    let client = fixture.connect().await;
    client.batch_execute(statements).await.unwrap();
    relay(fixture, &client, letters).await;
    client
}

/// `count` dead letters of as many keys; the relay is stopped.
pub(crate) async fn dead(fixture: &Fixture, count: i64) -> Client {
    let client = fixture.connect().await;
    client.execute(POISON, &[&count]).await.unwrap();
    relay(fixture, &client, count).await;
    client
}

/// Runs the relay until there are so many letters and nothing is pending.
pub(crate) async fn relay(fixture: &Fixture, client: &Client, letters: i64) {
    let mut daemon = fixture.daemon().allow_log("became a dead letter").start();
    eventually(format!("{letters} letters"), DEADLINE, async || {
        number(client, r#"SELECT count(*) FROM "postrider".letter"#).await == letters
    })
    .await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.kill9();
}

/// The one number that a statement gives.
pub(crate) async fn number(client: &Client, statement: &str) -> i64 {
    client.query_one(statement, &[]).await.unwrap().get(0)
}

/// The one text that a statement gives.
pub(crate) async fn text(client: &Client, statement: &str) -> String {
    client.query_one(statement, &[]).await.unwrap().get(0)
}

/// Everything that a command might change, to be compared.
pub(crate) async fn everything(client: &Client) -> String {
    let statement = r#"SELECT coalesce(string_agg(l::text, E'\n' ORDER BY l.id), '')
        || (SELECT count(*) FROM "postrider".audit) FROM "postrider".letter AS l"#;
    text(client, statement).await
}

/// A command that ends well; what it printed.
pub(crate) async fn done(toml: &Toml, args: &[&str]) -> String {
    let finished = daemon::run(toml, args).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{args:?} {finished:?}");
    finished.stdout
}

/// The same with `--json`.
pub(crate) async fn json(toml: &Toml, args: &[&str]) -> Value {
    serde_json::from_str(&done(toml, &[args, &["--json"]].concat()).await).unwrap()
}

/// A command that does not do its work; its exit code and what it complained of.
pub(crate) async fn refused(toml: &Toml, args: &[&str]) -> (Option<i32>, String) {
    let Finished { code, stderr, .. } = daemon::run(toml, args).await;
    assert_ne!(code, Some(0), "{args:?} {stderr}");
    (code, stderr)
}
