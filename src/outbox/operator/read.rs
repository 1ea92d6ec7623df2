//! Looks at letters: pages, one in full, and what became of some.

use std::time::SystemTime;

use bytes::Bytes;
use tokio_postgres::{
    Row,
    types::{FromSql, ToSql, Type},
};
use uuid::Uuid;

use super::{COUNT_MAX, Choice, Letter, Operator, State, narrowing};
use crate::pg::error::QueryError;

/// How many rows of the audit are shown of one letter.
const HISTORY_MAX: i64 = 100;

/// Everything about one letter but its payload.
#[derive(Debug, Clone)]
pub struct LetterDetail {
    /// What lists show too.
    pub letter: Letter,
    /// When it was tried last, as ISO 8601.
    pub last_failed_at: String,
    /// When the event happened, as ISO 8601.
    pub occurred_at: String,
    /// The event id before the last edit.
    pub replaces: Option<Uuid>,
    /// `published` or `discarded`; nothing while it is not resolved.
    pub resolution: Option<String>,
    /// Who resolved it.
    pub resolved_by: Option<String>,
    /// When it was resolved, as ISO 8601.
    pub resolved_at: Option<String>,
    /// Why it was discarded.
    pub reason: Option<String>,
    /// Where the stream holds it.
    pub stream_seq: Option<i64>,
    /// Whether the payload stayed in the outbox.
    pub payload_omitted: bool,
    /// The version of the payload's schema.
    pub event_version: i32,
    /// The kind of event.
    pub kind: String,
    /// The aggregate's version.
    pub aggregate_version: Option<i64>,
    /// Who produced it.
    pub source: Option<String>,
    /// The row's own subject.
    pub subject: Option<String>,
    /// The media type of the payload.
    pub content_type: String,
    /// The custom headers as JSON text.
    pub headers: String,
    /// The conversation it belongs to.
    pub correlation_id: Option<String>,
    /// The message that caused it.
    pub causation_id: Option<String>,
    /// Who did it.
    pub actor: Option<String>,
    /// How many letters wait behind it, 100,000 at most.
    pub behind: i64,
    /// The letter that it waits behind.
    pub behind_of: Option<i64>,
}

/// A payload, or its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadPart {
    /// The bytes that were asked for.
    pub bytes: Bytes,
    /// How many there are in the whole.
    pub whole: i64,
    /// Whether the column of bytes holds it, not that of JSON.
    pub is_binary: bool,
}

/// A row of the audit.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// When, as ISO 8601.
    pub acted_at: String,
    /// Who it was by their own account.
    pub actor: String,
    /// Who it was to the database.
    pub database_user: String,
    /// `redrive`, `discard` or `edit`.
    pub action: String,
    /// Why.
    pub reason: Option<String>,
    /// The event id that the letter had then.
    pub event_id: Uuid,
    /// The changed columns before, as JSON text.
    pub before: String,
    /// The changed columns after, as JSON text.
    pub after: String,
}

/// `jsonb_each` and `json` come as text from our statements; a payload comes as it is.
struct Raw(Bytes);

impl<'a> FromSql<'a> for Raw {
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
    /// As the session's.
    pub async fn now(&self) -> Result<SystemTime, QueryError> {
        let rows = self.query(include_str!("../sql/read_clock.sql"), &[]).await?;
        rows.first().map_or(Ok(SystemTime::UNIX_EPOCH), |row| Ok(row.try_get("now")?))
    }

    /// Letters of one state, the newest first, older than the letter `after`; `None` when there is
    /// no such letter.
    ///
    /// # Errors
    /// As the session's.
    pub async fn letters(
        &self,
        (state, choice): (State, &Choice),
        after: Option<i64>,
        limit: i64,
    ) -> Result<Option<Vec<Letter>>, QueryError> {
        let (mut died_at, mut seq): (Option<SystemTime>, Option<i64>) = (None, None);
        if let Some(after) = after {
            let rows = self.query(include_str!("../sql/locate_letter.sql"), &[&after]).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            (died_at, seq) = (row.try_get("dead_at")?, Some(row.try_get("seq")?));
            if state == State::Dead && died_at.is_none() {
                return Ok(None);
            }
        }
        let narrowing = narrowing(choice);
        let mut parameters = self.common(&narrowing, choice);
        let state_text = state.as_str();
        let sql = match state {
            State::Dead => {
                parameters.extend([&died_at as &(dyn ToSql + Sync), &after]);
                include_str!("../sql/list_dead_letters.sql")
            }
            State::Held | State::Retrying => {
                parameters.extend([&state_text as &(dyn ToSql + Sync), &seq]);
                include_str!("../sql/list_waiting_letters.sql")
            }
        };
        parameters.push(&limit);
        let rows = self.query(sql, &parameters).await?;
        rows.iter().map(Letter::read).collect::<Result<_, _>>().map(Some)
    }

    /// How many letters a choice is about.
    ///
    /// # Errors
    /// As the session's.
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

    /// The first letters of a choice, in the order in which they would be acted on.
    ///
    /// # Errors
    /// As the session's.
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

    /// One letter in full, of whichever relay; `None` when there is none of this id.
    ///
    /// # Errors
    /// As the session's.
    pub async fn letter(&self, id: i64) -> Result<Option<LetterDetail>, QueryError> {
        let sql = include_str!("../sql/read_letter.sql");
        let rows = self.query(sql, &[&id, &COUNT_MAX]).await?;
        rows.first().map(LetterDetail::read).transpose()
    }

    /// The payload of a letter, each part up to so many characters or bytes: usually one, none for a
    /// tombstone, two when both columns are set. `None` when the row that holds it is gone.
    ///
    /// # Errors
    /// As the session's.
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
            if let Some(Raw(bytes)) = row.try_get(name)? {
                parts.push(PayloadPart { bytes, whole: row.try_get(size)?, is_binary });
            }
        }
        Ok(Some(parts))
    }

    /// What operators did to a letter, the first action first.
    ///
    /// # Errors
    /// As the session's.
    pub async fn history(&self, id: i64) -> Result<Vec<Recorded>, QueryError> {
        let sql = include_str!("../sql/read_letter_history.sql");
        let rows = self.query(sql, &[&id, &HISTORY_MAX]).await?;
        rows.iter().map(Recorded::read).collect()
    }

    /// `$1` to `$7` of the statements about a choice.
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
            payload_omitted: row.try_get("payload_omitted")?,
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
        })
    }
}

impl Recorded {
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
