//! The client certificate and its key, by which the server identifies us.

use std::path::Path;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{TlsSettings, authorities::certificates, error::TlsError};
use crate::config::file::{CERTIFICATES_BYTES_MAX, is_private_key_exposed, read};

/// Client's chain of certificates, its own certificate first, and the private key of that one.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads the client certificate and its key; `None` when neither file is set.
pub(super) fn read_identity(settings: &TlsSettings) -> Result<Option<Identity>, TlsError> {
    match (&settings.certificate, &settings.key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some((certificates("sslcert", certificate)?, read_key(key)?)))
        }
        (Some(_), None) | (None, Some(_)) => Err(TlsError::HalfIdentity),
    }
}

/// Reads the private key. Like libpq, this refuses a key that other users may read.
fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |reason| TlsError::file("sslkey", path, reason);
    let bytes = read(path, CERTIFICATES_BYTES_MAX).map_err(failed)?;
    if is_private_key_exposed(path) {
        return Err(TlsError::ExposedKey { path: path.to_owned() });
    }
    if bytes.windows(9).any(|window| window == b"ENCRYPTED") {
        return Err(failed("is encrypted; store it without a passphrase, mode 0600".to_owned()));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| failed(error.to_string()))
}
