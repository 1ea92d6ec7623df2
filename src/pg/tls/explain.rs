//! The text and the remedy of a failed TLS handshake.

use rustls::CertificateError;

use super::authorities::Objection;

/// Meaning of a failed handshake, and the setting that helps.
pub(in crate::pg) fn explain(error: &rustls::Error) -> (String, &'static str) {
    const AUTHORITY: &str =
        "set sslrootcert=<its authority's certificate> or sslmode=require (unverified)";
    let rustls::Error::InvalidCertificate(reason) = error else {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the rest has one remedy")]
        return match error {
            rustls::Error::AlertReceived(_) => (
                format!("server broke off the TLS handshake: {error}"),
                "if it wants a client certificate, set sslcert and sslkey to one that it accepts",
            ),
            other => (format!("TLS handshake: {other}"), "check the server's ssl settings"),
        };
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest has one remedy")]
    match reason {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("server certificate names another host: {error}"),
            "connect by a name that is in the certificate, or use sslmode=verify-ca",
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (format!("server certificate expired: {error}"), "renew the server's certificate")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            format!("server certificate not valid yet: {error}"),
            "compare the clocks of both machines, or wait until it is valid",
        ),
        CertificateError::Revoked => (
            "server certificate revoked by its authority".to_owned(),
            "give the server a new certificate; do not connect before",
        ),
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => (
            format!("server certificate not verified: {error}"),
            "give sslcrl a list in force of every authority of the chain, or remove sslcrl",
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => (
            format!("server certificate is not for servers: {error}"),
            "give the server a certificate with the extended key usage serverAuth",
        ),
        CertificateError::Other(other) => match other.0.downcast_ref::<Objection>() {
            Some(objection @ (Objection::AuthorityExpired | Objection::AuthorityNotYet)) => (
                format!("server certificate not verified: {objection}"),
                "renew the authority, and name its certificate with sslrootcert",
            ),
            Some(objection @ Objection::NoAuthority) => (
                format!("server certificate not verified: {objection}"),
                "put the authority at the end of the chain into the file of sslrootcert",
            ),
            None => (format!("server certificate not verified: {error}"), AUTHORITY),
        },
        _ => (format!("server certificate not verified: {error}"), AUTHORITY),
    }
}
