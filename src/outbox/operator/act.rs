//! Changes letters: redrive, discard, edit, each with its row of the audit in the same statement.

use serde_json::json;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Choice, Operator};
use crate::{
    event::AggregateKey,
    pg::error::{Class, QueryError},
};

/// How many letters one statement changes, and so one transaction.
const BATCH: usize = 1_000;

/// How often a batch is tried that another session stood in the way of.
const TRIES: usize = 5;

/// Rows of the outbox that one batch of an erasure looks at, whatever their key: no index knows keys.
const ERASE_ROWS: i64 = 20_000;

/// Bytes of a payload at most that an edit reads again for its digest.
const DIGEST_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// What is done to letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The relay tries them again.
    Redrive,
    /// They are given up; what is held behind them goes on.
    Discard,
}

/// Who acts, and why.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Who it is by their own account.
    pub actor: String,
    /// Why; a discard and an edit need it.
    pub reason: Option<String>,
}

/// What one batch changed.
#[derive(Debug)]
pub struct Acted {
    /// The letters, in the order of their `seq`.
    pub ids: Vec<i64>,
    /// Where the next batch begins; `None` when this was the last.
    pub next: Option<i64>,
}

/// What one batch erased.
#[derive(Debug, Clone, Copy, Default)]
pub struct Erased {
    /// Rows of the outbox.
    pub rows: u64,
    /// Rows of the key that are not settled, and stay.
    pub rows_left: u64,
    /// Letters.
    pub letters: u64,
    /// Letters of the key that are not resolved, and stay.
    pub letters_left: u64,
    /// Where the next batch begins; `None` when this was the last.
    pub next: Option<i64>,
}

/// What became of a letter that was asked for by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is dead and not resolved.
    Dead,
    /// It is tried again already.
    Retrying,
    /// It waits behind another letter.
    Held,
    /// It is resolved: how, and by whom.
    Resolved {
        /// `published` or `discarded`.
        resolution: String,
        /// Who did it.
        by: Option<String>,
    },
    /// It is dead, and can never be published as it is.
    Hopeless {
        /// Why it died, as a word.
        code: String,
    },
    /// It belongs to another relay.
    OfRelay(String),
    /// There is none.
    Unknown,
}

/// A dead letter as it shall be.
#[derive(Debug, Clone)]
pub struct Edit {
    /// Which letter.
    pub id: i64,
    /// The event id that it has now; with another one it was edited meanwhile.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: String,
    /// Its own subject.
    pub subject: Option<String>,
    /// Its headers as JSON text.
    pub headers: String,
    /// Its payload, when that changes.
    pub payload: Option<NewPayload>,
    /// Whether to have it tried again at once.
    pub redrive: bool,
}

/// The payload that replaces another.
#[derive(Debug, Clone)]
pub enum NewPayload {
    /// A JSON text.
    Json(String),
    /// Bytes of whatever kind.
    Binary(Vec<u8>),
}

impl Operator {
    /// Acts on the next dead letters of a choice above a `seq`: 1,000 at most, in one transaction.
    ///
    /// # Errors
    /// As the session's; then nothing of this batch was done, unless the answer did not come in time.
    pub async fn act(
        &self,
        action: Action,
        choice: &Choice,
        above: i64,
        authority: &Authority,
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
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&record, &choice.since, &choice.until, &authority.actor, &authority.reason, &channel];
        let rows = self.again(sql, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(Acted { ids: Vec::new(), next: None }) };
        let ids: Vec<i64> = row.try_get("ids")?;
        let last: Option<i64> = row.try_get("last_seq")?;
        let next = last.filter(|_| ids.len() >= BATCH);
        Ok(Acted { ids, next })
    }

    /// Changes one dead letter and gives its new event id; `None` when it is not dead any more or
    /// somebody else has edited it.
    ///
    /// # Errors
    /// As the session's.
    pub async fn edit(
        &self,
        edit: &Edit,
        authority: &Authority,
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
            [&record, &json, &binary, &authority.actor, &authority.reason, &channel];
        let rows = self.again(include_str!("../sql/edit_letter.sql"), &parameters).await?;
        Ok(rows.first().map(|row| row.try_get("event_id")).transpose()?.flatten())
    }

    /// Erases what is kept of a key: one batch of the rows above a `seq`.
    ///
    /// # Errors
    /// As the session's.
    pub async fn erase(
        &self,
        key: &AggregateKey,
        above: i64,
        authority: &Authority,
    ) -> Result<Erased, QueryError> {
        let parameters: [&(dyn ToSql + Sync); 7] = [
            &self.relay,
            &key.aggregate_type(),
            &key.aggregate_id(),
            &above,
            &ERASE_ROWS,
            &authority.actor,
            &authority.reason,
        ];
        let rows = self.again(include_str!("../sql/erase_key.sql"), &parameters).await?;
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

    /// What each of these letters is now, in the order of `ids`.
    ///
    /// # Errors
    /// As the session's.
    pub async fn outcomes(&self, ids: &[i64]) -> Result<Vec<(i64, Outcome)>, QueryError> {
        let rows = self.query(include_str!("../sql/read_letter_fates.sql"), &[&ids]).await?;
        let mut found = std::collections::HashMap::new();
        for row in &rows {
            let relay: String = row.try_get("relay")?;
            let state: &str = row.try_get("state")?;
            let resolution: Option<String> = row.try_get("resolution")?;
            let outcome = match (resolution, state) {
                _ if relay != self.relay => Outcome::OfRelay(relay),
                (Some(resolution), _) => {
                    Outcome::Resolved { resolution, by: row.try_get("resolved_by")? }
                }
                (None, "dead") if row.try_get("is_hopeless")? => {
                    Outcome::Hopeless { code: row.try_get("error_code")? }
                }
                (None, "dead") => Outcome::Dead,
                (None, "held") => Outcome::Held,
                (None, _) => Outcome::Retrying,
            };
            found.insert(row.try_get::<_, i64>("id")?, outcome);
        }
        Ok(ids.iter().map(|id| (*id, found.remove(id).unwrap_or(Outcome::Unknown))).collect())
    }

    /// Runs a statement that stands alone, so that one that was rolled back may be tried again.
    async fn again(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, QueryError> {
        let mut tries = 1;
        loop {
            match self.query(sql, parameters).await {
                Err(error) if error.class() == Class::Transient && tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }
}
