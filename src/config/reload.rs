//! Takes a changed configuration up while the program runs, or leaves everything as it was.

use super::{
    Config,
    changes::{changed, is_reloadable},
    error::ConfigError,
    load::{Notice, Scope, Sources},
};

/// Loads the configuration again and again from the same sources.
#[derive(Debug)]
pub struct Reloader {
    sources: Sources,
    /// The configuration that the program was started with; its copies share the cells.
    started: Config,
    /// The configuration that was last accepted.
    accepted: Config,
}

/// What a reload came to.
#[derive(Debug)]
pub struct Reloaded {
    /// Changed keys that count from now on.
    pub taken_up: Vec<String>,
    /// Changed keys that count after a restart.
    pub after_restart: Vec<String>,
    /// What deserves a line in the log.
    pub notices: Vec<Notice>,
    /// `log.level`.
    pub log_level: String,
}

impl Reloader {
    /// Remembers what runs and where it came from.
    pub fn new(sources: Sources, started: Config) -> Self {
        Self { sources, accepted: started.clone(), started }
    }

    /// Loads the configuration. When it is valid, sections with changed keys are replaced in every
    /// copy, and sessions with the old ones end.
    ///
    /// # Errors
    ///
    /// Every problem that was found; nothing has changed then.
    pub fn reload(&mut self) -> Result<Reloaded, ConfigError> {
        let loaded = Config::load(&self.sources, Scope::Everything)?;
        let keys = changed(&self.accepted, &loaded.config);
        let (taken_up, after_restart): (Vec<String>, Vec<String>) =
            keys.into_iter().partition(|key| is_reloadable(key));
        let is_changed = |section| taken_up.iter().any(|key| key.starts_with(section));
        let (started, new) = (&self.started, &loaded.config);
        if is_changed("database.") {
            let mut database = new.database.clone();
            // What is built into the program stays as it was at its start.
            database.schema = started.database.schema.clone();
            database.latest = started.database.latest.clone();
            started.database.latest.replace(database);
        }
        if is_changed("nats.") {
            let mut nats = new.nats.clone();
            nats.ack_timeout = started.nats.ack_timeout;
            nats.latest = started.nats.latest.clone();
            started.nats.latest.replace(nats);
        }
        let log_level = new.log.level.clone();
        self.accepted = loaded.config;
        Ok(Reloaded { taken_up, after_restart, notices: loaded.notices, log_level })
    }
}
