//! The login in a NATS URL: `nats://user:password@host`, or `nats://token@host`.

use super::{
    NatsConfig,
    secret::{Secret, SecretUrl},
};

/// Identity that a URL gives us.
#[derive(Debug, Clone)]
pub enum Login {
    /// A user with a password.
    User(String, Secret),
    /// The bearer of a token.
    Token(Secret),
}

/// Reason why the URLs give no login. It contains no part of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// Two servers of one cluster have different logins.
    #[error("contains different logins; write one login, or the same with every server")]
    Different,
    /// The login contains a `%` that does not begin an escape such as `%25`.
    #[error("contains a login with a % outside of an escape; write a % as %25")]
    Encoding,
    /// The login has an `@` with nothing in front of it, or a `:` with no user before it or no
    /// password after it.
    #[error("contains an empty user, password or token before its @")]
    Empty,
}

impl NatsConfig {
    /// The servers without their logins, and the login that one or all of them have.
    ///
    /// # Errors
    ///
    /// [`LoginError`]
    pub fn servers(&self) -> Result<(Vec<String>, Option<Login>), LoginError> {
        servers(&self.url)
    }
}

fn servers(urls: &SecretUrl) -> Result<(Vec<String>, Option<Login>), LoginError> {
    let (mut servers, mut logins) = (Vec::new(), Vec::new());
    for url in urls.expose().split(',').map(str::trim) {
        let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
        let (login, host) = match rest.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, rest),
        };
        servers.push(format!("{scheme}://{host}"));
        logins.extend(login);
    }
    if logins.windows(2).any(|pair| pair.first() != pair.last()) {
        return Err(LoginError::Different);
    }
    let login = logins.first().map(|login| parse(login)).transpose()?;
    Ok((servers, login))
}

fn parse(text: &str) -> Result<Login, LoginError> {
    let login = match text.split_once(':') {
        Some((user, password)) => (decode(user)?, Some(decode(password)?)),
        None => (decode(text)?, None),
    };
    match login {
        (name, _) if name.is_empty() => Err(LoginError::Empty),
        (_, Some(password)) if password.is_empty() => Err(LoginError::Empty),
        (user, Some(password)) => Ok(Login::User(user, Secret::new(password))),
        (token, None) => Ok(Login::Token(Secret::new(token))),
    }
}

fn decode(text: &str) -> Result<String, LoginError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|it| u8::try_from(it).ok());
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (rest.next().and_then(hex), rest.next().and_then(hex)) else {
            return Err(LoginError::Encoding);
        };
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes).map_err(|_| LoginError::Encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Vec<String>, Option<Login>), LoginError> {
        servers(&SecretUrl::new(text.to_owned()))
    }

    #[test]
    fn login_is_taken_out_of_the_urls_and_decoded() {
        let (servers, login) = read("nats://me:p%40w@a:4222, tls://me:p%40w@b").unwrap();
        assert_eq!(servers, ["nats://a:4222", "tls://b"]);
        let Some(Login::User(user, password)) = login else { panic!("{login:?}") };
        assert_eq!((user.as_str(), password.expose()), ("me", "p@w"));
        let (servers, login) = read("nats://t0k%3Aen@a,nats://b").unwrap();
        assert_eq!(servers, ["nats://a", "nats://b"]);
        let Some(Login::Token(token)) = login else { panic!("{login:?}") };
        assert_eq!(token.expose(), "t0k:en");
        assert!(read("nats://a,nats://b").unwrap().1.is_none());
    }

    #[test]
    fn login_that_cannot_be_meant_is_refused() {
        assert_eq!(read("nats://a:x@h,nats://a:y@i").err(), Some(LoginError::Different));
        assert_eq!(read("nats://a:%x@h").err(), Some(LoginError::Encoding));
        for text in ["nats://@h", "nats://:pw@h", "nats://me:@h"] {
            assert_eq!(read(text).err(), Some(LoginError::Empty), "{text}");
        }
    }
}
