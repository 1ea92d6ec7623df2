//! Subjects: the template of a route, what fills it, and what the stream captures.

use thiserror::Error;

use crate::{
    event::Event,
    wire::{Refusal, push_percent_encoded},
};

/// The longest subject that is sent, in bytes. The server closes the connection far above it.
pub const SUBJECT_BYTES_MAX: usize = 512;

/// A subject template such as `events.{event_type}`. Its first token is always literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectTemplate {
    /// The literal text before the first field. Every subject of the route begins with it.
    prefix: String,
    parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Literal(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    EventType,
    EventVersion,
    Kind,
    AggregateType,
    AggregateId,
    Source,
}

const FIELDS: [(&str, Field); 6] = [
    ("event_type", Field::EventType),
    ("event_version", Field::EventVersion),
    ("kind", Field::Kind),
    ("aggregate_type", Field::AggregateType),
    ("aggregate_id", Field::AggregateId),
    ("source", Field::Source),
];

/// Reason why a text is not a subject template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The first token is not literal, so a row could choose any subject.
    #[error("the first token must be literal text; write for instance \"events.{{event_type}}\"")]
    NoLiteralPrefix,
    /// A brace is opened and never closed, or closed without being opened.
    #[error("braces do not match; a field is written {{event_type}}")]
    Braces,
    /// A field that does not exist.
    #[error("unknown field \"{{{name}}}\"; there are {}", field_names())]
    UnknownField {
        /// The text between the braces.
        name: String,
    },
    /// Literal text that is no subject.
    #[error("it is not a valid subject: {reason}")]
    Invalid {
        /// The fault, as the end of a sentence.
        reason: &'static str,
    },
}

fn field_names() -> String {
    FIELDS.map(|(name, _)| format!("{{{name}}}")).join(", ")
}

impl SubjectTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// Says what to write instead when the first token is not literal, a field is unknown, braces
    /// do not match or the literal text is no subject.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or(TemplateError::Braces)?;
            let (_, field) = FIELDS
                .iter()
                .find(|(known, _)| *known == name)
                .ok_or_else(|| TemplateError::UnknownField { name: name.to_owned() })?;
            if literal.contains('}') {
                return Err(TemplateError::Braces);
            }
            parts.push(TemplatePart::Literal(literal.to_owned()));
            parts.push(TemplatePart::Field(*field));
            rest = after;
        }
        if rest.contains('}') {
            return Err(TemplateError::Braces);
        }
        parts.push(TemplatePart::Literal(rest.to_owned()));
        let prefix = text.split('{').next().unwrap_or_default().to_owned();
        if prefix.is_empty() || (text.contains('{') && !prefix.contains('.')) {
            return Err(TemplateError::NoLiteralPrefix);
        }
        let sample: String = parts
            .iter()
            .map(|part| match part {
                TemplatePart::Literal(text) => text.as_str(),
                TemplatePart::Field(_) => "x",
            })
            .collect();
        match subject_fault(&sample) {
            Some(reason) => Err(TemplateError::Invalid { reason }),
            None => Ok(Self { prefix, parts }),
        }
    }

    /// The literal text that every subject of this route starts with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// An example of a subject that the template makes, for checks before there is an event.
    pub fn sample(&self) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                TemplatePart::Literal(text) => text.as_str(),
                TemplatePart::Field(_) => "x",
            })
            .collect()
    }

    /// The subject of an event. A row may name its own, which has to begin with the template's
    /// prefix. Otherwise the template gives it.
    pub(super) fn subject_of(&self, event: &Event, source: &str) -> Result<String, Refusal> {
        let subject = match &event.subject {
            Some(own) if own.starts_with(&self.prefix) => own.clone(),
            Some(own) => {
                return Err(Refusal::SubjectOutsidePrefix {
                    subject: shorten(own),
                    prefix: self.prefix.clone(),
                });
            }
            None => self.fill(event, source)?,
        };
        if subject.len() > SUBJECT_BYTES_MAX {
            return Err(Refusal::SubjectTooLong { bytes: subject.len() });
        }
        match subject_fault(&subject) {
            Some(reason) => Err(Refusal::InvalidSubject { subject: shorten(&subject), reason }),
            None => Ok(subject),
        }
    }

    fn fill(&self, event: &Event, source: &str) -> Result<String, Refusal> {
        let mut subject = String::with_capacity(64);
        for part in &self.parts {
            let field = match part {
                TemplatePart::Literal(text) => {
                    subject.push_str(text);
                    continue;
                }
                TemplatePart::Field(field) => *field,
            };
            let key = event.key.as_ref();
            match field {
                Field::EventType => subject.push_str(&event.event_type),
                Field::EventVersion => {
                    push_token(&mut subject, &event.event_version.to_string());
                }
                Field::Kind => push_token(&mut subject, &event.kind),
                Field::Source => {
                    push_token(&mut subject, event.source.as_deref().unwrap_or(source));
                }
                Field::AggregateType => {
                    let key = key.ok_or(Refusal::MissingField { field: "aggregate_type" })?;
                    push_token(&mut subject, key.aggregate_type());
                }
                Field::AggregateId => {
                    let key = key.ok_or(Refusal::MissingField { field: "aggregate_id" })?;
                    push_token(&mut subject, key.aggregate_id());
                }
            }
        }
        Ok(subject)
    }
}

/// Appends one token. The character `%` is percent-encoded, and so are characters that would end
/// the token, act as a wildcard or not be shown.
fn push_token(subject: &mut String, text: &str) {
    for character in text.chars() {
        let plain = !matches!(character, '.' | '*' | '>' | '%')
            && !character.is_control()
            && !character.is_whitespace()
            && character != char::REPLACEMENT_CHARACTER;
        if plain {
            subject.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                push_percent_encoded(subject, byte);
            }
        }
    }
}

/// The fault that makes a subject impossible to publish. `None` for a valid subject.
fn subject_fault(subject: &str) -> Option<&'static str> {
    if subject.starts_with('$') || subject.starts_with("_INBOX") {
        return Some("subjects that start with $ or _INBOX belong to the server");
    }
    if is_plain(subject) { None } else { fault_of_token(subject) }
}

fn fault_of_token(subject: &str) -> Option<&'static str> {
    for token in subject.split('.') {
        if token.is_empty() {
            return Some("it has an empty token");
        }
        if token.contains(['*', '>']) {
            return Some("it has a wildcard");
        }
        if token.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Some("it has white space or a control character");
        }
        if token.contains(char::REPLACEMENT_CHARACTER) {
            return Some("it has a replacement character, so its text was broken before");
        }
    }
    None
}

/// Whether a quick test finds the subject valid, as it does for most subjects. The test passes
/// printable ASCII without wildcards and without empty tokens.
fn is_plain(subject: &str) -> bool {
    let mut previous = b'.';
    for byte in subject.bytes() {
        let fits = byte.is_ascii_graphic() && byte != b'*' && byte != b'>';
        if !fits || (byte == b'.' && previous == b'.') {
            return false;
        }
        previous = byte;
    }
    previous != b'.'
}

/// Whether a stream's subject filter, with its wildcards, captures a subject.
pub fn captures(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for pattern in filter.split('.') {
        match (pattern, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (literal, Some(token)) if literal == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// A text for an error: control characters escaped, at most 80 characters.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().count() > 80 {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_needs_a_literal_first_token() {
        for text in ["{event_type}", "events{event_type}", ""] {
            assert_eq!(SubjectTemplate::parse(text), Err(TemplateError::NoLiteralPrefix), "{text}");
        }
        for text in
            ["events.{type}", "events.{", "events.}", "$JS.{event_type}", "a..{kind}", "a.*"]
        {
            assert!(SubjectTemplate::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            SubjectTemplate::parse("events.{event_type}").map(|t| t.prefix),
            Ok("events.".into())
        );
        assert!(SubjectTemplate::parse("events.all").is_ok());
    }

    #[test]
    fn a_token_cannot_leave_its_place() {
        let mut subject = String::new();
        push_token(&mut subject, "a.b*c>d e%f\n");
        assert_eq!(subject, "a%2Eb%2Ac%3Ed%20e%25f%0A");
        assert_eq!(subject_fault(&subject), None);
    }

    #[test]
    fn what_looks_plain_has_no_fault() {
        for subject in
            ["", ".", "a", "a.", ".a", "a..b", "a.b", "a.*", "a>b", "a b", "ä.b", "a.\u{7f}"]
        {
            assert_eq!(is_plain(subject), subject.is_ascii() && fault_of_token(subject).is_none());
        }
    }

    #[test]
    fn filters_capture_as_the_server_does() {
        assert!(captures("events.>", "events.a.b"));
        assert!(!captures("events.>", "events"));
        assert!(captures("events.*", "events.a"));
        assert!(!captures("events.*", "events.a.b"));
        assert!(captures("events.a", "events.a"));
        assert!(captures("*.a", "events.a"));
        assert!(!captures("events.a", "events.a.b"));
    }
}
