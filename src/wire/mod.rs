//! An event as it goes on the wire: `Encoder::encode` is the only way to make a message.

mod headers;
mod refusal;
mod structured;
mod subject;

use bytes::Bytes;

use crate::event::{Event, EventId, Payload};

pub use headers::{
    HEADER_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADER_VALUE_BYTES_MAX, HEADERS_MAX, Headers,
};
pub use refusal::Refusal;
pub use subject::{SUBJECT_BYTES_MAX, SubjectTemplate, TemplateError, captures};

/// Message: an event as it goes on the wire.
#[derive(Debug, Clone)]
pub struct Message {
    /// The event's id, which is the message id too.
    pub id: EventId,
    /// The subject under which the message is published.
    pub subject: String,
    /// The message id, the CloudEvents attributes and the row's custom headers.
    pub headers: Headers,
    /// The payload's bytes, never parsed.
    pub payload: Bytes,
    /// Number of trace-context headers of the row that could not be sent. The message goes without
    /// them.
    pub left_out: u64,
}

/// The limits for a message, learned from the NATS server and the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The stream's name, for the texts of refusals.
    pub stream: String,
    /// The subjects that the stream captures.
    pub subjects: Vec<String>,
    /// The most bytes that framing, headers and payload may have together.
    pub message_bytes_max: u64,
    /// The bytes that the broker's protocol adds to each message and counts with it.
    pub framing_bytes: u64,
}

/// The content mode of a message, as CloudEvents name it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The payload alone is the body; attributes are headers.
    #[default]
    Binary,
    /// The whole event is the body, as one line of JSON; there is no header but the id.
    Structured,
    /// Events are only counted. The subject is the event's type, there is no payload, and no event
    /// is refused.
    Counted,
    /// Every event is refused as one that no route takes.
    Refused,
}

/// Encoder of one route: turns events into messages, by the subject template, the source and the
/// broker's limits.
#[derive(Debug, Clone)]
pub struct Encoder {
    template: SubjectTemplate,
    source: String,
    mode: Mode,
    limits: Limits,
}

impl Encoder {
    /// Makes an encoder for one route. It refuses every event until it has limits.
    pub fn new(template: SubjectTemplate, source: String) -> Self {
        Self { template, source, mode: Mode::Binary, limits: Limits::default() }
    }

    /// The encoder with this content mode.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The encoder with these limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Sets the limits that the broker has now.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Makes the message of an event.
    ///
    /// # Errors
    /// A [`Refusal`] says what makes the event impossible to publish. It is final: the same event
    /// under the same configuration is refused again.
    pub fn encode(&self, event: &Event) -> Result<Message, Refusal> {
        match self.mode {
            Mode::Binary | Mode::Structured => {}
            Mode::Counted => return Ok(uncarried(event)),
            Mode::Refused => {
                return Err(Refusal::Unrouted { event_type: event.event_type.clone() });
            }
        }
        check_identity(event)?;
        let subject = self.template.subject_of(event, &self.source)?;
        if !self.limits.subjects.iter().any(|filter| captures(filter, &subject)) {
            return Err(Refusal::SubjectNotCaptured {
                subject: subject::shorten(&subject),
                stream: self.limits.stream.clone(),
            });
        }
        let (headers, left_out) = headers::headers_of(event, &self.source)?;
        let bytes_max = self.limits.message_bytes_max;
        let around = headers.bytes() as u64 + self.limits.framing_bytes;
        let too_large = |payload_bytes: u64| {
            let bytes = payload_bytes + around;
            Refusal::PayloadTooLarge { bytes, bytes_max }
        };
        let payload = match &event.payload {
            Payload::Bytes(bytes) if bytes.len() as u64 + around > bytes_max => {
                return Err(too_large(bytes.len() as u64));
            }
            Payload::Bytes(bytes) => bytes.clone(),
            Payload::Null => Bytes::new(),
            Payload::Both => return Err(Refusal::TwoPayloads),
            Payload::Unreadable { reason } => {
                return Err(Refusal::UnreadableRow { reason: reason.to_string() });
            }
            // The payload was too large when the row was read, and was left in the outbox. So the
            // event is refused, even if the broker's limit is higher by now.
            Payload::Oversize { bytes } => return Err(too_large(*bytes)),
        };
        let (headers, payload) = match self.mode {
            Mode::Binary | Mode::Counted | Mode::Refused => (headers, payload),
            Mode::Structured => (Headers::new(event.id), structured::line_of(event, &self.source)?),
        };
        Ok(Message { id: event.id, subject, headers, payload, left_out })
    }
}

/// The message of an event that is only counted: it has the event's type as subject, and no
/// payload.
fn uncarried(event: &Event) -> Message {
    Message {
        id: event.id,
        subject: event.event_type.clone(),
        headers: Headers::new(event.id),
        payload: Bytes::new(),
        left_out: 0,
    }
}

/// Refuses an event with only a type or only an id of an aggregate, or with an event id of zeros:
/// the stream would take all events with that id for one. An event without an aggregate is
/// accepted.
fn check_identity(event: &Event) -> Result<(), Refusal> {
    if event.id.0.is_nil() {
        return Err(Refusal::MissingField { field: "event_id" });
    }
    let Some(key) = &event.key else { return Ok(()) };
    if key.aggregate_type().is_empty() {
        return Err(Refusal::MissingField { field: "aggregate_type" });
    }
    if key.aggregate_id().is_empty() {
        return Err(Refusal::MissingField { field: "aggregate_id" });
    }
    Ok(())
}

/// Appends a byte as `%XX`, with hexadecimal digits.
fn push_percent_encoded(text: &mut String, byte: u8) {
    text.push('%');
    for digit in [byte >> 4, byte & 15] {
        text.extend(char::from_digit(digit.into(), 16).map(|digit| digit.to_ascii_uppercase()));
    }
}

#[cfg(test)]
mod tests;
