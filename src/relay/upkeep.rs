//! Off the data path: depth for the gauges, retention, and the note that `postrider status` reads.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};
use tracing::{debug, info, warn};

use super::status::{GateStatus, Phase, Status};
use crate::{
    config,
    metrics::Metrics,
    outbox::{SESSION_SETTINGS, Upkeep},
    pg::{connect::connect, error::QueryError, schema::Schema},
    shutdown::Shutdown,
};

/// How often the depth is looked at.
const DEPTH_INTERVAL: Duration = Duration::from_secs(5);

/// How often retention and the consumers' keys are looked after.
const RETAIN_INTERVAL: Duration = Duration::from_mins(1);

/// How long consumers' dedup keys are kept: longer than any redrive may come.
const PROCESSED_RETENTION: Duration = Duration::from_hours(30 * 24);

/// Failures in a row after which it is told: a session that is lost with the server is the relay's
/// to tell, and comes back with it.
const FAILURES_TOLD: u32 = 3;

/// The wait before another session is tried.
const RECONNECT: Duration = Duration::from_secs(2);

/// What the upkeep works on.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the outbox is.
    pub database: config::Database,
    /// Its schema.
    pub schema: Schema,
    /// The relay's name.
    pub relay: String,
    /// How long published rows stay.
    pub retention: Duration,
}

/// Keeps the tables small and people informed, until asked to stop.
pub async fn run(
    settings: Settings,
    status: Arc<watch::Sender<Status>>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) {
    let mut failures = 0;
    loop {
        let turn = async {
            wait_for_relay(&status).await;
            if let Err(error) = keep(&settings, &status, &metrics, &mut failures).await {
                failures += 1;
                if failures == FAILURES_TOLD {
                    warn!(%error, "depth and retention cannot be looked after; trying on");
                } else {
                    debug!(%error, "upkeep interrupted");
                }
            }
            sleep(RECONNECT).await;
        };
        tokio::select! {
            () = turn => {}
            () = shutdown.stopping() => return,
        }
    }
}

async fn wait_for_relay(status: &watch::Sender<Status>) {
    let mut changes = status.subscribe();
    // The sender lives as long as this borrow, so the wait cannot fail.
    drop(changes.wait_for(|status| status.phase == Phase::Relaying).await);
}

async fn keep(
    settings: &Settings,
    status: &watch::Sender<Status>,
    metrics: &Metrics,
    failures: &mut u32,
) -> Result<(), String> {
    let connection = connect(&settings.database, "upkeep", &SESSION_SETTINGS)
        .await
        .map_err(|error| error.to_string())?;
    let connection = connection.measured(metrics.outbox.queries());
    let upkeep = Upkeep::open(connection, &settings.schema, settings.relay.clone())
        .await
        .map_err(|error| error.to_string())?;
    let mut changes = status.subscribe();
    let mut noted = None;
    let mut next_retain = Instant::now();
    loop {
        let seen = changes.borrow_and_update().clone();
        note(&upkeep, &seen, &mut noted).await.map_err(|error| error.to_string())?;
        look(&upkeep, status, metrics).await.map_err(|error| error.to_string())?;
        // Twice the retention: a turn of the outbox may be kept for longer than it.
        let kept = settings.retention.saturating_mul(2);
        upkeep.checkpoint(kept).await.map_err(|error| error.to_string())?;
        *failures = 0;
        if next_retain <= Instant::now() {
            next_retain = Instant::now() + RETAIN_INTERVAL;
            retain(&upkeep, settings, metrics).await;
        }
        let gate = noted.clone().unwrap_or_default();
        tokio::select! {
            () = sleep(DEPTH_INTERVAL) => {}
            () = until_changed(&mut changes, gate) => {}
            () = upkeep.closed() => return Err("the session ended".to_owned()),
        }
    }
}

async fn until_changed(changes: &mut watch::Receiver<Status>, gate: String) {
    drop(changes.wait_for(|status| text_of(status) != gate).await);
}

/// What `postrider status` shows of the gate; nothing while events flow.
fn text_of(status: &Status) -> String {
    let text = |gate: &GateStatus| format!("{}: {} ({})", gate.kind, gate.text, gate.hint);
    status.gate.as_ref().map(text).unwrap_or_default()
}

async fn note(
    upkeep: &Upkeep,
    status: &Status,
    noted: &mut Option<String>,
) -> Result<(), QueryError> {
    let text = text_of(status);
    if noted.as_ref() != Some(&text) {
        upkeep.note(status.term, (!text.is_empty()).then_some(&text)).await?;
        *noted = Some(text);
    }
    Ok(())
}

async fn look(
    upkeep: &Upkeep,
    status: &watch::Sender<Status>,
    metrics: &Metrics,
) -> Result<(), QueryError> {
    let Some(depth) = upkeep.depth().await? else { return Ok(()) };
    metrics.outbox.depth(depth.pending, depth.oldest_age_seconds, depth.dead);
    status.send_modify(|status| {
        status.backlog = depth.pending;
        status.lag_seconds = depth.oldest_age_seconds;
        status.dead = depth.dead;
    });
    Ok(())
}

async fn retain(upkeep: &Upkeep, settings: &Settings, metrics: &Metrics) {
    match upkeep.retain(settings.retention).await {
        Ok(retained) if retained.emptied > 0 => {
            metrics.outbox.retired(u64::try_from(retained.rows_at_most).unwrap_or_default());
            info!(slots = retained.emptied, "retention emptied slots of the outbox");
        }
        Ok(_) => {}
        Err(error) => warn!(%error, "retention did not run; rows stay until it does"),
    }
    if let Err(error) = upkeep.forget_processed(PROCESSED_RETENTION).await {
        warn!(%error, "consumers' dedup keys were not looked after");
    }
}
