//! Deletion of old dedup keys, by which consumers recognise an event that comes again. Nobody is
//! expected to redrive an event whose key is so old.

use std::time::Duration;

use crate::{outbox::Upkeep, pg::error::QueryError};

/// Time for which consumers' dedup keys are kept. It is meant to be longer than any time between an
/// event and its redrive.
const KEPT: Duration = Duration::from_hours(30 * 24);

pub(super) async fn forget(session: &Upkeep) -> Result<(), QueryError> {
    session.forget_processed(KEPT).await
}
