//! The environment variables of libpq, which complete what `database.url` leaves open.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

/// Variables that name a server, so that `database.url` may be left out.
const NAMING_A_SERVER: [&str; 3] = ["PGHOST", "PGHOSTADDR", "PGSERVICE"];

/// The variables whose names begin with `PG`, and the home directory. `Debug` shows names only.
#[derive(Clone, Default)]
pub struct Libpq {
    variables: BTreeMap<String, SecretString>,
    home: Option<PathBuf>,
}

impl Libpq {
    /// Takes what concerns libpq out of an environment. An empty variable counts as unset.
    pub fn of(environment: &[(OsString, OsString)]) -> Self {
        let text = |(name, value): &(OsString, OsString)| {
            Some((name.to_str()?.to_owned(), value.to_str()?.to_owned()))
        };
        let set = environment.iter().filter_map(text).filter(|(_, value)| !value.is_empty());
        let mut libpq = Self::default();
        for (name, value) in set {
            if name == "HOME" {
                libpq.home = Some(PathBuf::from(value));
            } else if name.starts_with("PG") {
                libpq.variables.insert(name, value.into());
            }
        }
        libpq
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(SecretString::expose_secret)
    }

    /// The home directory, where libpq keeps `.pgpass`, `.pg_service.conf` and `.postgresql/`.
    pub fn home(&self) -> Option<&PathBuf> {
        self.home.as_ref()
    }

    /// Whether the environment alone names the server.
    pub fn names_a_server(&self) -> bool {
        NAMING_A_SERVER.iter().any(|name| self.variables.contains_key(*name))
    }
}

impl fmt::Debug for Libpq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
