//! Checkpoints: notes of the position, from which a log that has lost messages can be healed.

use std::time::Duration;

use crate::{outbox::Upkeep, pg::error::QueryError};

pub(super) async fn take(session: &Upkeep, retention: Duration) -> Result<(), QueryError> {
    // Checkpoints are kept for twice the retention, because a slot (partition) of the outbox may
    // keep its rows for longer than the retention.
    session.checkpoint(retention.saturating_mul(2)).await
}
