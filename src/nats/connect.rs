//! Opens connections, one client for each: credentials, TLS, deadlines, and what happens to it.
//!
//! The library's client connects again by itself and then writes what it still had in its queue,
//! before anybody could look at what the broker holds by now. So each of ours is for one
//! connection: once that stands, the client is left nowhere else to go, and its queue dies with it.

use std::{fs, path::PathBuf, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, connection::State};
use thiserror::Error;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{config, delivery::Backoff};

/// Connection events kept for the relay; when it is full, the connection's end still tells itself.
const EVENTS_MAX: usize = 256;

/// The waits between attempts to connect.
const RECONNECT: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

/// How often a connection is looked at whose end may have been told while nobody could listen.
const LOOK: Duration = Duration::from_secs(1);

/// The servers of a client that is not to connect again: nobody can listen on port 0.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// Opens connections with one configuration.
#[derive(Debug)]
pub struct Connector {
    config: config::Nats,
    name: String,
    capacity: usize,
    configured: Vec<ServerAddr>,
    /// What the cluster has told of itself: a configured server may be the one that is down.
    advertised: Vec<ServerAddr>,
}

/// A client for one connection.
#[derive(Debug)]
pub struct Connection {
    /// The client. It never connects again.
    pub client: Client,
    /// What the server complains about.
    pub events: mpsc::Receiver<Event>,
    /// Cancelled when the connection has ended; cancel it to say that it is of no use any more.
    pub ended: CancellationToken,
}

/// Whether there is a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is.
    Connected,
    /// There is none; with what the last attempt failed, if one has.
    Disconnected(Option<String>),
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// A file that is named cannot be read.
    #[error("nats.{key}: cannot read {}: {source}", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// `nats.url` is none.
    #[error("nats.url: {0}")]
    Url(std::io::Error),
    /// The server refuses the login.
    #[error("{0}")]
    Login(async_nats::ConnectError),
    /// No server could be reached, or none spoke as it should.
    #[error("{0}")]
    Unreachable(String),
}

impl Connector {
    /// Prepares to connect.
    ///
    /// # Errors
    /// For settings that cannot work: an unreadable file, a malformed URL.
    pub async fn new(
        config: &config::Nats,
        name: String,
        capacity: usize,
    ) -> Result<Self, ConnectError> {
        let configured = config.url.expose().split(',').map(|server| server.trim().parse());
        let connector = Self {
            configured: configured.collect::<Result<_, _>>().map_err(ConnectError::Url)?,
            advertised: Vec::new(),
            config: config.clone(),
            name,
            capacity,
        };
        connector.options().await?;
        Ok(connector)
    }

    /// Tries each server once.
    ///
    /// # Errors
    /// Why the last of them could not be connected to.
    pub async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let mut servers = self.configured.clone();
        servers.extend(self.advertised.iter().cloned());
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let ended = CancellationToken::new();
        let tell = ended.clone();
        let client = self
            .options()
            .await?
            // As many as the first round takes; the same number ends the one after the connection.
            .max_reconnects(servers.len())
            .reconnect_delay_callback(|_| Duration::ZERO)
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected | Event::Closed) {
                    tell.cancel();
                }
                // A full channel loses an event and nothing else.
                if sender.try_send(event).is_err() {
                    tracing::debug!("connection event dropped");
                }
                async {}
            })
            .connect(servers);
        // The client's own future is large.
        let client = Box::pin(client).await.map_err(failed)?;
        let last = client.set_server_pool(NOWHERE).await;
        last.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        let advertised = client.server_info().connect_urls;
        self.advertised = advertised.iter().filter_map(|server| server.parse().ok()).collect();
        self.advertised.retain(|server| !self.configured.contains(server));
        Ok(Connection { client, events, ended })
    }

    /// Tries for as long as one attempt may take.
    ///
    /// # Errors
    /// Why there is no connection by then.
    pub async fn connect_in_time(&mut self) -> Result<Connection, ConnectError> {
        let deadline = Instant::now() + self.config.connect_timeout.0;
        let mut failures = 0;
        let mut last = None;
        let trying = async {
            loop {
                match self.connect().await {
                    Ok(connection) => return Ok(connection),
                    Err(error @ ConnectError::Login(_)) => return Err(error),
                    Err(error) => last = Some(error),
                }
                failures += 1;
                sleep(RECONNECT.after(failures)).await;
            }
        };
        match timeout_at(deadline, trying).await {
            Ok(result) => result,
            Err(_) => Err(last.unwrap_or(ConnectError::Unreachable("timed out".to_owned()))),
        }
    }

    async fn options(&self) -> Result<ConnectOptions, ConnectError> {
        let options = credentials(&self.config, tls(&self.config, ConnectOptions::new())).await?;
        Ok(options
            .name(&self.name)
            .connection_timeout(self.config.connect_timeout.0)
            .request_timeout(Some(self.config.ack_timeout.0))
            .ping_interval(self.config.ping_interval.0)
            .client_capacity(self.capacity)
            .subscription_capacity(self.capacity)
            // Subjects are validated by `wire` already.
            .skip_subject_validation(true))
    }
}

/// Keeps a connection for as long as somebody takes them: opens one, hands it over, waits for its end,
/// opens the next.
pub async fn keep_connected(
    mut connector: Connector,
    connections: mpsc::Sender<Connection>,
    standing: watch::Sender<Standing>,
) {
    let mut failures = 0;
    while !connections.is_closed() {
        match connector.connect().await {
            Ok(connection) => {
                standing.send_replace(Standing::Connected);
                let since = Instant::now();
                outlive(connection, &connections).await;
                standing.send_replace(Standing::Disconnected(None));
                // One that ends at once is no success: there may be many more of it.
                failures = if since.elapsed() < RECONNECT.longest { failures + 1 } else { 0 };
            }
            Err(error) => {
                tracing::debug!(%error, "cannot connect to NATS");
                standing.send_replace(Standing::Disconnected(Some(error.to_string())));
                failures += 1;
            }
        }
        if failures > 0 {
            sleep(RECONNECT.after(failures)).await;
        }
    }
}

/// Hands a connection over and waits for its end.
async fn outlive(connection: Connection, connections: &mpsc::Sender<Connection>) {
    let (client, ended) = (connection.client.clone(), connection.ended.clone());
    let handing = async {
        // Nobody takes it when everything ends.
        if connections.send(connection).await.is_ok() {
            ended.cancelled().await;
        }
    };
    let looking = async {
        while client.connection_state() == State::Connected {
            sleep(LOOK).await;
        }
        ended.cancel();
    };
    tokio::select! {
        () = handing => {}
        () = ended.cancelled() => {}
        () = looking => {}
    }
}

fn failed(error: async_nats::ConnectError) -> ConnectError {
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            ConnectError::Login(error)
        }
        ConnectErrorKind::ServerParse
        | ConnectErrorKind::Dns
        | ConnectErrorKind::TimedOut
        | ConnectErrorKind::Tls
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => ConnectError::Unreachable(error.to_string()),
    }
}

fn tls(config: &config::Nats, mut options: ConnectOptions) -> ConnectOptions {
    if let Some(authorities) = &config.tls_ca {
        options = options.add_root_certificates(authorities.into());
    }
    if let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) {
        options = options.add_client_certificate(certificate.into(), key.into());
    }
    options
}

async fn credentials(
    config: &config::Nats,
    mut options: ConnectOptions,
) -> Result<ConnectOptions, ConnectError> {
    if let Some(path) = &config.creds_file {
        let failed = |source| ConnectError::File { key: "creds_file", path: path.into(), source };
        options = options.credentials_file(path).await.map_err(failed)?;
    }
    if let Some(path) = &config.nkey_file {
        let failed = |source| ConnectError::File { key: "nkey_file", path: path.into(), source };
        options = options.nkey(fs::read_to_string(path).map_err(failed)?.trim().to_owned());
    }
    if let Some(token) = &config.token {
        options = options.token(token.expose().to_owned());
    }
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        options = options.user_and_password(user.clone(), password.expose().to_owned());
    }
    Ok(options)
}
