//! Whether a certificate names a host, by the rules of libpq.
//!
//! Alternative names of the host's kind (DNS name or IP address) decide alone. Without one, the
//! common name of the subject decides. A `*.` at the beginning stands for one label.

use std::net::IpAddr;

use super::certificate::{Certificate, Name};

/// Whether the certificate names the host.
pub(super) fn is_named(certificate: &Certificate, host: &str) -> bool {
    let address = host.parse::<IpAddr>().ok();
    let bytes = address.map(|address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    });
    let names = certificate.alternative_names();
    let is_match = |name: &Name| match name {
        Name::Dns(pattern) => matches(pattern, host),
        Name::Address(found) => bytes.as_ref() == Some(found),
    };
    if names.iter().any(is_match) {
        return true;
    }
    let decides_alone = |name: &Name| matches!(name, Name::Address(_)) == address.is_some();
    let common = || certificate.common_name().is_some_and(|pattern| matches(&pattern, host));
    !names.iter().any(decides_alone) && common()
}

fn matches(pattern: &str, host: &str) -> bool {
    if pattern.contains('\0') {
        return false;
    }
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(suffix), Some((first, rest))) = (pattern.strip_prefix("*."), host.split_once('.'))
    else {
        return false;
    };
    !first.is_empty() && !suffix.is_empty() && suffix.eq_ignore_ascii_case(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcard_stands_for_one_label_at_the_beginning() {
        assert!(matches("DB.example.org", "db.example.org"));
        assert!(matches("*.example.org", "db.EXAMPLE.org"));
        for (pattern, host) in [
            ("*.example.org", "a.b.example.org"),
            ("*.example.org", "example.org"),
            ("*.example.org", ".example.org"),
            ("d*.example.org", "db.example.org"),
            ("*", "localhost"),
            ("*.", "localhost."),
            ("db.example.org\0.evil.org", "db.example.org"),
        ] {
            assert!(!matches(pattern, host), "{pattern} {host}");
        }
    }
}
