//! Makes the TLS connector of one connection from the settings, and reads the files that they name.

use std::sync::Arc;

use rustls::{ClientConfig, crypto::CryptoProvider};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Roots, SslMode, TlsSettings,
    authorities::Authorities,
    error::TlsError,
    identity::read_identity,
    verifier::{Trust, Verifier},
};

impl TlsSettings {
    /// Reads the files and makes the connector. Called for each connection, so that renewed
    /// certificates are taken up.
    pub(in crate::pg) fn connector(&self) -> Result<MakeRustlsConnect, TlsError> {
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
        let identity = if mode == SslMode::Disable { None } else { read_identity(self)? };
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
