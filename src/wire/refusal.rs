//! Refusal: the reason for which an event cannot become a message, found before anything is sent.

use thiserror::Error;

/// Reason why an event cannot become a message. The event is dead-lettered with this text and code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The subject has an empty token, a wildcard, white space or a control character.
    #[error("subject \"{subject}\" is not valid: {reason}")]
    InvalidSubject {
        /// The subject that the message would have had.
        subject: String,
        /// The fault, as the end of a sentence.
        reason: &'static str,
    },
    /// The subject is longer than [`crate::wire::SUBJECT_BYTES_MAX`].
    #[error("subject has {bytes} bytes, the limit is {}", crate::wire::SUBJECT_BYTES_MAX)]
    SubjectTooLong {
        /// Bytes of the subject.
        bytes: usize,
    },
    /// The row's own subject does not begin with the literal prefix of the route's template.
    #[error("subject \"{subject}\" does not start with the route's prefix \"{prefix}\"")]
    SubjectOutsidePrefix {
        /// The row's subject.
        subject: String,
        /// The beginning of the template, which stays the same for every event.
        prefix: String,
    },
    /// The stream does not capture the subject. The broker would answer as for a missing stream.
    #[error("subject \"{subject}\" is not captured by stream \"{stream}\"")]
    SubjectNotCaptured {
        /// The subject.
        subject: String,
        /// The stream's name.
        stream: String,
    },
    /// No route takes the event.
    #[error("no route takes events of the type \"{event_type}\"")]
    Unrouted {
        /// The event's type.
        event_type: String,
    },
    /// Both payload columns of the row are set.
    #[error("both payload and payload_binary are set; set one of them")]
    TwoPayloads,
    /// The database cannot give the row, or a part of it.
    #[error("the database cannot read this row: {reason}")]
    UnreadableRow {
        /// The message of the database or the driver.
        reason: String,
    },
    /// A field that is needed is null or empty in this row.
    #[error("{field} is needed, and null or empty in this row")]
    MissingField {
        /// The column's name.
        field: &'static str,
    },
    /// A header that a broker or Postrider gives a meaning to.
    #[error("header \"{name}\" is reserved; rename it in the row's headers")]
    ReservedHeader {
        /// The header's name.
        name: String,
    },
    /// A header name or value that cannot go on the wire.
    #[error("header \"{name}\" is not valid: {reason}")]
    InvalidHeader {
        /// The header's name, escaped and shortened.
        name: String,
        /// The fault, as the end of a sentence.
        reason: &'static str,
    },
    /// The row has too many headers, or too many bytes of headers.
    #[error("headers exceed the limit: {what}")]
    HeadersTooLarge {
        /// The exceeded limit: the number that the row has, and the number that is allowed.
        what: String,
    },
    /// The payload and headers exceed what the broker takes.
    #[error("message has {bytes} bytes, the broker takes at most {bytes_max}")]
    PayloadTooLarge {
        /// Bytes of the payload, the headers and the framing together.
        bytes: u64,
        /// The smaller of the server's and the stream's limit.
        bytes_max: u64,
    },
}

impl Refusal {
    /// The stable code that letters and metrics carry.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidSubject { .. } => "invalid_subject",
            Self::SubjectTooLong { .. } => "subject_too_long",
            Self::SubjectOutsidePrefix { .. } => "subject_outside_prefix",
            Self::SubjectNotCaptured { .. } => "subject_not_captured",
            Self::MissingField { .. } => "missing_field",
            Self::Unrouted { .. } => "unrouted",
            Self::TwoPayloads => "two_payloads",
            Self::UnreadableRow { .. } => "unreadable_row",
            Self::ReservedHeader { .. } => "reserved_header",
            Self::InvalidHeader { .. } => "invalid_header",
            Self::HeadersTooLarge { .. } => "headers_too_large",
            Self::PayloadTooLarge { .. } => "payload_too_large",
        }
    }
}
