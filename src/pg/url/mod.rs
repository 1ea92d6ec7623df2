//! Parses a `postgresql://` URL or connection string: hosts, user, password and TLS settings.
//!
//! Parameters have libpq's meaning. Missing ones are completed in libpq's order: the connection
//! service, then the environment, then the password file.

mod error;
mod files;
mod parameters;
mod text;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use tokio_postgres::config::{ChannelBinding, Config, Host, SslNegotiation, TargetSessionAttrs};

pub(super) use self::error::UrlError;
use self::{error::Source, files::Passwords, parameters::UrlParameters};
use super::{
    distance::Distance,
    tls::{Roots, SslMode, TlsSettings, Versions},
};
use crate::config::{DatabaseConfig, libpq::Libpq};

/// A parsed URL, with one endpoint for each host in it.
pub(super) struct Target {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) tls: TlsSettings,
    /// Value of `connect_timeout`; `None` when it is not set.
    pub(super) connect_timeout: Option<Duration>,
}

/// A server that may be the primary.
pub(super) struct Endpoint {
    /// Settings of the driver for this host alone.
    pub(super) driver: Config,
    /// Name and port of the host, for people.
    pub(super) name: String,
    pub(super) distance: Distance,
}

impl Target {
    /// Parses the URL of a configuration and completes it from the environment.
    pub(super) fn of(config: &DatabaseConfig) -> Result<Self, UrlError> {
        let environment = &config.libpq;
        let mut parameters = match config.url.expose() {
            "" if environment.names_a_server() => UrlParameters::default(),
            "" => return Err(UrlError::Missing),
            url => text::parse(url)?,
        };
        files::service(&mut parameters, environment)?;
        parameters.complete_from(environment);
        parameters.refuse_unsafe()?;
        let tls = tls(&parameters, environment)?;
        let common = common(&parameters)?;
        let passwords = match parameters.get("password") {
            Some(_) => None,
            None => Some(Passwords::read(&parameters, environment)),
        };
        let mut endpoints = endpoints(&parameters, &common)?;
        for endpoint in &mut endpoints {
            if let Some(password) = passwords.as_ref().and_then(|it| password(it, &endpoint.driver))
            {
                endpoint.driver.password(password);
            }
        }
        if parameters.read("load_balance_hosts", "disable, random", |value| match value {
            "disable" => Some(false),
            "random" => Some(true),
            _ => None,
        })? == Some(true)
        {
            let first = usize::from(uuid::Uuid::new_v4().as_bytes()[0]) % endpoints.len().max(1);
            endpoints.rotate_left(first);
        }
        Ok(Self { endpoints, tls, connect_timeout: connect_timeout(&parameters)? })
    }
}

/// Timeout as libpq means it: at least 2 s, and no limit at 0.
fn connect_timeout(parameters: &UrlParameters) -> Result<Option<Duration>, UrlError> {
    let seconds =
        parameters.read("connect_timeout", "a number of seconds", |it| it.parse().ok())?;
    Ok(seconds.filter(|seconds: &u32| *seconds > 0).map(|it| Duration::from_secs(it.max(2).into())))
}

fn tls(parameters: &UrlParameters, environment: &Libpq) -> Result<TlsSettings, UrlError> {
    const MODES: &str = "disable, allow, prefer, require, verify-ca, verify-full";
    let home = environment.home().map(|home| home.join(".postgresql"));
    let by_default =
        |name: &str| home.as_ref().map(|home| home.join(name)).filter(|path| path.exists());
    let named = |name| parameters.get(name).map(PathBuf::from);
    let roots = parameters.get("sslrootcert").map(|value| match value {
        "system" => Roots::System,
        file => Roots::File(PathBuf::from(file)),
    });
    let settings = TlsSettings {
        mode: parameters.read("sslmode", MODES, SslMode::parse)?,
        roots,
        default_roots: by_default("root.crt"),
        certificate: named("sslcert").or_else(|| by_default("postgresql.crt")),
        key: named("sslkey").or_else(|| by_default("postgresql.key")),
        revoked: named("sslcrl").or_else(|| by_default("root.crl")),
        names_server: parameters.read("sslsni", "0, 1", flag)?.unwrap_or(true),
        versions: versions(parameters)?,
    };
    let is_direct = parameters.get("sslnegotiation") == Some("direct");
    let is_weak = settings.mode.is_none_or(|mode| mode < SslMode::Require);
    if is_direct && is_weak && settings.roots.is_none() {
        return Err(UrlError::Value {
            name: "sslmode",
            origin: Source::Text,
            choices: "require, verify-ca, verify-full, one of which sslnegotiation=direct needs",
        });
    }
    Ok(settings)
}

fn versions(parameters: &UrlParameters) -> Result<Versions, UrlError> {
    let least = parameters.read(
        "ssl_min_protocol_version",
        "TLSv1, TLSv1.1, TLSv1.2, TLSv1.3",
        |value| match value {
            // The TLS library never uses a version below 1.2, so the first three values all mean
            // 1.2.
            "TLSv1" | "TLSv1.1" | "TLSv1.2" => Some(false),
            "TLSv1.3" => Some(true),
            _ => None,
        },
    )?;
    let most =
        parameters.read("ssl_max_protocol_version", "TLSv1.2, TLSv1.3", |value| match value {
            "TLSv1.2" => Some(false),
            "TLSv1.3" => Some(true),
            _ => None,
        })?;
    match (least, most) {
        (Some(true), Some(false)) => Err(UrlError::Value {
            name: "ssl_max_protocol_version",
            origin: Source::Text,
            choices: "a version that ssl_min_protocol_version allows",
        }),
        (Some(true), _) => Ok(Versions::Only13),
        (_, Some(false)) => Ok(Versions::Only12),
        _ => Ok(Versions::Both),
    }
}

/// Parses `target_session_attrs`: the kind of server that is accepted.
fn session_attributes(value: &str) -> Option<TargetSessionAttrs> {
    match value {
        "read-write" | "primary" => Some(TargetSessionAttrs::ReadWrite),
        "any" => Some(TargetSessionAttrs::Any),
        _ => None,
    }
}

fn flag(value: &str) -> Option<bool> {
    match value {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

/// Settings that all hosts share.
fn common(parameters: &UrlParameters) -> Result<Config, UrlError> {
    const SECONDS: &str = "a number of seconds";
    let number = |name, choices| parameters.read(name, choices, |it| it.parse::<u32>().ok());
    let mut driver = Config::new();
    parameters.get("user").map(|user| driver.user(user));
    parameters.get("password").map(|password| driver.password(password));
    parameters.get("dbname").map(|name| driver.dbname(name));
    parameters.get("options").map(|options| driver.options(options));
    let name = parameters.get("application_name").or(parameters.get("fallback_application_name"));
    name.map(|name| driver.application_name(name));
    let attributes = parameters.read(
        "target_session_attrs",
        "read-write, primary, any (the relay writes)",
        session_attributes,
    )?;
    driver.target_session_attrs(attributes.unwrap_or(TargetSessionAttrs::ReadWrite));
    let binding =
        parameters.read("channel_binding", "disable, prefer, require", |value| match value {
            "disable" => Some(ChannelBinding::Disable),
            "prefer" => Some(ChannelBinding::Prefer),
            "require" => Some(ChannelBinding::Require),
            _ => None,
        })?;
    driver.channel_binding(binding.unwrap_or(ChannelBinding::Prefer));
    let negotiation =
        parameters.read("sslnegotiation", "postgres, direct", |value| match value {
            "postgres" => Some(SslNegotiation::Postgres),
            "direct" => Some(SslNegotiation::Direct),
            _ => None,
        })?;
    driver.ssl_negotiation(negotiation.unwrap_or(SslNegotiation::Postgres));
    // A lost host shall be noticed within seconds, also while nothing is sent.
    let idle = number("keepalives_idle", SECONDS)?.unwrap_or(5);
    let interval = number("keepalives_interval", SECONDS)?.unwrap_or(3);
    let count =
        number("keepalives_count", "a number")?.or(number("keepalives_retries", "a number")?);
    let silent = number("tcp_user_timeout", "a number of milliseconds")?.unwrap_or(10_000);
    driver
        .keepalives(parameters.read("keepalives", "0, 1", flag)?.unwrap_or(true))
        .keepalives_idle(Duration::from_secs(idle.into()))
        .keepalives_interval(Duration::from_secs(interval.into()))
        .keepalives_retries(count.unwrap_or(3))
        .tcp_user_timeout(Duration::from_millis(silent.into()));
    Ok(driver)
}

/// The endpoints, one for each host. So each is tried with its own TLS settings and fails under its
/// own name.
fn endpoints(parameters: &UrlParameters, common: &Config) -> Result<Vec<Endpoint>, UrlError> {
    const PORTS: &str = "a number from 1 to 65535";
    let (hosts, ports) = (parameters.list("host"), parameters.list("port"));
    let read =
        |list: &str| list.split(',').map(|it| it.parse().ok()).collect::<Option<Vec<IpAddr>>>();
    let addresses = parameters.read("hostaddr", "an IP address, or several", read)?;
    let addresses = addresses.unwrap_or_default();
    let count = hosts.len().max(addresses.len());
    if count == 0 || (addresses.is_empty() && hosts.iter().any(|host| host.is_empty())) {
        return Err(UrlError::NoHost);
    }
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(UrlError::Count("hosts as hostaddrs"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(UrlError::Count("ports as hosts"));
    }
    let port = |text: &str| match text {
        "" => Some(5432),
        text => text.parse::<u16>().ok().filter(|port| *port > 0),
    };
    let read = |list: &str| list.split(',').map(port).collect::<Option<Vec<u16>>>();
    let ports = parameters.read("port", PORTS, read)?.unwrap_or_default();
    let endpoints = (0..count).map(|index| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let host = hosts.get(index).copied().filter(|host| !host.is_empty());
        endpoint(common, (host, addresses.get(index)), port)
    });
    Ok(endpoints.collect())
}

fn endpoint(
    common: &Config,
    (host, address): (Option<&str>, Option<&IpAddr>),
    port: u16,
) -> Endpoint {
    let mut driver = common.clone();
    driver.port(port);
    if let Some(path) = host.filter(|host| host.starts_with(['/', '@'])) {
        driver.host_path(path);
        return Endpoint {
            driver,
            name: format!("{path}/.s.PGSQL.{port}"),
            distance: Distance::Socket,
        };
    }
    // Without a name, TLS uses the address itself as the name.
    let host =
        host.map_or_else(|| address.map(IpAddr::to_string).unwrap_or_default(), str::to_owned);
    driver.host(&host);
    address.map(|address| driver.hostaddr(*address));
    Endpoint { driver, name: format!("{host}:{port}"), distance: distance_of(&host, address) }
}

fn distance_of(host: &str, address: Option<&IpAddr>) -> Distance {
    let ip = address.copied().or_else(|| host.parse().ok());
    let loopback = ip.map_or(host == "localhost", |ip| ip.is_loopback());
    if loopback { Distance::Loopback } else { Distance::Remote }
}

/// The password from the password file, for the host name by which libpq looks it up.
fn password(passwords: &Passwords, driver: &Config) -> Option<String> {
    const DEFAULT_SOCKETS: [&str; 2] = ["/var/run/postgresql", "/tmp"];
    let host = match driver.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        Some(Host::Unix(path)) => path.to_string_lossy().into_owned(),
        None => String::new(),
    };
    let host = if DEFAULT_SOCKETS.contains(&host.as_str()) { "localhost" } else { host.as_str() };
    let port = driver.get_ports().first().copied().unwrap_or(5432).to_string();
    let user = driver.get_user().map_or_else(system_user, str::to_owned);
    let database = driver.get_dbname().unwrap_or(&user);
    passwords.find([host, &port, database, &user])
}

/// The user name that the driver takes by default.
fn system_user() -> String {
    std::env::var("USER").unwrap_or_default()
}

#[cfg(test)]
mod tests;
