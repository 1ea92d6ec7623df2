//! The headers of a message: CloudEvents attributes in binary mode, and the row's own.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{Display, Write as _},
};

use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    event::{Event, EventId, Payload},
    wire::{Refusal, push_percent_encoded, subject::shorten},
};

/// Maximum number of headers that the `headers` column of a row may have.
pub const HEADERS_MAX: usize = 64;
/// The most bytes of names and values that a row's headers may have together.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// The longest header name, in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// The longest header value, in bytes.
pub const HEADER_VALUE_BYTES_MAX: usize = 4096;

/// The text that the database returns in place of a row's headers when they are far larger than
/// allowed.
const LEFT_OUT: &str = "\"too large\"";

/// Headers that tracing libraries add unasked. An invalid one is left out, and never makes an event
/// a dead letter.
const TRACE_CONTEXT: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Bytes of an event id as text with hyphens.
const ID_BYTES: usize = uuid::fmt::Hyphenated::LENGTH;

/// Digits of the header `ce-sequence`, zeros in front included. Texts of one length sort as their
/// numbers do.
const SEQUENCE_DIGITS: usize = 20;

/// Bytes allocated for the headers of a message at first: enough for a usual event.
const USUAL_BYTES: usize = 640;

/// The headers of one message, as they go on the wire: a line for each, in the order they were
/// added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// The message id, followed by `\r\nName: value` for each header.
    block: String,
}

impl Headers {
    /// Headers with the message id alone.
    pub fn new(id: EventId) -> Self {
        let mut headers = Self { block: String::with_capacity(USUAL_BYTES) };
        headers.block.push_str(id.0.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        headers
    }

    /// Begins the line of a header.
    fn begin(&mut self, name: &str) {
        for part in ["\r\n", name, ": "] {
            self.block.push_str(part);
        }
    }

    /// The message id, and a line for each header after it: `\r\nName: value`.
    pub fn block(&self) -> &str {
        &self.block
    }

    /// The name and the value of each header.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.block.split("\r\n").skip(1).filter_map(|line| line.split_once(": "))
    }

    /// The value of the first header with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    /// The bytes of the block.
    pub(super) fn bytes(&self) -> usize {
        self.block.len()
    }

    /// Adds a header. The caller makes sure that neither the name nor the value has a line break.
    pub(crate) fn add(&mut self, name: &str, value: impl Display) {
        let before = self.block.len() + 2;
        self.begin(name);
        // Writing into a string does not fail.
        let written = write!(self.block, "{value}");
        let line = self.block.get(before..).unwrap_or_default();
        debug_assert!(written.is_ok() && !line.contains(['\r', '\n']), "a line break in {name}");
    }

    /// Adds a number, with zeros in front up to `digits`. Each message has several numbers, for
    /// which the formatting of the standard library is too slow.
    fn add_number(&mut self, name: &str, number: i64, digits: usize) {
        self.begin(name);
        let mut buffer = itoa::Buffer::new();
        let text = buffer.format(number.unsigned_abs());
        if number < 0 {
            self.block.push('-');
        }
        let sign = usize::from(number < 0);
        for _ in text.len() + sign..digits {
            self.block.push('0');
        }
        self.block.push_str(text);
    }

    /// Adds a CloudEvents attribute, encoded as the HTTP and NATS bindings want it.
    fn add_encoded(&mut self, name: &'static str, value: &str) -> Result<(), Refusal> {
        self.begin(name);
        let before = self.block.len();
        push_encoded(&mut self.block, value);
        if self.block.len() - before > HEADER_VALUE_BYTES_MAX {
            let reason = "its value is longer than 4096 bytes";
            return Err(Refusal::InvalidHeader { name: name.to_owned(), reason });
        }
        Ok(())
    }
}

/// Writes the event's attributes and its custom headers. Also returns the number of trace-context
/// headers that could not be sent.
pub(super) fn headers_of(event: &Event, source: &str) -> Result<(Headers, u64), Refusal> {
    let mut headers = Headers::new(event.id);
    headers.begin("ce-id");
    headers.block.extend_from_within(..ID_BYTES);
    headers.begin("ce-specversion");
    headers.block.push_str("1.0");
    headers.add_encoded("ce-source", event.source.as_deref().unwrap_or(source))?;
    headers.add_encoded("ce-type", &event.event_type)?;
    headers.add_encoded("ce-datacontenttype", &event.content_type)?;
    headers.add_encoded("ce-kind", &event.kind)?;
    headers.add_number("ce-sequence", event.seq.0, SEQUENCE_DIGITS);
    headers.add_number("ce-eventversion", event.event_version.into(), 1);
    if let Some(occurred_at) = event.occurred_at {
        headers.add("ce-time", occurred_at);
    }
    if let Some(key) = &event.key {
        headers.add_encoded("ce-subject", key.aggregate_id())?;
        headers.add_encoded("ce-aggregatetype", key.aggregate_type())?;
        headers.add_encoded("ce-partitionkey", key.as_str())?;
    }
    if let Some(version) = event.aggregate_version {
        headers.add("ce-aggregateversion", version);
    }
    let optional = [
        ("ce-correlationid", &event.correlation_id),
        ("ce-causationid", &event.causation_id),
        ("ce-authid", &event.actor),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            headers.add_encoded(name, value)?;
        }
    }
    if event.payload == Payload::Null {
        headers.add("Postrider-Null", "true");
    }
    let left_out = match &event.headers {
        Some(json) => headers.add_custom(json)?,
        None => 0,
    };
    Ok((headers, left_out))
}

impl Headers {
    /// Adds the row's own headers: an object of strings, numbers, booleans or lists of strings.
    /// Returns the number of trace-context headers that were left out.
    fn add_custom(&mut self, json: &str) -> Result<u64, Refusal> {
        let too_large = |what| Err(Refusal::HeadersTooLarge { what });
        let mut left_out = 0;
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
                    left_out += 1;
                    continue;
                }
                values => values?,
            };
            for text in values {
                count += 1;
                bytes += name.len() + text.len();
                self.add(name, &text);
            }
        }
        if count > HEADERS_MAX {
            return too_large(format!("{count} headers, the limit is {HEADERS_MAX}"));
        }
        if bytes > HEADER_BYTES_MAX {
            return too_large(format!("{bytes} bytes, the limit is {HEADER_BYTES_MAX}"));
        }
        Ok(left_out)
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

/// The texts of one custom header, after a check that each of them may be sent.
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
    // Consumers ignore a broken trace context, so it is not sent.
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

/// Whether a text is a W3C `traceparent`: `version-trace_id-parent_id-flags`. A version above 00
/// may have further parts after these.
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
fn push_encoded(encoded: &mut String, text: &str) {
    let plain = |byte: u8| (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'%';
    if text.bytes().all(plain) {
        encoded.push_str(text);
        return;
    }
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            push_percent_encoded(encoded, byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_percent_encoded_by_utf8_byte() {
        let encode = |text| {
            let mut encoded = String::new();
            push_encoded(&mut encoded, text);
            encoded
        };
        assert_eq!(encode("plain/1"), "plain/1");
        assert_eq!(encode("Euro € \"x\" 5%\r\n"), "Euro%20%E2%82%AC%20%22x%22%205%25%0D%0A");
    }

    #[test]
    fn numbers_are_written_as_the_standard_library_does() {
        for number in [0, 1, -1, 42, i64::MAX, i64::MIN] {
            let mut headers = Headers::new(EventId(Uuid::nil()));
            headers.add_number("wide", number, SEQUENCE_DIGITS);
            headers.add_number("narrow", number, 1);
            assert_eq!(headers.get("wide"), Some(&*format!("{number:020}")));
            assert_eq!(headers.get("narrow"), Some(&*number.to_string()));
        }
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
