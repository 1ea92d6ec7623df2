//! `postrider run`: relays until a signal asks to stop.

use super::{
    Globals, block_on, choose,
    exit::{Exit, Failure},
};
use crate::{
    app::{self, Reloading, RunError, RunOptions},
    config::{
        Config,
        error::Problem,
        load::{Notice, Scope},
    },
    logging,
    relay::RelayError,
};

/// The options of `postrider run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Accept a database that was restored into another Postgres cluster: publish what was not
    /// settled
    #[arg(long)]
    rescan: bool,
}

pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let only = globals.route.clone();
    let sources = globals.sources();
    let mut loaded = Config::load(&sources, Scope::Everything)?;
    if let Some(route) = &only {
        choose(&mut loaded, route)?;
    }
    let log = logging::start(&loaded.config.log);
    for notice in &loaded.notices {
        match notice {
            Notice::Info(text) => tracing::info!("{text}"),
            Notice::Warning(text) => tracing::warn!("{text}"),
        }
    }
    let options = RunOptions { rescan: args.rescan };
    let reloading = Reloading { sources, only, levels: log.levels() };
    let done = block_on(async move {
        Box::pin(app::run(loaded.configs(), options, reloading)).await.map_err(Failure::from)
    });
    Ok(done.map_or_else(Failure::log, |()| Exit::Done))
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit = match &error {
            RunError::Signals(_) | RunError::Stdout(_) => Exit::Failed,
            RunError::Nats(_)
            | RunError::Template(_)
            | RunError::Relay(
                RelayError::ForeignCluster
                | RelayError::Contract(_)
                | RelayError::OldServer(_)
                | RelayError::NewerSchema { .. }
                | RelayError::NewerFunctions { .. }
                | RelayError::Stream(_),
            ) => Exit::Configuration,
        };
        Self::new(exit, Problem::new(error.to_string()))
    }
}
