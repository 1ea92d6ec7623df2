//! Finds out why one key waits: because of a letter, or of rows that are not settled.

use serde::Serialize;
use tokio_postgres::Row;

use super::{Inspection, operator::Letter};
use crate::{event::AggregateKey, pg::error::QueryError};

/// Maximum number of letters that are counted, and of outbox rows that are read, to explain one
/// key.
const READ_MAX: i64 = 100_000;

/// The reason why the later events of a key wait.
#[derive(Debug, Clone)]
pub struct WaitingKey {
    /// The letter that the key waits for; `None` when there is no unresolved letter.
    pub letter: Option<WaitingLetter>,
    /// Number of unsettled rows of the key in the outbox.
    pub pending: i64,
    /// Age of the unsettled row with the lowest `seq`, by its `occurred_at`.
    pub oldest_age_seconds: Option<f64>,
    /// Whether the limit of rows to read was reached, so that the key may have more unsettled rows.
    pub is_more: bool,
}

/// The unresolved letter that the others of its key wait for. It is serialised as `--json` prints
/// it.
#[derive(Debug, Clone, Serialize)]
pub struct WaitingLetter {
    /// The fields of the letter that `dlq list` prints too.
    #[serde(flatten)]
    pub letter: Letter,
    /// Time of the last attempt, as ISO 8601.
    pub last_failed_at: String,
    /// Seconds until the relay loads the letter; negative when its time has passed, `None` without
    /// a time.
    pub next_attempt_in_seconds: Option<f64>,
    /// Whether the letter can never be published without an edit.
    #[serde(skip)]
    pub is_hopeless: bool,
    /// Number of letters behind this one, at most 100,000.
    pub behind: i64,
}

impl Inspection {
    /// Reads why the events of a key wait.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn waiting(&self, relay: &str, key: &AggregateKey) -> Result<WaitingKey, QueryError> {
        let (kind, id) = (key.aggregate_type(), key.aggregate_id());
        // Rows are read before letters. So a row that becomes a letter in between is counted twice,
        // and never missed.
        let sql = include_str!("sql/find_pending_rows.sql");
        let rows = self.query(sql, &[&relay, &kind, &id, &READ_MAX]).await?;
        let (mut pending, mut rows_read, mut oldest_age_seconds) = (0, 0_i64, None);
        if let Some(row) = rows.first() {
            pending = row.try_get("pending")?;
            rows_read = row.try_get("rows_read")?;
            oldest_age_seconds = row.try_get("oldest_age_seconds")?;
        }
        let sql = include_str!("sql/find_blocking_letter.sql");
        let rows = self.query(sql, &[&relay, &kind, &id, &READ_MAX]).await?;
        let letter = rows.first().map(WaitingLetter::read).transpose()?;
        Ok(WaitingKey { letter, pending, oldest_age_seconds, is_more: rows_read >= READ_MAX })
    }
}

impl WaitingLetter {
    fn read(row: &Row) -> Result<Self, QueryError> {
        Ok(Self {
            letter: Letter::read(row)?,
            last_failed_at: row.try_get("last_failed_at")?,
            next_attempt_in_seconds: row.try_get("next_attempt_in_seconds")?,
            is_hopeless: row.try_get("is_hopeless")?,
            behind: row.try_get("behind")?,
        })
    }
}

#[cfg(test)]
mod tests {
    /// Two statements select unsettled rows, and must select the same ones.
    #[test]
    fn the_pending_rows_of_a_key_are_those_that_the_depth_counts() {
        let rows = |statement: &str, end: &str| {
            let (_, rest) = statement.split_once("WITH event AS MATERIALIZED (").expect("rows");
            let (rows, _) = rest.split_once(end).expect("their end");
            let rows = rows.split_whitespace().collect::<Vec<_>>().join(" ");
            let rows = rows.replace(") ", ")").replace("( ", "(").replace("$4", "$2");
            // The columns that are read of each row may differ between the two statements.
            ["o", "l", "late"].iter().fold(rows, |rows, table| {
                ["event_type", "kind", "aggregate_type", "aggregate_id"]
                    .iter()
                    .fold(rows, |rows, column| rows.replace(&format!(", {table}.{column}"), ""))
            })
        };
        let depth =
            rows(include_str!("sql/measure_depth.sql"), "SELECT (SELECT count(*) FROM event AS e");
        let key = rows(include_str!("sql/find_pending_rows.sql"), ", of_key AS");
        assert!(depth.contains("pg_visible_in_snapshot(l.tx, p.target)"), "{depth}");
        assert_eq!(depth, key);
    }
}
