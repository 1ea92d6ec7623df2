//! Abandoned positions: relays that no instance runs keep published rows in the outbox for ever.

use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use crate::{
    metrics::FlowMetrics, outbox::Upkeep, pg::error::QueryError, relay::report::status::Status,
};

pub(super) async fn find_abandoned(
    session: &Upkeep,
    (ours, retention): (&[String], Duration),
    status: &watch::Sender<Status>,
    metrics: &FlowMetrics,
) -> Result<(), QueryError> {
    let retention = retention.as_secs_f64();
    let relays = session.relays().await?;
    let abandoned: Vec<_> = relays.iter().filter(|row| row.is_abandoned(ours, retention)).collect();
    metrics.chores.abandoned(abandoned.len());
    let known = status.borrow().abandoned.clone();
    for row in &abandoned {
        if !known.iter().any(|(relay, _)| *relay == row.relay) {
            warn!(
                relay = row.relay,
                behind_at_most = row.behind_at_most,
                idle_seconds = row.idle_seconds.round(),
                hint = "start that relay, or give it up with `postrider relay forget`",
                "nobody runs this relay, and its position keeps published rows in the outbox"
            );
        }
    }
    let abandoned: Vec<_> =
        abandoned.iter().map(|row| (row.relay.clone(), row.idle_seconds)).collect();
    if abandoned != known {
        status.send_modify(|status| status.abandoned = abandoned);
    }
    Ok(())
}
