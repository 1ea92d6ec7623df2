//! Errors of a database URL. No error repeats a part of the URL that could be a password.

use std::{fmt, path::PathBuf};

/// Reason why a URL cannot be used. It never contains a part of the URL that could be a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// No `database.url`, `database.url_file`, `PGHOST` or `PGSERVICE` is set.
    #[error("is not set; write url = \"postgresql://user@host:5432/database\" under [database]")]
    Missing,
    /// The text is neither a URL of Postgres nor `key=value` pairs.
    #[error("begins neither with postgresql:// nor with key=value")]
    Scheme,
    /// More than one `@` before the parameters.
    #[error("has more than one @ before its parameters; write an @ in a password as %40")]
    At,
    /// A slash between the scheme and the `@`.
    #[error("has a / before its @; write a / in a password as %2F")]
    Slash,
    /// A `%` that does not begin an escape.
    #[error("has a % outside of an escape; write a % in a password as %25")]
    Percent,
    /// Brackets around a host (an IPv6 address) that do not end with `]` or `]:port`.
    #[error("has a host in brackets that does not end with ] or ]:port; write a [ as %5B")]
    Bracket,
    /// A malformed connection string.
    #[error("is not key=value with blanks between; write a value with blanks as key='a value'")]
    Pairs,
    /// No host is given. Postrider does not guess one.
    #[error(
        "names no host; write one after the @, or ?host=/var/run/postgresql for a socket, or set PGHOST"
    )]
    NoHost,
    /// The lists of hosts, addresses and ports have different lengths.
    #[error("does not have as many {0}")]
    Count(&'static str),
    /// An unknown parameter whose name may be a piece of a password.
    #[error("has an unknown parameter; write a ? in a password as %3F")]
    UnknownParameter,
    /// An unknown parameter.
    #[error("has the unknown parameter {name}; remove it")]
    Unknown {
        /// Name of the unknown parameter, as it was written.
        name: String,
    },
    /// An unknown parameter that resembles a supported one.
    #[error("has the unknown parameter {name}; did you mean {nearest}?")]
    Misspelt {
        /// Name of the unknown parameter, as it was written.
        name: String,
        /// Supported parameter whose name is most like the unknown one.
        nearest: &'static str,
    },
    /// A parameter that another program understands, such as `schema`, which is Prisma's.
    #[error("has the parameter {name}, which is {remedy}")]
    Foreign {
        /// Name of the other program's parameter.
        name: &'static str,
        /// The program that uses the parameter, and what to write instead.
        remedy: &'static str,
    },
    /// A parameter of libpq that Postrider does not support.
    #[error("sets {name}{origin}, which is not supported; {remedy}")]
    Unsupported {
        /// Name of the parameter that is not supported.
        name: &'static str,
        /// Place where the parameter was set.
        origin: Source,
        /// Replacement for the parameter, or what else to do.
        remedy: &'static str,
    },
    /// A parameter with an invalid value.
    #[error("has an invalid {name}{origin}; it takes {choices}")]
    Value {
        /// Name of the parameter with the invalid value.
        name: &'static str,
        /// Place where the parameter was set.
        origin: Source,
        /// Values that the parameter takes.
        choices: &'static str,
    },
    /// No file defines the connection service.
    #[error("names the connection service {name}, which is in none of the files {files}")]
    NoService {
        /// Name of the connection service that was not found.
        name: String,
        /// Paths of the connection service files that were searched.
        files: String,
    },
    /// A connection service file that cannot be used.
    #[error("names a connection service, and {} cannot be used: {reason}", path.display())]
    ServiceFile {
        /// Path of the connection service file.
        path: PathBuf,
        /// Reason why the connection service file cannot be used.
        reason: String,
    },
}

/// Place where the value of a connection parameter was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In the URL or the connection string itself.
    Text,
    /// In the definition of a connection service.
    Service,
    /// In an environment variable.
    Variable(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => Ok(()),
            Self::Service => f.write_str(" (in the connection service file)"),
            Self::Variable(name) => write!(f, " (environment variable {name})"),
        }
    }
}
