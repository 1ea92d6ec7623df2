//! Reads everything about a letter: the event, its payload, and what operators did to it.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Map, json};

use super::{PayloadPart, base64::base64, open};
use crate::{
    config::Config,
    operate::DatabaseError,
    outbox::operator::{AuditRow, LetterDetail, OPERATOR_SETTINGS},
    pg::error::QueryError,
};

/// Bytes of a payload that are shown unless the whole is requested.
const SHOWN_BYTES: usize = 4 * 1024;

/// Everything about one letter.
#[derive(Debug, Serialize)]
pub struct ShownLetter {
    /// The letter and its event.
    #[serde(flatten)]
    pub detail: LetterDetail,
    /// The acts of operators on the letter, the oldest first; at most 100.
    pub history: Vec<AuditRow>,
    /// The payload, or its beginning.
    #[serde(flatten)]
    pub payload: ShownPayload,
}

/// The payload of a letter: usually one part, none for a tombstone, two when both columns are set.
/// `None` when the payload was in a row that is gone.
#[derive(Debug)]
pub struct ShownPayload(pub Option<Vec<PayloadPart>>);

/// Part of a payload that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownExtent {
    /// The whole payload.
    Whole,
    /// The first 4 KiB of the payload.
    Beginning,
}

/// Reason why a letter cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// Postgres did not answer, or refused the session or a statement.
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
    /// Next step for a person; `None` when the error's text says it, or when the error may pass by
    /// itself.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Database(error) => error.hint(),
            Self::Unknown(_) => Some(Cow::Borrowed(
                "`postrider dlq list` has their ids; --state shows others than dead ones",
            )),
        }
    }
}

/// Reads a letter of any relay, and as much of its payload as `extent` says.
///
/// # Errors
/// The errors of the session, and that there is no such letter.
pub async fn show(config: &Config, id: i64, extent: ShownExtent) -> Result<ShownLetter, ShowError> {
    let operator = open(config, &OPERATOR_SETTINGS).await?;
    let Some(detail) = operator.letter(id).await? else { return Err(ShowError::Unknown(id)) };
    let limit = match extent {
        ShownExtent::Whole => i32::MAX,
        ShownExtent::Beginning => i32::try_from(SHOWN_BYTES).unwrap_or(i32::MAX),
    };
    let mut payload = operator.payload(id, limit).await?;
    if extent == ShownExtent::Beginning {
        // Postgres cuts JSON at a number of characters, which may be more bytes.
        for part in payload.iter_mut().flatten() {
            part.bytes.truncate(beginning(&part.bytes, SHOWN_BYTES).len());
        }
    }
    let history = operator.history(id).await?;
    Ok(ShownLetter { detail, history, payload: ShownPayload(payload) })
}

/// The first bytes, at most `bytes_max`, without half a character at the end of a text.
fn beginning(bytes: &[u8], bytes_max: usize) -> &[u8] {
    let cut = bytes.get(..bytes_max).unwrap_or(bytes);
    match str::from_utf8(cut) {
        // The cut may leave out at most three bytes of the last character.
        Err(error) if cut.len() < bytes.len() && cut.len() - error.valid_up_to() < 4 => {
            cut.get(..error.valid_up_to()).unwrap_or(cut)
        }
        _ => cut,
    }
}

/// Whether a part is only the beginning of the payload.
pub fn is_truncated(part: &PayloadPart) -> bool {
    i64::try_from(part.bytes.len()).unwrap_or(i64::MAX) < part.whole
}

/// Serialises the parts that exist. Text has the key `payload` or `payload_binary`, other bytes
/// have `payload_base64`, and `payload_truncated` says whether a part is cut.
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
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;
    use crate::outbox::operator::Letter;

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

    fn detail() -> LetterDetail {
        LetterDetail {
            letter: Letter::sample(),
            last_failed_at: "2026-11-27T10:00:01Z".to_owned(),
            occurred_at: "2026-11-27T09:00:00Z".to_owned(),
            replaces: None,
            resolution: None,
            resolved_by: None,
            resolved_at: None,
            reason: None,
            stream_seq: None,
            event_version: 1,
            kind: "domain".to_owned(),
            aggregate_version: Some(2),
            source: None,
            subject: None,
            content_type: "application/json".to_owned(),
            headers: r#"{"b": "2", "a": 1.50}"#.to_owned(),
            correlation_id: None,
            causation_id: None,
            actor: Some("ann".to_owned()),
            behind: 4,
            behind_of: None,
            payload_in_outbox: true,
        }
    }

    /// Scripts read these keys, and people compare two outputs line by line.
    #[test]
    fn a_letter_is_serialised_with_these_keys_in_this_order() {
        let acts = vec![AuditRow {
            acted_at: "2026-11-27T11:00:00Z".to_owned(),
            actor: "ann".to_owned(),
            database_user: "operator".to_owned(),
            action: "edit".to_owned(),
            reason: None,
            event_id: Uuid::nil(),
            before: r#"{"event_type": "x"}"#.to_owned(),
            after: "no JSON".to_owned(),
        }];
        let payload = PayloadPart { bytes: Bytes::from_static(b"{}"), whole: 2, is_binary: false };
        let payload = ShownPayload(Some(vec![payload]));
        let shown = ShownLetter { detail: detail(), history: acts, payload };
        let lines = [
            r#"{"id":7,"relay":"default","state":"dead","dead_at":"2026-11-27T10:00:01Z","#,
            r#""first_failed_at":"2026-11-27T10:00:00Z","next_attempt_at":null,"#,
            r#""error_code":"subject_full","error":"the subject is full","#,
            r#""fingerprint":"subject_full/a","attempts":3,"holds":true,"seq":41,"#,
            r#""event_id":"00000000-0000-0000-0000-000000000000","event_type":"order.placed","#,
            r#""aggregate_type":"order","aggregate_id":"o/1","payload_bytes":12,"#,
            r#""last_failed_at":"2026-11-27T10:00:01Z","occurred_at":"2026-11-27T09:00:00Z","#,
            r#""replaces":null,"resolution":null,"resolved_by":null,"resolved_at":null,"#,
            r#""reason":null,"stream_seq":null,"event_version":1,"kind":"domain","#,
            r#""aggregate_version":2,"source":null,"subject":null,"#,
            r#""content_type":"application/json","headers":{"a":1.5,"b":"2"},"#,
            r#""correlation_id":null,"causation_id":null,"actor":"ann","behind":4,"#,
            r#""behind_of":null,"payload_in_outbox":true,"history":[{"#,
            r#""acted_at":"2026-11-27T11:00:00Z","actor":"ann","database_user":"operator","#,
            r#""action":"edit","reason":null,"event_id":"00000000-0000-0000-0000-000000000000","#,
            r#""before":{"event_type":"x"},"after":null}],"payload":"{}","#,
            r#""payload_truncated":false}"#,
        ];
        assert_eq!(serde_json::to_string(&shown).unwrap(), lines.concat());
    }

    #[test]
    fn a_letter_without_a_key_has_null_for_both_parts_and_no_headers_are_null() {
        let letter = Letter { key: None, ..Letter::sample() };
        let detail = LetterDetail { letter, headers: "[".to_owned(), ..detail() };
        let payload = ShownPayload(None);
        let shown = ShownLetter { detail, history: Vec::new(), payload };
        let value = serde_json::to_value(shown).unwrap();
        for key in ["aggregate_type", "aggregate_id", "headers"] {
            assert_eq!(value.get(key), Some(&Value::Null), "{key}");
        }
        assert_eq!(value.get("key"), None);
    }
}
