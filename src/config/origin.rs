//! The place where each value was written, the keys that a command needs, and messages for the log.

use std::collections::BTreeMap;

use super::error::Origin;

/// Part of the configuration that a command needs. Keys outside that part may be missing, but not
/// invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The command needs the name of the schema only.
    Schema,
    /// The command needs the keys of the database.
    Database,
    /// The command needs the keys of database, broker and stream.
    Everything,
}

/// A message to log once logging is initialized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A fact, logged at level info.
    Info(String),
    /// A risk, logged as a warning.
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
