//! Builds a configuration file key by key.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// Contents of a TOML file. Setting a key again replaces its value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Toml {
    tables: BTreeMap<String, BTreeMap<String, Value>>,
    /// Elements of `[[route]]`. When there is one, `[route]` is not written.
    routes: Vec<BTreeMap<String, Value>>,
}

impl Toml {
    /// Sets a key, given as `table.key`.
    pub(crate) fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let (table, key) = path.rsplit_once('.').expect("a path such as relay.batch_events");
        self.tables.entry(table.to_owned()).or_default().insert(key.to_owned(), value.into());
        self
    }

    /// Adds an element of `[[route]]` with these keys.
    pub(crate) fn route<const N: usize>(mut self, keys: [(&str, Value); N]) -> Self {
        let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value));
        self.routes.push(keys.collect());
        self
    }

    /// Removes a key, given as `table.key`, so that its default counts.
    pub(crate) fn unset(mut self, path: &str) -> Self {
        let (table, key) = path.rsplit_once('.').expect("a path such as relay.batch_events");
        if let Some(keys) = self.tables.get_mut(table) {
            keys.remove(key);
        }
        self
    }
}

impl Toml {
    /// Removes a key, given as `table.key`. Panics when the key is not set.
    pub(crate) fn remove(mut self, path: &str) -> Self {
        let (table, key) = path.rsplit_once('.').expect("a path such as relay.batch_events");
        self.tables.get_mut(table).and_then(|keys| keys.remove(key)).expect("a key that is set");
        self
    }
}

impl fmt::Display for Toml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.tables.iter().map(|(table, keys)| (format!("[{table}]"), keys));
        let tables = tables.filter(|(table, _)| self.routes.is_empty() || table != "[route]");
        let routes = self.routes.iter().map(|keys| ("[[route]]".to_owned(), keys));
        for (table, keys) in tables.chain(routes) {
            writeln!(f, "{table}")?;
            for (key, value) in keys {
                // JSON's strings, numbers, booleans and arrays are valid TOML, so JSON is written.
                writeln!(f, "{key} = {value}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
