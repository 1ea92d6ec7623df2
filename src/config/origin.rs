//! Places of values, the scope of a command, and messages for the log.

use std::collections::BTreeMap;

use super::error::Origin;

/// Part of the configuration that a command needs. Keys of the rest may be missing, but not
/// invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The name of the schema.
    Schema,
    /// The database.
    Database,
    /// Database, broker and stream.
    Everything,
}

/// A message to log once logging is initialized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A fact.
    Info(String),
    /// A risk.
    Warning(String),
}

/// Place where each key was written; a key without an entry has its default.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Place where `key` was written.
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }

    pub(super) fn set(&mut self, key: &str, origin: Origin) {
        self.0.insert(key.to_owned(), origin);
    }
}
