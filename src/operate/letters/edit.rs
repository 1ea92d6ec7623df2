//! Edits a dead letter in place, under a new event id.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Attribution, PayloadPart, open};
use crate::{
    config::Config,
    event::{Event, EventId, Payload, Seq},
    operate::DatabaseError,
    outbox::operator::{Edit, LetterDetail, NewPayload, OPERATOR_SETTINGS, Operator},
    pg::error::QueryError,
    wire::{Encoder, Limits, Refusal, SubjectTemplate, TemplateError},
};

/// Changes of one letter.
#[derive(Debug, Default)]
pub struct LetterChanges {
    /// The new payload.
    pub payload: Option<Vec<u8>>,
    /// Headers to set: names and values.
    pub set_headers: Vec<(String, String)>,
    /// Names of headers to remove.
    pub remove_headers: Vec<String>,
    /// The new subject; empty for the subject that the route makes.
    pub subject: Option<String>,
    /// The new event type.
    pub event_type: Option<String>,
    /// Whether to have the letter tried again at once.
    pub redrive: bool,
}

/// Result of an edit: the letter with its new event id.
#[derive(Debug, Serialize)]
pub struct EditedLetter {
    /// Id of the letter.
    pub id: i64,
    /// Event id of the letter after the edit.
    pub event_id: Uuid,
    /// Event id of the letter before the edit.
    pub replaces: Uuid,
    /// Whether the relay tries the letter again at once.
    pub redriven: bool,
}

/// Reason why a letter was not edited.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Postgres did not answer, or refused the session or a statement.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// No letter has this id.
    #[error("there is no letter {0}")]
    Unknown(i64),
    /// The letter belongs to another relay.
    #[error("letter {id} belongs to relay {relay}")]
    OfRelay {
        /// Id of the letter that cannot be edited.
        id: i64,
        /// Name of the relay that the letter belongs to.
        relay: String,
    },
    /// The letter is resolved.
    #[error("letter {id} is resolved already: {resolution}")]
    Resolved {
        /// Id of the letter that cannot be edited.
        id: i64,
        /// Resolution of the letter: `published` or `discarded`.
        resolution: String,
    },
    /// The letter is tried again or held: the stream may have it already.
    #[error("letter {id} is {state}; only dead letters can be edited")]
    NotDead {
        /// Id of the letter that cannot be edited.
        id: i64,
        /// State of the letter: `held` or `retrying`.
        state: String,
    },
    /// The payload of the letter is lost: it was in a row that is gone.
    #[error("its payload is gone: its row is not in the outbox")]
    PayloadGone,
    /// A header that should be removed is not there.
    #[error("the letter has no header {0}")]
    NoHeader(String),
    /// The headers cannot be written as JSON.
    #[error("headers: {0}")]
    Headers(serde_json::Error),
    /// The new payload of a letter with a JSON payload is no JSON.
    #[error("not valid JSON: {0}")]
    NotJson(String),
    /// The template `route.subject` of the configuration cannot be parsed.
    #[error("route.subject: {0}")]
    Template(TemplateError),
    /// The relay would refuse to make a message of the edited event, and the letter would die
    /// again.
    #[error("it would die again: {0}")]
    Refused(Refusal),
    /// Another person has changed the letter since it was read.
    #[error("letter {0} was taken by somebody else meanwhile")]
    Taken(i64),
}

impl From<QueryError> for EditError {
    fn from(error: QueryError) -> Self {
        Self::Database(error.into())
    }
}

impl EditError {
    /// Next step for a person; `None` when the error's text says it, or when the error may pass by
    /// itself.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Database(error) => error.hint(),
            Self::NotJson(_) => {
                Some(Cow::Borrowed("the letter's payload is JSON; binary payloads stay binary"))
            }
            Self::Refused(_) => Some(Cow::Borrowed("nothing was changed; change that too")),
            Self::Unknown(_)
            | Self::OfRelay { .. }
            | Self::Resolved { .. }
            | Self::NotDead { .. }
            | Self::PayloadGone
            | Self::NoHeader(_)
            | Self::Headers(_)
            | Self::Template(_)
            | Self::Taken(_) => None,
        }
    }
}

/// Checks whether this edit of a letter would be accepted, without writing it.
///
/// # Errors
/// The errors of the session with Postgres, or why the letter cannot be edited so.
pub async fn rehearse_edit(
    config: &Config,
    id: i64,
    changes: LetterChanges,
) -> Result<(), EditError> {
    let operator = open(config, &OPERATOR_SETTINGS).await?;
    prepare(&operator, config, (id, changes)).await.map(drop)
}

/// Changes a dead letter of the configured relay.
///
/// # Errors
/// The errors of the session, and those of a letter that cannot be changed in this way.
pub async fn edit(
    config: &Config,
    id: i64,
    changes: LetterChanges,
    attribution: &Attribution,
) -> Result<EditedLetter, EditError> {
    let operator = open(config, &OPERATOR_SETTINGS).await?;
    let edit = prepare(&operator, config, (id, changes)).await?;
    let edited = operator.edit(&edit, attribution).await?;
    let event_id = edited.ok_or(EditError::Taken(id))?;
    Ok(EditedLetter { id, event_id, replaces: edit.event_id, redriven: edit.redrive })
}

/// Prepares the edit of a letter, and checks it.
async fn prepare(
    operator: &Operator,
    config: &Config,
    (id, changes): (i64, LetterChanges),
) -> Result<Edit, EditError> {
    let detail = dead_letter(operator, id).await?;
    // A single byte of each part shows which of the payload's columns are set. The whole payload
    // may be large.
    let parts = operator.payload(id, 1).await?.ok_or(EditError::PayloadGone)?;
    let edit = changes.edit(&detail, &parts)?;
    check(config, &detail, &edit, &parts)?;
    Ok(edit)
}

/// Reads a letter, and refuses one that may not be edited.
async fn dead_letter(operator: &Operator, id: i64) -> Result<LetterDetail, EditError> {
    let detail = operator.letter(id).await?.ok_or(EditError::Unknown(id))?;
    let letter = &detail.letter;
    if letter.relay != operator.relay() {
        return Err(EditError::OfRelay { id, relay: letter.relay.clone() });
    }
    if let Some(resolution) = &detail.resolution {
        return Err(EditError::Resolved { id, resolution: resolution.clone() });
    }
    if letter.state != "dead" {
        return Err(EditError::NotDead { id, state: letter.state.clone() });
    }
    Ok(detail)
}

impl LetterChanges {
    fn edit(self, detail: &LetterDetail, parts: &[PayloadPart]) -> Result<Edit, EditError> {
        let letter = &detail.letter;
        let subject = match self.subject.as_deref() {
            None => detail.subject.clone(),
            Some("") => None,
            Some(subject) => Some(subject.to_owned()),
        };
        Ok(Edit {
            id: letter.id,
            event_id: letter.event_id,
            event_type: self.event_type.as_ref().unwrap_or(&letter.event_type).clone(),
            subject,
            headers: self.headers(&detail.headers)?,
            payload: self.payload.map(|bytes| payload(bytes, detail, parts)).transpose()?,
            redrive: self.redrive,
        })
    }

    /// The new headers. Headers that are no JSON object can only be replaced.
    fn headers(&self, before: &str) -> Result<String, EditError> {
        if self.set_headers.is_empty() && self.remove_headers.is_empty() {
            return Ok(before.to_owned());
        }
        // Header values keep their spelling: a number keeps its digits.
        let parsed: Result<BTreeMap<Cow<'_, str>, Cow<'_, RawValue>>, _> =
            serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(before)
                .map(|map| map.into_iter().map(|(k, v)| (k, Cow::Borrowed(v))).collect());
        let is_object = parsed.is_ok();
        let mut headers = parsed.unwrap_or_default();
        for name in &self.remove_headers {
            if headers.remove(name.as_str()).is_none() && is_object {
                return Err(EditError::NoHeader(name.clone()));
            }
        }
        for (name, value) in &self.set_headers {
            let value = serde_json::value::to_raw_value(value).map_err(EditError::Headers)?;
            headers.insert(Cow::Borrowed(name), Cow::Owned(value));
        }
        serde_json::to_string(&headers).map_err(EditError::Headers)
    }
}

/// The new payload, in the column of the old one: JSON or bytes. When neither column or both had a
/// payload, the media type decides.
fn payload(
    bytes: Vec<u8>,
    detail: &LetterDetail,
    parts: &[PayloadPart],
) -> Result<NewPayload, EditError> {
    let is_binary = match parts {
        [part] => part.is_binary,
        _ => !is_json(&detail.content_type),
    };
    if is_binary {
        return Ok(NewPayload::Binary(bytes));
    }
    serde_json::from_slice::<&RawValue>(&bytes)
        .map_err(|error| EditError::NotJson(error.to_string()))?;
    let text = String::from_utf8(bytes);
    Ok(NewPayload::Json(text.map_err(|error| EditError::NotJson(error.to_string()))?))
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}

/// Encodes the edited event as the relay would, because an event that cannot be encoded would die
/// again. The broker's own limits are not checked: only the relay learns them.
fn check(
    config: &Config,
    detail: &LetterDetail,
    edit: &Edit,
    parts: &[PayloadPart],
) -> Result<(), EditError> {
    let template = SubjectTemplate::parse(&config.route.subject).map_err(EditError::Template)?;
    let anything = || vec![">".to_owned()];
    let subjects = Some(config.stream.subjects.clone()).filter(|subjects| !subjects.is_empty());
    let limits = Limits {
        stream: config.stream.name.clone(),
        subjects: subjects.unwrap_or_else(anything),
        message_bytes_max: u64::MAX,
        framing_bytes: 0,
    };
    let encoder = Encoder::new(template, config.relay.source.clone()).with_limits(limits);
    encoder.encode(&event(detail, edit, parts)).map(drop).map_err(EditError::Refused)
}

fn event(detail: &LetterDetail, edit: &Edit, parts: &[PayloadPart]) -> Event {
    let payload = match (&edit.payload, parts) {
        (Some(NewPayload::Json(text)), _) => Payload::Bytes(text.clone().into()),
        (Some(NewPayload::Binary(bytes)), _) => Payload::Bytes(bytes.clone().into()),
        (None, []) => Payload::Null,
        (None, [part]) => Payload::Bytes(part.bytes.clone()),
        (None, _) => Payload::Both,
    };
    let letter = &detail.letter;
    Event {
        seq: Seq(letter.seq),
        id: EventId(edit.event_id),
        occurred_at: detail.occurred_at.parse().ok(),
        event_type: edit.event_type.clone(),
        event_version: detail.event_version,
        kind: Cow::Owned(detail.kind.clone()),
        key: letter.key.clone(),
        aggregate_version: detail.aggregate_version,
        source: detail.source.clone(),
        subject: edit.subject.clone(),
        content_type: Cow::Owned(detail.content_type.clone()),
        payload,
        headers: Some(edit.headers.clone()).filter(|headers| headers != "{}"),
        correlation_id: detail.correlation_id.clone(),
        causation_id: detail.causation_id.clone(),
        actor: detail.actor.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(set: &[(&str, &str)], removed: &[&str]) -> LetterChanges {
        LetterChanges {
            set_headers: set.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            remove_headers: removed.iter().map(|name| (*name).to_owned()).collect(),
            ..LetterChanges::default()
        }
    }

    #[test]
    fn headers_that_are_not_named_stay_as_they_are_written() {
        let before = r#"{"a": 12345678901234567890123, "b": ["x", "y"], "Nats-TTL": "1"}"#;
        let after = changes(&[("c", "z\"")], &["Nats-TTL"]).headers(before).unwrap();
        assert_eq!(after, r#"{"a":12345678901234567890123,"b":["x", "y"],"c":"z\""}"#);
        assert_eq!(changes(&[], &[]).headers(before).unwrap(), before);
        assert!(changes(&[], &["nats-ttl"]).headers(before).is_err());
    }

    #[test]
    fn headers_that_are_no_object_are_replaced() {
        assert_eq!(changes(&[], &["x"]).headers(r#"["Tenant"]"#).unwrap(), "{}");
        assert_eq!(changes(&[("a", "1")], &[]).headers("3").unwrap(), r#"{"a":"1"}"#);
    }

    #[test]
    fn a_media_type_tells_whether_it_is_json() {
        for (text, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("application/octet-stream", false),
            ("text/json-like", false),
        ] {
            assert_eq!(is_json(text), expected, "{text}");
        }
    }
}
