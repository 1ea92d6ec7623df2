//! What one key waits for: a letter, or rows that are not settled.

use tokio_postgres::Row;

use super::{Inspection, operator::Letter};
use crate::{event::AggregateKey, pg::error::QueryError};

/// How many letters and rows are read one by one.
const LOOK_MAX: i64 = 100_000;

/// What the later events of a key wait for.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The letter in front, when there is one.
    pub letter: Option<WaitingLetter>,
    /// Rows of the key in the outbox that are not settled.
    pub pending: i64,
    /// The age of the first of them, by its `occurred_at`.
    pub oldest_age_seconds: Option<f64>,
    /// Whether there may be more rows than were read.
    pub is_more: bool,
}

/// The unresolved letter that stands in front of the others of its key.
#[derive(Debug, Clone)]
pub struct WaitingLetter {
    /// What lists show too.
    pub letter: Letter,
    /// When it was tried last, as ISO 8601.
    pub last_failed_at: String,
    /// In how many seconds the relay loads it; negative when that is due.
    pub next_attempt_in_seconds: Option<f64>,
    /// Whether it can never be published as it is.
    pub is_hopeless: bool,
    /// How many letters stand behind it, 100,000 at most.
    pub behind: i64,
}

impl Inspection {
    /// What the events of a key wait for.
    ///
    /// # Errors
    /// As the session's.
    pub async fn waiting(&self, relay: &str, key: &AggregateKey) -> Result<Waiting, QueryError> {
        let (kind, id) = (key.aggregate_type(), key.aggregate_id());
        // The rows first: one that becomes a letter in between is then seen twice, not never.
        let sql = include_str!("sql/find_pending_rows.sql");
        let rows = self.query(sql, &[&relay, &kind, &id, &LOOK_MAX]).await?;
        let (mut pending, mut looked_at, mut oldest_age_seconds) = (0, 0_i64, None);
        if let Some(row) = rows.first() {
            pending = row.try_get("pending")?;
            looked_at = row.try_get("looked_at")?;
            oldest_age_seconds = row.try_get("oldest_age_seconds")?;
        }
        let sql = include_str!("sql/find_blocking_letter.sql");
        let rows = self.query(sql, &[&relay, &kind, &id, &LOOK_MAX]).await?;
        let letter = rows.first().map(WaitingLetter::read).transpose()?;
        Ok(Waiting { letter, pending, oldest_age_seconds, is_more: looked_at >= LOOK_MAX })
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
    /// What is not settled is decided in two files.
    #[test]
    fn the_pending_rows_of_a_key_are_those_that_the_depth_counts() {
        let rows = |statement: &str, end: &str| {
            let (_, rest) = statement.split_once("WITH event AS MATERIALIZED (").expect("rows");
            let (rows, _) = rest.split_once(end).expect("their end");
            let rows = rows.split_whitespace().collect::<Vec<_>>().join(" ");
            let rows = rows.replace(") ", ")").replace("( ", "(").replace("$4", "$2");
            // What else of the columns each of them needs is its own matter.
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
