//! Hindered producers: the privileges that applications lack to insert events, and the locks that
//! they wait for.

use tokio::sync::watch;
use tracing::{info, warn};

use crate::{
    findings::Finding,
    outbox::Upkeep,
    pg::error::QueryError,
    relay::report::{producers, status::Status},
};

pub(super) async fn find_hindered(
    session: &Upkeep,
    status: &watch::Sender<Status>,
) -> Result<(), QueryError> {
    let (hindrances, queue) = (session.hindered_producers().await?, session.queue().await?);
    let found = producers::findings(&hindrances, queue.as_ref());
    let known = status.borrow().hindered.clone();
    if known == found {
        return Ok(());
    }
    // The number of waiting sessions changes all the time, so it is no news.
    let next = |found: &[Finding]| found.iter().map(|it| it.next.clone()).collect::<Vec<_>>();
    match found.first() {
        None => info!("applications can insert events again"),
        Some(first) if next(&known) != next(&found) => {
            warn!(hint = first.next, others = found.len() - 1, "{}", first.cause);
        }
        Some(_) => {}
    }
    status.send_modify(|status| status.hindered = found);
    Ok(())
}
