//! The connection parameters of libpq: supported, ignored and refused ones.

use std::collections::BTreeMap;

use super::error::{Source, UrlError};
use crate::config::libpq::Libpq;

/// Treatment of a connection parameter of libpq: honoured, ignored or refused.
#[derive(Debug, Clone, Copy)]
enum Treatment {
    /// Parameters that have the same meaning here as in libpq.
    Honoured,
    /// Parameters without an effect here: accepted and ignored.
    Harmless,
    /// Parameters that are unsafe to ignore. They are refused unless they have one of these values.
    Refused { unless: &'static [&'static str], remedy: &'static str },
}

use Treatment::{Harmless, Honoured, Refused};

struct Known {
    name: &'static str,
    variable: Option<&'static str>,
    treatment: Treatment,
}

const fn known(name: &'static str, variable: Option<&'static str>, treatment: Treatment) -> Known {
    Known { name, variable, treatment }
}

/// All parameters of libpq, each with its environment variable.
const KNOWN: [Known; 42] = [
    known("host", Some("PGHOST"), Honoured),
    known("hostaddr", Some("PGHOSTADDR"), Honoured),
    known("port", Some("PGPORT"), Honoured),
    known("dbname", Some("PGDATABASE"), Honoured),
    known("user", Some("PGUSER"), Honoured),
    known("password", Some("PGPASSWORD"), Honoured),
    known("passfile", Some("PGPASSFILE"), Honoured),
    known("service", Some("PGSERVICE"), Honoured),
    known("options", Some("PGOPTIONS"), Honoured),
    known("application_name", Some("PGAPPNAME"), Honoured),
    known("fallback_application_name", None, Honoured),
    known("connect_timeout", Some("PGCONNECT_TIMEOUT"), Honoured),
    known("tcp_user_timeout", None, Honoured),
    known("keepalives", None, Honoured),
    known("keepalives_idle", None, Honoured),
    known("keepalives_interval", None, Honoured),
    known("keepalives_count", None, Honoured),
    // Another name of `keepalives_count`, which the Postgres driver takes.
    known("keepalives_retries", None, Honoured),
    known("target_session_attrs", Some("PGTARGETSESSIONATTRS"), Honoured),
    known("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), Honoured),
    known("channel_binding", Some("PGCHANNELBINDING"), Honoured),
    known("sslmode", Some("PGSSLMODE"), Honoured),
    known("sslnegotiation", Some("PGSSLNEGOTIATION"), Honoured),
    known("sslrootcert", Some("PGSSLROOTCERT"), Honoured),
    known("sslcert", Some("PGSSLCERT"), Honoured),
    known("sslkey", Some("PGSSLKEY"), Honoured),
    known("sslcrl", Some("PGSSLCRL"), Honoured),
    known("sslsni", Some("PGSSLSNI"), Honoured),
    known("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION"), Honoured),
    known("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION"), Honoured),
    known("sslcompression", Some("PGSSLCOMPRESSION"), Harmless),
    known("client_encoding", Some("PGCLIENTENCODING"), Harmless),
    known("krbsrvname", Some("PGKRBSRVNAME"), Harmless),
    known("gsslib", Some("PGGSSLIB"), Harmless),
    known("gssdelegation", Some("PGGSSDELEGATION"), Harmless),
    known(
        "gssencmode",
        Some("PGGSSENCMODE"),
        Refused {
            unless: &["disable", "prefer"],
            remedy: "Postrider speaks TLS, not GSS: use sslmode=verify-full",
        },
    ),
    known(
        "sslcrldir",
        Some("PGSSLCRLDIR"),
        Refused { unless: &[], remedy: "put the lists into one file and name it with sslcrl" },
    ),
    known(
        "sslpassword",
        None,
        Refused { unless: &[], remedy: "store the key without a passphrase, readable by us only" },
    ),
    known(
        "sslcertmode",
        Some("PGSSLCERTMODE"),
        Refused { unless: &["allow"], remedy: "remove it; sslcert says whether one is sent" },
    ),
    known(
        "requirepeer",
        Some("PGREQUIREPEER"),
        Refused { unless: &[], remedy: "remove it, and keep the socket in a protected directory" },
    ),
    known(
        "require_auth",
        Some("PGREQUIREAUTH"),
        Refused { unless: &[], remedy: "remove it; channel_binding=require insists on SCRAM" },
    ),
    known(
        "replication",
        None,
        Refused { unless: &["false", "off", "no", "0"], remedy: "remove it" },
    ),
];

/// Connection parameters that only other programs understand, each with what to do instead.
const FOREIGN: [(&str, &str); 27] = [
    ("schema", "Prisma's; remove it: the schema of the outbox is the key database.schema"),
    ("connection_limit", "Prisma's pool size; remove it: Postrider keeps two sessions"),
    ("pool_timeout", "Prisma's; remove it: Postrider has no pool"),
    ("socket_timeout", "Prisma's; remove it, and set database.query_timeout"),
    ("statement_cache_size", "Prisma's; remove it"),
    ("pgbouncer", "Prisma's; remove it"),
    ("sslaccept", "Prisma's; write sslmode=verify-full or sslmode=require (unverified)"),
    ("sslidentity", "Prisma's; write sslcert and sslkey with files in PEM"),
    ("currentSchema", "JDBC's; remove it: the schema of the outbox is the key database.schema"),
    ("search_path", "no parameter of libpq; remove it: the key database.schema is the schema"),
    ("ssl", "no parameter of libpq; write sslmode=verify-full or sslmode=disable"),
    ("sslfactory", "JDBC's; write sslmode and sslrootcert"),
    ("sslpass", "JDBC's; store the key without a passphrase"),
    ("ApplicationName", "JDBC's; write application_name"),
    ("connectTimeout", "JDBC's; write connect_timeout, or set database.connect_timeout"),
    ("loginTimeout", "JDBC's; write connect_timeout, or set database.connect_timeout"),
    ("socketTimeout", "JDBC's; remove it, and set database.query_timeout"),
    ("tcpKeepAlive", "JDBC's; write keepalives"),
    ("targetServerType", "JDBC's; write target_session_attrs=read-write"),
    ("prepareThreshold", "JDBC's; remove it"),
    ("reWriteBatchedInserts", "JDBC's; remove it"),
    ("stringtype", "JDBC's; remove it"),
    ("pool_max_conns", "pgx's; remove it: Postrider has no pool"),
    ("default_query_exec_mode", "pgx's; remove it"),
    ("statement_timeout", "no parameter of libpq; remove it, and set database.query_timeout"),
    ("uselibpqcompat", "node-postgres'; remove it: sslmode has libpq's meaning here"),
    ("charset", "another driver's; remove it: Postrider always speaks UTF8"),
];

/// Whether an error may repeat the name of an unknown parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameDisplay {
    Shown,
    /// Hide the name: it may be a piece of a password.
    Hidden,
}

/// All given parameters, each once. It has no `Debug`, because one of them is a password.
#[derive(Default)]
pub(super) struct UrlParameters(BTreeMap<&'static str, (String, Source)>);

impl UrlParameters {
    /// Sets a parameter of the text itself; a later value replaces an earlier one.
    ///
    /// # Errors
    ///
    /// The parameter is unknown. Its name is repeated only with [`NameDisplay::Shown`].
    pub(super) fn set(
        &mut self,
        name: &str,
        value: String,
        naming: NameDisplay,
    ) -> Result<(), UrlError> {
        let known = find(name).ok_or_else(|| unknown(name, naming))?;
        self.0.insert(known.name, (value, Source::Text));
        Ok(())
    }

    /// Sets a parameter that no stronger source has set.
    pub(super) fn complete(
        &mut self,
        name: &str,
        value: &str,
        source: Source,
    ) -> Result<(), UrlError> {
        let known = find(name).ok_or_else(|| unknown(name, NameDisplay::Shown))?;
        self.0.entry(known.name).or_insert_with(|| (value.to_owned(), source));
        Ok(())
    }

    /// Takes from the environment each parameter that is not set yet.
    pub(super) fn complete_from(&mut self, environment: &Libpq) {
        for Known { name, variable, .. } in &KNOWN {
            let Some(variable) = *variable else { continue };
            if let Some(value) = environment.get(variable) {
                let given = || (value.to_owned(), Source::Variable(variable));
                self.0.entry(name).or_insert_with(given);
            }
        }
        // The old name of `sslmode`, which libpq still reads.
        if environment.get("PGREQUIRESSL").is_some_and(|value| value.starts_with('1')) {
            let given = || ("require".to_owned(), Source::Variable("PGREQUIRESSL"));
            self.0.entry("sslmode").or_insert_with(given);
        }
    }

    /// Refuses parameters that are unsafe to ignore.
    pub(super) fn refuse_unsafe(&self) -> Result<(), UrlError> {
        for Known { name, treatment, .. } in &KNOWN {
            let (Refused { unless, remedy }, Some((value, source))) =
                (*treatment, self.0.get(name))
            else {
                continue;
            };
            if !unless.contains(&value.as_str()) {
                let origin = source.clone();
                return Err(UrlError::Unsupported { name, origin, remedy });
            }
        }
        Ok(())
    }

    /// The value of a parameter. Like libpq, this treats an empty one as absent.
    pub(super) fn get(&self, name: &'static str) -> Option<&str> {
        self.0.get(name).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The items of a comma-separated list; empty when the parameter is absent.
    pub(super) fn list(&self, name: &'static str) -> Vec<&str> {
        self.get(name).map(|value| value.split(',').collect()).unwrap_or_default()
    }

    /// The value of a parameter, parsed by `read`.
    ///
    /// # Errors
    ///
    /// The value is none of `choices`. It is not repeated: it may be a piece of a password.
    pub(super) fn read<T>(
        &self,
        name: &'static str,
        choices: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, UrlError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(UrlError::Value { name, origin: self.source(name), choices }),
        }
    }

    fn source(&self, name: &str) -> Source {
        self.0.get(name).map_or(Source::Text, |(_, source)| source.clone())
    }
}

fn find(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

fn unknown(name: &str, naming: NameDisplay) -> UrlError {
    if let Some((name, remedy)) = FOREIGN.iter().find(|(foreign, _)| *foreign == name) {
        return UrlError::Foreign { name, remedy };
    }
    let near = KNOWN
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known.name, name), known.name))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    match near {
        Some((_, nearest)) => UrlError::Misspelt { name: name.to_owned(), nearest },
        None if naming == NameDisplay::Shown && is_plain => {
            UrlError::Unknown { name: name.to_owned() }
        }
        None => UrlError::UnknownParameter,
    }
}
