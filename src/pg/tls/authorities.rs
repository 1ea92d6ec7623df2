//! The authorities that may sign a server's certificate, and the check that one of them did.
//!
//! The rules are those of libpq's TLS library: a chain ends at a self-issued authority that is
//! valid now. A leaf or an intermediate of another authority never ends a chain, wherever it
//! stands.

use std::{path::Path, sync::Arc};

use rustls::{
    CertificateError, Error, OtherError, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, CertificateRevocationListDer, ServerName, UnixTime, pem::PemObject,
    },
};

use super::{
    certificate::{Certificate, Validity},
    error::TlsError,
};
use crate::config::file::{CERTIFICATES_BYTES_MAX, read};

/// Objections to a server's certificate for which the TLS library has no error of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Objection {
    #[error("the certificate of its authority has expired")]
    AuthorityExpired,
    #[error("the certificate of its authority is not valid yet")]
    AuthorityNotYet,
    #[error("the file of sslrootcert contains no self-signed authority")]
    NoAuthority,
}

impl From<Objection> for Error {
    fn from(objection: Objection) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(objection))))
    }
}

/// Trusted authorities, and revoked certificates.
#[derive(Debug)]
pub(super) struct Authorities {
    /// Certificates at which a chain may end, each with its parsed form. The form is `None` when
    /// only the TLS library can read the certificate.
    ends: Vec<(CertificateDer<'static>, Option<Certificate>)>,
    /// Self-issued certificates of the file: a server may present one of them as its own.
    pinned: Vec<CertificateDer<'static>>,
    /// The other certificates of the file, which may complete a chain.
    others: Vec<CertificateDer<'static>>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Authorities {
    /// Reads the certificate authorities that this machine trusts.
    pub(super) fn of_system(provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs().certs.into_iter();
        let mut store = RootCertStore::empty();
        let ends: Vec<_> = found
            .filter(|der| store.add(der.clone()).is_ok())
            .map(|der| (der.clone(), Certificate::parse(&der)))
            .collect();
        if ends.is_empty() {
            return Err(TlsError::NoSystemRoots);
        }
        let (pinned, others, revoked) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { ends, pinned, others, revoked, provider })
    }

    /// Reads the certificate authorities to trust from a file in PEM.
    pub(super) fn of_file(path: &Path, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let (mut ends, mut pinned, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for der in certificates("sslrootcert", path)? {
            let Some(certificate) = Certificate::parse(&der) else {
                let reason = "contains a malformed certificate".to_owned();
                return Err(TlsError::file("sslrootcert", path, reason));
            };
            if !certificate.is_self_issued() {
                others.push(der);
                continue;
            }
            pinned.push(der.clone());
            if certificate.is_authority() {
                ends.push((der, Some(certificate)));
            }
        }
        Ok(Self { ends, pinned, others, revoked: Vec::new(), provider })
    }

    /// Adds revocation lists. Each certificate of a chain then needs a list that is in force.
    pub(super) fn revoked_by(mut self, path: &Path) -> Result<Self, TlsError> {
        let failed = |reason| TlsError::file("sslcrl", path, reason);
        let bytes = read(path, CERTIFICATES_BYTES_MAX).map_err(failed)?;
        self.revoked = CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<_, _>>()
            .map_err(|error| failed(error.to_string()))?;
        if self.revoked.is_empty() {
            return Err(failed("contains no revocation list in PEM".to_owned()));
        }
        Ok(self)
    }

    /// Verifies that an authority signed the server's certificate, directly or through others, and
    /// that the whole chain is valid now. The caller verifies the host's name.
    pub(super) fn verify(
        &self,
        (der, server): (&CertificateDer<'_>, &Certificate),
        intermediates: &[CertificateDer<'_>],
        (host, now): (&ServerName<'_>, UnixTime),
    ) -> Result<(), Error> {
        if !server.may_serve() {
            return Err(CertificateError::InvalidPurpose.into());
        }
        // Like libpq, this accepts a self-issued server certificate that is in the file.
        if self.pinned.iter().any(|pinned| pinned.as_ref() == der.as_ref()) {
            return match server.validity(now) {
                Validity::NotYet => Err(CertificateError::NotValidYet.into()),
                Validity::NoMore => Err(CertificateError::Expired.into()),
                Validity::Now if self.revoked.is_empty() => Ok(()),
                Validity::Now => Err(CertificateError::UnknownRevocationStatus.into()),
            };
        }
        let chain: Vec<CertificateDer<'_>> =
            intermediates.iter().chain(&self.others).cloned().collect();
        let signed = |validity| self.signed_by(validity, (der, &chain), (host, now));
        match signed(Validity::Now) {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                if signed(Validity::NoMore).is_ok() {
                    Err(Objection::AuthorityExpired.into())
                } else if signed(Validity::NotYet).is_ok() {
                    Err(Objection::AuthorityNotYet.into())
                } else if self.ends.is_empty() {
                    Err(Objection::NoAuthority.into())
                } else {
                    Err(CertificateError::UnknownIssuer.into())
                }
            }
            other => other,
        }
    }

    /// Verifies as [`verify`](Self::verify) does, but trusts only authorities that are valid now,
    /// expired, or not valid yet, as `validity` says.
    fn signed_by(
        &self,
        validity: Validity,
        (der, chain): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        (host, now): (&ServerName<'_>, UnixTime),
    ) -> Result<(), Error> {
        let mut store = RootCertStore::empty();
        for (end, certificate) in &self.ends {
            let found = certificate.as_ref().map_or(Validity::Now, |it| it.validity(now));
            if found == validity {
                store.add(end.clone())?;
            }
        }
        if store.is_empty() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(store),
            Arc::<CryptoProvider>::clone(&self.provider),
        )
        .with_crls(self.revoked.iter().cloned())
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
        match verifier.verify_server_cert(der, chain, host, &[], now) {
            // The TLS library verifies the chain before the name. A wrong name is no error here,
            // because the caller compares names by libpq's rules.
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The certificates of a PEM file; at least one.
pub(super) fn certificates(
    parameter: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |reason| TlsError::file(parameter, path, reason);
    let bytes = read(path, CERTIFICATES_BYTES_MAX).map_err(failed)?;
    let found = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        Err(failed("contains no certificate in PEM".to_owned()))
    } else {
        Ok(found)
    }
}
