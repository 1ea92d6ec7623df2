//! Where each value was written, what of them a command needs, and what is to be said about them.

use std::collections::BTreeMap;

use super::error::Origin;

/// How much of the configuration a command needs; the rest may be missing, but not wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The name of the schema.
    Schema,
    /// The database.
    Database,
    /// Database, broker and stream.
    Everything,
}

/// Something to log once logging is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A fact.
    Info(String),
    /// A risk.
    Warning(String),
}

/// Where each key was written; what nobody wrote is a default.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where `key` was written.
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }

    pub(super) fn set(&mut self, key: &str, origin: Origin) {
        self.0.insert(key.to_owned(), origin);
    }
}
