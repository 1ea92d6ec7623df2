//! Makes letters with the real relay, and runs an operator's commands on them.

use serde_json::Value;
use tokio_postgres::Client;

use super::{
    DEADLINE, Fixture,
    daemon::{self, Finished},
    eventually,
    toml::Toml,
};

/// Inserts rows on keys of their own that can never be published. Each becomes a dead letter and
/// blocks its key.
pub(crate) const POISON: &str = r#"INSERT INTO "postrider".outbox
    (event_type, aggregate_type, aggregate_id, subject, payload)
    SELECT 'order.placed', 'order', 'o-' || n, 'no subject', json_build_object('n', n)
    FROM generate_series(1, $1::bigint) AS n"#;

/// A database with letters, and the configuration of an operator who works on them with the
/// commands.
pub(crate) struct Letters {
    pub(crate) client: Client,
    toml: Toml,
}

impl Letters {
    /// Runs statements, and runs the relay until their rows have become `count` letters. The relay
    /// is stopped then.
    pub(crate) async fn make(fixture: &Fixture, statements: &str, count: i64) -> Self {
        Self { client: make(fixture, statements, count).await, toml: fixture.toml() }
    }

    /// Makes `count` dead letters on as many keys. The relay is stopped.
    pub(crate) async fn dead(fixture: &Fixture, count: i64) -> Self {
        Self { client: dead(fixture, count).await, toml: fixture.toml() }
    }

    /// Replaces the operator's configuration.
    pub(crate) fn with(self, toml: Toml) -> Self {
        Self { toml, ..self }
    }

    /// Runs a command with [`done`].
    pub(crate) async fn done(&self, args: &[&str]) -> String {
        done(&self.toml, args).await
    }

    /// Runs a command with [`json`].
    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        json(&self.toml, args).await
    }

    /// Runs a command with [`refused`].
    pub(crate) async fn refused(&self, args: &[&str]) -> (Option<i32>, String) {
        refused(&self.toml, args).await
    }

    /// Runs a command, and accepts any exit code.
    pub(crate) async fn run(&self, args: &[&str]) -> Finished {
        daemon::run(&self.toml, args).await
    }

    /// Output of `dlq show` about a letter.
    pub(crate) async fn show(&self, id: &str) -> String {
        self.done(&["dlq", "show", id]).await
    }

    /// Output of `dlq show --json` about a letter.
    pub(crate) async fn show_json(&self, id: &str) -> Value {
        self.json(&["dlq", "show", id]).await
    }

    /// Runs `dlq redrive`. Returns its output.
    pub(crate) async fn redrive(&self, args: &[&str]) -> String {
        self.done(&[&["dlq", "redrive"], args].concat()).await
    }

    /// Runs `dlq discard` with the reason "a test". Returns its output.
    pub(crate) async fn discard(&self, args: &[&str]) -> String {
        self.done(&[&["dlq", "discard", "--reason", "a test"], args].concat()).await
    }

    /// Runs `dlq edit` with the reason "a test". Returns its output.
    pub(crate) async fn edit(&self, id: &str, args: &[&str]) -> String {
        self.done(&[&["dlq", "edit", id, "--reason", "a test"], args].concat()).await
    }

    /// Runs `dlq edit` and asserts that it fails. Returns its exit code and error output.
    pub(crate) async fn edit_refused(&self, id: &str, args: &[&str]) -> (Option<i32>, String) {
        self.refused(&[&["dlq", "edit", id, "--reason", "a test"], args].concat()).await
    }

    /// Number that a statement returns, by [`number`].
    pub(crate) async fn number(&self, statement: &str) -> i64 {
        number(&self.client, statement).await
    }

    /// Text that a statement returns, by [`text`].
    pub(crate) async fn text(&self, statement: &str) -> String {
        text(&self.client, statement).await
    }

    /// All letters and the number of audit records, by [`everything`].
    pub(crate) async fn everything(&self) -> String {
        everything(&self.client).await
    }
}

/// Runs statements, and runs the relay until their rows have become this many letters. Returns a
/// session.
pub(crate) async fn make(fixture: &Fixture, statements: &str, letters: i64) -> Client {
    let client = fixture.connect().await;
    client.batch_execute(statements).await.unwrap();
    relay(fixture, &client, letters).await;
    client
}

/// Makes `count` dead letters on as many keys, and stops the relay. Returns a session.
pub(crate) async fn dead(fixture: &Fixture, count: i64) -> Client {
    let client = fixture.connect().await;
    client.execute(POISON, &[&count]).await.unwrap();
    relay(fixture, &client, count).await;
    client
}

/// Runs the relay until this many letters exist and nothing is pending, and then kills it.
pub(crate) async fn relay(fixture: &Fixture, client: &Client, letters: i64) {
    let mut daemon = fixture.daemon().allow_log("became a dead letter").start();
    eventually(format!("{letters} letters"), DEADLINE, async || {
        number(client, r#"SELECT count(*) FROM "postrider".letter"#).await == letters
    })
    .await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.kill9();
}

/// First column of the one row that a statement returns, as a number.
pub(crate) async fn number(client: &Client, statement: &str) -> i64 {
    client.query_one(statement, &[]).await.unwrap().get(0)
}

/// First column of the one row that a statement returns, as a text.
pub(crate) async fn text(client: &Client, statement: &str) -> String {
    client.query_one(statement, &[]).await.unwrap().get(0)
}

/// All letters and the number of audit records as one text, to compare the state before and after a
/// command.
pub(crate) async fn everything(client: &Client) -> String {
    let statement = r#"SELECT coalesce(string_agg(l::text, E'\n' ORDER BY l.id), '')
        || (SELECT count(*) FROM "postrider".audit) FROM "postrider".letter AS l"#;
    text(client, statement).await
}

/// Runs a command, and asserts that it exits with 0 and an empty error output. Returns its output.
pub(crate) async fn done(toml: &Toml, args: &[&str]) -> String {
    let finished = daemon::run(toml, args).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{args:?} {finished:?}");
    finished.stdout
}

/// Runs a command with `--json` that has to succeed. Returns its output as JSON.
pub(crate) async fn json(toml: &Toml, args: &[&str]) -> Value {
    serde_json::from_str(&done(toml, &[args, &["--json"]].concat()).await).unwrap()
}

/// Runs a command, and asserts that it fails. Returns its exit code and error output.
pub(crate) async fn refused(toml: &Toml, args: &[&str]) -> (Option<i32>, String) {
    let Finished { code, stderr, .. } = daemon::run(toml, args).await;
    assert_ne!(code, Some(0), "{args:?} {stderr}");
    (code, stderr)
}
