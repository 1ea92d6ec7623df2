//! Opens one session with its settings, and detects its end.

use std::{
    future::poll_fn,
    sync::{Arc, Once, OnceLock, RwLock},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_postgres::{
    AsyncMessage, Socket,
    config::{Config, SslMode as DriverMode, TargetSessionAttrs},
    error::SqlState,
    tls::MakeTlsConnect,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace, warn};
use uuid::Uuid;

use super::{
    blocking::LockWatch,
    distance::Distance,
    error::{self, Class, classify, describe, describe_refusal, rustls_error},
    server::limits_transactions,
    session::Sharing,
    settings::{Lasts, session_settings, settings_of},
    tls::{SslMode, TlsError, explain},
    url::{Endpoint, Target, UrlError},
};
use crate::{config::DatabaseConfig, tasks};

pub use super::session::Connection;

/// Maximum time for the orderly end of a Postgres session that was dropped. Then its connection is
/// cut.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Setting that each session sends when it connects, with a value of its own. A server process that
/// has the value was started for this session; one without it was lent by a pooler.
const MARKER: &str = "postrider.session";

/// Option that makes a session writable although its role or database is set to read only. Without
/// it the driver would take such a server for a standby.
const WRITABLE_OPTION: &str = "-c default_transaction_read_only=off";

/// Further settings of a session that no pooler shares among clients. They make the server notice
/// within seconds that we are gone, and make our statements independent of the defaults of the role
/// and the database.
const OWN_SESSION_SETTINGS: [(&str, &str); 6] = [
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "3"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "10s"),
];

/// Encodings of a database in which every byte becomes a character of UTF-8, as a test with
/// Postgres verifies. In any other encoding, a row may contain a byte that has no character. Each
/// statement that reads this row would fail.
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

/// Reason why no session with Postgres was opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The database URL cannot be used.
    #[error("database.url {0}")]
    Url(#[from] UrlError),
    /// The TLS settings of the database URL cannot be used.
    #[error("database.url: {0}")]
    Tls(#[from] TlsError),
    /// The file that contains the database URL cannot be read any more.
    #[error("{0}")]
    Secret(String),
    /// No host of the URL gave a session that can write. Each host has one failure here.
    #[error("{}", .0.iter().map(|failure| failure.text.as_str()).collect::<Vec<_>>().join("; "))]
    Hosts(Vec<HostFailure>),
}

/// Failure of one host of the URL: why it gave no usable session.
#[derive(Debug)]
pub struct HostFailure {
    class: Class,
    text: String,
    hint: Option<&'static str>,
}

impl ConnectError {
    /// Class of the error, which decides the remedy.
    pub fn class(&self) -> Class {
        match self {
            Self::Url(_) | Self::Tls(_) | Self::Secret(_) => Class::Configuration,
            Self::Hosts(failures) => {
                failures.iter().map(|failure| failure.class).max().unwrap_or(Class::SessionLost)
            }
        }
    }

    /// Remedy for operators; `None` when the text says it, or when the error may pass.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Url(_) | Self::Tls(_) | Self::Secret(_) => None,
            Self::Hosts(failures) => failures.iter().find_map(|failure| failure.hint),
        }
    }
}

/// Opens a session for `purpose`, which Postgres shows as `postrider/<purpose>`. The hosts of the
/// URL are tried in turn until one can write, each for at most `connect_timeout` with TLS and
/// authentication. `settings` are set after ours and override them.
///
/// # Errors
///
/// Classes other than `Configuration` and `Permission` may pass by themselves: try again later.
///
/// # Cancel safety
///
/// Dropping the future gives up the attempt and leaves no session behind.
pub async fn connect(
    config: &DatabaseConfig,
    purpose: &str,
    settings: &[(&str, &str)],
) -> Result<Connection, ConnectError> {
    let mut connection = connect_unwatched(config, purpose, settings).await?;
    // Behind a pooler each statement may run in another server process. So no process id stands for
    // this session, and its waits for locks cannot be watched.
    let pid = connection.pid.filter(|_| connection.sharing == Sharing::Own);
    connection.lock_watch = pid.map(|pid| LockWatch::new(config.clone(), pid));
    Ok(connection)
}

/// Opens a session as [`connect`] does. Its slow statements start no search for a blocking session.
pub(super) async fn connect_unwatched(
    config: &DatabaseConfig,
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
            Err(_) => failures.push(HostFailure {
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
    // The driver applies this limit to each address of a host. With half of the time, a second
    // address can still be tried when the first one is dead.
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
    let marker = Uuid::new_v4().to_string();
    let driver = with_options(&endpoint.driver, &format!("-c {MARKER}={marker}"));
    let mut connection = match open_encrypted(endpoint, &driver, mode, connector).await {
        Err(error) if error::is_read_only(&error) => {
            if !is_read_only_by_role(endpoint, mode, connector).await? {
                return Err(error);
            }
            open_encrypted(endpoint, &with_options(&driver, WRITABLE_OPTION), mode, connector)
                .await?
        }
        // A pooler may refuse or ignore startup parameters.
        Err(error) if refuses_startup_parameters(&error) => {
            open_encrypted(endpoint, &endpoint.driver, mode, connector).await?
        }
        other => other?,
    };
    connection.query_timeout = query_timeout;
    let (sharing, pid) = sharing(&connection, &marker).await?;
    (connection.sharing, connection.pid) = (sharing, Some(pid));
    // The server's `transaction_timeout` is meant for applications. A long repair of ours must not
    // end by it.
    let unlimited: &[_] =
        if connection.limits_transactions { &[("transaction_timeout", "0")] } else { &[] };
    let settings = &[unlimited, settings].concat();
    match connection.sharing {
        Sharing::Own => {
            let settings =
                session_settings(query_timeout, &[&OWN_SESSION_SETTINGS[..], settings].concat());
            connection.client.batch_execute(&settings_of(&settings, Lasts::Session)).await?;
        }
        Sharing::Shared => {
            let settings = session_settings(query_timeout, settings);
            let settings = settings_of(&settings, Lasts::Transaction);
            connection.begin =
                format!("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE; {settings}");
        }
    }
    Ok(connection)
}

/// The driver's configuration with startup options. Postgres applies the options when it starts the
/// server process of this session. A process that a pooler lends was started without them.
fn with_options(driver: &Config, options: &str) -> Config {
    let mut driver = driver.clone();
    let given = driver.get_options().map(|options| format!("{options} ")).unwrap_or_default();
    driver.options(format!("{given}{options}"));
    driver
}

/// Whether a server refuses writes because of settings of the role or database.
async fn is_read_only_by_role(
    endpoint: &Endpoint,
    mode: SslMode,
    connector: &MakeRustlsConnect,
) -> Result<bool, tokio_postgres::Error> {
    let mut driver = endpoint.driver.clone();
    driver.target_session_attrs(TargetSessionAttrs::Any);
    let connection = open_encrypted(endpoint, &driver, mode, connector).await?;
    let asked = include_str!("sql/check_read_only_role.sql");
    connection.client.query_typed_one(asked, &[]).await?.try_get(0)
}

/// Whether the server refuses startup parameters. `PgBouncer` says "unsupported startup parameter".
fn refuses_startup_parameters(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::PROTOCOL_VIOLATION)
        || error
            .as_db_error()
            .is_some_and(|refusal| refusal.message().contains("startup parameter"))
}

/// Determines whether a pooler shares this session, and the id of its server process. The session
/// is ours alone when the server process that runs our statements was started with our marker.
async fn sharing(
    connection: &Connection,
    marker: &str,
) -> Result<(Sharing, i32), tokio_postgres::Error> {
    // Names are qualified: the role's `search_path` is still in force, and may have a schema before
    // pg_catalog.
    let asked = "SELECT pg_catalog.current_setting($1, true) OPERATOR(pg_catalog.=) $2,
                        pg_catalog.pg_backend_pid()";
    let parameters: [(&(dyn ToSql + Sync), Type); 2] =
        [(&MARKER, Type::TEXT), (&marker, Type::TEXT)];
    let row = connection.client.query_typed_one(asked, &parameters).await?;
    let is_ours = row.try_get::<_, Option<bool>>(0)?.unwrap_or(false);
    Ok((if is_ours { Sharing::Own } else { Sharing::Shared }, row.try_get(1)?))
}

async fn open_encrypted(
    endpoint: &Endpoint,
    driver: &Config,
    mode: SslMode,
    connector: &MakeRustlsConnect,
) -> Result<Connection, tokio_postgres::Error> {
    let (first, second) = mode.attempts(endpoint.distance);
    match open_once(driver, first, connector).await {
        Err(error) if wants_other_encryption(&error) => match second {
            Some(second) => open_once(driver, second, connector).await,
            None => Err(error),
        },
        other => other,
    }
}

/// Whether another encryption may succeed: `pg_hba.conf` has no line for this kind of connection,
/// or the handshake failed.
fn wants_other_encryption(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
        || error.to_string() == "error performing TLS handshake"
}

async fn open_once(
    driver: &Config,
    attempt: DriverMode,
    connector: &MakeRustlsConnect,
) -> Result<Connection, tokio_postgres::Error> {
    let mut driver = driver.clone();
    let (client, session) = driver.ssl_mode(attempt).connect(connector.clone()).await?;
    let abandoned = CancellationToken::new();
    let connection = Connection {
        client,
        lock_watch: None,
        pid: None,
        encoding: session.parameter("server_encoding").map(str::to_owned),
        limits_transactions: session.parameter("server_version").is_some_and(limits_transactions),
        notified: Arc::new(Notify::new()),
        closed: CancellationToken::new(),
        end: CancellationToken::new(),
        ending: Arc::new(OnceLock::new()),
        reason: OnceLock::new(),
        query_timeout: Duration::ZERO,
        queries: None,
        sharing: Sharing::Shared,
        begin: String::new(),
        connector: connector.clone(),
        last_end: RwLock::new(Instant::now()),
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

type Session =
    tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// The part of a Postgres session that sends and receives its bytes, as a task of its own.
struct Driving {
    session: Session,
    notified: Arc<Notify>,
    closed: CancellationToken,
    end: CancellationToken,
    ending: Arc<OnceLock<String>>,
}

impl Driving {
    async fn run(mut self, abandoned: CancellationToken) {
        // Without this limit, a server that hangs would keep a dropped session for ever.
        let forsaken = async {
            abandoned.cancelled().await;
            tokio::time::sleep(FAREWELL_MAX).await;
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
        debug!(reason = %ending, "the session with Postgres ended");
        // `Connection::ending` prefers the reason that the server gave to a statement, because it
        // is more precise than this one of the driver.
        drop(self.ending.set(ending));
        self.closed.cancel();
        // A task that waits for notifications wakes up now, and sees that the session is gone.
        self.notified.notify_one();
    }

    fn absorb(&self, message: &AsyncMessage) {
        match message {
            AsyncMessage::Notice(notice) => {
                debug!(severity = notice.severity(), notice = %describe_refusal(notice));
            }
            AsyncMessage::Notification(notification) => {
                trace!(channel = notification.channel(), "received a notification from Postgres");
                self.notified.notify_one();
            }
            _ => debug!("received a message of an unknown kind from Postgres; it is ignored"),
        }
    }
}

fn failure(endpoint: &Endpoint, error: &tokio_postgres::Error) -> HostFailure {
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
            Some(
                "let database.url name the primary, or all hosts that may become it; behind a \
                 pooler set default_transaction_read_only to off for the user",
            ),
        ),
        None => (describe(error), class.hint()),
    };
    let mut text = format!("{}: {text}", endpoint.name);
    // Servers and libraries quote their input, so a text might contain the password.
    if let Some(password) = endpoint.driver.get_password().and_then(|it| str::from_utf8(it).ok())
        && !password.is_empty()
    {
        text = text.replace(password, "***");
    }
    HostFailure { class, text, hint }
}

/// Failure when the encoding of this database makes some texts unreadable; `None` otherwise.
fn unreadable(endpoint: &Endpoint, connection: &Connection) -> Option<HostFailure> {
    let encoding = connection.encoding.as_deref()?;
    (!ENCODINGS.contains(&encoding)).then(|| HostFailure {
        class: Class::Configuration,
        text: format!(
            "{}: the database has the encoding {encoding}, in which a text may contain bytes \
             that are not Unicode",
            endpoint.name
        ),
        hint: Some("move the application to a database made WITH ENCODING 'UTF8'"),
    })
}

/// Warns once that anyone between us and a remote server could read and change the traffic.
fn warn_if_unverified(endpoint: &Endpoint, mode: SslMode) {
    static SAID: Once = Once::new();
    let verified = matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull);
    if endpoint.distance == Distance::Remote && !verified {
        SAID.call_once(|| {
            warn!(
                host = endpoint.name,
                hint = "set sslmode=verify-full and sslrootcert in database.url",
                "the identity of the postgres server is not verified",
            );
        });
    }
}
