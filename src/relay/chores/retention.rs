//! Retention of the outbox: empties slots (partitions) whose rows are all settled and old.

use std::time::Duration;

use tracing::info;

use crate::{failpoint, metrics::FlowMetrics, outbox::Upkeep, pg::error::QueryError};

pub(super) async fn run(
    session: &Upkeep,
    retention: Duration,
    metrics: &FlowMetrics,
) -> Result<(), QueryError> {
    failpoint::pass("retain");
    let retained = session.retain(retention).await?;
    if retained.emptied > 0 {
        metrics.outbox.retired(u64::try_from(retained.rows_at_most).unwrap_or_default());
        info!(
            slots = retained.emptied,
            "retention emptied partitions of the outbox: every row in them was settled and older than the retention"
        );
    }
    failpoint::pass("retained");
    Ok(())
}
