//! Consumers' dedup keys: deleted once no redrive can come as late.

use std::time::Duration;

use crate::{outbox::Upkeep, pg::error::QueryError};

/// Time for which consumers' dedup keys are kept: longer than a redrive may come after its event.
const KEPT: Duration = Duration::from_hours(30 * 24);

pub(super) async fn forget(session: &Upkeep) -> Result<(), QueryError> {
    session.forget_processed(KEPT).await
}
