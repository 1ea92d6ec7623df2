//! The two notations for a database: a `postgresql://` URL, and `key=value` pairs.

use super::{
    error::UrlError,
    parameters::{NameDisplay, UrlParameters},
};

/// Parses a URL or a connection string.
pub(super) fn parse(text: &str) -> Result<UrlParameters, UrlError> {
    let scheme = ["postgresql://", "postgres://"].iter().find_map(|it| text.strip_prefix(it));
    match scheme {
        Some(rest) => url(rest),
        None if text.contains('=') && !text.contains("://") => pairs(text),
        None => Err(UrlError::Scheme),
    }
}

fn url(rest: &str) -> Result<UrlParameters, UrlError> {
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    if base.matches('@').count() > 1 {
        return Err(UrlError::At);
    }
    let (login, place) = base.split_once('@').unwrap_or(("", base));
    if login.contains('/') {
        return Err(UrlError::Slash);
    }
    let mut parameters = UrlParameters::default();
    let mut set = |name, value: &str| {
        let value = decode(value)?;
        if value.is_empty() { Ok(()) } else { parameters.set(name, value, NameDisplay::Hidden) }
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    set("user", user)?;
    set("password", password)?;
    let (servers, database) = place.split_once('/').unwrap_or((place, ""));
    let servers: Vec<(&str, &str)> = servers.split(',').map(server).collect::<Result<_, _>>()?;
    let joined = |parts: Vec<&str>| {
        let is_empty = parts.iter().all(|part| part.is_empty());
        if is_empty { String::new() } else { parts.join(",") }
    };
    set("host", &joined(servers.iter().map(|(host, _)| *host).collect()))?;
    set("port", &joined(servers.iter().map(|(_, port)| *port).collect()))?;
    set("dbname", database)?;
    // An unescaped `?` in a password cuts the URL before its `@`. The text behind that `?` may be
    // part of the password, and is not shown as a parameter.
    let is_whole = !query.contains('@') && (base.contains('@') || !base.contains(':'));
    let naming = if is_whole { NameDisplay::Shown } else { NameDisplay::Hidden };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(UrlError::UnknownParameter)?;
        match (decode(name)?.as_str(), decode(value)?) {
            // libpq accepts this parameter of JDBC.
            ("ssl", value) if value == "true" => {
                parameters.set("sslmode", "require".to_owned(), NameDisplay::Hidden)?;
            }
            (name, value) => parameters.set(name, value, naming)?,
        }
    }
    Ok(parameters)
}

/// The host and the port of one server, without the brackets of an IPv6 address.
fn server(text: &str) -> Result<(&str, &str), UrlError> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => inner.split_once(']').ok_or(UrlError::Bracket)?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, port)),
        None if rest.is_empty() => Ok((host, "")),
        None => Err(UrlError::Bracket),
    }
}

/// Parses `key=value` pairs with blanks between. A value in single quotes may contain blanks; `\`
/// escapes.
fn pairs(text: &str) -> Result<UrlParameters, UrlError> {
    let mut parameters = UrlParameters::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(UrlError::Pairs)?;
        let (value, after) = value(after.trim_start())?;
        parameters.set(name.trim_end(), value, NameDisplay::Hidden)?;
        rest = after.trim_start();
    }
    Ok(parameters)
}

fn value(text: &str) -> Result<(String, &str), UrlError> {
    let quoted = text.strip_prefix('\'');
    let mut value = String::new();
    let mut rest = quoted.unwrap_or(text).chars();
    loop {
        let here = rest.as_str();
        match (rest.next(), quoted.is_some()) {
            (Some('\\'), _) => value.extend(rest.next()),
            (Some('\''), true) => return Ok((value, rest.as_str())),
            (Some(c), false) if c.is_whitespace() => return Ok((value, here)),
            (Some(c), _) => value.push(c),
            (None, false) => return Ok((value, "")),
            (None, true) => return Err(UrlError::Pairs),
        }
    }
}

/// Percent-decodes.
fn decode(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (rest.next().and_then(hex), rest.next().and_then(hex)) else {
            return Err(UrlError::Percent);
        };
        bytes.push(high << 4 | low);
    }
    let text = String::from_utf8(bytes).map_err(|_| UrlError::Percent)?;
    if text.contains('\0') { Err(UrlError::Percent) } else { Ok(text) }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
