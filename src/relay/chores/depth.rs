//! Measures how much waits to be published, for the metrics and the status.

use std::time::Instant;

use tokio::sync::watch;

use crate::{
    metrics::{Measured, Metrics},
    outbox::Upkeep,
    pg::error::QueryError,
    relay::status::Status,
};

pub(super) async fn measure(
    session: &Upkeep,
    status: &watch::Sender<Status>,
    metrics: &Metrics,
) -> Result<(), QueryError> {
    // As of before the statement: what is committed while it runs may be missing.
    let at = Instant::now();
    let depth = session.depth().await?.unwrap_or_default();
    let measured = Measured { at, depth };
    metrics.outbox.measured(measured);
    status.send_modify(|status| status.measured = measured);
    Ok(())
}
