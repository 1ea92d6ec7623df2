//! What went wrong at Postgres, by what can be done about it, and a text that is safe to show.

use std::{borrow::Cow, error::Error as StdError, io, time::Duration};

use tokio_postgres::error::{DbError, SqlState};

use super::blocking::Blocking;

/// What can be done about an error. There is one classification, [`classify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The same statement may work in a moment, on the same session.
    Transient,
    /// The session is gone or of no more use: connect again.
    SessionLost,
    /// A grant is missing.
    Permission,
    /// A table, column or function is missing or different.
    Schema,
    /// The address, the database, the credentials or the TLS settings are wrong.
    Configuration,
    /// Nothing that we know: a defect here, or data that nobody foresaw.
    Unexpected,
}

impl Class {
    /// The remedy, for operators; `None` when the error passes by itself.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::Transient | Self::SessionLost | Self::Unexpected => None,
            Self::Permission => Some(
                "let `postrider migrate` run as the schema's owner, and grant postrider_relay to \
                 the user of database.url",
            ),
            Self::Schema => Some("run `postrider migrate`, and check database.schema"),
            Self::Configuration => Some("check database.url"),
        }
    }
}

/// A statement that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No answer came in time. It is not known what the server did: drop the session.
    #[error("no answer from the database within {}", humantime::format_duration(*.after))]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// Somebody has changed a column, so that nothing could be read from it.
    #[error("column \"{column}\" of the outbox has the type {found}, and should have {wanted}")]
    Shape {
        /// The column's name.
        column: String,
        /// The type that it has.
        found: String,
        /// The type that it was made with.
        wanted: &'static str,
    },
    /// The row that could not be read is not there any more.
    #[error("a row that could not be read is not there any more")]
    RowGone,
    /// A statement that always gives a row gave none: a defect of this build.
    #[error("a statement gave no row where one was expected")]
    NoRow,
    /// A statement does not say the type of a parameter: a defect of this build.
    #[error("parameter ${number} of a statement has no type")]
    Untyped {
        /// The parameter's number.
        number: usize,
    },
    /// The server gave the statement up, which waited for the lock of another session.
    #[error("{0}")]
    Blocked(Box<Blocked>),
    /// The server or the driver said no. Not a `source`, whose own text would show row values.
    #[error("{}", describe(.0))]
    Failed(tokio_postgres::Error),
}

/// A statement that waited for the lock of another session for too long.
#[derive(Debug, thiserror::Error)]
#[error("{}: {by} holds a lock that it waits for", describe(error))]
pub struct Blocked {
    /// The session that holds the lock.
    pub by: Blocking,
    pub(super) error: tokio_postgres::Error,
}

impl From<tokio_postgres::Error> for QueryError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error)
    }
}

impl QueryError {
    /// Whether the statement was given up because it took too long: by the server, or by us, who
    /// heard nothing from it. One that waited for a known lock is none.
    pub fn is_given_up(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Failed(error) => error.code() == Some(&SqlState::QUERY_CANCELED),
            Self::Shape { .. }
            | Self::RowGone
            | Self::NoRow
            | Self::Untyped { .. }
            | Self::Blocked(_) => false,
        }
    }

    /// Whether a single row may have caused it: damaged storage, or a value that nothing can take. Other
    /// rows may be read all the same.
    pub fn is_of_a_row(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        match error.code() {
            // A block that the disk does not give is as lost as one that makes no sense.
            Some(code) => {
                let code = code.code();
                code == "58030" || matches!(code.get(..2), Some("XX" | "22" | "54"))
            }
            None => classify(error) == Class::Unexpected,
        }
    }

    /// Whether the statement has waited for a lock for too long, whether or not it is known whose.
    pub fn is_locked_out(&self) -> bool {
        match self {
            Self::Blocked(_) => true,
            Self::Failed(error) => error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE),
            Self::Timeout { .. }
            | Self::Shape { .. }
            | Self::RowGone
            | Self::NoRow
            | Self::Untyped { .. } => false,
        }
    }

    /// The session whose lock the statement has waited for, when that is the reason.
    pub fn blocking(&self) -> Option<&Blocking> {
        let Self::Blocked(blocked) = self else { return None };
        Some(&blocked.by)
    }

    /// The remedy, for operators; `None` when the error passes by itself.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self.blocking() {
            Some(by) => Some(by.hint().into()),
            None => self.class().hint().map(Cow::Borrowed),
        }
    }

    /// What can be done about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Timeout { .. } => Class::SessionLost,
            Self::Shape { .. } => Class::Schema,
            Self::RowGone | Self::Blocked(_) => Class::Transient,
            Self::NoRow | Self::Untyped { .. } => Class::Unexpected,
            Self::Failed(error) => classify(error),
        }
    }
}

/// Says what can be done about a driver's error. The only place that knows.
pub fn classify(error: &tokio_postgres::Error) -> Class {
    if let Some(code) = error.code() {
        return classify_code(code);
    }
    if error.is_closed() {
        return Class::SessionLost;
    }
    // The driver keeps its kinds to itself; its texts are what it shows of them.
    match error.to_string().as_str() {
        "error performing TLS handshake" if !is_interrupted(error) => Class::Configuration,
        "error communicating with the server"
        | "error performing TLS handshake"
        | "timeout waiting for server"
        | "unexpected message from server"
        | "error connecting to server" => Class::SessionLost,
        "authentication error" | "invalid connection string" | "invalid configuration" => {
            Class::Configuration
        }
        _ => Class::Unexpected,
    }
}

/// By SQLSTATE: the exceptions first, then by class (its first two characters).
fn classify_code(code: &SqlState) -> Class {
    match code.code() {
        // Cancelled, among others by our own statement_timeout and lock_timeout.
        "57014" | "55P03" | "40001" | "40P01" => Class::Transient,
        // The server is starting, stopping or in recovery: its next session may be a good one.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04"
        // Writing where nothing can be written: a former primary. Another host may be the new one.
        | "25006"
        // "cached plan must not change result type": a migration ran; a new session plans anew.
        | "0A000" => Class::SessionLost,
        "42501" => Class::Permission,
        // Table, column, function, parameter type, schema or another object is missing.
        "42P01" | "42703" | "42883" | "42804" | "3F000" | "42704" | "42P02" => Class::Schema,
        // A prepared statement vanished or was there before: a pooler in transaction mode.
        "26000" | "42P05" | "3D000" => Class::Configuration,
        other => match other.get(..2).unwrap_or_default() {
            "08" => Class::SessionLost,
            "28" => Class::Configuration,
            // Out of connections, memory or disk; an I/O error below the server.
            "53" | "58" | "40" => Class::Transient,
            _ => Class::Unexpected,
        },
    }
}

/// Whether the server gave the statement up for its time: that of a lock, or its whole.
pub(super) fn is_given_up(error: &tokio_postgres::Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::LOCK_NOT_AVAILABLE) || code == Some(&SqlState::QUERY_CANCELED)
}

/// Whether the conversation broke off, instead of being refused.
fn is_interrupted(error: &tokio_postgres::Error) -> bool {
    rustls_error(error).is_none()
        && error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).is_some()
}

/// Whether the server answered that it has no TLS.
pub(super) fn is_without_tls(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|cause| cause.to_string() == "server does not support TLS")
}

/// Whether the driver passed a server over because it cannot write.
pub(super) fn is_read_only(error: &tokio_postgres::Error) -> bool {
    error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>())
        .is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
        && error.to_string() == "error connecting to server"
}

/// The TLS library's own error, when it is the cause.
pub(super) fn rustls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let mut cause = error.source();
    while let Some(present) = cause {
        if let Some(found) = present.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inner = present.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = match inner {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => present.source(),
        };
    }
    None
}

/// The error as one line for people: the server's message, code, detail and hint, without values
/// of rows, which details of data and constraint errors would show.
pub fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(refusal) = error.as_db_error() {
        return describe_refusal(refusal);
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(present) = cause {
        let line = present.to_string();
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = present.source();
    }
    text
}

/// The same for an answer of the server.
pub(super) fn describe_refusal(refusal: &DbError) -> String {
    let code = refusal.code().code();
    if code.starts_with("22") || code.starts_with("23") {
        // Their messages and details quote what was in the row. The names tell enough.
        let place = [refusal.schema(), refusal.table(), refusal.column(), refusal.constraint()];
        let place = place.into_iter().flatten().collect::<Vec<_>>().join(".");
        let kind = if code.starts_with("22") { "invalid data" } else { "constraint violated" };
        return format!("{kind} ({code}) at {}", if place.is_empty() { "a value" } else { &place });
    }
    let mut text = format!("{} ({code})", refusal.message());
    for (label, part) in [("detail", refusal.detail()), ("hint", refusal.hint())] {
        if let Some(part) = part {
            text.push_str("; ");
            text.push_str(label);
            text.push_str(": ");
            text.push_str(part);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_code_has_the_class_that_says_what_to_do() {
        let expected = [
            ("40001", Class::Transient),
            ("55P03", Class::Transient),
            ("57014", Class::Transient),
            ("53300", Class::Transient),
            ("53100", Class::Transient),
            ("57P01", Class::SessionLost),
            ("57P03", Class::SessionLost),
            ("25006", Class::SessionLost),
            ("0A000", Class::SessionLost),
            ("08006", Class::SessionLost),
            ("42501", Class::Permission),
            ("42P01", Class::Schema),
            ("42703", Class::Schema),
            ("3F000", Class::Schema),
            ("28P01", Class::Configuration),
            ("28000", Class::Configuration),
            ("3D000", Class::Configuration),
            ("26000", Class::Configuration),
            ("23505", Class::Unexpected),
            ("XX000", Class::Unexpected),
            ("", Class::Unexpected),
        ];
        for (code, class) in expected {
            assert_eq!(classify_code(&SqlState::from_code(code)), class, "{code}");
        }
    }

    #[test]
    fn timeout_says_how_long_and_costs_the_session() {
        let error = QueryError::Timeout { after: Duration::from_millis(5500) };
        assert_eq!(error.to_string(), "no answer from the database within 5s 500ms");
        assert_eq!(error.class(), Class::SessionLost);
    }
}
