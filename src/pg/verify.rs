//! Verifies a server's certificate to the degree that `sslmode` asks for.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::tls::Authorities;

/// What is asked of the server's certificate.
#[derive(Debug)]
pub(super) enum Trust {
    /// Nothing: encryption against listeners, none against an impostor.
    Anyone,
    /// That an authority signed it.
    Chain(Authorities),
    /// The same, and that it names the host.
    ChainAndName(Authorities),
}

#[derive(Debug)]
pub(super) struct Verifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(trust: Trust, provider: &Arc<CryptoProvider>) -> Self {
        Self { trust, algorithms: provider.signature_verification_algorithms }
    }

    fn verify_chain(
        &self,
        authorities: &Authorities,
        presented: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        now: UnixTime,
    ) -> Result<(), Error> {
        let (server, intermediates) = presented;
        // As libpq does, a self-signed server certificate is accepted when the file holds it. The
        // library would refuse it, because such certificates are marked as an authority's.
        if authorities.pinned.iter().any(|pinned| pinned.as_ref() == server.as_ref()) {
            return Ok(());
        }
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(server)?,
            &authorities.store,
            intermediates,
            now,
            self.algorithms.all,
        )
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            Trust::Anyone => {}
            Trust::Chain(authorities) => {
                self.verify_chain(authorities, (server, intermediates), now)?;
            }
            Trust::ChainAndName(authorities) => {
                self.verify_chain(authorities, (server, intermediates), now)?;
                verify_server_name(&ParsedCertificate::try_from(server)?, name)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    // The handshake's own signature is always checked: it proves the possession of the key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
