//! Missing grants: checks which privileges the relay's user lacks, so that the log and the status
//! name one that was revoked.

use tokio::sync::watch;
use tracing::{error, info};

use crate::{outbox::Upkeep, pg::error::QueryError, relay::report::status::Status};

pub(super) async fn find_missing(
    session: &Upkeep,
    status: &watch::Sender<Status>,
) -> Result<(), QueryError> {
    let missing = session.missing_grants().await?;
    if status.borrow().missing_grants == missing {
        return Ok(());
    }
    match missing.as_slice() {
        [] => info!("the relay's user again has every grant that it needs"),
        [first, ..] => error!(
            grant = first,
            missing = missing.len(),
            "the relay's user lacks a grant in Postgres, and what needs it fails; `postrider check` lists each grant"
        ),
    }
    status.send_modify(|status| status.missing_grants = missing);
    Ok(())
}
