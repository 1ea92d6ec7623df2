//! Reads what has become of letters since an operator redrove them.

use std::{collections::HashMap, time::SystemTime};

use tokio_postgres::Row;

use super::Operator;
use crate::pg::error::QueryError;

/// State of a letter since it was redriven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redriven {
    /// The relay has not tried the letter yet, or waits for an answer.
    Pending,
    /// The stream contains the message of the letter.
    Published {
        /// Sequence in the stream; `None` when unknown.
        stream_seq: Option<i64>,
    },
    /// The letter died again.
    DeadAgain {
        /// The reason as a word.
        code: String,
        /// The reason as a sentence.
        error: String,
    },
    /// The letter failed once more, and the relay tries it again later.
    Retrying {
        /// The reason as a word.
        code: String,
        /// The reason as a sentence.
        error: String,
        /// Time of the next attempt, as ISO 8601.
        next: Option<String>,
    },
    /// The letter waits behind this dead letter of its key.
    Behind(i64),
    /// The letter was resolved in another way, or was deleted.
    Gone {
        /// `discarded` or `deleted`, with the person if there is one.
        how: String,
    },
}

impl Operator {
    /// The state of these letters since they were redriven, in the order of `ids`.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn redriven(
        &self,
        ids: &[i64],
        since: SystemTime,
    ) -> Result<Vec<(i64, Redriven)>, QueryError> {
        let sql = include_str!("../sql/read_redriven_letters.sql");
        let rows = self.query(sql, &[&ids, &since]).await?;
        let read = |row: &Row| Ok::<_, QueryError>((row.try_get("id")?, Redriven::read(row)?));
        let mut found = rows.iter().map(read).collect::<Result<HashMap<i64, _>, _>>()?;
        let gone = || Redriven::Gone { how: "deleted".to_owned() };
        Ok(ids.iter().map(|id| (*id, found.remove(id).unwrap_or_else(gone))).collect())
    }
}

impl Redriven {
    fn read(row: &Row) -> Result<Self, QueryError> {
        if let Some(resolution) = row.try_get::<_, Option<&str>>("resolution")? {
            if resolution == "published" {
                return Ok(Self::Published { stream_seq: row.try_get("stream_seq")? });
            }
            let by: Option<&str> = row.try_get("resolved_by")?;
            let how =
                by.map_or_else(|| resolution.to_owned(), |by| format!("{resolution} by {by}"));
            return Ok(Self::Gone { how });
        }
        let (code, error) = (row.try_get("error_code")?, row.try_get("error")?);
        let behind: Option<i64> = row.try_get("behind")?;
        Ok(match (row.try_get("state")?, behind) {
            ("dead", _) => Self::DeadAgain { code, error },
            (_, Some(behind)) => Self::Behind(behind),
            ("retrying", None) if row.try_get("is_tried")? => {
                Self::Retrying { code, error, next: row.try_get("next_attempt_at")? }
            }
            _ => Self::Pending,
        })
    }
}
