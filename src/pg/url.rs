//! What a `postgresql://` URL says: where to connect, as whom, and how far to trust the server.

use std::{net::IpAddr, path::PathBuf};

use tokio_postgres::config::{Config, Host, TargetSessionAttrs};

use super::tls::{Roots, SslMode, TlsSettings};

/// A URL taken apart, with one endpoint for each host in it.
pub(super) struct Target {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) tls: TlsSettings,
}

/// One server that may be the primary.
pub(super) struct Endpoint {
    /// Everything that the driver is told, for this host alone.
    pub(super) driver: Config,
    /// The host as people write it, with its port.
    pub(super) name: String,
    pub(super) place: Place,
}

/// How far the server is from us, which decides what an unverified connection means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Socket,
    Loopback,
    Remote,
}

/// Why a URL is of no use. Never holds a part of it that could be a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Neither `database.url` nor a file with it.
    #[error("is not set; write url = \"postgresql://user@host:5432/database\" under [database]")]
    Missing,
    /// Another scheme, or words and equals signs.
    #[error("does not begin with postgresql://")]
    Scheme,
    /// More than one `@` before the host.
    #[error("has more than one @ before its parameters; write an @ in a password as %40")]
    At,
    /// No host, and we do not guess.
    #[error("names no host; write one after the @, or ?host=/var/run/postgresql for a socket")]
    NoHost,
    /// A parameter that nobody knows. It is only shown when it resembles a known one.
    #[error("has a parameter that is not known; write a ? in a password as %3F")]
    UnknownParameter,
    /// A parameter that nobody knows, but that resembles one.
    #[error("has the unknown parameter {name}; did you mean {nearest}?")]
    Misspelt {
        /// The parameter as it was written.
        name: String,
        /// The known one.
        nearest: &'static str,
    },
    /// A parameter with a value that it cannot have.
    #[error("has a {name} that is none of {choices}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What it may be.
        choices: &'static str,
    },
    /// The rest, in the driver's words, which hold no values.
    #[error("{0}")]
    Malformed(String),
}

/// What the driver understands by itself.
const DRIVER_PARAMETERS: [&str; 17] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "sslnegotiation",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "channel_binding",
    "load_balance_hosts",
];

/// What we understand in its place.
const OWN_PARAMETERS: [&str; 6] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs", "gssencmode"];

impl Target {
    /// Takes a URL apart.
    pub(super) fn parse(url: &str) -> Result<Self, UrlError> {
        if url.is_empty() {
            return Err(UrlError::Missing);
        }
        if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
            return Err(UrlError::Scheme);
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        if base.matches('@').count() > 1 {
            return Err(UrlError::At);
        }
        let mut tls = TlsSettings::default();
        let mut session = TargetSessionAttrs::ReadWrite;
        let mut kept = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or(UrlError::UnknownParameter)?;
            if DRIVER_PARAMETERS.contains(&key) {
                kept.push(pair);
                continue;
            }
            let value = decode(value);
            match key {
                "sslmode" => tls.mode = Some(SslMode::parse(&value)?),
                "sslrootcert" if value == "system" => tls.roots = Some(Roots::System),
                "sslrootcert" => tls.roots = Some(Roots::File(PathBuf::from(value))),
                "sslcert" => tls.certificate = Some(PathBuf::from(value)),
                "sslkey" => tls.key = Some(PathBuf::from(value)),
                "target_session_attrs" => session = session_attributes(&value)?,
                "gssencmode" if value == "disable" || value == "prefer" => {}
                "gssencmode" => {
                    return Err(UrlError::Value { name: "gssencmode", choices: "disable, prefer" });
                }
                other => return Err(unknown(other)),
            }
        }
        let driver: Config = format!("{base}?{}", kept.join("&"))
            .parse()
            .map_err(|error| UrlError::Malformed(super::error::describe(&error)))?;
        Ok(Self { endpoints: endpoints(&driver, session)?, tls })
    }
}

/// The relay writes, so a primary is wanted unless the URL insists on any server.
fn session_attributes(value: &str) -> Result<TargetSessionAttrs, UrlError> {
    match value {
        "read-write" | "primary" => Ok(TargetSessionAttrs::ReadWrite),
        "any" => Ok(TargetSessionAttrs::Any),
        _ => Err(UrlError::Value {
            name: "target_session_attrs",
            choices: "read-write, primary, any (the relay writes)",
        }),
    }
}

fn unknown(key: &str) -> UrlError {
    DRIVER_PARAMETERS
        .iter()
        .chain(&OWN_PARAMETERS)
        .map(|known| (strsim::damerau_levenshtein(known, key), *known))
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map_or(UrlError::UnknownParameter, |(_, nearest)| UrlError::Misspelt {
            name: key.to_owned(),
            nearest,
        })
}

/// One endpoint a host, so that each is tried with the TLS that fits it and fails with its name.
fn endpoints(parsed: &Config, session: TargetSessionAttrs) -> Result<Vec<Endpoint>, UrlError> {
    let (hosts, addresses, ports) =
        (parsed.get_hosts(), parsed.get_hostaddrs(), parsed.get_ports());
    let count = hosts.len().max(addresses.len());
    if count == 0 {
        return Err(UrlError::NoHost);
    }
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(UrlError::Malformed("has not as many hosts as hostaddrs".to_owned()));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(UrlError::Malformed("has not as many ports as hosts".to_owned()));
    }
    let endpoints = (0..count).map(|index| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let mut driver = one_host_config(parsed);
        driver.port(port).target_session_attrs(session);
        let (name, place) = match (hosts.get(index), addresses.get(index)) {
            (Some(Host::Unix(path)), _) => {
                driver.host_path(path);
                (format!("{}/.s.PGSQL.{port}", path.display()), Place::Socket)
            }
            (Some(Host::Tcp(host)), address) => {
                driver.host(host);
                address.map(|address| driver.hostaddr(*address));
                (format!("{host}:{port}"), place(host, address))
            }
            (None, address) => {
                // The name that TLS needs is the address itself.
                let host = address.map(IpAddr::to_string).unwrap_or_default();
                driver.host(&host);
                (format!("{host}:{port}"), place(&host, address))
            }
        };
        Endpoint { driver, name, place }
    });
    Ok(endpoints.collect())
}

fn place(host: &str, address: Option<&IpAddr>) -> Place {
    let ip = address.copied().or_else(|| host.parse().ok());
    let loopback = ip.map_or(host == "localhost", |ip| ip.is_loopback());
    if loopback { Place::Loopback } else { Place::Remote }
}

/// A copy of everything but hosts, addresses and ports, which cannot be taken out again.
fn one_host_config(parsed: &Config) -> Config {
    let mut copy = Config::new();
    parsed.get_user().map(|user| copy.user(user));
    parsed.get_password().map(|password| copy.password(password));
    parsed.get_dbname().map(|name| copy.dbname(name));
    parsed.get_options().map(|options| copy.options(options));
    parsed.get_application_name().map(|name| copy.application_name(name));
    copy.ssl_negotiation(parsed.get_ssl_negotiation());
    copy.channel_binding(parsed.get_channel_binding());
    copy.load_balance_hosts(parsed.get_load_balance_hosts());
    copy
}

/// Percent-decodes; what does not decode stays as it is, and the file is then not found.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let digits = (ahead.next().and_then(hex), ahead.next().and_then(hex));
        if let (b'%', (Some(high), Some(low))) = (byte, digits) {
            bytes.push(high << 4 | low);
            rest = ahead;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(url: &str) -> Vec<(String, Place)> {
        let target = Target::parse(url).unwrap();
        target.endpoints.into_iter().map(|endpoint| (endpoint.name, endpoint.place)).collect()
    }

    fn refusal(url: &str) -> UrlError {
        Target::parse(url).err().unwrap()
    }

    #[test]
    fn each_host_becomes_an_endpoint_that_knows_how_far_it_is() {
        assert_eq!(
            names("postgresql://app:pw@db1:6000,localhost,[::1]:7000/app?sslmode=disable"),
            [
                ("db1:6000".to_owned(), Place::Remote),
                ("localhost:5432".to_owned(), Place::Loopback),
                ("::1:7000".to_owned(), Place::Loopback),
            ]
        );
        assert_eq!(
            names("postgres:///app?host=/run/postgresql&port=5433"),
            [("/run/postgresql/.s.PGSQL.5433".to_owned(), Place::Socket)]
        );
        assert_eq!(names("postgresql://h/?hostaddr=127.0.0.1")[0].1, Place::Loopback);
    }

    #[test]
    fn our_parameters_are_taken_out_and_decoded() {
        let url = "postgresql://u@h/d?sslmode=verify-ca&sslrootcert=%2Fetc%2Fca%20x.pem\
                   &gssencmode=disable&application_name=a%20b&target_session_attrs=primary";
        let target = Target::parse(url).unwrap();
        assert_eq!(target.tls.mode, Some(SslMode::VerifyCa));
        assert_eq!(target.tls.roots, Some(Roots::File(PathBuf::from("/etc/ca x.pem"))));
        let driver = &target.endpoints[0].driver;
        assert_eq!(driver.get_application_name(), Some("a b"));
        assert_eq!(driver.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }

    #[test]
    fn misspelt_parameter_is_named_with_the_nearest_known_one() {
        assert_eq!(
            refusal("postgresql://u@h/d?sslmod=require").to_string(),
            "has the unknown parameter sslmod; did you mean sslmode?"
        );
    }

    // A password that was not percent-encoded is cut at its special character, and its rest then
    // stands where a host, a port or a parameter is expected.
    #[test]
    fn no_part_of_a_password_is_in_an_error() {
        for url in [
            "postgresql://app:s3cr?et4=x@h/d",
            "postgresql://app:s3cr?et4@h/d",
            "postgresql://app:s3cr@et4@h/d",
            "postgresql://app:s3cr@et4:et4/d",
            "postgresql://app:s3cr%ff@h:et4/d?hostaddr=et4",
            "postgresql://app:s3cr@h/d?sslmode=et4",
            "mysql://app:s3cr:et4@h/d",
        ] {
            let text = refusal(url).to_string();
            assert!(!text.contains("s3cr") && !text.contains("et4"), "{text}");
        }
    }

    #[test]
    fn host_is_not_guessed() {
        assert_eq!(refusal("postgresql:///app"), UrlError::NoHost);
    }
}
