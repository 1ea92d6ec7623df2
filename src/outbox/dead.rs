//! Reads newly dead letters from the answers of the statements that write them, for the log.

use tokio_postgres::Row;
use uuid::Uuid;

use super::SettleError;
use crate::{delivery::LetterId, pg::error::QueryError};

/// A letter that has just become dead, without its payload. Texts of the row are cut to 200
/// characters, the error to 500.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The letter's number.
    pub id: LetterId,
    /// The event's id.
    pub event_id: Uuid,
    /// The event's type.
    pub event_type: String,
    /// The key as people write it, `type/id`; `None` for an event without a key.
    pub key: Option<String>,
    /// The reason why the letter is dead, as a word.
    pub code: String,
    /// The reason why the letter is dead, as a sentence.
    pub error: String,
}

/// Reads the dead letters from the rows of a statement. The column `term_column` is 0 when the term
/// is lost and nothing was written.
pub(super) fn dead_letters(
    rows: &[Row],
    term_column: &str,
    term: i64,
) -> Result<Vec<DeadLetter>, SettleError> {
    let first = rows.first().ok_or(QueryError::NoRow)?;
    if first.try_get::<_, i64>(term_column).map_err(QueryError::from)? == 0 {
        return Err(SettleError::TermLost { term });
    }
    let letters = rows.iter().map(dead_letter).filter_map(Result::transpose);
    Ok(letters.collect::<Result<_, _>>()?)
}

fn dead_letter(row: &Row) -> Result<Option<DeadLetter>, QueryError> {
    let Some(id) = row.try_get("id")? else { return Ok(None) };
    let aggregate_type: Option<&str> = row.try_get("aggregate_type")?;
    let aggregate_id: Option<&str> = row.try_get("aggregate_id")?;
    Ok(Some(DeadLetter {
        id: LetterId(id),
        event_id: row.try_get("event_id")?,
        event_type: row.try_get("event_type")?,
        key: aggregate_type.zip(aggregate_id).map(|(kind, id)| format!("{kind}/{id}")),
        code: row.try_get("error_code")?,
        error: row.try_get("error")?,
    }))
}
