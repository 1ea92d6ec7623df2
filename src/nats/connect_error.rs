//! Errors of connecting to NATS, with advice for each.

use std::{error::Error as StdError, io, path::PathBuf};

use async_nats::{
    ConnectErrorKind,
    rustls::{self, CertificateError, InvalidMessage},
};
use thiserror::Error;

use crate::config::login::LoginError;

/// Reason for which there is no connection.
#[derive(Debug, Error)]
pub enum NatsConnectError {
    /// A file from the configuration cannot be read.
    #[error("nats.{key}: cannot read {}: {reason}", path.display())]
    File {
        /// Key of the configuration that names the file.
        key: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Reason why the file cannot be read.
        reason: String,
    },
    /// A private key is readable by other users.
    #[error("nats.tls_key {} can be read by others, so it is not used", path.display())]
    ExposedKey {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file with a secret, which was readable at the start, cannot be read any more.
    #[error("{0}")]
    Secret(String),
    /// `nats.url` cannot be parsed.
    #[error("nats.url: {0}")]
    Url(io::Error),
    /// The login in `nats.url` cannot be parsed.
    #[error("nats.url {0}")]
    UrlLogin(#[from] LoginError),
    /// The server refuses the login.
    #[error("the server refuses the login: {0}")]
    Login(String),
    /// The TLS handshake failed.
    #[error("{text}")]
    Tls {
        /// Text of the TLS library or the server.
        text: String,
        /// Advice for an operator.
        hint: &'static str,
    },
    /// No host has the name that the configuration gives for the server.
    #[error("the host is unknown: {0}")]
    UnknownHost(String),
    /// The host refuses the connection: nothing listens on the server's port.
    #[error("nothing listens there: {0}")]
    Closed(String),
    /// A server accepted the connection and stayed silent, or the network dropped every packet.
    #[error("no answer within nats.connect_timeout")]
    Silent,
    /// The host cannot be reached, or does not speak the protocol of NATS.
    #[error("{0}")]
    Unreachable(String),
}

impl NatsConnectError {
    /// Classifies an error of the client.
    pub(super) fn of(error: &async_nats::ConnectError) -> Self {
        if let Some((text, hint)) = rustls_error(error).map(explain) {
            return Self::Tls { text, hint };
        }
        let text = describe(error);
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                Self::Login(text)
            }
            ConnectErrorKind::Tls => Self::Tls { text, hint: CERTIFICATES },
            ConnectErrorKind::TimedOut => Self::Silent,
            ConnectErrorKind::Dns => Self::UnknownHost(text),
            ConnectErrorKind::Io if text.contains("tls handshake eof") => {
                Self::Tls { text: NO_TLS.to_owned(), hint: SPEAK_TLS }
            }
            ConnectErrorKind::Io if io_kind(error) == Some(io::ErrorKind::ConnectionRefused) => {
                Self::Closed(text)
            }
            ConnectErrorKind::ServerParse
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects => Self::Unreachable(text),
        }
    }

    /// Advice for an operator.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { .. } | Self::Secret(_) => {
                "set it to a regular file that the program may read"
            }
            Self::ExposedKey { .. } => "chmod 0600 it, or 0640 when root owns it",
            Self::Url(_) | Self::UrlLogin(_) => {
                "write nats://host:4222, several with commas between"
            }
            Self::Login(_) => {
                "check nats.user, password, token, creds_file or nkey_file, or the login in nats.url"
            }
            Self::Tls { hint, .. } => hint,
            Self::UnknownHost(_) => "correct the host in nats.url, or its entry in the DNS",
            Self::Closed(_) => "start nats-server, or correct the port in nats.url",
            Self::Silent => {
                "check nats.url, and whether a firewall lets it through; a server with handshake_first \
                 needs nats.tls_first = true"
            }
            Self::Unreachable(_) => "check that nats-server listens there, its log, and nats.url",
        }
    }
}

const NO_TLS: &str = "the server does not speak TLS, and nothing is sent to it in the clear";

const SPEAK_TLS: &str = "give nats-server a tls block (with handshake_first for nats.tls_first), or, on a \
                         network that you trust, remove tls_ca, tls_cert and tls_first and write nats://";

const CERTIFICATES: &str = "check the PEM files of nats.tls_ca, tls_cert and tls_key";

/// Explains a failed handshake, and names the setting to change.
fn explain(error: &rustls::Error) -> (String, &'static str) {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest has one remedy")]
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (
            format!("the certificate of the server names another host: {error}"),
            "use a host name in nats.url that is in the certificate",
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => (
            format!("the certificate of the server expired: {error}"),
            "renew the server's certificate",
        ),
        rustls::Error::InvalidCertificate(_) => (
            format!("the certificate of the server is not verified: {error}"),
            "set nats.tls_ca to the certificate of the authority that signed it",
        ),
        rustls::Error::AlertReceived(_) => (
            format!("the server broke off the TLS handshake: {error}"),
            "if it requires a client certificate, set nats.tls_cert and tls_key to one that it accepts",
        ),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            (NO_TLS.to_owned(), SPEAK_TLS)
        }
        other => (format!("TLS handshake: {other}"), "check the server's tls block"),
    }
}

/// Error of the TLS library, when it is the cause.
fn rustls_error(error: &async_nats::ConnectError) -> Option<&rustls::Error> {
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

/// Kind of the system's error, when the system is the cause.
fn io_kind(error: &async_nats::ConnectError) -> Option<io::ErrorKind> {
    let mut cause = error.source();
    while let Some(present) = cause {
        if let Some(found) = present.downcast_ref::<io::Error>() {
            return Some(found.kind());
        }
        cause = present.source();
    }
    None
}

/// Text of the error with its causes.
fn describe(error: &async_nats::ConnectError) -> String {
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
