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
//! Without a mode it is `prefer`, and `verify-full` when `sslrootcert` is given. On a Unix socket
//! there is no TLS, whatever the mode.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_postgres::config::SslMode as DriverMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    url::{Place, UrlError},
    verify::{Trust, Verifier},
};

/// `sslmode`, as libpq means it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    pub(super) fn parse(value: &str) -> Result<Self, UrlError> {
        match value {
            "disable" => Ok(Self::Disable),
            "allow" => Ok(Self::Allow),
            "prefer" => Ok(Self::Prefer),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            _ => Err(UrlError::Value {
                name: "sslmode",
                choices: "disable, allow, prefer, require, verify-ca, verify-full",
            }),
        }
    }

    /// What to try, and what to try when that is refused for its encryption.
    pub(super) fn attempts(self, place: Place) -> (DriverMode, Option<DriverMode>) {
        match (self, place) {
            (_, Place::Socket) | (Self::Disable, _) => (DriverMode::Disable, None),
            (Self::Allow, _) => (DriverMode::Disable, Some(DriverMode::Require)),
            (Self::Prefer, _) => (DriverMode::Prefer, Some(DriverMode::Disable)),
            (Self::Require | Self::VerifyCa | Self::VerifyFull, _) => (DriverMode::Require, None),
        }
    }
}

/// Where the authorities are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Roots {
    System,
    File(PathBuf),
}

/// The TLS half of a URL.
#[derive(Debug, Clone, Default)]
pub(super) struct TlsSettings {
    pub(super) mode: Option<SslMode>,
    pub(super) roots: Option<Roots>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

/// TLS settings that contradict each other, or files that are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The mode verifies nothing, although authorities are named.
    #[error("sslrootcert has no effect in this sslmode; use sslmode=verify-full")]
    RootsUnused,
    /// The system's authorities sign anyone's certificate, so the name must be checked.
    #[error("sslrootcert=system is only safe with sslmode=verify-full")]
    SystemRootsUnnamed,
    /// `verify-ca` without authorities of one's own.
    #[error("sslmode=verify-ca needs sslrootcert=<file with the authority's certificate>")]
    RootsMissing,
    /// One of the two client files without the other.
    #[error("sslcert and sslkey go together; set both or none")]
    HalfIdentity,
    /// A file that cannot be read or holds nothing of the kind.
    #[error("{parameter} {}: {reason}", path.display())]
    File {
        /// The URL parameter that names the file.
        parameter: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The machine has no store of authorities.
    #[error("the system's certificate store is empty; install ca-certificates or set sslrootcert")]
    NoSystemRoots,
    /// The library refused the settings.
    #[error("{0}")]
    Library(#[from] rustls::Error),
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
            (Some(SslMode::VerifyCa), None) => Err(TlsError::RootsMissing),
            (Some(SslMode::Disable), _) => Ok(SslMode::Disable),
            (Some(SslMode::Allow | SslMode::Prefer), Some(_)) => Err(TlsError::RootsUnused),
            (Some(mode @ (SslMode::Allow | SslMode::Prefer | SslMode::Require)), None) => Ok(mode),
        }
    }

    /// Reads the files and makes the connector. Called for each connection, so that renewed
    /// certificates are taken up.
    pub(super) fn connector(&self) -> Result<MakeRustlsConnect, TlsError> {
        let trust = match self.effective_mode()? {
            SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => Trust::Anyone,
            SslMode::VerifyCa => Trust::Chain(self.authorities()?),
            SslMode::VerifyFull => Trust::ChainAndName(self.authorities()?),
        };
        // The provider is named, because a second one among the dependencies would make the
        // library's own choice panic.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(trust, &provider)));
        let mut config = match self.identity()? {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
        };
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(MakeRustlsConnect::new(config))
    }

    /// The authorities as a store, and as they stand in the file.
    fn authorities(&self) -> Result<Authorities, TlsError> {
        let Some(Roots::File(path)) = &self.roots else {
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return if store.is_empty() {
                Err(TlsError::NoSystemRoots)
            } else {
                Ok(Authorities { store, pinned: Vec::new() })
            };
        };
        let pinned = certificates("sslrootcert", path)?;
        let mut store = RootCertStore::empty();
        for certificate in &pinned {
            store.add(certificate.clone()).map_err(|error| TlsError::File {
                parameter: "sslrootcert",
                path: path.clone(),
                reason: error.to_string(),
            })?;
        }
        Ok(Authorities { store, pinned })
    }

    fn identity(&self) -> Result<Option<Identity>, TlsError> {
        match (&self.certificate, &self.key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let chain = certificates("sslcert", certificate)?;
                let key = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File {
                    parameter: "sslkey",
                    path: key.clone(),
                    reason: error.to_string(),
                })?;
                Ok(Some((chain, key)))
            }
            (Some(_), None) | (None, Some(_)) => Err(TlsError::HalfIdentity),
        }
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Whom to believe.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) store: RootCertStore,
    /// The certificates of the file themselves; a server may present one of them.
    pub(super) pinned: Vec<CertificateDer<'static>>,
}

fn certificates(
    parameter: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason| TlsError::File { parameter, path: path.to_owned(), reason };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("holds no certificate in PEM".to_owned())) } else { Ok(found) }
}

/// What a failed handshake means, and what to set.
pub(super) fn explain(error: &rustls::Error) -> (String, &'static str) {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest has one remedy")]
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => (
            format!("server certificate names another host: {error}"),
            "connect by a name that is in the certificate, or use sslmode=verify-ca",
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => (format!("server certificate expired: {error}"), "renew the server's certificate"),
        rustls::Error::InvalidCertificate(_) => (
            format!("server certificate not verified: {error}"),
            "set sslrootcert=<its authority's certificate> or sslmode=require (unverified)",
        ),
        rustls::Error::AlertReceived(_) => (
            format!("server broke off the TLS handshake: {error}"),
            "if it wants a client certificate, set sslcert and sslkey to one that it accepts",
        ),
        other => (format!("TLS handshake: {other}"), "check the server's ssl settings"),
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
        assert_eq!(SslMode::VerifyFull.attempts(Place::Socket), (DriverMode::Disable, None));
        assert_eq!(SslMode::VerifyFull.attempts(Place::Remote), (DriverMode::Require, None));
        let prefer = SslMode::Prefer.attempts(Place::Remote);
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
