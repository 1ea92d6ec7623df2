//! Refuses requests whose `Host` header does not name this listener. A foreign page in a browser,
//! whose name was made to point at this machine (DNS rebinding), sends its own name there.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::problem::ProblemDetails;

/// The names that this listener answers to: those of loopback, the address that it is bound to, and
/// the names in `admin.hosts`.
#[derive(Debug, Clone)]
pub(super) struct HostNames {
    bound: IpAddr,
    hosts: Arc<[String]>,
}

impl HostNames {
    pub(super) fn of(bound: SocketAddr, hosts: &[String]) -> Self {
        Self { bound: bound.ip(), hosts: hosts.into() }
    }

    /// Whether a `Host` header names this listener. Any port is accepted, because tunnels change
    /// the port.
    fn include(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host();
        let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        if let Ok(ip) = literal {
            // An IP address in the `Host` header is harmless, because DNS rebinding needs a name.
            // So a listener that is bound to every address accepts any.
            return ip.is_loopback() || ip == self.bound || self.bound.is_unspecified();
        }
        let name = name.trim_end_matches('.');
        let is = |known: &str| known.trim_end_matches('.').eq_ignore_ascii_case(name);
        is("localhost") || self.hosts.iter().any(|known| is(known))
    }
}

pub(super) async fn check(
    State(names): State<HostNames>,
    request: Request,
    next: Next,
) -> Response {
    // A request without a `Host` header is accepted: every browser sends one, but load balancers
    // that probe with HTTP/1.0 do not.
    let host = request.headers().get(header::HOST).map(HeaderValue::to_str);
    let meant = host.is_none_or(|host| host.is_ok_and(|host| names.include(host)));
    let mut response = if meant {
        next.run(request).await
    } else {
        ProblemDetails::foreign_host().into_response()
    };
    harden(response.headers_mut());
    response
}

/// Sets the headers of an answer. `Connection: close` ends the connection after it, and the others
/// keep a browser from rendering, caching or passing it on.
fn harden(headers: &mut HeaderMap) {
    let fixed = [
        (header::CONNECTION, "close"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn includes(bound: &str, host: &str) -> bool {
        HostNames::of(bound.parse().unwrap(), &["relay.internal".to_owned()]).include(host)
    }

    #[test]
    fn loopback_names_and_the_bound_address_are_ours() {
        for host in ["localhost", "LocalHost:9", "localhost.", "127.0.0.1:8085", "[::1]:8085"] {
            assert!(includes("127.0.0.1:8085", host), "{host}");
        }
        assert!(includes("10.1.2.3:8085", "10.1.2.3:8085"));
        assert!(includes("0.0.0.0:8085", "Relay.Internal:8085"));
        assert!(includes("0.0.0.0:8085", "10.1.2.3:8085"));
        assert!(includes("[::]:8085", "[fd00::1]:8085"));
    }

    #[test]
    fn other_names_are_not() {
        for host in
            ["evil.example", "127.0.0.1.evil.example", "relay.internal.evil.example", "", "a b"]
        {
            assert!(!includes("127.0.0.1:8085", host), "{host}");
            assert!(!includes("0.0.0.0:8085", host), "{host}");
        }
        assert!(!includes("127.0.0.1:8085", "10.1.2.3:8085"));
    }
}
