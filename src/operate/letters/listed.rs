//! A letter in a list.

use serde::Serialize;
use uuid::Uuid;

use crate::{event::AggregateKey, outbox::operator::Letter};

/// A letter without its payload.
#[derive(Debug, Serialize)]
pub struct ListedLetter {
    /// Its id, which pages go on from.
    pub id: i64,
    /// The relay that it belongs to.
    pub relay: String,
    /// `dead`, `held` or `retrying`; of a resolved letter what it was last.
    pub state: String,
    /// When it died, as ISO 8601.
    pub dead_at: Option<String>,
    /// When it left the fast path, as ISO 8601.
    pub first_failed_at: String,
    /// When the relay loads its key, as ISO 8601.
    pub next_attempt_at: Option<String>,
    /// The reason as a word.
    pub error_code: String,
    /// The reason as a sentence.
    pub error: String,
    /// The fingerprint, which groups like failures.
    pub fingerprint: String,
    /// How often it was tried.
    pub attempts: i32,
    /// Whether later events of its key wait for it.
    pub holds: bool,
    /// Its place in the outbox.
    pub seq: i64,
    /// The event's id.
    pub event_id: Uuid,
    /// The event's type.
    pub event_type: String,
    /// The type of its aggregate; `None` without a key.
    pub aggregate_type: Option<String>,
    /// The id of its aggregate; `None` without a key.
    pub aggregate_id: Option<String>,
    /// The payload's size.
    pub payload_bytes: i64,
    /// The key that both are parts of.
    #[serde(skip)]
    pub key: Option<AggregateKey>,
}

impl From<Letter> for ListedLetter {
    fn from(letter: Letter) -> Self {
        let part =
            |part: fn(&AggregateKey) -> &str| letter.key.as_ref().map(part).map(str::to_owned);
        Self {
            aggregate_type: part(AggregateKey::aggregate_type),
            aggregate_id: part(AggregateKey::aggregate_id),
            id: letter.id,
            relay: letter.relay,
            state: letter.state,
            dead_at: letter.dead_at,
            first_failed_at: letter.first_failed_at,
            next_attempt_at: letter.next_attempt_at,
            error_code: letter.error_code,
            error: letter.error,
            fingerprint: letter.fingerprint,
            attempts: letter.attempts,
            holds: letter.holds,
            seq: letter.seq,
            event_id: letter.event_id,
            event_type: letter.event_type,
            payload_bytes: letter.payload_bytes,
            key: letter.key,
        }
    }
}
