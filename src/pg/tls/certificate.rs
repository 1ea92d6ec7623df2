//! Reads from a certificate the facts that libpq's TLS library checks and ours does not.

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_cert::{
    certificate::{Certificate as Parsed, Version},
    der::{Decode as _, oid::ObjectIdentifier},
    ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName, name::GeneralName},
};

const SERVER_AUTHENTICATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A parsed certificate.
#[derive(Debug)]
pub(super) struct Certificate(Parsed);

/// A name in a certificate.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Dns(String),
    Address(Vec<u8>),
}

/// Validity of a certificate at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    Now,
    NotYet,
    NoMore,
}

impl Certificate {
    /// Parses a certificate; `None` when it is malformed.
    pub(super) fn parse(der: &CertificateDer<'_>) -> Option<Self> {
        Parsed::from_der(der).ok().map(Self)
    }

    pub(super) fn validity(&self, now: UnixTime) -> Validity {
        let (now, validity) = (now.as_secs(), &self.0.tbs_certificate.validity);
        if now < validity.not_before.to_unix_duration().as_secs() {
            Validity::NotYet
        } else if now > validity.not_after.to_unix_duration().as_secs() {
            Validity::NoMore
        } else {
            Validity::Now
        }
    }

    /// Whether the certificate names itself as its issuer, and so ends a chain.
    pub(super) fn is_self_issued(&self) -> bool {
        self.0.tbs_certificate.issuer == self.0.tbs_certificate.subject
    }

    /// Whether the certificate may sign others, as the last certificate of a chain.
    pub(super) fn is_authority(&self) -> bool {
        let signs = self.key_usage().map(|usage| usage.key_cert_sign());
        let is_old = self.0.tbs_certificate.version == Version::V1;
        match self.0.tbs_certificate.get::<BasicConstraints>() {
            Ok(Some((_, basic))) => basic.ca && signs != Some(false),
            Ok(None) => signs.unwrap_or(is_old),
            Err(_) => false,
        }
    }

    /// Whether the certificate may identify a TLS server.
    pub(super) fn may_serve(&self) -> bool {
        let extended = self.0.tbs_certificate.get::<ExtendedKeyUsage>();
        let is_meant = match extended {
            Ok(Some((_, ExtendedKeyUsage(purposes)))) => purposes.contains(&SERVER_AUTHENTICATION),
            Ok(None) => true,
            Err(_) => false,
        };
        let key_fits = self.key_usage().is_none_or(|usage| {
            usage.digital_signature() || usage.key_encipherment() || usage.key_agreement()
        });
        is_meant && key_fits
    }

    fn key_usage(&self) -> Option<KeyUsage> {
        self.0.tbs_certificate.get::<KeyUsage>().ok().flatten().map(|(_, usage)| usage)
    }

    /// Names in the extension for alternative names.
    pub(super) fn alternative_names(&self) -> Vec<Name> {
        let names = self.0.tbs_certificate.get::<SubjectAltName>().ok().flatten();
        let names = names.map(|(_, SubjectAltName(names))| names).unwrap_or_default();
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds name no host")]
        let host = |name| match name {
            GeneralName::DnsName(name) => Some(Name::Dns(name.as_str().to_owned())),
            GeneralName::IpAddress(address) => Some(Name::Address(address.as_bytes().to_vec())),
            _ => None,
        };
        names.into_iter().filter_map(host).collect()
    }

    /// The first common name of the subject.
    pub(super) fn common_name(&self) -> Option<String> {
        let parts = self.0.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
        let name = parts.into_iter().find(|part| part.oid == COMMON_NAME)?;
        String::from_utf8(name.value.value().to_vec()).ok()
    }
}
