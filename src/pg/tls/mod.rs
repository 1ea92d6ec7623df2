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
mod connector;
mod error;
mod explain;
mod identity;
mod name;
mod verifier;

use std::path::PathBuf;

use rustls::SupportedProtocolVersion;
use tokio_postgres::config::SslMode as DriverMode;

pub use self::error::TlsError;
pub(super) use self::explain::explain;
use super::distance::Distance;

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

    /// TLS mode of the first attempt to connect, and of the second. The second attempt follows when
    /// the first is refused for being encrypted, or for not being so.
    pub(super) fn attempts(self, distance: Distance) -> (DriverMode, Option<DriverMode>) {
        match (self, distance) {
            (_, Distance::Socket) | (Self::Disable, _) => (DriverMode::Disable, None),
            (Self::Allow, _) => (DriverMode::Disable, Some(DriverMode::Require)),
            (Self::Prefer, _) => (DriverMode::Prefer, Some(DriverMode::Disable)),
            (Self::Require | Self::VerifyCa | Self::VerifyFull, _) => (DriverMode::Require, None),
        }
    }
}

/// Place of the trusted certificate authorities: this machine's store, or a file.
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

/// TLS settings of a database URL.
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
    /// Whether the handshake names the server in the clear (SNI), so that a proxy can route by
    /// name.
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

impl TlsSettings {
    /// The mode after libpq's rules. For example, `sslrootcert` without a mode means `verify-full`.
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
}
