//! The composition root: builds every part from the configuration, owns start and stop order.

mod flow;
mod monitor;
mod reload;
mod supervise;

use std::{sync::Arc, time::Duration};

pub use reload::Reloading;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tracing::warn;

use self::flow::Flow;
use crate::{
    admin,
    config::{Config, value::Listen},
    metrics::ProgramMetrics,
    nats,
    pg::schema::Schema,
    relay::{RelayError, chores, leadership::contract, report::flows::Flows},
    shutdown::Shutdown,
    systemd,
    tasks::Tasks,
    wire::TemplateError,
};

/// Longest wait, after all flows have ended, for the other tasks, such as the admin page. Then the
/// program ends without them.
const TASKS_GRACE: Duration = Duration::from_secs(5);

/// Options of the command line beside the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Accept a database that was restored into another cluster.
    pub rescan: bool,
}

/// Reason why the program ended by itself.
#[derive(Debug, Error)]
pub enum RunError {
    /// The settings in `[nats]` cannot work, such as a file that cannot be read.
    #[error(transparent)]
    Nats(#[from] nats::NatsConnectError),
    /// The value of `route.subject` is not a subject template.
    #[error("route.subject: {0}")]
    Template(#[from] TemplateError),
    /// Standard output cannot be written to.
    #[error("route.sink = \"stdout\": cannot write to standard output: {0}")]
    Stdout(std::io::Error),
    /// The system refuses to deliver signals to this program.
    #[error("cannot register for signals: {0}")]
    Signals(std::io::Error),
    /// The relay met a fault that only a person can repair.
    #[error(transparent)]
    Relay(#[from] RelayError),
}

/// Runs the flows of these routes until a signal asks to stop. Without routes it returns at once.
///
/// # Errors
/// [`RunError`]: a fault that only a person can repair. Servers that are down are waited for. Where
/// there are several routes, a route that fails is started again while the others go on.
pub async fn run(
    routes: Vec<Config>,
    options: RunOptions,
    reloading: Reloading,
) -> Result<(), RunError> {
    let Some(config) = routes.first().cloned() else { return Ok(()) };
    let shutdown = Shutdown::new();
    let signals = shutdown.obey_signals().map_err(RunError::Signals)?;
    let hangups = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let program = Arc::new(ProgramMetrics::new());
    let mut flows = Vec::new();
    for route in &routes {
        let flow = Flow::new(route.clone(), options, &program, shutdown.clone())?;
        flow.verify_settings().await?;
        flows.push(Arc::new(flow));
    }
    let shown = Flows(flows.iter().map(|flow| flow.shown()).collect());

    let tasks = Tasks::new();
    // The task that waits for signals ends by itself only at a second signal. So the end of the
    // program cancels it.
    let listening = tasks.cancelled();
    tasks.spawn("signals", async move {
        listening.run_until_cancelled(signals).await;
    });
    if let Listen::Address(address) = config.admin.listen {
        let pages = (shown.clone(), Arc::clone(&program));
        let hosts = config.admin.hosts.clone();
        // The first attempt to bind is made here, so that the listener is there before systemd is
        // told that the program is ready.
        let listener = admin::bind(address).await;
        // The admin page outlives the flows: it shows how the stop goes.
        tasks.spawn("admin", admin::serve(listener, address, hosts, pages, tasks.cancelled()));
    }
    let obeyed = reload::obey(hangups, reloading, routes, Arc::clone(&program));
    let reloads = tasks.cancelled();
    tasks.spawn("reload", async move {
        reloads.run_until_cancelled(obeyed).await;
    });
    let upkeep = chores::ChoreSettings {
        database: config.database.clone(),
        schema: Schema::from(&config.database.schema),
        relays: config.relay.siblings.clone(),
        retention: config.relay.retention.0,
        letter_retention: config.relay.letter_retention.0,
        audit_retention: config.relay.audit_retention.0,
    };
    let maintained = flows.iter().map(|flow| flow.maintained()).collect();
    tasks.spawn("chores", chores::run(upkeep, maintained, shutdown.clone()));
    let watched = flows.iter().map(|flow| flow.watched()).collect();
    tasks.spawn("contract", contract::watch(watched, shutdown.clone()));
    tasks.spawn("outages", monitor::log_outages(shown.clone(), tasks.cancelled()));
    tasks.spawn("systemd", monitor::report_to_systemd(shown, tasks.cancelled()));
    systemd::ready();

    let result = supervise::run(flows).await;
    systemd::stopping();
    shutdown.stop_now();
    tasks.cancel();
    if let Err(unfinished) = tasks.finish(TASKS_GRACE).await {
        warn!(error = %unfinished, "some tasks did not end in time; the program stops without waiting for them");
    }
    result
}
