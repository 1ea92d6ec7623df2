//! Obeys SIGHUP: applies changed keys of the configuration, and logs those that need a restart.

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tracing::{error, info, warn};

use crate::{
    config::{
        Config,
        load::{Notice, Sources},
        reload::{Reloaded, Reloader},
    },
    logging::Levels,
    metrics::ProgramMetrics,
    systemd,
};

/// Sources from which the configuration is loaded again, and the log whose level it may change.
#[derive(Debug)]
pub struct Reloading {
    /// The sources that the configuration was loaded from at the start.
    pub sources: Sources,
    /// The only route that runs; `None` when all routes run.
    pub only: Option<String>,
    /// The levels of the running log.
    pub levels: Levels,
}

/// Reloads the configuration at each SIGHUP, for ever.
pub(super) async fn obey(
    mut hangups: Signal,
    reloading: Reloading,
    routes: Vec<Config>,
    program: Arc<ProgramMetrics>,
) {
    let Reloading { sources, only, levels } = reloading;
    let mut reloader = Reloader::new(sources, only, routes);
    while hangups.recv().await.is_some() {
        systemd::reloading();
        match reloader.reload() {
            Ok(outcome) => {
                program.configuration.accepted();
                log_outcome(&outcome, &levels);
            }
            Err(invalid) => {
                program.configuration.refused();
                for problem in &invalid.problems {
                    error!(
                        origin = problem.origin.as_ref().map(tracing::field::display),
                        why = problem.detail,
                        hint = problem.hint,
                        "configuration not reloaded, the old one stays: {}",
                        problem.primary
                    );
                }
            }
        }
        systemd::ready();
    }
}

fn log_outcome(reloaded: &Reloaded, levels: &Levels) {
    let Reloaded { taken_up, after_restart, notices, log_level } = reloaded;
    if taken_up.iter().any(|key| key == "log.level") && !levels.set(log_level) {
        warn!("log.level is reloaded, but RUST_LOG overrides it until the next start");
    }
    for notice in notices {
        match notice {
            Notice::Info(text) => info!("{text}"),
            Notice::Warning(text) => warn!("{text}"),
        }
    }
    if taken_up.is_empty() {
        info!("configuration reloaded: nothing has changed that takes effect without a restart");
    } else {
        info!(keys = taken_up.join(", "), "configuration reloaded");
    }
    if !after_restart.is_empty() {
        let keys = after_restart.join(", ");
        warn!(
            keys,
            hint = "restart postrider",
            "changed keys of the configuration take effect only after a restart; until then the old values stay"
        );
    }
}
