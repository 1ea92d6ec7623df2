//! Connections to NATS, each with a client of its own: credentials, TLS, deadlines and events.
//!
//! The client library reconnects by itself. It then writes what its queue still contains, before
//! the relay can verify what the broker has stored. So a client serves one connection only: once it
//! is connected, the client has no other server to go to, and its queue ends with the connection.

use std::{path::Path, time::Duration};

use async_nats::{
    Client, ConnectOptions, Event, ServerAddr,
    connection::State,
    jetstream::{self, Context},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{connect_error::NatsConnectError, stream_info::API_TIMEOUT};
use crate::{
    config::{
        self,
        file::{CERTIFICATES_BYTES_MAX, is_private_key_exposed, read_text},
        latest::Replacements,
        login::Login,
    },
    delivery::Backoff,
};

/// Maximum number of connection events that the relay has not read yet. A further event is dropped;
/// the end of the connection is reported separately, by [`NatsConnection::ended`].
const EVENTS_MAX: usize = 256;

/// Waits between attempts to connect to NATS.
const RECONNECT: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

/// Time after `connect_timeout` in which the NATS client may still report why an attempt failed.
const ENDS_WITHIN: Duration = Duration::from_millis(200);

/// Interval at which the state of a connection is checked. The client may have reported the end of
/// the connection before anybody listened.
const STATE_CHECK: Duration = Duration::from_secs(1);

/// Server list of a client that must not reconnect: no server can listen on port 0.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// Connector: opens connections with one configuration.
#[derive(Debug)]
pub struct Connector {
    config: config::NatsConfig,
    name: String,
    capacity: usize,
    /// Servers of the last attempt, without their logins.
    configured: Vec<ServerAddr>,
    /// Servers that the cluster has advertised, for the time when the configured ones are down.
    advertised: Vec<ServerAddr>,
}

/// Connection to NATS, with a client of its own that serves no other connection.
#[derive(Debug)]
pub struct NatsConnection {
    /// Client, which never reconnects.
    pub client: Client,
    /// Context for requests to JetStream, in the configured domain.
    pub jetstream: Context,
    /// Prefix of the subjects of requests to JetStream.
    pub api_prefix: String,
    /// Events of the client, among them the complaints of the server.
    pub events: mpsc::Receiver<Event>,
    /// Token that is cancelled when the connection has ended. Whoever cancels the token gives the
    /// connection up.
    pub ended: CancellationToken,
}

/// State of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// A connection exists.
    Connected,
    /// No connection exists. The failure of the last attempt, if there was one, comes with advice.
    Disconnected(Option<(String, &'static str)>),
}

impl Connector {
    /// Prepares a connector.
    ///
    /// # Errors
    /// When the settings cannot work: an unreadable file, a malformed URL.
    pub async fn new(
        config: &config::NatsConfig,
        name: String,
        capacity: usize,
    ) -> Result<Self, NatsConnectError> {
        let connector = Self {
            configured: addresses(config)?,
            advertised: Vec::new(),
            config: config.clone(),
            name,
            capacity,
        };
        connector.options(config).await?;
        Ok(connector)
    }

    /// Tries each server once.
    ///
    /// # Errors
    /// The failure of the last server that was tried.
    pub async fn connect(&mut self) -> Result<NatsConnection, NatsConnectError> {
        // Each attempt reads the secrets again, so that they can be rotated while the program runs.
        let config = self.config.current().map_err(NatsConnectError::Secret)?;
        let configured = addresses(&config)?;
        if configured != self.configured {
            // The settings may name another cluster now, so its advertised servers are unknown.
            self.advertised.clear();
            self.configured = configured;
        }
        let mut servers = self.configured.clone();
        servers.extend(self.advertised.iter().cloned());
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let ended = CancellationToken::new();
        let on_end = ended.clone();
        let client = self
            .options(&config)
            .await?
            // The limit counts attempts to connect: the client tries each server once. When the
            // connection ends later, the same limit ends the attempts to reconnect.
            .max_reconnects(servers.len())
            .reconnect_delay_callback(|_| Duration::ZERO)
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected | Event::Closed) {
                    on_end.cancel();
                }
                // When the channel is full, this event is lost and no other.
                if sender.try_send(event).is_err() {
                    tracing::debug!(
                        "dropped a notice of the NATS client: its reader has ended or is behind"
                    );
                }
                async {}
            })
            .connect(servers);
        // The future is large, so it goes to the heap.
        let client = Box::pin(client).await.map_err(|error| NatsConnectError::of(&error))?;
        let last = client.set_server_pool(NOWHERE).await;
        last.map_err(|error| NatsConnectError::Unreachable(error.to_string()))?;
        let advertised = client.server_info().connect_urls;
        self.advertised = advertised.iter().filter_map(|server| server.parse().ok()).collect();
        self.advertised.retain(|server| !self.configured.contains(server));
        let api_prefix = self.api_prefix();
        let mut jetstream = jetstream::with_prefix(client.clone(), &api_prefix);
        jetstream.set_timeout(API_TIMEOUT);
        Ok(NatsConnection { client, jetstream, api_prefix, events, ended })
    }

    /// Prefix of the subjects of requests to JetStream.
    fn api_prefix(&self) -> String {
        match (&self.config.api_prefix, &self.config.domain) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(domain)) => format!("$JS.{domain}.API"),
            (None, None) => "$JS.API".to_owned(),
        }
    }

    /// Tries to connect, again and again, until the time that one attempt may take is over.
    ///
    /// # Errors
    /// A refused login at once; otherwise the last failure within that time.
    pub async fn connect_in_time(&mut self) -> Result<NatsConnection, NatsConnectError> {
        let within = self.config.connect_timeout.0;
        // The client ends an attempt after `connect_timeout` itself, and gives the reason.
        let deadline = Instant::now() + within + ENDS_WITHIN;
        let mut failures = 0;
        let mut last = None;
        let trying = async {
            loop {
                match self.connect().await {
                    Ok(connection) => return Ok(connection),
                    Err(error @ NatsConnectError::Login(_)) => return Err(error),
                    Err(error) => last = Some(error),
                }
                failures += 1;
                sleep(RECONNECT.after(failures)).await;
            }
        };
        match timeout_at(deadline, trying).await {
            Ok(result) => result,
            Err(_) => Err(last.unwrap_or(NatsConnectError::Silent)),
        }
    }

    async fn options(
        &self,
        config: &config::NatsConfig,
    ) -> Result<ConnectOptions, NatsConnectError> {
        let options = credentials(config, tls(config, ConnectOptions::new())?).await?;
        Ok(options
            .name(&self.name)
            .connection_timeout(config.connect_timeout.0)
            .request_timeout(Some(config.ack_timeout.0))
            .ping_interval(config.ping_interval.0)
            .client_capacity(self.capacity)
            .subscription_capacity(self.capacity)
            // The module `wire` has validated the subjects already, so the client need not.
            .skip_subject_validation(true))
    }
}

/// Servers of `nats.url`, without the login.
fn addresses(config: &config::NatsConfig) -> Result<Vec<ServerAddr>, NatsConnectError> {
    let (servers, _) = config.servers()?;
    servers
        .iter()
        .map(|server| server.parse())
        .collect::<Result<_, _>>()
        .map_err(NatsConnectError::Url)
}

/// Opens a connection, sends it to the publisher, waits for its end and opens the next one. Returns
/// when the receiver of `connections` is gone.
pub async fn keep_connected(
    mut connector: Connector,
    connections: mpsc::Sender<NatsConnection>,
    standing: watch::Sender<ConnectionState>,
) {
    let mut replaced = connector.config.latest.watch();
    let mut failures = 0;
    while !connections.is_closed() {
        match connector.connect().await {
            Ok(connection) => {
                standing.send_replace(ConnectionState::Connected);
                let since = Instant::now();
                outlive(connection, &connections, &mut replaced).await;
                standing.send_replace(ConnectionState::Disconnected(None));
                // A connection that ends at once counts as a failure, so that a flapping server
                // gets backoff.
                failures = if since.elapsed() < RECONNECT.longest { failures + 1 } else { 0 };
            }
            Err(error) => {
                tracing::debug!(%error, "cannot connect to NATS");
                let failed = Some((error.to_string(), error.hint()));
                standing.send_replace(ConnectionState::Disconnected(failed));
                failures += 1;
            }
        }
        if failures > 0 {
            sleep(RECONNECT.after(failures)).await;
        }
    }
}

/// Sends a connection to the publisher, and waits until the connection ends.
async fn outlive(
    connection: NatsConnection,
    connections: &mpsc::Sender<NatsConnection>,
    replaced: &mut Replacements<config::NatsConfig>,
) {
    let (client, ended) = (connection.client.clone(), connection.ended.clone());
    let handing = async {
        // Sending fails only while the program ends, because the publisher is gone then.
        if connections.send(connection).await.is_ok() {
            ended.cancelled().await;
        }
    };
    let watching = async {
        while client.connection_state() == State::Connected {
            sleep(STATE_CHECK).await;
        }
        ended.cancel();
    };
    tokio::select! {
        () = handing => {}
        () = ended.cancelled() => {}
        () = watching => {}
        () = replaced.next() => {
            tracing::info!("reconnecting to NATS, because its settings were reloaded");
            ended.cancel();
        }
    }
}

fn tls(
    config: &config::NatsConfig,
    mut options: ConnectOptions,
) -> Result<ConnectOptions, NatsConnectError> {
    // A configuration that names certificates never connects without TLS.
    let required = config.tls_ca.is_some() || config.tls_cert.is_some() || config.tls_first;
    options = options.require_tls(required);
    if config.tls_first {
        options = options.tls_first();
    }
    if let Some(authorities) = &config.tls_ca {
        readable("tls_ca", authorities)?;
        options = options.add_root_certificates(authorities.into());
    }
    if let (Some(certificate), Some(key)) = (&config.tls_cert, &config.tls_key) {
        readable("tls_cert", certificate)?;
        readable("tls_key", key)?;
        if is_private_key_exposed(Path::new(key)) {
            return Err(NatsConnectError::ExposedKey { path: key.into() });
        }
        options = options.add_client_certificate(certificate.into(), key.into());
    }
    Ok(options)
}

/// Reads a file that the client opens again. The client itself would wait for ever for the writer
/// of a pipe, so a file that is not regular is refused here.
fn readable(key: &'static str, path: &str) -> Result<String, NatsConnectError> {
    let failed = |reason| NatsConnectError::File { key, path: path.into(), reason };
    read_text(Path::new(path), CERTIFICATES_BYTES_MAX).map_err(failed)
}

async fn credentials(
    config: &config::NatsConfig,
    mut options: ConnectOptions,
) -> Result<ConnectOptions, NatsConnectError> {
    if let Some(path) = &config.creds_file {
        readable("creds_file", path)?;
        let failed = |error: std::io::Error| NatsConnectError::File {
            key: "creds_file",
            path: path.into(),
            reason: error.to_string(),
        };
        options = options.credentials_file(path).await.map_err(failed)?;
    }
    if let Some(path) = &config.nkey_file {
        options = options.nkey(readable("nkey_file", path)?.trim().to_owned());
    }
    if let Some(token) = &config.token {
        options = options.token(token.expose().to_owned());
    }
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        options = options.user_and_password(user.clone(), password.expose().to_owned());
    }
    Ok(match config.servers()?.1 {
        None => options,
        Some(Login::Token(token)) => options.token(token.expose().to_owned()),
        Some(Login::User(user, password)) => {
            options.user_and_password(user, password.expose().to_owned())
        }
    })
}
