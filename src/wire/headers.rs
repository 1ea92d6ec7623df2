//! The headers of a message: CloudEvents attributes in binary mode, and the row's own.

use std::{borrow::Cow, collections::BTreeMap};

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use crate::{
    event::{Event, Payload},
    wire::{Refusal, push_percent_encoded, subject::shorten},
};

/// The most headers that a row may bring.
pub const HEADERS_MAX: usize = 64;
/// The most bytes of names and values that a row's headers may have together.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// The longest header name, in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// The longest header value, in bytes.
pub const HEADER_VALUE_BYTES_MAX: usize = 4096;

/// What the outbox gives in place of headers of which no limit here could leave anything.
const LEFT_OUT: &str = "\"too large\"";

/// What tracing adds by itself: no event shall die of it.
const TRACE_CONTEXT: [&str; 3] = ["traceparent", "tracestate", "baggage"];

const MSG_ID: HeaderName = HeaderName::from_static("Nats-Msg-Id");
const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
const ID: HeaderName = HeaderName::from_static("ce-id");
const SOURCE: HeaderName = HeaderName::from_static("ce-source");
const TYPE: HeaderName = HeaderName::from_static("ce-type");
const TIME: HeaderName = HeaderName::from_static("ce-time");
const SUBJECT: HeaderName = HeaderName::from_static("ce-subject");
const CONTENT_TYPE: HeaderName = HeaderName::from_static("ce-datacontenttype");
const EVENT_VERSION: HeaderName = HeaderName::from_static("ce-eventversion");
const KIND: HeaderName = HeaderName::from_static("ce-kind");
const SEQUENCE: HeaderName = HeaderName::from_static("ce-sequence");
const PARTITION_KEY: HeaderName = HeaderName::from_static("ce-partitionkey");
const AGGREGATE_TYPE: HeaderName = HeaderName::from_static("ce-aggregatetype");
const AGGREGATE_VERSION: HeaderName = HeaderName::from_static("ce-aggregateversion");
const CORRELATION_ID: HeaderName = HeaderName::from_static("ce-correlationid");
const CAUSATION_ID: HeaderName = HeaderName::from_static("ce-causationid");
const ACTOR: HeaderName = HeaderName::from_static("ce-authid");
const NULL: HeaderName = HeaderName::from_static("Postrider-Null");

/// The headers of one message.
pub(super) struct Headers {
    pub(super) map: HeaderMap,
    /// What they take on the wire.
    pub(super) bytes: usize,
    /// Headers of the trace context that could not be sent.
    pub(super) left_out: u64,
}

/// Writes the event's attributes and its custom headers.
pub(super) fn headers_of(event: &Event, source: &str) -> Result<Headers, Refusal> {
    let mut headers =
        Headers { map: HeaderMap::new(), bytes: "NATS/1.0\r\n\r\n".len(), left_out: 0 };
    let id = event.id.to_string();
    headers.set(MSG_ID, id.clone())?;
    headers.set(ID, id)?;
    headers.set(SPEC_VERSION, "1.0")?;
    headers.set(SOURCE, encode(event.source.as_deref().unwrap_or(source)))?;
    headers.set(TYPE, encode(&event.event_type))?;
    headers.set(CONTENT_TYPE, encode(&event.content_type))?;
    headers.set(KIND, encode(&event.kind))?;
    headers.set(SEQUENCE, format!("{:020}", event.seq.0))?;
    headers.set(EVENT_VERSION, event.event_version.to_string())?;
    if let Some(occurred_at) = event.occurred_at {
        headers.set(TIME, occurred_at.to_string())?;
    }
    if let Some(key) = &event.key {
        headers.set(SUBJECT, encode(key.aggregate_id()))?;
        headers.set(AGGREGATE_TYPE, encode(key.aggregate_type()))?;
        headers.set(PARTITION_KEY, encode(key.as_str()))?;
    }
    if let Some(version) = event.aggregate_version {
        headers.set(AGGREGATE_VERSION, version.to_string())?;
    }
    let optional = [
        (CORRELATION_ID, &event.correlation_id),
        (CAUSATION_ID, &event.causation_id),
        (ACTOR, &event.actor),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            headers.set(name, encode(value))?;
        }
    }
    if event.payload == Payload::Null {
        headers.set(NULL, "true")?;
    }
    if let Some(json) = &event.headers {
        headers.add_custom(json)?;
    }
    Ok(headers)
}

impl Headers {
    /// Sets one of our own headers.
    fn set(&mut self, name: HeaderName, value: impl Into<String>) -> Result<(), Refusal> {
        let value = value.into();
        let invalid = |reason| Refusal::InvalidHeader { name: name.to_string(), reason };
        if value.len() > HEADER_VALUE_BYTES_MAX {
            return Err(invalid("its value is longer than 4096 bytes"));
        }
        // The client would panic.
        if value.contains(['\r', '\n']) {
            return Err(invalid("its value has a line break"));
        }
        self.bytes += AsRef::<str>::as_ref(&name).len() + value.len() + ": \r\n".len();
        self.map.insert(name, HeaderValue::from(value));
        Ok(())
    }

    /// Adds the row's own headers: an object of strings, numbers, booleans or lists of strings.
    fn add_custom(&mut self, json: &str) -> Result<(), Refusal> {
        let too_large = |what| Err(Refusal::HeadersTooLarge { what });
        if json == LEFT_OUT {
            return too_large(format!("more than 65536 bytes, the limit is {HEADER_BYTES_MAX}"));
        }
        let custom: BTreeMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(json).map_err(|_| Refusal::InvalidHeader {
                name: "headers".to_owned(),
                reason: "the column must hold a JSON object",
            })?;
        let (mut count, mut bytes) = (0, 0);
        for (name, value) in &custom {
            check_name(name)?;
            let values = match checked_texts(name, value) {
                Err(_) if is_trace_context(name) => {
                    self.left_out += 1;
                    continue;
                }
                values => values?,
            };
            for text in values {
                count += 1;
                bytes += name.len() + text.len();
                self.append(name, &text)?;
            }
        }
        if count > HEADERS_MAX {
            return too_large(format!("{count} headers, the limit is {HEADERS_MAX}"));
        }
        if bytes > HEADER_BYTES_MAX {
            return too_large(format!("{bytes} bytes, the limit is {HEADER_BYTES_MAX}"));
        }
        Ok(())
    }

    fn append(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let invalid = |reason| Refusal::InvalidHeader { name: shorten(name), reason };
        let name: HeaderName = name.parse().map_err(|_| invalid("its name is not a token"))?;
        let checked: HeaderValue =
            value.parse().map_err(|_| invalid("its value has a line break"))?;
        self.bytes += AsRef::<str>::as_ref(&name).len() + value.len() + ": \r\n".len();
        self.map.append(name, checked);
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let invalid = |reason| Refusal::InvalidHeader { name: shorten(name), reason };
    if name.is_empty() || name.len() > HEADER_NAME_BYTES_MAX {
        return Err(invalid("its name must have 1 to 128 bytes"));
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+.^_`|~-".contains(&byte);
    if !name.bytes().all(token) {
        return Err(invalid("its name may have letters, digits and !#$%&'*+.^_`|~- only"));
    }
    let reserved = ["nats-", "ce-", "postrider-"].iter().any(|prefix| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    });
    if reserved { Err(Refusal::ReservedHeader { name: shorten(name) }) } else { Ok(()) }
}

fn is_trace_context(name: &str) -> bool {
    TRACE_CONTEXT.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The texts of one custom header, all of them fit to be sent.
fn checked_texts<'a>(name: &str, value: &'a RawValue) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let invalid = |reason| Refusal::InvalidHeader { name: shorten(name), reason };
    let texts = texts(name, value)?;
    for text in &texts {
        if text.len() > HEADER_VALUE_BYTES_MAX {
            return Err(invalid("its value is longer than 4096 bytes"));
        }
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(invalid("its value has a control character"));
        }
    }
    // A broken trace context is worth nothing to anyone.
    let is_broken = || !matches!(texts.as_slice(), [text] if is_traceparent(text));
    if name.eq_ignore_ascii_case("traceparent") && is_broken() {
        return Err(invalid("it is no trace context"));
    }
    Ok(texts)
}

/// The texts of one custom header. Numbers keep the digits they were written with.
fn texts<'a>(name: &str, value: &'a RawValue) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let invalid = || Refusal::InvalidHeader {
        name: shorten(name),
        reason: "its value must be a string, a number, a boolean or a list of strings",
    };
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map(|text| vec![text]).map_err(|_| invalid()),
        Some(b'[') => serde_json::from_str(raw).map_err(|_| invalid()),
        Some(b't' | b'f' | b'-' | b'0'..=b'9') => Ok(vec![Cow::Borrowed(raw)]),
        _ => Err(invalid()),
    }
}

/// Whether a text is a W3C `traceparent`: `version-trace_id-parent_id-flags`, and with a version
/// above ours whatever that may add.
fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |length: usize, forbidden: char| {
        parts.next().is_some_and(|part| {
            part.len() == length
                && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
                && part.chars().any(|digit| digit != forbidden)
        })
    };
    // Version ff and ids of zeros are not valid; all flags are.
    let is_known = hex(2, 'f') && hex(32, '0') && hex(16, '0') && hex(2, ' ');
    is_known && (!text.starts_with("00") || parts.next().is_none())
}

/// Percent-encodes a CloudEvents attribute as the HTTP and NATS bindings want it.
fn encode(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'%';
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            push_percent_encoded(&mut encoded, byte);
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_percent_encoded_by_utf8_byte() {
        assert_eq!(encode("plain/1"), "plain/1");
        assert_eq!(encode("Euro € \"x\" 5%\r\n"), "Euro%20%E2%82%AC%20%22x%22%205%25%0D%0A");
    }

    #[test]
    fn a_trace_context_is_recognised() {
        assert!(is_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(!is_traceparent("00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        assert!(is_traceparent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-later"));
        for broken in [
            "junk",
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert!(!is_traceparent(broken), "{broken}");
        }
    }

    #[test]
    fn reserved_names_are_refused_in_any_case() {
        for name in ["Nats-Rollup", "nats-ttl", "CE-id", "Postrider-Null"] {
            assert!(matches!(check_name(name), Err(Refusal::ReservedHeader { .. })), "{name}");
        }
        assert_eq!(check_name("natsy"), Ok(()));
        assert_eq!(check_name("x-tenant"), Ok(()));
        for name in ["", "a b", "a:b", "ä", "a\n"] {
            assert!(matches!(check_name(name), Err(Refusal::InvalidHeader { .. })), "{name}");
        }
    }
}
