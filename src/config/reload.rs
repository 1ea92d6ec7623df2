//! Applies a changed configuration while the program runs, or leaves everything unchanged.

use super::{
    Config,
    changes::{changed, is_reloadable},
    error::ConfigError,
    load::{Notice, Scope, Sources},
};

/// Loads the configuration repeatedly from the same sources.
#[derive(Debug)]
pub struct Reloader {
    sources: Sources,
    /// Name of the only route that this process runs; `None` when it runs all routes of the file.
    only: Option<String>,
    /// The configuration of each route at the start of the program. Its sections have a
    /// [`Latest`](super::latest::Latest), by which a replacement reaches all of their copies.
    started: Vec<Config>,
    /// The configuration of each route as the last valid reload had it; before a reload, that of
    /// the start.
    accepted: Vec<Config>,
}

/// Result of a reload.
#[derive(Debug)]
pub struct Reloaded {
    /// Changed keys that take effect now.
    pub taken_up: Vec<String>,
    /// Changed keys that take effect after a restart.
    pub after_restart: Vec<String>,
    /// Messages about the new configuration for the log.
    pub notices: Vec<Notice>,
    /// The value of `log.level` after the reload.
    pub log_level: String,
}

impl Reloader {
    /// Creates a reloader for the running configuration and its sources.
    pub fn new(sources: Sources, only: Option<String>, started: Vec<Config>) -> Self {
        Self { sources, only, accepted: started.clone(), started }
    }

    /// Loads the configuration. When it is valid, changed sections are replaced for every part of
    /// the program. Connections to Postgres or NATS with the old values end.
    ///
    /// # Errors
    ///
    /// Every problem that was found; nothing has changed then.
    pub fn reload(&mut self) -> Result<Reloaded, ConfigError> {
        let loaded = Config::load(&self.sources, Scope::Everything)?;
        let mut new = loaded.configs();
        if let Some(only) = &self.only {
            new.retain(|config| config.is_of(only));
        }
        let (mut taken_up, mut after_restart) = (Vec::new(), Vec::new());
        let names = |configs: &[Config]| -> Vec<_> {
            configs.iter().map(|config| config.relay.name.clone()).collect()
        };
        if names(&self.accepted) != names(&new) {
            after_restart.push("the list of routes".to_owned());
        }
        for (accepted, started) in self.accepted.iter_mut().zip(&self.started) {
            // A route may still run that the file no longer has. Its `[database]` and `[nats]`,
            // which all routes share, come from the first route of the file.
            let same = new.iter().find(|config| config.relay.name == started.relay.name);
            let Some(new) = same.or(new.first()) else { continue };
            let is_same = same.is_some();
            let keys = changed(accepted, new);
            let (now, later): (Vec<String>, Vec<String>) =
                keys.into_iter().partition(|key| is_reloadable(key));
            replace_sections(started, new, &now);
            let later = if is_same { later } else { Vec::new() };
            *accepted = new.clone();
            accepted.relay.name = started.relay.name.clone();
            for key in now.into_iter().filter(|key| !taken_up.contains(key)).collect::<Vec<_>>() {
                taken_up.push(key);
            }
            for key in
                later.into_iter().filter(|key| !after_restart.contains(key)).collect::<Vec<_>>()
            {
                after_restart.push(key);
            }
        }
        let log_level = loaded.config.log.level;
        Ok(Reloaded { taken_up, after_restart, notices: loaded.notices, log_level })
    }
}

/// Replaces the sections of a running route that contain a changed key.
fn replace_sections(started: &Config, new: &Config, changed: &[String]) {
    let is_changed = |section| changed.iter().any(|key| key.starts_with(section));
    if is_changed("database.") {
        let mut database = new.database.clone();
        // The schema keeps its value from the start, because only a restart can change it.
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
}
