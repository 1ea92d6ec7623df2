//! Texts that are never shown, and addresses that are shown without their login.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value::parse_text;

/// The text that is shown in place of a secret.
pub const MASK: &str = "***";

/// A text that is never shown: not by `Debug`, not by `config show`, not in an error.
#[derive(Debug, Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a text.
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that connects with it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "a text in quotes", |text| Some(Self::new(text.to_owned())))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// A URL that may contain a password; `Display`, `Debug` and `Serialize` show its hosts only.
#[derive(Clone, Default)]
pub struct SecretUrl(SecretString);

impl SecretUrl {
    /// Wraps a URL, or several separated by commas.
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// The URL itself, for the one place that connects with it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether no URL is set.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }

    /// Whether the URL contains a password. A login without one is a user name.
    pub fn holds_password(&self) -> bool {
        let text = self.expose();
        let login = text.rsplit_once('@').map_or("", |(login, _)| login);
        let login = login.split_once("://").map_or(login, |(_, login)| login);
        login.contains(':') || text.contains("password=")
    }

    /// Whether the URL contains a login. In a NATS URL a login without a password is a token.
    pub fn holds_login(&self) -> bool {
        self.expose().contains('@')
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(self.expose()))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "a URL in quotes", |text| Some(Self::new(text.to_owned())))
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The scheme, hosts and path of every URL in `text`, or the mask when any part is not plain.
///
/// Only recognised parts are shown. So a password with an unescaped `@`, `/` or `?` ends as `***`,
/// never as a piece of itself.
fn redacted(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    text.split(',')
        .map(redacted_one)
        .collect::<Option<Vec<String>>>()
        .map_or_else(|| MASK.to_owned(), |urls| urls.join(","))
}

fn redacted_one(url: &str) -> Option<String> {
    let (scheme, rest) = url.trim().split_once("://")?;
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) if !login.contains(['?', '#', '/']) => ("***@", place),
        Some(_) => return None,
        None => ("", rest),
    };
    let place = place.split(['?', '#']).next()?;
    let (host, path) = place.split_once('/').map_or((place, None), |(h, p)| (h, Some(p)));
    let is_plain = is_name(scheme) && is_host(host) && path.is_none_or(is_name);
    let path = path.map(|path| format!("/{path}")).unwrap_or_default();
    is_plain.then(|| format!("{scheme}://{login}{host}{path}"))
}

fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (text, "0"),
    };
    let is_address = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
    (is_address || is_name(name)) && port.parse::<u16>().is_ok()
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        SecretUrl::new(text.to_owned()).to_string()
    }

    #[test]
    fn url_is_shown_without_login_and_options() {
        assert_eq!(
            shown("postgresql://app@127.0.0.1:5432/app"),
            "postgresql://***@127.0.0.1:5432/app"
        );
        assert_eq!(shown("postgresql://app:pw@db/app?sslmode=require"), "postgresql://***@db/app");
        assert_eq!(shown("postgresql:///app?host=/run/postgresql"), "postgresql:///app");
        assert_eq!(
            shown("nats://a:4222, tls://tok@[::1]:4222"),
            "nats://a:4222,tls://***@[::1]:4222"
        );
        assert_eq!(shown("nats://127.0.0.1"), "nats://127.0.0.1");
    }

    #[test]
    fn no_piece_of_an_unescaped_password_is_shown() {
        for text in [
            "postgresql://app:can@ry/app",
            "postgresql://app:can/ary@db/app",
            "postgresql://app:can?ary@db/app",
            "postgresql://app:can#ary@db/app",
            "postgresql://app:can,ary@db/app",
            "postgresql://db/app?password=can@ary",
            "postgresql://app:canary",
            "host=db password=canary",
            "canary",
            "nats://canary canary@db",
            "://canary:x",
        ] {
            let shown = shown(text);
            assert!(!shown.contains("can") && !shown.contains("ary"), "{text} is shown as {shown}");
        }
    }

    #[test]
    fn user_name_alone_is_no_password() {
        let holds = |text: &str| SecretUrl::new(text.to_owned()).holds_password();
        assert!(!holds("postgresql://app@127.0.0.1:5432/app"));
        assert!(!holds("postgresql://[::1]:5432/app"));
        assert!(holds("postgresql://app:pw@127.0.0.1:5432/app"));
        assert!(holds("postgresql://db/app?user=app&password=pw"));
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!(
            "{:?} {:?}",
            Secret::new("canary".to_owned()),
            SecretUrl::new("nats://canary@h:1".to_owned())
        );
        assert!(!text.contains("canary"), "{text}");
    }
}
