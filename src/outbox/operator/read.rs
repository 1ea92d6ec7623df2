//! Reads letters: pages, single letters, payloads and their history.

use std::time::SystemTime;

use bytes::Bytes;
use serde::Serialize;
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql, Type},
};
use uuid::Uuid;

use super::{COUNT_MAX, Choice, Letter, LetterState, Operator, json, narrowing};
use crate::pg::error::QueryError;

/// Maximum number of audit rows for one letter.
const HISTORY_MAX: i64 = 100;

/// Everything about one letter but its payload. It is serialised as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct LetterDetail {
    /// The fields that a list of letters shows too.
    #[serde(flatten)]
    pub letter: Letter,
    /// Time of the last attempt, as ISO 8601.
    pub last_failed_at: String,
    /// Time of the event, as ISO 8601.
    pub occurred_at: String,
    /// The event id before the last edit.
    pub replaces: Option<Uuid>,
    /// `published` or `discarded`; `None` while the letter is not resolved.
    pub resolution: Option<String>,
    /// Person or relay that resolved the letter.
    pub resolved_by: Option<String>,
    /// Time of the resolution, as ISO 8601.
    pub resolved_at: Option<String>,
    /// Reason of a discard.
    pub reason: Option<String>,
    /// Stream sequence of the letter's message; `None` when it is not published, or the sequence is
    /// unknown.
    pub stream_seq: Option<i64>,
    /// The version of the payload's schema.
    pub event_version: i32,
    /// The event's kind, such as `domain`.
    pub kind: String,
    /// Version number of the aggregate, if the application gave one.
    pub aggregate_version: Option<i64>,
    /// Producer of the event.
    pub source: Option<String>,
    /// Subject that the row sets.
    pub subject: Option<String>,
    /// The media type of the payload.
    pub content_type: String,
    /// The custom headers as JSON text.
    #[serde(serialize_with = "json::parsed")]
    pub headers: String,
    /// Correlation id: events with the same one belong together.
    pub correlation_id: Option<String>,
    /// Id of the message that caused the event.
    pub causation_id: Option<String>,
    /// User or system that triggered the event.
    pub actor: Option<String>,
    /// Number of letters of its key that wait behind this one, at most 100,000.
    pub behind: i64,
    /// Id of the letter of its key that this one waits behind.
    pub behind_of: Option<i64>,
    /// Whether the payload is only in the outbox row, because it was too large to copy.
    pub payload_in_outbox: bool,
}

/// A payload, or its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadPart {
    /// The bytes of the payload from its beginning, as many as were requested.
    pub bytes: Bytes,
    /// Size of the whole payload in bytes.
    pub whole: i64,
    /// Whether the payload is in the column for bytes, not in that for JSON.
    pub is_binary: bool,
}

/// An audit row. It is serialised as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct AuditRow {
    /// Time of the action, as ISO 8601.
    pub acted_at: String,
    /// Name that the person gave.
    pub actor: String,
    /// Database user of the session.
    pub database_user: String,
    /// `redrive`, `discard` or `edit`.
    pub action: String,
    /// Reason that the person gave.
    pub reason: Option<String>,
    /// Event id of the letter at that time.
    pub event_id: Uuid,
    /// The changed columns before the action, as JSON text.
    #[serde(serialize_with = "json::parsed")]
    pub before: String,
    /// The changed columns after the action, as JSON text.
    #[serde(serialize_with = "json::parsed")]
    pub after: String,
}

/// Unparsed bytes of a column of the type `text` or `bytea`.
struct RawColumn(Bytes);

impl<'a> FromSql<'a> for RawColumn {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Bytes::copy_from_slice(raw)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TEXT || *ty == Type::BYTEA
    }
}

impl Operator {
    /// The database's clock.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn now(&self) -> Result<SystemTime, QueryError> {
        let rows = self.query(include_str!("../sql/read_clock.sql"), &[]).await?;
        rows.first().map_or(Ok(SystemTime::UNIX_EPOCH), |row| Ok(row.try_get("now")?))
    }

    /// Lists letters of one state, the newest first, and only those older than the letter `after`
    /// when that is given. `None` when no letter has this id.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn letters(
        &self,
        (state, choice): (LetterState, &Choice),
        after: Option<i64>,
        limit: i64,
    ) -> Result<Option<Vec<Letter>>, QueryError> {
        let (mut died_at, mut seq): (Option<SystemTime>, Option<i64>) = (None, None);
        if let Some(after) = after {
            let rows = self.query(include_str!("../sql/locate_letter.sql"), &[&after]).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            (died_at, seq) = (row.try_get("dead_at")?, Some(row.try_get("seq")?));
            if state == LetterState::Dead && died_at.is_none() {
                return Ok(None);
            }
        }
        let narrowing = narrowing(choice);
        let mut parameters = self.common(&narrowing, choice);
        let state_text = state.as_str();
        let sql = match state {
            LetterState::Dead => {
                parameters.extend([&died_at as &(dyn ToSql + Sync), &after]);
                include_str!("../sql/list_dead_letters.sql")
            }
            LetterState::Held | LetterState::Retrying => {
                parameters.extend([&state_text as &(dyn ToSql + Sync), &seq]);
                include_str!("../sql/list_waiting_letters.sql")
            }
        };
        parameters.push(&limit);
        let rows = self.query(sql, &parameters).await?;
        rows.iter().map(Letter::read).collect::<Result<_, _>>().map(Some)
    }

    /// Counts the letters that a choice selects.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn count(&self, choice: &Choice) -> Result<u64, QueryError> {
        let narrowing = narrowing(choice);
        let mut parameters = self.common(&narrowing, choice);
        let state = choice.state.as_str();
        let rest: [&(dyn ToSql + Sync); 4] = [&choice.until, &choice.ids, &state, &choice.hopeless];
        parameters.extend(rest);
        let rows = self.query(include_str!("../sql/count_chosen_letters.sql"), &parameters).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| row.try_get("count"))?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// The first letters of a choice, in the order in which an action would change them.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn chosen(&self, choice: &Choice, limit: i64) -> Result<Vec<Letter>, QueryError> {
        let narrowing = narrowing(choice);
        let mut parameters = self.common(&narrowing, choice);
        let state = choice.state.as_str();
        let rest: [&(dyn ToSql + Sync); 5] =
            [&choice.until, &choice.ids, &state, &choice.hopeless, &limit];
        parameters.extend(rest);
        let rows = self.query(include_str!("../sql/list_chosen_letters.sql"), &parameters).await?;
        rows.iter().map(Letter::read).collect()
    }

    /// A letter in full, of any relay; `None` when no letter has this id.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn letter(&self, id: i64) -> Result<Option<LetterDetail>, QueryError> {
        let sql = include_str!("../sql/read_letter.sql");
        let rows = self.query(sql, &[&id, &COUNT_MAX]).await?;
        rows.first().map(LetterDetail::read).transpose()
    }

    /// The payload of a letter, each part up to a number of characters or bytes. There is usually
    /// one part, none for a tombstone, and two when both columns are set. `None` when the payload
    /// stayed in a row of the outbox that is gone.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn payload(
        &self,
        id: i64,
        limit: i32,
    ) -> Result<Option<Vec<PayloadPart>>, QueryError> {
        let sql = include_str!("../sql/read_letter_payload.sql");
        let rows = self.query(sql, &[&id, &limit]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let mut parts = Vec::new();
        for (name, size, is_binary) in
            [("json", "json_bytes", false), ("binary", "binary_bytes", true)]
        {
            if let Some(RawColumn(bytes)) = row.try_get(name)? {
                parts.push(PayloadPart { bytes, whole: row.try_get(size)?, is_binary });
            }
        }
        Ok(Some(parts))
    }

    /// Actions of operators on a letter, the oldest first.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn history(&self, id: i64) -> Result<Vec<AuditRow>, QueryError> {
        let sql = include_str!("../sql/read_letter_history.sql");
        let rows = self.query(sql, &[&id, &HISTORY_MAX]).await?;
        rows.iter().map(AuditRow::read).collect()
    }

    /// Parameters `$1` to `$7` of the statements that select letters by a choice.
    pub(super) fn common<'a>(
        &'a self,
        narrowing: &'a [Option<&'a str>; 5],
        choice: &'a Choice,
    ) -> Vec<&'a (dyn ToSql + Sync)> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&self.relay];
        parameters.extend(narrowing.iter().map(|text| text as &(dyn ToSql + Sync)));
        parameters.push(&choice.since);
        parameters
    }
}

impl LetterDetail {
    fn read(row: &Row) -> Result<Self, QueryError> {
        Ok(Self {
            letter: Letter::read(row)?,
            last_failed_at: row.try_get("last_failed_at")?,
            occurred_at: row.try_get("occurred_at")?,
            replaces: row.try_get("replaces")?,
            resolution: row.try_get("resolution")?,
            resolved_by: row.try_get("resolved_by")?,
            resolved_at: row.try_get("resolved_at")?,
            reason: row.try_get("reason")?,
            stream_seq: row.try_get("stream_seq")?,
            event_version: row.try_get("event_version")?,
            kind: row.try_get("kind")?,
            aggregate_version: row.try_get("aggregate_version")?,
            source: row.try_get("source")?,
            subject: row.try_get("subject")?,
            content_type: row.try_get("content_type")?,
            headers: row.try_get("headers")?,
            correlation_id: row.try_get("correlation_id")?,
            causation_id: row.try_get("causation_id")?,
            actor: row.try_get("actor")?,
            behind: row.try_get("behind")?,
            behind_of: row.try_get("behind_of")?,
            payload_in_outbox: row.try_get("payload_omitted")?,
        })
    }
}

impl AuditRow {
    fn read(row: &Row) -> Result<Self, QueryError> {
        Ok(Self {
            acted_at: row.try_get("acted_at")?,
            actor: row.try_get("actor")?,
            database_user: row.try_get("database_user")?,
            action: row.try_get("action")?,
            reason: row.try_get("reason")?,
            event_id: row.try_get("event_id")?,
            before: row.try_get("before")?,
            after: row.try_get("after")?,
        })
    }
}
