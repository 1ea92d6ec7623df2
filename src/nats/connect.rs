//! Opens the client: credentials, TLS, deadlines, and a channel of what happens to the connection.

use std::{fs, path::PathBuf, time::Duration};

use async_nats::{Client, ConnectOptions, Event};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::{config, delivery::Backoff};

/// Connection events kept for the relay; when it is full, counters still tell the story.
const EVENTS_MAX: usize = 256;

/// The waits between attempts to connect.
const RECONNECT: Backoff =
    Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(2) };

/// A client that keeps connecting, and what happens to its connection.
#[derive(Debug)]
pub struct Connection {
    /// The client.
    pub client: Client,
    /// Connects, disconnects and what the server complains about.
    pub events: mpsc::Receiver<Event>,
}

/// Why no client could be made. All of these want another configuration.
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
    /// The client refuses the settings.
    #[error("nats: {0}")]
    Settings(String),
}

/// Makes a client that connects in the background and never gives up.
///
/// # Errors
/// Only for settings that cannot work: an unreadable file, a malformed URL.
pub async fn connect(
    config: &config::Nats,
    name: String,
    capacity: usize,
) -> Result<Connection, ConnectError> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let options = credentials(config, tls(config, ConnectOptions::new())).await?;
    let client = options
        .name(name)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .connection_timeout(config.connect_timeout.0)
        .request_timeout(Some(config.ack_timeout.0))
        .ping_interval(config.ping_interval.0)
        .reconnect_delay_callback(|failures| {
            RECONNECT.after(u32::try_from(failures).unwrap_or(u32::MAX))
        })
        .client_capacity(capacity)
        .subscription_capacity(capacity)
        // Subjects are validated by `wire` already.
        .skip_subject_validation(true)
        .event_callback(move |event| {
            // A full channel loses an event and nothing else: the counters are looked at too.
            if sender.try_send(event).is_err() {
                tracing::debug!("connection event dropped");
            }
            async {}
        })
        .connect(servers(config.url.expose()))
        .await
        .map_err(|error| ConnectError::Settings(error.kind().to_string()))?;
    Ok(Connection { client, events })
}

fn servers(url: &str) -> Vec<String> {
    url.split(',').map(|server| server.trim().to_owned()).collect()
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
