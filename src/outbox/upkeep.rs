//! Runs the statements of a relay's chores: depth, retention, checkpoints, the report for `status`.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio_postgres::{Row, types::ToSql};

use super::{Losses, depth::Measuring, row_limit::RowLimit};
use crate::{
    metrics::{Depth, Query},
    pg::{connect::Connection, error::QueryError, schema::Schema},
};

/// The tables as the chores use them, through a session of their own, off the data path.
///
/// No statement is prepared in advance: one that the server refuses to prepare would keep all
/// chores from running.
pub struct Upkeep {
    connection: Arc<Connection>,
    schema: Schema,
    relay: String,
    measuring: Measuring,
    forgetting: RowLimit,
}

/// Maximum number of letters, and of audit rows, that one statement deletes.
const FORGET_ROWS: usize = 2_000;

/// Number of rows that were deleted because of their age.
#[derive(Debug, Clone, Copy)]
pub struct Forgotten {
    /// Number of published or discarded letters that were deleted.
    pub letters: i64,
    /// Number of audit rows that were deleted.
    pub audits: i64,
    /// Whether the limit was reached, so that more old rows may be left.
    pub is_full: bool,
}

/// Result of a round of retention.
#[derive(Debug, Clone, Copy)]
pub struct Retained {
    /// Number of turns that were emptied. A turn is the pair of partitions that takes new rows at a
    /// time.
    pub emptied: i32,
    /// Upper bound for the number of deleted rows.
    pub rows_at_most: i64,
}

impl Upkeep {
    /// Runs chores through this session, which other users may share.
    pub fn new(connection: Arc<Connection>, schema: Schema, relay: String) -> Self {
        let (measuring, forgetting) = (Measuring::default(), RowLimit::default());
        Self { connection, schema, relay, measuring, forgetting }
    }

    pub(super) fn relay(&self) -> &str {
        &self.relay
    }

    /// Measures how much is not published; `None` before the relay's first start.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn depth(&self) -> Result<Option<Depth>, QueryError> {
        self.measuring.depth(&self.connection, &self.schema, &self.relay).await
    }

    /// Losses that no operator has acknowledged.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn losses(&self) -> Result<Losses, QueryError> {
        let rows = self.run(include_str!("sql/count_losses.sql"), &[&self.relay]).await?;
        rows.first().map(Losses::read).transpose().map(Option::unwrap_or_default)
    }

    /// Writes the leader's note and report for `postrider status`. The note says why nothing is
    /// published, as a word and a text; `None` when events flow. The report is JSON.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn note(
        &self,
        term: i64,
        note: Option<(&str, &str)>,
        report: &str,
    ) -> Result<(), QueryError> {
        let (kind, text) = note.unzip();
        let text = text.map(|text| self.connection.storable(text));
        let sql = include_str!("sql/write_note.sql");
        let parameters: [&(dyn ToSql + Sync); 5] = [&self.relay, &term, &text, &report, &kind];
        self.run(sql, &parameters).await.map(drop)
    }

    /// The text, with characters escaped that the encoding of the database may lack.
    pub fn storable<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.connection.storable(text)
    }

    /// Statements that grant privileges which the relay needs and its user lacks.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn missing_grants(&self) -> Result<Vec<String>, QueryError> {
        let schema = include_str!("sql/find_missing_usage.sql");
        let mut rows = self.run(schema, &[]).await?;
        if rows.is_empty() {
            rows = self.run(include_str!("sql/find_missing_privileges.sql"), &[]).await?;
        }
        let statements = rows.iter().map(|row| Ok(row.try_get("statement")?));
        let mut statements = statements.collect::<Result<Vec<String>, QueryError>>()?;
        statements.dedup();
        Ok(statements)
    }

    /// Takes a checkpoint of the position, and deletes checkpoints older than `kept`.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn checkpoint(&self, kept: Duration) -> Result<(), QueryError> {
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.relay, &kept.as_secs_f64()];
        self.run(include_str!("sql/take_checkpoint.sql"), &parameters).await.map(drop)
    }

    /// Empties the turns (pairs of partitions) whose rows were settled longer ago than `retention`.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn retain(&self, retention: Duration) -> Result<Retained, QueryError> {
        let sql = self.schema.apply(include_str!("sql/rotate_turns.sql"));
        let seconds = retention.as_secs_f64();
        let parameters: [&(dyn ToSql + Sync); 1] = [&seconds];
        let retain = self.connection.prepare(sql).await?;
        let row = self.connection.run_one(Query::Retention, &retain, &parameters).await?;
        Ok(Retained {
            emptied: row.try_get("emptied")?,
            rows_at_most: row.try_get("rows_at_most")?,
        })
    }

    /// Deletes resolved letters and audit rows that are older than these times, up to a limit.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn forget(
        &self,
        letters: Duration,
        audits: Duration,
    ) -> Result<Forgotten, QueryError> {
        let (letters, audits) = (letters.as_secs_f64(), audits.as_secs_f64());
        let sql = include_str!("sql/delete_old_letters.sql");
        let size = self.forgetting.at_most(FORGET_ROWS);
        let limit = i64::try_from(size).unwrap_or(i64::MAX);
        let rows = self.run(sql, &[&letters, &audits, &limit]).await;
        self.forgetting.learn(size, &rows);
        let rows = rows?;
        let count = |name: &str| rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(name));
        let (letters, audits) = (count("letters")?, count("audits")?);
        Ok(Forgotten { letters, audits, is_full: letters.max(audits) >= limit })
    }

    /// Deletes the consumers' dedup keys that are older than `retention`.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn forget_processed(&self, retention: Duration) -> Result<(), QueryError> {
        let sql = include_str!("sql/delete_consumer_keys.sql");
        self.run(sql, &[&retention.as_secs_f64()]).await.map(drop)
    }

    pub(super) async fn run(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, QueryError> {
        let sql = self.schema.apply(sql);
        self.connection.query(&sql, parameters).await
    }
}
