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

/// Letters that are there, and an operator who works on them with the commands.
pub(crate) struct Letters {
    pub(crate) client: Client,
    toml: Toml,
}

impl Letters {
    /// Runs statements, has the relay make `count` letters of what they insert, and stops it.
    pub(crate) async fn make(fixture: &Fixture, statements: &str, count: i64) -> Self {
        Self { client: make(fixture, statements, count).await, toml: fixture.toml() }
    }

    /// `count` dead letters of as many keys; the relay is stopped.
    pub(crate) async fn dead(fixture: &Fixture, count: i64) -> Self {
        Self { client: dead(fixture, count).await, toml: fixture.toml() }
    }

    /// The operator with another configuration.
    pub(crate) fn with(self, toml: Toml) -> Self {
        Self { toml, ..self }
    }

    /// As [`done`].
    pub(crate) async fn done(&self, args: &[&str]) -> String {
        done(&self.toml, args).await
    }

    /// As [`json`].
    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        json(&self.toml, args).await
    }

    /// As [`refused`].
    pub(crate) async fn refused(&self, args: &[&str]) -> (Option<i32>, String) {
        refused(&self.toml, args).await
    }

    /// The command, however it ends.
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

    /// Redrives letters; what the command prints.
    pub(crate) async fn redrive(&self, args: &[&str]) -> String {
        self.done(&[&["dlq", "redrive"], args].concat()).await
    }

    /// Discards letters, for "a test"; what the command prints.
    pub(crate) async fn discard(&self, args: &[&str]) -> String {
        self.done(&[&["dlq", "discard", "--reason", "a test"], args].concat()).await
    }

    /// Edits a letter, for "a test"; what the command prints.
    pub(crate) async fn edit(&self, id: &str, args: &[&str]) -> String {
        self.done(&[&["dlq", "edit", id, "--reason", "a test"], args].concat()).await
    }

    /// An edit, for "a test", that is refused; its exit code and what it complained of.
    pub(crate) async fn edit_refused(&self, id: &str, args: &[&str]) -> (Option<i32>, String) {
        self.refused(&[&["dlq", "edit", id, "--reason", "a test"], args].concat()).await
    }

    /// As [`number`].
    pub(crate) async fn number(&self, statement: &str) -> i64 {
        number(&self.client, statement).await
    }

    /// As [`text`].
    pub(crate) async fn text(&self, statement: &str) -> String {
        text(&self.client, statement).await
    }

    /// As [`everything`].
    pub(crate) async fn everything(&self) -> String {
        everything(&self.client).await
    }
}

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
