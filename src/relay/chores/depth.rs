//! Measurement of the backlog and of the losses, for the metrics and the status.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::debug;

use crate::{
    findings,
    metrics::{Depth, FlowMetrics, Measured},
    outbox::{Outbox, Upkeep},
    pg::error::{Class, QueryError},
    relay::report::status::Status,
};

/// Interval at which a standby measures the backlog. It is short enough that the figures never
/// count as out of date.
const STANDBY_INTERVAL: Duration = Duration::from_secs(12);

pub(super) async fn measure(
    session: &Upkeep,
    status: &watch::Sender<Status>,
    metrics: &FlowMetrics,
) -> Result<(), QueryError> {
    // The time is read before the statement, which may miss rows that are committed while it runs.
    let at = Instant::now();
    take(at, session.depth().await?, status, metrics);
    // While a loss is reported, losses are measured again each time, because an operator may
    // acknowledge them. Otherwise they are not: a new loss appears only with a new holding.
    if status.borrow().alarms.is_empty() {
        return Ok(());
    }
    measure_losses(session, status, metrics).await
}

/// Measures the losses that nobody has acknowledged.
pub(super) async fn measure_losses(
    session: &Upkeep,
    status: &watch::Sender<Status>,
    metrics: &FlowMetrics,
) -> Result<(), QueryError> {
    let losses = session.losses().await?;
    metrics.outbox.lost(losses.events);
    let alarm = findings::lost(losses.events, losses.noticed_at.as_deref());
    status.send_if_modified(|status| {
        let is_news = !status.alarms.iter().eq(alarm.iter());
        if is_news {
            status.alarms = alarm.into_iter().collect();
        }
        is_news
    });
    Ok(())
}

fn take(at: Instant, depth: Option<Depth>, status: &watch::Sender<Status>, metrics: &FlowMetrics) {
    let measured = Measured { at, depth: depth.unwrap_or_default() };
    metrics.outbox.measured(measured);
    status.send_modify(|status| status.measured = measured);
}

/// Figures of a standby, which measures over the session with which it waits for the lease.
#[derive(Debug, Default)]
pub(in crate::relay) struct StandbyFigures {
    measured_at: Option<Instant>,
}

impl StandbyFigures {
    /// Measures the backlog when that is due. After a failure the figures of the last measurement
    /// stay.
    ///
    /// # Errors
    /// When the session is lost.
    pub(in crate::relay) async fn measure(
        &mut self,
        outbox: &Outbox,
        status: &watch::Sender<Status>,
        metrics: &FlowMetrics,
    ) -> Result<(), QueryError> {
        let now = Instant::now();
        if self.measured_at.is_some_and(|at| now.duration_since(at) < STANDBY_INTERVAL) {
            return Ok(());
        }
        self.measured_at = Some(now);
        match outbox.depth().await {
            Ok(depth) => take(now, depth, status, metrics),
            Err(error) if error.class() == Class::SessionLost => return Err(error),
            Err(error) => debug!(%error, "this standby could not count the events that wait"),
        }
        Ok(())
    }
}
