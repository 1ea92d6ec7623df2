//! Tests of bad input from applications. Each bad input of `docs/bad-input.md` has its tests.
//!
//! A bad row is inserted by a plain INSERT, beside good rows of the same transaction. The row
//! becomes a dead letter with the code on the page, or is published as the page says. All other
//! rows are published.

mod columns;
mod configuration;
mod database;
mod headers;
mod large;
mod payloads;
mod subjects;
mod tables;
mod texts;

use std::{collections::BTreeSet, fmt::Write as _};

use tokio_postgres::{Client, GenericClient, error::SqlState, types::ToSql};
use uuid::Uuid;

use super::support::{
    DEADLINE, Fixture,
    app::StoredMessage,
    daemon::{Daemon, DaemonBuilder},
};

/// Row of the outbox as SQL expressions by column. It is inserted without any function that would
/// check it.
#[derive(Clone)]
struct Row {
    columns: Vec<(&'static str, String)>,
}

impl Row {
    /// Makes a good row, whose columns [`with`](Self::with) can change.
    fn new() -> Self {
        let columns = [
            ("event_type", "'order.placed'"),
            ("aggregate_type", "'order'"),
            ("aggregate_id", "'bad'"),
            ("payload", "'{}'"),
        ];
        Self { columns: columns.map(|(name, value)| (name, value.to_owned())).to_vec() }
    }

    /// Sets a column to the value of an SQL expression.
    fn with(mut self, column: &'static str, expression: impl Into<String>) -> Self {
        self.columns.retain(|(name, _)| *name != column);
        self.columns.push((column, expression.into()));
        self
    }

    /// Sets a column to a text, which may contain any characters but NUL.
    fn text(self, column: &'static str, text: &str) -> Self {
        self.with(column, quoted(text))
    }

    async fn insert(&self, client: &impl GenericClient) -> Uuid {
        let (names, values): (Vec<&str>, Vec<&str>) =
            self.columns.iter().map(|(name, value)| (*name, value.as_str())).unzip();
        let statement = format!(
            "INSERT INTO postrider.outbox ({}) VALUES ({}) RETURNING event_id",
            names.join(", "),
            values.join(", ")
        );
        let inserted = client.query_one(&statement, &[]).await;
        inserted.unwrap_or_else(|error| panic!("{}: {error}", shortened(&statement))).get(0)
    }
}

/// Quotes a text as an SQL constant. The text must not contain NUL.
fn quoted(text: &str) -> String {
    let mut constant = String::from("E'");
    for c in text.chars() {
        match c {
            '\'' | '\\' => constant.extend(['\\', c]),
            c if c.is_ascii_control() => write!(constant, "\\x{:02x}", u32::from(c)).unwrap(),
            c => constant.push(c),
        }
    }
    constant + "'"
}

fn shortened(text: &str) -> String {
    text.chars().take(300).collect()
}

/// Letter of an event: its state, code and error as the table has them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Letter {
    state: String,
    code: String,
    error: String,
}

async fn letter(client: &Client, id: Uuid) -> Option<Letter> {
    let statement = "SELECT state, error_code, error FROM postrider.letter WHERE event_id = $1";
    let row = client.query_opt(statement, &[&id]).await.unwrap()?;
    Some(Letter { state: row.get(0), code: row.get(1), error: row.get(2) })
}

/// A database, a stream, and the running program on both.
struct Scene {
    // The daemon is dropped first, because it would log complaints when its servers end.
    daemon: Daemon,
    client: Client,
    fixture: Fixture,
    /// Number of bad rows inserted so far. Each gets a key of its own.
    bad: usize,
}

impl Scene {
    async fn new() -> Self {
        Self::on(Fixture::new().await, |daemon| daemon).await
    }

    async fn with(change: impl FnOnce(DaemonBuilder) -> DaemonBuilder) -> Self {
        Self::on(Fixture::new().await, change).await
    }

    async fn on(fixture: Fixture, change: impl FnOnce(DaemonBuilder) -> DaemonBuilder) -> Self {
        let client = fixture.connect().await;
        let daemon = fixture.daemon().allow_log("became a dead letter");
        let daemon = change(daemon).start();
        Self { daemon, client, fixture, bad: 0 }
    }

    /// Inserts each row between good ones, in one transaction, and returns the letters of the rows.
    /// Asserts that each row becomes a dead letter with its code, and that the next event of its
    /// key is held. Asserts also that the good rows are published, and that the program still
    /// publishes later.
    async fn refuses(&mut self, rows: Vec<(Row, &str)>) -> Vec<Letter> {
        let mut good = BTreeSet::new();
        let mut bad = Vec::new();
        let transaction = self.client.transaction().await.unwrap();
        for (n, (row, code)) in rows.into_iter().enumerate() {
            let neighbour = Row::new().text("aggregate_id", &format!("good-{n}"));
            good.insert(neighbour.insert(&transaction).await);
            // Each bad row gets a key of its own, so that none waits behind another.
            let has_key = !row.columns.contains(&("aggregate_id", "'bad'".to_owned()));
            let row = if has_key {
                row
            } else {
                row.text("aggregate_id", &format!("bad-{:06}", self.bad + n))
            };
            let id = row.insert(&transaction).await;
            let follower = Row::new().key_of(&row).insert(&transaction).await;
            good.insert(neighbour.insert(&transaction).await);
            let loose = Row::new().with("aggregate_type", "NULL").with("aggregate_id", "NULL");
            good.insert(loose.insert(&transaction).await);
            bad.push((row, id, code, follower));
        }
        transaction.commit().await.unwrap();
        self.bad += bad.len();
        let before = self.settle().await;
        let mut letters = Vec::new();
        for (row, id, code, follower) in bad {
            let found = letter(&self.client, id).await;
            let found = found.unwrap_or_else(|| panic!("no letter: {:?}", row.columns));
            let shown = shortened(&format!("{:?}", row.columns));
            assert_eq!((found.state.as_str(), found.code.as_str()), ("dead", code), "{shown}");
            let held = letter(&self.client, follower).await.map(|letter| letter.state);
            if row.is_keyed() {
                assert!(matches!(held.as_deref(), Some("held" | "dead")), "{held:?} {shown}");
            } else {
                good.insert(follower);
            }
            letters.push(found);
        }
        let stored: BTreeSet<Uuid> = before.iter().map(StoredMessage::id).collect();
        assert!(good.is_subset(&stored), "a neighbour is missing");
        self.goes_on().await;
        letters
    }

    /// Inserts each row between good ones, and asserts that all of them are published once, under
    /// their ids. Returns the messages of the rows.
    async fn publishes(&mut self, rows: Vec<Row>) -> Vec<StoredMessage> {
        let mut ids = Vec::new();
        let transaction = self.client.transaction().await.unwrap();
        let neighbour = Row::new().text("aggregate_id", "good");
        for row in rows {
            neighbour.insert(&transaction).await;
            ids.push((row.insert(&transaction).await, row));
            neighbour.insert(&transaction).await;
        }
        transaction.commit().await.unwrap();
        let stored = self.settle().await;
        let mut messages = Vec::new();
        for (id, row) in ids {
            let mut found = stored.iter().filter(|message| message.id() == id);
            let shown = shortened(&format!("{:?}", row.columns));
            let message = found.next().unwrap_or_else(|| panic!("not published: {shown}"));
            assert!(found.next().is_none(), "published twice: {shown}");
            messages.push(message.clone());
        }
        self.goes_on().await;
        messages
    }

    /// Waits until everything that is committed is settled, and then reads the stream.
    async fn settle(&mut self) -> Vec<StoredMessage> {
        assert!(self.fixture.wait_drained(DEADLINE).await, "{}", self.daemon.log());
        self.fixture.read_stream().await
    }

    /// Asserts that one more event is published, and that the log reports no end of a holding.
    async fn goes_on(&mut self) {
        self.still_publishes().await;
        assert!(!self.daemon.log().contains("the relay stopped leading"), "{}", self.daemon.log());
    }

    /// Asserts that the program publishes one more event and has not panicked.
    async fn still_publishes(&mut self) {
        let row = Row::new().text("aggregate_id", &Uuid::new_v4().to_string());
        let id = row.insert(&self.client).await;
        let stored = self.settle().await;
        assert!(stored.iter().any(|message| message.id() == id), "{}", self.daemon.log());
        assert!(!self.daemon.log().contains("panicked"), "{}", self.daemon.log());
    }

    /// Asserts that a call of `postrider.…` is refused with an error that contains `advice`.
    async fn emit_refuses(&self, call: &str, advice: &str) {
        refuses(&self.client, call, advice).await;
    }
}

impl Row {
    /// Gives the row the key of another row.
    fn key_of(self, other: &Self) -> Self {
        let mut row = self;
        for (name, value) in &other.columns {
            if name.starts_with("aggregate") {
                row = row.with(name, value.clone());
            }
        }
        row
    }

    fn is_keyed(&self) -> bool {
        self.columns.iter().any(|(name, value)| *name == "aggregate_id" && value != "NULL")
    }
}

/// Asserts that a function refuses its arguments with SQLSTATE 22023 and a text that contains
/// `advice`.
async fn refuses(client: &Client, call: &str, advice: &str) {
    let error = client.batch_execute(&format!("SELECT postrider.{call}")).await;
    let error = error.expect_err(&shortened(call));
    let error = error.as_db_error().unwrap();
    let text = format!("{} / {}", error.message(), error.hint().unwrap_or_default());
    assert_eq!(error.code(), &SqlState::INVALID_PARAMETER_VALUE, "{}: {text}", shortened(call));
    assert!(text.contains(advice), "{}: {text}", shortened(call));
}

/// First column of the one row that a statement returns.
async fn one<T>(client: &Client, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    client.query_one(statement, parameters).await.unwrap().get(0)
}

#[test]
fn every_bad_input_of_the_page_has_a_test_of_its_number_and_name() {
    let sources = [
        include_str!("columns.rs"),
        include_str!("configuration.rs"),
        include_str!("database.rs"),
        include_str!("headers.rs"),
        include_str!("large.rs"),
        include_str!("payloads.rs"),
        include_str!("subjects.rs"),
        include_str!("tables.rs"),
        include_str!("texts.rs"),
    ];
    let tests: BTreeSet<&str> = sources
        .iter()
        .flat_map(|source| source.lines())
        .filter_map(|line| line.split_once("fn b")?.1.split_once("()"))
        .map(|(name, _)| name)
        .filter(|name| name.as_bytes()[..2].iter().all(u8::is_ascii_digit))
        .collect();
    let page = include_str!("../../../docs/bad-input.md");
    for number in 1..=29 {
        let prefix = format!("{number:02}_");
        assert!(tests.iter().any(|test| test.starts_with(&prefix)), "no test b{prefix}…");
        assert!(page.contains(&format!("| B{number} |")), "B{number} is not on the page");
    }
    for test in tests {
        assert!(page.contains(&format!("`b{test}`")), "docs/bad-input.md lacks b{test}");
    }
}
