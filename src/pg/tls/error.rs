//! Errors of the TLS settings, each with the parameter of the URL that a person can change.

use std::path::{Path, PathBuf};

/// Contradicting TLS settings, or unusable files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The mode verifies nothing, although authorities are named.
    #[error("sslrootcert has no effect in this sslmode; use sslmode=verify-full")]
    RootsUnused,
    /// The system's authorities are used without verifying the host's name. They sign for every
    /// host, so the name must be verified.
    #[error("sslrootcert=system is only safe with sslmode=verify-full")]
    SystemRootsUnnamed,
    /// `verify-ca` without a file of authorities.
    #[error("sslmode=verify-ca needs sslrootcert=<file with the authority's certificate>")]
    RootsMissing,
    /// A client certificate without its key, or a key without its certificate.
    #[error("sslcert and sslkey go together; set both or none")]
    HalfIdentity,
    /// A file that cannot be read or has the wrong content.
    #[error("{parameter} {}: {reason}", path.display())]
    File {
        /// The URL parameter that names the file.
        parameter: &'static str,
        /// Path of the file that cannot be used.
        path: PathBuf,
        /// Reason why the file cannot be used.
        reason: String,
    },
    /// A private key that other users may read.
    #[error(
        "sslkey {} can be read by others, so it is not used; chmod 0600 it, or 0640 when root owns it",
        path.display()
    )]
    ExposedKey {
        /// Path of the private key.
        path: PathBuf,
    },
    /// The machine has no certificates of authorities that it trusts.
    #[error("the system's certificate store is empty; install ca-certificates or set sslrootcert")]
    NoSystemRoots,
    /// The TLS library refused the settings.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    pub(super) fn file(parameter: &'static str, path: &Path, reason: String) -> Self {
        Self::File { parameter, path: path.to_owned(), reason }
    }
}
