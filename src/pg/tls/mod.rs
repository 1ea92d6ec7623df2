//! The meaning of `sslmode`: libpq's six modes mapped onto certificate verification by rustls.
//!
//! | mode | encrypted | server verified |
//! |---|---|---|
//! | `disable` | no | no |
//! | `allow` | only if the server insists | no |
//! | `prefer` | if the server can | no |
//! | `require` | yes | no; with `sslrootcert` as `verify-ca` |
//! | `verify-ca` | yes | its certificate is signed by an authority in `sslrootcert` |
//! | `verify-full` | yes | the same, and it names the host; without `sslrootcert`, the system's authorities |
//!
//! The default mode is `prefer`, and `verify-full` when `sslrootcert` is given. On a Unix socket
//! there is no TLS, whatever the mode. `tests/it/tls_agreement.rs` lists where this is stricter
//! than libpq.

mod authorities;
mod certificate;
mod explain;
mod identity;
mod name;
mod verifier;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, SupportedProtocolVersion, crypto::CryptoProvider};
use tokio_postgres::config::SslMode as DriverMode;
use tokio_postgres_rustls::MakeRustlsConnect;

pub(super) use self::explain::explain;
use self::{
    authorities::Authorities,
    verifier::{Trust, Verifier},
};
use super::url::Distance;

/// `sslmode`, as libpq means it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    pub(super) fn parse(value: &str) -> Option<Self> {
        match value {
            "disable" => Some(Self::Disable),
            "allow" => Some(Self::Allow),
            "prefer" => Some(Self::Prefer),
            "require" => Some(Self::Require),
            "verify-ca" => Some(Self::VerifyCa),
            "verify-full" => Some(Self::VerifyFull),
            _ => None,
        }
    }

    /// The first attempt of a mode, and the second one when the first is refused for its
    /// encryption.
    pub(super) fn attempts(self, place: Distance) -> (DriverMode, Option<DriverMode>) {
        match (self, place) {
            (_, Distance::Socket) | (Self::Disable, _) => (DriverMode::Disable, None),
            (Self::Allow, _) => (DriverMode::Disable, Some(DriverMode::Require)),
            (Self::Prefer, _) => (DriverMode::Prefer, Some(DriverMode::Disable)),
            (Self::Require | Self::VerifyCa | Self::VerifyFull, _) => (DriverMode::Require, None),
        }
    }
}

/// Source of the authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    System,
    File(PathBuf),
}

/// Supported versions of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Versions {
    #[default]
    Both,
    Only12,
    Only13,
}

impl Versions {
    fn supported(self) -> &'static [&'static SupportedProtocolVersion] {
        static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
        static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Self::Both => rustls::ALL_VERSIONS,
            Self::Only12 => &TLS12,
            Self::Only13 => &TLS13,
        }
    }
}

/// The TLS half of a URL.
#[derive(Debug, Clone)]
pub(super) struct TlsSettings {
    pub(super) mode: Option<SslMode>,
    pub(super) roots: Option<Roots>,
    /// Path of `~/.postgresql/root.crt`, when that exists. It is used where a mode verifies or may
    /// verify, and `sslrootcert` is not given.
    pub(super) default_roots: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    /// `sslcrl`: lists of certificates that their authorities have revoked.
    pub(super) revoked: Option<PathBuf>,
    /// Whether the handshake names the server in the clear, so that a proxy can route by name.
    pub(super) names_server: bool,
    pub(super) versions: Versions,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            mode: None,
            roots: None,
            default_roots: None,
            certificate: None,
            key: None,
            revoked: None,
            names_server: true,
            versions: Versions::Both,
        }
    }
}

/// Contradicting TLS settings, or unusable files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The mode verifies nothing, although authorities are named.
    #[error("sslrootcert has no effect in this sslmode; use sslmode=verify-full")]
    RootsUnused,
    /// The system's authorities sign for every host, so the name must be verified.
    #[error("sslrootcert=system is only safe with sslmode=verify-full")]
    SystemRootsUnnamed,
    /// `verify-ca` without an authority of the user.
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
        /// The file.
        path: PathBuf,
        /// Problem with the file.
        reason: String,
    },
    /// A private key that other users may read.
    #[error(
        "sslkey {} can be read by others, so it is not used; chmod 0600 it, or 0640 when root owns it",
        path.display()
    )]
    ExposedKey {
        /// The file.
        path: PathBuf,
    },
    /// The machine has no store of authorities.
    #[error("the system's certificate store is empty; install ca-certificates or set sslrootcert")]
    NoSystemRoots,
    /// The library refused the settings.
    #[error("{0}")]
    Library(#[from] rustls::Error),
}

impl TlsError {
    fn file(parameter: &'static str, path: &Path, reason: String) -> Self {
        Self::File { parameter, path: path.to_owned(), reason }
    }
}

impl TlsSettings {
    /// The mode with libpq's implications applied.
    pub(super) fn effective_mode(&self) -> Result<SslMode, TlsError> {
        match (self.mode, &self.roots) {
            (None, None) => Ok(SslMode::Prefer),
            (None, Some(_)) | (Some(SslMode::VerifyFull), _) => Ok(SslMode::VerifyFull),
            (Some(SslMode::Require | SslMode::VerifyCa), Some(Roots::System)) => {
                Err(TlsError::SystemRootsUnnamed)
            }
            (Some(SslMode::Require | SslMode::VerifyCa), Some(Roots::File(_))) => {
                Ok(SslMode::VerifyCa)
            }
            (Some(SslMode::Require | SslMode::VerifyCa), None) if self.default_roots.is_some() => {
                Ok(SslMode::VerifyCa)
            }
            (Some(SslMode::VerifyCa), None) => Err(TlsError::RootsMissing),
            (Some(SslMode::Disable), _) => Ok(SslMode::Disable),
            (Some(SslMode::Allow | SslMode::Prefer), Some(_)) => Err(TlsError::RootsUnused),
            (Some(mode @ (SslMode::Allow | SslMode::Prefer | SslMode::Require)), None) => Ok(mode),
        }
    }

    /// Reads the files and makes the connector. Called for each connection, so that renewed
    /// certificates are taken up.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, TlsError> {
        let mode = self.effective_mode()?;
        // The provider is explicit: with a second one among the dependencies, the library's own
        // choice would panic.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = match mode {
            SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => Trust::Anyone,
            SslMode::VerifyCa => Trust::Chain(self.authorities(&provider)?),
            SslMode::VerifyFull => Trust::ChainAndName(self.authorities(&provider)?),
        };
        let config = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
            .with_protocol_versions(self.versions.supported())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(trust, &provider)));
        // Files that the mode does not use are not read.
        let identity = if mode == SslMode::Disable { None } else { identity::read_identity(self)? };
        let mut config = match identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
        };
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        config.enable_sni = self.names_server;
        Ok(MakeRustlsConnect::new(config))
    }

    fn authorities(&self, provider: &Arc<CryptoProvider>) -> Result<Authorities, TlsError> {
        let provider = Arc::<CryptoProvider>::clone(provider);
        let file = match &self.roots {
            Some(Roots::System) => None,
            Some(Roots::File(path)) => Some(path),
            None => self.default_roots.as_ref(),
        };
        let authorities = match file {
            Some(path) => Authorities::of_file(path, provider)?,
            None => Authorities::of_system(provider)?,
        };
        match &self.revoked {
            Some(path) => authorities.revoked_by(path),
            None => Ok(authorities),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(mode: Option<SslMode>, roots: Option<Roots>) -> Result<SslMode, String> {
        TlsSettings { mode, roots, ..TlsSettings::default() }
            .effective_mode()
            .map_err(|error| error.to_string())
    }

    #[test]
    fn authorities_decide_what_a_mode_means() {
        let file = || Some(Roots::File("ca.pem".into()));
        assert_eq!(mode(None, None), Ok(SslMode::Prefer));
        assert_eq!(mode(None, file()), Ok(SslMode::VerifyFull));
        assert_eq!(mode(None, Some(Roots::System)), Ok(SslMode::VerifyFull));
        assert_eq!(mode(Some(SslMode::Require), None), Ok(SslMode::Require));
        assert_eq!(mode(Some(SslMode::Require), file()), Ok(SslMode::VerifyCa));
        assert_eq!(mode(Some(SslMode::VerifyFull), None), Ok(SslMode::VerifyFull));
        assert!(mode(Some(SslMode::VerifyCa), None).unwrap_err().contains("needs sslrootcert"));
        assert!(mode(Some(SslMode::Require), Some(Roots::System)).is_err());
        assert!(mode(Some(SslMode::Prefer), file()).unwrap_err().contains("verify-full"));
    }

    #[test]
    fn socket_is_never_encrypted_and_prefer_never_ends_at_a_refused_encryption() {
        assert_eq!(SslMode::VerifyFull.attempts(Distance::Socket), (DriverMode::Disable, None));
        assert_eq!(SslMode::VerifyFull.attempts(Distance::Remote), (DriverMode::Require, None));
        let prefer = SslMode::Prefer.attempts(Distance::Remote);
        assert_eq!(prefer, (DriverMode::Prefer, Some(DriverMode::Disable)));
    }

    #[test]
    fn file_without_a_certificate_is_named_with_its_parameter() {
        let missing = TlsSettings {
            roots: Some(Roots::File("/nonexistent/ca.pem".into())),
            ..TlsSettings::default()
        };
        let text = missing.connector().err().unwrap().to_string();
        assert!(text.starts_with("sslrootcert /nonexistent/ca.pem: "), "{text}");
    }
}
