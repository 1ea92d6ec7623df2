//! A letter in full: the event, its payload, and what operators did to it.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{ListedLetter, PayloadPart, base64::base64, open};
use crate::{
    config::Config,
    operate::DatabaseError,
    outbox::operator::{AuditRow, LetterDetail, OPERATOR_SETTINGS},
    pg::error::QueryError,
};

/// How much of a payload is shown when nobody asks for the whole.
const SHOWN_BYTES: usize = 4 * 1024;

/// Everything about one letter.
#[derive(Debug, Serialize)]
pub struct ShownLetter {
    /// The fields that lists show too.
    #[serde(flatten)]
    pub letter: ListedLetter,
    /// When it was tried last, as ISO 8601.
    pub last_failed_at: String,
    /// When the event happened, as ISO 8601.
    pub occurred_at: String,
    /// The event id before the last edit.
    pub replaces: Option<Uuid>,
    /// `published` or `discarded`; `None` while it is not resolved.
    pub resolution: Option<String>,
    /// The person or program that resolved it.
    pub resolved_by: Option<String>,
    /// When it was resolved, as ISO 8601.
    pub resolved_at: Option<String>,
    /// Why it was discarded.
    pub reason: Option<String>,
    /// The sequence of the message in the stream.
    pub stream_seq: Option<i64>,
    /// The version of the payload's schema.
    pub event_version: i32,
    /// The kind of event.
    pub kind: String,
    /// The aggregate's version.
    pub aggregate_version: Option<i64>,
    /// The producer of the event.
    pub source: Option<String>,
    /// The row's own subject.
    pub subject: Option<String>,
    /// The media type of the payload.
    pub content_type: String,
    /// The custom headers; null when they are no JSON.
    pub headers: Value,
    /// The conversation it belongs to.
    pub correlation_id: Option<String>,
    /// The message that caused it.
    pub causation_id: Option<String>,
    /// The actor of the event.
    pub actor: Option<String>,
    /// How many letters wait behind it, 100,000 at most.
    pub behind: i64,
    /// The letter that it waits behind.
    pub behind_of: Option<i64>,
    /// Whether the payload stayed in the outbox.
    pub payload_in_outbox: bool,
    /// The acts of operators on it, the first one first; 100 at most.
    pub history: Vec<AuditEntry>,
    /// The payload, or its beginning.
    #[serde(flatten)]
    pub payload: ShownPayload,
    /// The custom headers as they are written.
    #[serde(skip)]
    pub headers_text: String,
}

/// A row of the audit.
#[derive(Debug, Serialize)]
pub struct AuditEntry {
    /// When, as ISO 8601.
    pub acted_at: String,
    /// The person, by their own account.
    pub actor: String,
    /// The user of the database.
    pub database_user: String,
    /// `redrive`, `discard` or `edit`.
    pub action: String,
    /// Why.
    pub reason: Option<String>,
    /// The event id that the letter had then.
    pub event_id: Uuid,
    /// The changed columns before.
    pub before: Value,
    /// The changed columns after.
    pub after: Value,
}

/// The payload of a letter: usually one part, none for a tombstone, two when both columns are set.
/// `None` when the row that had it is gone.
#[derive(Debug)]
pub struct ShownPayload(pub Option<Vec<PayloadPart>>);

/// How much of a payload is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownExtent {
    /// All of it.
    Whole,
    /// The first 4 KiB.
    Beginning,
}

/// Error of a letter that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// Postgres did not answer, or refused.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// No letter has this id.
    #[error("there is no letter {0}")]
    Unknown(i64),
}

impl From<QueryError> for ShowError {
    fn from(error: QueryError) -> Self {
        Self::Database(error.into())
    }
}

impl ShowError {
    /// The next step for a person; `None` when the text says it or when it may pass.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Database(error) => error.hint(),
            Self::Unknown(_) => Some(Cow::Borrowed(
                "`postrider dlq list` has their ids; --state shows others than dead ones",
            )),
        }
    }
}

/// Shows a letter of whichever relay, with so much of its payload.
///
/// # Errors
/// As the session's, and that there is no such letter.
pub async fn show(config: &Config, id: i64, extent: ShownExtent) -> Result<ShownLetter, ShowError> {
    let operator = open(config, &OPERATOR_SETTINGS).await?;
    let Some(detail) = operator.letter(id).await? else { return Err(ShowError::Unknown(id)) };
    let limit = match extent {
        ShownExtent::Whole => i32::MAX,
        ShownExtent::Beginning => i32::try_from(SHOWN_BYTES).unwrap_or(i32::MAX),
    };
    let mut payload = operator.payload(id, limit).await?;
    if extent == ShownExtent::Beginning {
        // So many characters of JSON may be more bytes than that.
        for part in payload.iter_mut().flatten() {
            part.bytes.truncate(beginning(&part.bytes, SHOWN_BYTES).len());
        }
    }
    let history = operator.history(id).await?;
    Ok(shown(detail, ShownPayload(payload), history))
}

/// At most so many bytes, and no half character when it is text.
fn beginning(bytes: &[u8], bytes_max: usize) -> &[u8] {
    let cut = bytes.get(..bytes_max).unwrap_or(bytes);
    match str::from_utf8(cut) {
        // Three bytes at most are missing from the last character.
        Err(error) if cut.len() < bytes.len() && cut.len() - error.valid_up_to() < 4 => {
            cut.get(..error.valid_up_to()).unwrap_or(cut)
        }
        _ => cut,
    }
}

fn shown(detail: LetterDetail, payload: ShownPayload, history: Vec<AuditRow>) -> ShownLetter {
    ShownLetter {
        letter: detail.letter.into(),
        last_failed_at: detail.last_failed_at,
        occurred_at: detail.occurred_at,
        replaces: detail.replaces,
        resolution: detail.resolution,
        resolved_by: detail.resolved_by,
        resolved_at: detail.resolved_at,
        reason: detail.reason,
        stream_seq: detail.stream_seq,
        event_version: detail.event_version,
        kind: detail.kind,
        aggregate_version: detail.aggregate_version,
        source: detail.source,
        subject: detail.subject,
        content_type: detail.content_type,
        headers: parsed(&detail.headers),
        correlation_id: detail.correlation_id,
        causation_id: detail.causation_id,
        actor: detail.actor,
        behind: detail.behind,
        behind_of: detail.behind_of,
        payload_in_outbox: detail.payload_omitted,
        history: history.into_iter().map(AuditEntry::from).collect(),
        payload,
        headers_text: detail.headers,
    }
}

impl From<AuditRow> for AuditEntry {
    fn from(recorded: AuditRow) -> Self {
        Self {
            acted_at: recorded.acted_at,
            actor: recorded.actor,
            database_user: recorded.database_user,
            action: recorded.action,
            reason: recorded.reason,
            event_id: recorded.event_id,
            before: parsed(&recorded.before),
            after: parsed(&recorded.after),
        }
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// Whether a part is only the beginning.
pub fn is_truncated(part: &PayloadPart) -> bool {
    i64::try_from(part.bytes.len()).unwrap_or(i64::MAX) < part.whole
}

/// The keys of the parts that there are: `payload` or `payload_binary` for text, `payload_base64`
/// for other bytes, and `payload_truncated`.
impl Serialize for ShownPayload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut keys = Map::new();
        for part in self.0.iter().flatten() {
            let column = if part.is_binary { "payload_binary" } else { "payload" };
            match str::from_utf8(&part.bytes) {
                Ok(text) => keys.insert(column.to_owned(), json!(text)),
                Err(_) => keys.insert("payload_base64".to_owned(), json!(base64(&part.bytes))),
            };
            keys.insert("payload_truncated".to_owned(), json!(is_truncated(part)));
        }
        keys.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn text_is_not_cut_inside_a_character() {
        assert_eq!(beginning("aä".as_bytes(), 2), b"a");
        assert_eq!(beginning("aä".as_bytes(), 3), "aä".as_bytes());
        assert_eq!(beginning(&[0xff; 8], 4), [0xff; 4]);
    }

    #[test]
    fn a_payload_has_a_key_for_each_column_and_for_bytes_that_are_no_text() {
        let part = |bytes: &'static [u8], whole: i64, is_binary: bool| PayloadPart {
            bytes: Bytes::from_static(bytes),
            whole,
            is_binary,
        };
        let serialised = |parts| serde_json::to_value(ShownPayload(parts)).unwrap();
        assert_eq!(serialised(None), json!({}));
        assert_eq!(serialised(Some(Vec::new())), json!({}));
        assert_eq!(
            serialised(Some(vec![part(b"{}", 2, false), part(b"ab", 9, true)])),
            json!({ "payload": "{}", "payload_binary": "ab", "payload_truncated": true })
        );
        assert_eq!(
            serialised(Some(vec![part(b"\xff\xfe\xfd", 3, true)])),
            json!({ "payload_base64": "//79", "payload_truncated": false })
        );
    }
}
