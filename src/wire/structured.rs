//! Structured mode: a whole event as one line of CloudEvents JSON.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Refusal;
use crate::event::{AggregateKey, Event, Payload};

/// An event in the JSON format of CloudEvents 1.0. Attributes without a value are left out.
#[derive(Serialize)]
struct Structured<'a> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    datacontenttype: &'a str,
    kind: &'a str,
    /// The `seq` with twenty digits, so that texts sort as their numbers do.
    sequence: String,
    eventversion: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregatetype: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitionkey: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregateversion: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authid: Option<&'a str>,
    /// The event's own headers, as the text of a JSON object.
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<&'a str>,
    #[serde(flatten)]
    data: Data<'a>,
}

/// The payload as a member of the JSON object: `data` as JSON, `data` as text, or `data_base64`. An
/// event without a payload has no such member.
#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Json { data: &'a RawValue },
    Text { data: &'a str },
    Bytes { data_base64: String },
    None {},
}

impl<'a> Data<'a> {
    fn of(payload: &'a [u8], content_type: &str) -> Self {
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        let is_json = media_type.ends_with("/json") || media_type.ends_with("+json");
        if is_json && let Ok(data) = serde_json::from_slice(payload) {
            return Self::Json { data };
        }
        match std::str::from_utf8(payload) {
            Ok(data) if media_type.starts_with("text/") => Self::Text { data },
            Ok(_) | Err(_) => Self::Bytes { data_base64: BASE64_STANDARD.encode(payload) },
        }
    }
}

/// Writes an event as one line, with its line break.
pub(super) fn line_of(event: &Event, source: &str) -> Result<Bytes, Refusal> {
    let key = event.key.as_ref();
    let structured = Structured {
        specversion: "1.0",
        id: event.id.0.to_string(),
        source: event.source.as_deref().unwrap_or(source),
        r#type: &event.event_type,
        subject: key.map(AggregateKey::aggregate_id),
        time: event.occurred_at.map(|time| time.to_string()),
        datacontenttype: &event.content_type,
        kind: &event.kind,
        sequence: format!("{:020}", event.seq.0),
        eventversion: event.event_version,
        aggregatetype: key.map(AggregateKey::aggregate_type),
        partitionkey: key.map(AggregateKey::as_str),
        aggregateversion: event.aggregate_version,
        correlationid: event.correlation_id.as_deref(),
        causationid: event.causation_id.as_deref(),
        authid: event.actor.as_deref(),
        headers: event.headers.as_deref(),
        data: match &event.payload {
            Payload::Bytes(bytes) => Data::of(bytes, &event.content_type),
            Payload::Null
            | Payload::Both
            | Payload::Unreadable { .. }
            | Payload::Oversize { .. } => Data::None {},
        },
    };
    let unserializable = |_| Refusal::InvalidHeader {
        name: "headers".to_owned(),
        reason: "the event cannot be written as JSON",
    };
    let mut line = serde_json::to_vec(&structured).map_err(unserializable)?;
    // A JSON payload keeps its white space, which may include line breaks. The event has to stay
    // one line.
    for byte in &mut line {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    Ok(line.into())
}
