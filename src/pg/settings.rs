//! The settings of a session, and the statement that sets them.

use std::time::Duration;

/// Lifetime of settings: they last to the end of the session, or of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasts {
    Session,
    Transaction,
}

/// Settings of a session: ours, then those of the caller, which override ours.
pub(super) fn session_settings<'a>(
    query_timeout: Duration,
    extra: &[(&'a str, &'a str)],
) -> Vec<(&'a str, String)> {
    let own = [
        ("search_path", ""),
        ("client_encoding", "UTF8"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "10s"),
        // A row-level security policy may hide rows from us, and their events would be lost
        // silently. With `off`, such a statement fails instead.
        ("row_security", "off"),
        ("standard_conforming_strings", "on"),
    ];
    let timeout = format!("{}ms", query_timeout.as_millis());
    let mut settings = vec![("statement_timeout", timeout)];
    settings.extend(own.iter().chain(extra).map(|(name, value)| (*name, (*value).to_owned())));
    settings
}

/// The statement that makes all of these settings in one round trip to Postgres.
pub(super) fn settings_of(settings: &[(&str, String)], lasts: Lasts) -> String {
    let is_local = lasts == Lasts::Transaction;
    let calls: Vec<_> = settings
        .iter()
        .map(|(name, value)| {
            format!("pg_catalog.set_config({}, {}, {is_local})", literal(name), literal(value))
        })
        .collect();
    format!("SELECT {}", calls.join(", "))
}

/// A string constant that means the same whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_caller_come_last_and_are_quoted() {
        let settings =
            session_settings(Duration::from_secs(5), &[("statement_timeout", "it's\\0")]);
        let sql = settings_of(&settings, Lasts::Session);
        assert!(
            sql.starts_with(
                "SELECT pg_catalog.set_config(E'statement_timeout', E'5000ms', false), "
            )
        );
        assert!(sql.ends_with("set_config(E'statement_timeout', E'it''s\\\\0', false)"), "{sql}");
        let local = settings_of(&settings, Lasts::Transaction);
        assert!(!local.contains("false") && local.contains("E'5000ms', true)"), "{local}");
    }
}
