//! Why there is no connection to NATS, and what to do about it.

use std::{error::Error as StdError, io, path::PathBuf};

use async_nats::{
    ConnectErrorKind,
    rustls::{self, CertificateError, InvalidMessage},
};
use thiserror::Error;

use crate::config::login::LoginError;

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum NatsConnectError {
    /// A file that is named cannot be read.
    #[error("nats.{key}: cannot read {}: {reason}", path.display())]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Failure of the file.
        reason: String,
    },
    /// A private key that others may have read.
    #[error("nats.tls_key {} can be read by others, so it is not used", path.display())]
    ExposedKey {
        /// The file.
        path: PathBuf,
    },
    /// A file with a secret cannot be read any more.
    #[error("{0}")]
    Secret(String),
    /// `nats.url` is none.
    #[error("nats.url: {0}")]
    Url(io::Error),
    /// The login in `nats.url` is none.
    #[error("nats.url {0}")]
    UrlLogin(#[from] LoginError),
    /// The server refuses the login.
    #[error("the server refuses the login: {0}")]
    Login(String),
    /// No encrypted connection was made.
    #[error("{text}")]
    Tls {
        /// Words of the TLS library or the server.
        text: String,
        /// Advice for an operator.
        hint: &'static str,
    },
    /// No host has the name.
    #[error("the host is unknown: {0}")]
    UnknownHost(String),
    /// The port is closed.
    #[error("nothing listens there: {0}")]
    Closed(String),
    /// A server took the connection and was silent, or the network swallowed everything.
    #[error("nothing was answered within nats.connect_timeout")]
    Silent,
    /// The network leads nowhere, or what listens there does not speak as it should.
    #[error("{0}")]
    Unreachable(String),
}

impl NatsConnectError {
    /// Says what the client's error means.
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
                "let the key name a regular file that the program may read"
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
                "is nats.url right, and does a firewall let it through? A server with handshake_first \
                 needs nats.tls_first = true"
            }
            Self::Unreachable(_) => {
                "does a nats-server listen there? look at its log, and at nats.url"
            }
        }
    }
}

const NO_TLS: &str = "the server does not speak TLS, and nothing is sent to it in the clear";

const SPEAK_TLS: &str = "give nats-server a tls block (with handshake_first for nats.tls_first), or, on a \
                         network that you trust, remove tls_ca, tls_cert and tls_first and write nats://";

const CERTIFICATES: &str = "check the PEM files of nats.tls_ca, tls_cert and tls_key";

/// Explains a failed handshake, with the setting to change.
fn explain(error: &rustls::Error) -> (String, &'static str) {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest has one remedy")]
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (
            format!("the certificate of the server names another host: {error}"),
            "let nats.url have a name that is in the certificate",
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => (
            format!("the certificate of the server expired: {error}"),
            "renew the server's certificate",
        ),
        rustls::Error::InvalidCertificate(_) => (
            format!("the certificate of the server is not verified: {error}"),
            "let nats.tls_ca name the certificate of the authority that signed it",
        ),
        rustls::Error::AlertReceived(_) => (
            format!("the server broke off the TLS handshake: {error}"),
            "if it wants a client certificate, set nats.tls_cert and tls_key to one that it accepts",
        ),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            (NO_TLS.to_owned(), SPEAK_TLS)
        }
        other => (format!("TLS handshake: {other}"), "check the server's tls block"),
    }
}

/// The TLS library's own error, when it is the cause.
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

/// The system's kind of the error, when the system is the cause.
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

/// The error with its causes.
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
