//! Opens one session with its settings, and notices when it ends.

use std::{
    borrow::Cow,
    future::{Future, poll_fn},
    sync::{Arc, Once, OnceLock},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_postgres::{
    AsyncMessage, Client, Socket,
    config::{Config, SslMode as DriverMode},
    error::SqlState,
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, trace, warn};

use super::{
    error::{self, Class, QueryError, classify, describe, describe_refusal, rustls_error},
    tls::{SslMode, TlsError, explain},
    url::{Endpoint, Place, Target, UrlError},
};
use crate::{
    config::{Database, latest::Replacements},
    metrics::{Query, QueryDurations},
    tasks,
};

/// How much longer than the server's `statement_timeout` an answer is waited for: when both are
/// alive the server gives up first, and the session stays usable.
const DEADLINE_SLACK: Duration = Duration::from_millis(500);

/// How long a session that we drop may take for its farewell.
const FAREWELL: Duration = Duration::from_secs(1);

/// The encodings of which every byte has a character in UTF-8 (a test asks Postgres). In any other
/// one row with such a byte would make each statement fail that reads it.
pub const ENCODINGS: [&str; 15] = [
    "UTF8",
    "LATIN1",
    "LATIN2",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "ISO_8859_5",
    "KOI8R",
    "KOI8U",
    "WIN866",
    "WIN1256",
];

/// One session. Dropping it ends the session, and with it its locks.
pub struct Connection {
    /// Where statements go. Each belongs into [`Connection::deadline`].
    pub client: Client,
    /// Told of every NOTIFY that the session listens for.
    pub notified: Arc<Notify>,
    closed: CancellationToken,
    /// Cancelled to end the session for the settings that a reload brought.
    end: CancellationToken,
    ending: Arc<OnceLock<String>>,
    query_timeout: Duration,
    queries: Option<QueryDurations>,
    /// What the database keeps its text in; nothing when whoever is between us did not say.
    encoding: Option<String>,
    _abandon: DropGuard,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is of no use.
    #[error("database.url {0}")]
    Url(#[from] UrlError),
    /// The TLS settings in it are.
    #[error("database.url: {0}")]
    Tls(#[from] TlsError),
    /// The file with the URL cannot be read any more.
    #[error("{0}")]
    Secret(String),
    /// No host gave a session that can write; one failure for each.
    #[error("{}", .0.iter().map(|failure| failure.text.as_str()).collect::<Vec<_>>().join("; "))]
    Hosts(Vec<Failure>),
}

/// What one host answered.
#[derive(Debug)]
pub struct Failure {
    class: Class,
    text: String,
    hint: Option<&'static str>,
}

impl ConnectError {
    /// What can be done about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Url(_) | Self::Tls(_) | Self::Secret(_) => Class::Configuration,
            Self::Hosts(failures) => {
                failures.iter().map(|failure| failure.class).max().unwrap_or(Class::SessionLost)
            }
        }
    }

    /// What an operator can do about it; nothing when the texts say it or when it may pass.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Url(_) | Self::Tls(_) | Self::Secret(_) => None,
            Self::Hosts(failures) => failures.iter().find_map(|failure| failure.hint),
        }
    }
}

/// Opens a session for `purpose`, which Postgres shows as `postrider/<purpose>`. The hosts of the
/// URL are tried in turn, each for at most `connect_timeout` with TLS and authentication, until
/// one can write. `settings` are set after our own and win over them.
///
/// # Errors
///
/// Classes other than `Configuration` and `Permission` may pass by themselves: try again later.
///
/// # Cancel safety
///
/// Dropping the future gives up the attempt and leaves no session behind.
pub async fn connect(
    config: &Database,
    purpose: &str,
    settings: &[(&str, &str)],
) -> Result<Connection, ConnectError> {
    let replaced = config.latest.watch();
    // Each session reads the secrets anew, so that they can be rotated while the program runs.
    let config = &config.current().map_err(ConnectError::Secret)?;
    let target = Target::of(config)?;
    let mode = target.tls.effective_mode()?;
    let connector = target.tls.connector()?;
    let limit = target.connect_timeout.unwrap_or(Duration::MAX).min(config.connect_timeout.0);
    let mut failures = Vec::new();
    for mut endpoint in target.endpoints {
        adjust(&mut endpoint.driver, purpose, limit);
        let opening = open(&endpoint, mode, &connector, (config.query_timeout.0, settings));
        match tokio::time::timeout(limit, opening).await {
            Ok(Ok(connection)) => {
                let Some(failure) = unreadable(&endpoint, &connection) else {
                    warn_if_unverified(&endpoint, mode);
                    return Ok(connection.until(replaced));
                };
                failures.push(failure);
            }
            Ok(Err(error)) => failures.push(failure(&endpoint, &error)),
            Err(_) => failures.push(Failure {
                class: Class::SessionLost,
                text: format!(
                    "{}: no session within {}",
                    endpoint.name,
                    humantime::format_duration(limit)
                ),
                hint: None,
            }),
        }
    }
    Err(ConnectError::Hosts(failures))
}

fn adjust(driver: &mut Config, purpose: &str, limit: Duration) {
    // A name with two addresses of which one is dead leaves time for the other.
    driver.connect_timeout(limit / 2);
    if driver.get_application_name().is_none() {
        driver.application_name(format!("postrider/{purpose}"));
    }
}

async fn open(
    endpoint: &Endpoint,
    mode: SslMode,
    connector: &MakeRustlsConnect,
    (query_timeout, settings): (Duration, &[(&str, &str)]),
) -> Result<Connection, tokio_postgres::Error> {
    let (first, second) = mode.attempts(endpoint.place);
    let connection = match open_once(&endpoint.driver, first, connector, query_timeout).await {
        Err(error) if wants_other_encryption(&error) => match second {
            Some(second) => open_once(&endpoint.driver, second, connector, query_timeout).await?,
            None => return Err(error),
        },
        other => other?,
    };
    connection.client.batch_execute(&session_settings(query_timeout, settings)).await?;
    Ok(connection)
}

/// `pg_hba.conf` has no line for this kind of connection, or the handshake failed.
fn wants_other_encryption(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
        || error.to_string() == "error performing TLS handshake"
}

async fn open_once(
    driver: &Config,
    attempt: DriverMode,
    connector: &MakeRustlsConnect,
    query_timeout: Duration,
) -> Result<Connection, tokio_postgres::Error> {
    let mut driver = driver.clone();
    let (client, session) = driver.ssl_mode(attempt).connect(connector.clone()).await?;
    let abandoned = CancellationToken::new();
    let connection = Connection {
        client,
        encoding: session.parameter("server_encoding").map(str::to_owned),
        notified: Arc::new(Notify::new()),
        closed: CancellationToken::new(),
        end: CancellationToken::new(),
        ending: Arc::new(OnceLock::new()),
        query_timeout,
        queries: None,
        _abandon: abandoned.clone().drop_guard(),
    };
    let driving = Driving {
        session,
        notified: Arc::clone(&connection.notified),
        closed: connection.closed.clone(),
        end: connection.end.clone(),
        ending: Arc::clone(&connection.ending),
    };
    tasks::drive(driving.run(abandoned));
    Ok(connection)
}

impl Connection {
    /// Waits for a statement, but no longer than `query_timeout` and a little.
    ///
    /// # Errors
    ///
    /// After [`QueryError::Timeout`] nobody knows what the server did: drop the connection.
    ///
    /// # Cancel safety
    ///
    /// As that of the statement: the server may still carry it out.
    pub async fn deadline<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, QueryError> {
        let after = self.query_timeout.saturating_add(DEADLINE_SLACK);
        match tokio::time::timeout(after, statement).await {
            Ok(answer) => answer.map_err(|error| {
                self.keep_reason(&error);
                QueryError::from(error)
            }),
            Err(_) => Err(QueryError::Timeout { after }),
        }
    }

    /// A session that the server ends while a statement runs says why to the statement only.
    fn keep_reason(&self, error: &tokio_postgres::Error) {
        let fatal = error.as_db_error().filter(|it| ["FATAL", "PANIC"].contains(&it.severity()));
        if let Some(reason) = fatal {
            // The first reason is the cause of what follows.
            drop(self.ending.set(describe_refusal(reason)));
        }
    }

    /// The same session, which ends when the settings of the database are replaced by a reload.
    fn until(self, mut replaced: Replacements<Database>) -> Self {
        let (closed, end) = (self.closed.clone(), self.end.clone());
        tasks::drive(async move {
            tokio::select! {
                () = replaced.next() => end.cancel(),
                () = closed.cancelled() => {}
            }
        });
        self
    }

    /// The same session, whose [timed](Self::timed) statements are measured.
    #[must_use]
    pub fn measured(mut self, queries: QueryDurations) -> Self {
        self.queries = Some(queries);
        self
    }

    /// As [`deadline`](Self::deadline), and counts how long the statement took.
    ///
    /// # Errors
    ///
    /// As `deadline`.
    ///
    /// # Cancel safety
    ///
    /// As that of the statement: the server may still carry it out.
    pub async fn timed<T>(
        &self,
        query: Query,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, QueryError> {
        let started = Instant::now();
        let answer = self.deadline(statement).await;
        if let Some(queries) = &self.queries {
            queries.queried(query, started.elapsed());
        }
        answer
    }

    /// The text as the database can take it: one that does not keep Unicode would refuse the whole
    /// statement for a character that it lacks, so there everything but ASCII is escaped.
    pub fn storable<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let is_unicode = self.encoding.as_deref().is_none_or(|encoding| encoding == "UTF8");
        if is_unicode || text.is_ascii() {
            return Cow::Borrowed(text);
        }
        let escape =
            |c: char| if c.is_ascii() { c.to_string() } else { c.escape_unicode().to_string() };
        Cow::Owned(text.chars().map(escape).collect())
    }

    /// Waits until the session has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Why the session ended, once it has.
    pub fn ending(&self) -> Option<&str> {
        self.ending.get().map(String::as_str)
    }
}

type Session =
    tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// The half of a session that moves bytes.
struct Driving {
    session: Session,
    notified: Arc<Notify>,
    closed: CancellationToken,
    end: CancellationToken,
    ending: Arc<OnceLock<String>>,
}

impl Driving {
    async fn run(mut self, abandoned: CancellationToken) {
        // A server that hangs would keep the session, and with it the relay's lock, for ever.
        let forsaken = async {
            abandoned.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::pin!(forsaken);
        let ending = loop {
            tokio::select! {
                message = poll_fn(|context| self.session.poll_message(context)) => match message {
                    Some(Ok(message)) => self.absorb(&message),
                    Some(Err(error)) => break describe(&error),
                    None => break "connection closed".to_owned(),
                },
                () = self.end.cancelled() => break "the settings of the database were reloaded".to_owned(),
                () = &mut forsaken => break "given up".to_owned(),
            }
        };
        debug!(reason = %ending, "postgres session ended");
        // A reason that a statement was told is the better one, and stays.
        drop(self.ending.set(ending));
        self.closed.cancel();
        // Who waits for a notification looks again, and sees that the session is gone.
        self.notified.notify_one();
    }

    fn absorb(&self, message: &AsyncMessage) {
        match message {
            AsyncMessage::Notice(notice) => {
                debug!(severity = notice.severity(), notice = %describe_refusal(notice));
            }
            AsyncMessage::Notification(notification) => {
                trace!(channel = notification.channel(), "notified");
                self.notified.notify_one();
            }
            _ => debug!("message of an unknown kind from postgres"),
        }
    }
}

/// Our settings, then the caller's, as one round trip.
fn session_settings(query_timeout: Duration, extra: &[(&str, &str)]) -> String {
    let statement_timeout = format!("{}ms", query_timeout.as_millis());
    let own = [
        ("search_path", ""),
        ("client_encoding", "UTF8"),
        ("statement_timeout", statement_timeout.as_str()),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "10s"),
        // A policy that hides rows from us would lose them without a word: fail instead.
        ("row_security", "off"),
    ];
    let calls: Vec<_> = own
        .iter()
        .chain(extra)
        .map(|(name, value)| {
            format!("pg_catalog.set_config({}, {}, false)", literal(name), literal(value))
        })
        .collect();
    format!("SELECT {}", calls.join(", "))
}

/// A string constant that means the same whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn failure(endpoint: &Endpoint, error: &tokio_postgres::Error) -> Failure {
    let class = classify(error);
    let (text, hint) = match rustls_error(error) {
        Some(cause) => {
            let (text, hint) = explain(cause);
            (text, Some(hint))
        }
        None if error::is_without_tls(error) => (
            "server does not speak TLS".to_owned(),
            Some("set ssl = on in Postgres, or sslmode=disable on a network that you trust"),
        ),
        None if error::is_read_only(error) => (
            "server is a standby or read-only".to_owned(),
            Some("let database.url name the primary, or all hosts that may become it"),
        ),
        None => (describe(error), class.hint()),
    };
    let mut text = format!("{}: {text}", endpoint.name);
    // Servers and libraries quote what they were given, and one day it may be this.
    if let Some(password) = endpoint.driver.get_password().and_then(|it| str::from_utf8(it).ok())
        && !password.is_empty()
    {
        text = text.replace(password, "***");
    }
    Failure { class, text, hint }
}

/// Why nobody could read all texts of this database, if so.
fn unreadable(endpoint: &Endpoint, connection: &Connection) -> Option<Failure> {
    let encoding = connection.encoding.as_deref()?;
    (!ENCODINGS.contains(&encoding)).then(|| Failure {
        class: Class::Configuration,
        text: format!(
            "{}: the database has the encoding {encoding}, in which a text may hold what is no \
             Unicode",
            endpoint.name
        ),
        hint: Some("move the application to a database made WITH ENCODING 'UTF8'"),
    })
}

/// Says once that anyone between us and a remote server could read and change what is sent.
fn warn_if_unverified(endpoint: &Endpoint, mode: SslMode) {
    static SAID: Once = Once::new();
    let verified = matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull);
    if endpoint.place == Place::Remote && !verified {
        SAID.call_once(|| {
            warn!(
                host = endpoint.name,
                hint = "set sslmode=verify-full and sslrootcert in database.url",
                "the identity of the postgres server is not verified",
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_caller_come_last_and_are_quoted() {
        let sql = session_settings(Duration::from_secs(5), &[("statement_timeout", "it's\\0")]);
        assert!(sql.starts_with("SELECT pg_catalog.set_config(E'search_path', E'', false), "));
        assert!(sql.contains("set_config(E'statement_timeout', E'5000ms', false)"), "{sql}");
        assert!(sql.ends_with("set_config(E'statement_timeout', E'it''s\\\\0', false)"), "{sql}");
    }
}
