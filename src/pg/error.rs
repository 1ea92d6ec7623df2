//! Errors of Postgres: a class that decides the remedy, and a text that is safe to show.

use std::{borrow::Cow, error::Error as StdError, io, time::Duration};

use tokio_postgres::error::{DbError, SqlState};

use super::blocking::Blocking;

/// Class of an error, which decides the remedy. [`classify`] is the only classification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A transient error: the same statement may succeed in a moment, on the same session.
    Transient,
    /// The session is lost or unusable: connect again.
    SessionLost,
    /// A grant is missing: the user may not do what the statement does.
    Permission,
    /// A table, column or function is missing or different.
    Schema,
    /// The address, the database, the credentials or the TLS settings are wrong.
    Configuration,
    /// An unexpected error: a defect of this program, or data that it cannot handle.
    Unexpected,
}

impl Class {
    /// Remedy for operators; `None` when the error passes by itself.
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

/// A statement that failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No answer came within the deadline. The server may or may not have carried the statement
    /// out, so the session must be dropped.
    #[error("no answer from the database within {}", humantime::format_duration(*.after))]
    Timeout {
        /// Deadline of the statement, as a duration.
        after: Duration,
    },
    /// A column has a type that this program cannot read as the one it needs.
    #[error("column \"{column}\" of the outbox has the type {found}, and should have {wanted}")]
    Shape {
        /// Name of the column with the wrong type.
        column: String,
        /// The type that the column has in this database.
        found: String,
        /// The type that the migrations gave the column.
        wanted: &'static str,
    },
    /// A row that made a statement fail was gone when another statement looked for this row alone.
    #[error("a row that could not be read is not there any more")]
    RowGone,
    /// No row came from a statement that always returns one: a defect of this build.
    #[error("a statement gave no row where one was expected")]
    NoRow,
    /// A statement does not say the type of a parameter: a defect of this build.
    #[error("parameter ${number} of a statement has no type")]
    Untyped {
        /// Number of the parameter whose type is not known.
        number: usize,
    },
    /// The server gave the statement up because another session held a lock for too long.
    #[error("{0}")]
    Blocked(Box<BlockedStatement>),
    /// The server or the driver reported an error. It is not a `source`, because its own text would
    /// show row values.
    #[error("{}", describe(.0))]
    Failed(tokio_postgres::Error),
}

/// A statement that waited for the lock of another session for too long.
#[derive(Debug, thiserror::Error)]
#[error("{}: {by} holds a lock that the statement waits for", describe(error))]
pub struct BlockedStatement {
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
    /// Whether the statement was given up because it took too long, by the server or by our
    /// deadline. A wait for a lock whose holder is identified does not count.
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

    /// Whether a single row may have caused the error: damaged storage, or a value that cannot be
    /// stored. Other rows may be readable.
    pub fn is_of_a_row(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        match error.code() {
            // An I/O error makes a block unreadable, just as damaged content does.
            Some(code) => {
                let code = code.code();
                code == "58030" || matches!(code.get(..2), Some("XX" | "22" | "54"))
            }
            None => classify(error) == Class::Unexpected,
        }
    }

    /// Whether the statement waited for a lock for too long, whether or not its holder is
    /// identified.
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

    /// The session whose lock the statement waited for; `None` for another reason.
    pub fn blocking(&self) -> Option<&Blocking> {
        let Self::Blocked(blocked) = self else { return None };
        Some(&blocked.by)
    }

    /// Remedy for operators; `None` when the error passes by itself.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self.blocking() {
            Some(by) => Some(by.hint().into()),
            None => self.class().hint().map(Cow::Borrowed),
        }
    }

    /// Class of the error, which decides the remedy.
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

/// Classifies an error of the driver. No other code inspects its kind.
pub fn classify(error: &tokio_postgres::Error) -> Class {
    if let Some(code) = error.code() {
        return classify_code(code);
    }
    if error.is_closed() {
        return Class::SessionLost;
    }
    // The driver does not expose its error kinds, only their texts.
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

/// Classifies a SQLSTATE: some codes one by one, all others by their first two characters.
fn classify_code(code: &SqlState) -> Class {
    match code.code() {
        // The statement was cancelled, for example by our statement_timeout or lock_timeout, or
        // lost a conflict with another transaction.
        "57014" | "55P03" | "40001" | "40P01" => Class::Transient,
        // The server is starting, stopping or in recovery: its next session may be a good one.
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" | "25P04"
        // The server is read only, such as a former primary. Another host may be the new primary.
        | "25006"
        // "cached plan must not change result type": a migration ran; a new session plans anew.
        | "0A000" => Class::SessionLost,
        "42501" => Class::Permission,
        // Table, column, function, parameter type, schema or another object is missing.
        "42P01" | "42703" | "42883" | "42804" | "3F000" | "42704" | "42P02" => Class::Schema,
        // A prepared statement vanished or already existed, as behind a pooler in transaction mode.
        // Or the database does not exist.
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

/// Whether the server gave the statement up because of `statement_timeout` or `lock_timeout`.
pub(super) fn is_given_up(error: &tokio_postgres::Error) -> bool {
    let code = error.code();
    code == Some(&SqlState::LOCK_NOT_AVAILABLE) || code == Some(&SqlState::QUERY_CANCELED)
}

/// Whether the connection to Postgres broke off after it stood, instead of being refused.
fn is_interrupted(error: &tokio_postgres::Error) -> bool {
    rustls_error(error).is_none()
        && error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).is_some()
}

/// Whether the server answered that it has no TLS.
pub(super) fn is_without_tls(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|cause| cause.to_string() == "server does not support TLS")
}

/// Whether the driver passed a server over because that server refuses writes.
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

/// The error as one line for people: the server's message, code, detail and hint. Row values are
/// left out, which details of data and constraint errors would show.
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

/// An error of the server as one line for people, without row values.
pub(super) fn describe_refusal(refusal: &DbError) -> String {
    let code = refusal.code().code();
    if code.starts_with("22") || code.starts_with("23") {
        // Messages and details of these errors quote row values. The names are enough.
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
