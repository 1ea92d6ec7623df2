//! Changes letters: redrive, discard, edit, erase, each with its audit row in the same statement.

use serde_json::json;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Choice, Operator};
use crate::{
    event::AggregateKey,
    pg::error::{Class, QueryError},
};

/// Maximum number of letters of one statement, which is one transaction.
const BATCH: usize = 1_000;

/// Maximum number of attempts for a batch that fails for a passing reason, such as a lock of
/// another session.
const ATTEMPTS_MAX: usize = 5;

/// Rows of the outbox that one batch of an erasure reads, whatever their key: there is no index on
/// keys.
const ERASE_ROWS: i64 = 20_000;

/// Maximum bytes of a payload that an edit reads again for its digest.
const DIGEST_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// An action of an operator on letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The relay tries the letters again.
    Redrive,
    /// The letters are discarded, and the letters behind them go on.
    Discard,
}

/// The person who acts, and the reason.
#[derive(Debug, Clone)]
pub struct Attribution {
    /// Name that the person gave.
    pub actor: String,
    /// Reason; a discard and an edit require one.
    pub reason: Option<String>,
}

/// Result of one batch.
#[derive(Debug)]
pub struct Acted {
    /// The changed letters, in ascending order of `seq`.
    pub ids: Vec<i64>,
    /// The `seq` after which the next batch begins; `None` when this was the last.
    pub next: Option<i64>,
}

/// Result of one batch of an erasure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Erased {
    /// Number of erased rows of the outbox.
    pub rows: u64,
    /// Number of unsettled rows of the key, which stay.
    pub rows_left: u64,
    /// Number of erased letters.
    pub letters: u64,
    /// Number of unresolved letters of the key, which stay.
    pub letters_left: u64,
    /// The `seq` after which the next batch begins; `None` when this was the last.
    pub next: Option<i64>,
}

/// State of a letter that was requested by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterFate {
    /// The letter is dead and not resolved.
    Dead,
    /// The relay already tries the letter again.
    Retrying,
    /// The letter waits behind another one.
    Held,
    /// The letter is resolved.
    Resolved {
        /// `published` or `discarded`.
        resolution: String,
        /// The person who resolved it.
        by: Option<String>,
    },
    /// The letter is dead and can never be published without an edit.
    Hopeless {
        /// The reason why the letter is dead, as a word.
        code: String,
    },
    /// The letter belongs to another relay, which has this name.
    OfRelay(String),
    /// No letter has this id.
    Unknown,
}

/// The new content of a dead letter.
#[derive(Debug, Clone)]
pub struct Edit {
    /// Id of the letter.
    pub id: i64,
    /// The current event id. When it differs, somebody has edited the letter meanwhile.
    pub event_id: Uuid,
    /// The new event type.
    pub event_type: String,
    /// The new subject; `None` for that of the route.
    pub subject: Option<String>,
    /// The new headers as JSON text.
    pub headers: String,
    /// The new payload; `None` keeps the old one.
    pub payload: Option<NewPayload>,
    /// Whether the relay tries the letter again at once.
    pub redrive: bool,
}

/// The new payload of a letter.
#[derive(Debug, Clone)]
pub enum NewPayload {
    /// A JSON text.
    Json(String),
    /// Bytes of any content type.
    Binary(Vec<u8>),
}

impl Operator {
    /// Applies an action to the next letters that `choice` selects above a `seq`: at most 1,000, in
    /// one transaction.
    ///
    /// # Errors
    /// The errors of the session. Then nothing of this batch was done, unless the error is that no
    /// answer came in time.
    pub async fn act(
        &self,
        action: Action,
        choice: &Choice,
        above: i64,
        attribution: &Attribution,
    ) -> Result<Acted, QueryError> {
        let sql = match action {
            Action::Redrive => include_str!("../sql/redrive_letters.sql"),
            Action::Discard => include_str!("../sql/discard_letters.sql"),
        };
        let key = choice.key.as_ref();
        let record = json!({
            "relay": self.relay,
            "state": choice.state.as_str(),
            "event_type": choice.event_type,
            "aggregate_type": key.map(AggregateKey::aggregate_type),
            "aggregate_id": key.map(AggregateKey::aggregate_id),
            "error_code": choice.error_code,
            "fingerprint": choice.fingerprint,
            "ids": choice.ids,
            "is_hopeless": choice.hopeless,
            "above": above,
            "most": BATCH,
        });
        let (record, channel) = (record.to_string(), self.schema.channel());
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &record,
            &choice.since,
            &choice.until,
            &attribution.actor,
            &attribution.reason,
            &channel,
        ];
        let rows = self.query_with_retries(sql, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(Acted { ids: Vec::new(), next: None }) };
        let ids: Vec<i64> = row.try_get("ids")?;
        let last: Option<i64> = row.try_get("last_seq")?;
        let next = last.filter(|_| ids.len() >= BATCH);
        Ok(Acted { ids, next })
    }

    /// Edits one dead letter and returns its new event id. `None` when the letter is no longer
    /// dead, or another person has edited it.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn edit(
        &self,
        edit: &Edit,
        attribution: &Attribution,
    ) -> Result<Option<Uuid>, QueryError> {
        let (json, binary) = match &edit.payload {
            None => (None, None),
            Some(NewPayload::Json(text)) => (Some(text), None),
            Some(NewPayload::Binary(bytes)) => (None, Some(bytes)),
        };
        let record = json!({
            "relay": self.relay,
            "id": edit.id,
            "event_id": edit.event_id.to_string(),
            "event_type": edit.event_type,
            "subject": edit.subject,
            "headers": edit.headers,
            "is_payload": edit.payload.is_some(),
            "is_redriven": edit.redrive,
            "digest_bytes_max": DIGEST_BYTES_MAX,
        });
        let (record, channel) = (record.to_string(), self.schema.channel());
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&record, &json, &binary, &attribution.actor, &attribution.reason, &channel];
        let rows =
            self.query_with_retries(include_str!("../sql/edit_letter.sql"), &parameters).await?;
        Ok(rows.first().map(|row| row.try_get("event_id")).transpose()?.flatten())
    }

    /// Erases settled rows and resolved letters of a key: one batch of the rows above a `seq`.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn erase(
        &self,
        key: &AggregateKey,
        above: i64,
        attribution: &Attribution,
    ) -> Result<Erased, QueryError> {
        let parameters: [&(dyn ToSql + Sync); 7] = [
            &self.relay,
            &key.aggregate_type(),
            &key.aggregate_id(),
            &above,
            &ERASE_ROWS,
            &attribution.actor,
            &attribution.reason,
        ];
        let rows =
            self.query_with_retries(include_str!("../sql/erase_key.sql"), &parameters).await?;
        let row = rows.first();
        let count = |name: &str| match row {
            Some(row) => Ok::<_, QueryError>(row.try_get::<_, i64>(name)?.unsigned_abs()),
            None => Ok(0),
        };
        Ok(Erased {
            rows: count("rows_erased")?,
            rows_left: count("rows_left")?,
            letters: count("letters_erased")?,
            letters_left: count("letters_left")?,
            next: row.map(|row| row.try_get("next")).transpose()?.flatten(),
        })
    }

    /// The current state of each of these letters, in the order of `ids`.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn outcomes(&self, ids: &[i64]) -> Result<Vec<(i64, LetterFate)>, QueryError> {
        let rows = self.query(include_str!("../sql/read_letter_fates.sql"), &[&ids]).await?;
        let mut found = std::collections::HashMap::new();
        for row in &rows {
            let relay: String = row.try_get("relay")?;
            let state: &str = row.try_get("state")?;
            let resolution: Option<String> = row.try_get("resolution")?;
            let outcome = match (resolution, state) {
                _ if relay != self.relay => LetterFate::OfRelay(relay),
                (Some(resolution), _) => {
                    LetterFate::Resolved { resolution, by: row.try_get("resolved_by")? }
                }
                (None, "dead") if row.try_get("is_hopeless")? => {
                    LetterFate::Hopeless { code: row.try_get("error_code")? }
                }
                (None, "dead") => LetterFate::Dead,
                (None, "held") => LetterFate::Held,
                (None, _) => LetterFate::Retrying,
            };
            found.insert(row.try_get::<_, i64>("id")?, outcome);
        }
        Ok(ids.iter().map(|id| (*id, found.remove(id).unwrap_or(LetterFate::Unknown))).collect())
    }

    /// Runs a single statement, and repeats it after an error that rolled it back and may pass.
    async fn query_with_retries(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, QueryError> {
        let mut tries = 1;
        loop {
            match self.query(sql, parameters).await {
                Err(error) if error.class() == Class::Transient && tries < ATTEMPTS_MAX => {
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}
