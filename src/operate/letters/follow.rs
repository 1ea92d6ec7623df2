//! Follows redriven letters until the outcome of each is known.

use std::time::{Duration, Instant, SystemTime};

use tokio::time::sleep;

use super::Redriven;
use crate::{operate::DatabaseError, outbox::operator::Operator};

/// Maximum number of letters that one act follows. A request for more is refused before anything is
/// changed.
pub const FOLLOWED_MAX: usize = 10_000;

/// Maximum number of letters whose state one statement reads.
const PAGE: usize = 1_000;

/// Interval between two reads of the letters' state.
const POLL: Duration = Duration::from_millis(200);

/// Reports the outcome of each letter as soon as it is known. Ends when all outcomes are known or
/// the time is over. Returns the letters without an outcome.
pub(super) async fn follow<E: From<DatabaseError>>(
    operator: &Operator,
    ids: &[i64],
    (since, limit): (SystemTime, Duration),
    mut on_outcome: impl FnMut(i64, &Redriven) -> Result<(), E>,
) -> Result<Vec<i64>, E> {
    let end = Instant::now() + limit;
    let mut waiting = ids.to_vec();
    loop {
        let mut left = Vec::new();
        for page in waiting.chunks(PAGE) {
            let outcomes = operator.redriven(page, since).await.map_err(DatabaseError::from)?;
            for (id, outcome) in outcomes {
                if outcome == Redriven::Pending {
                    left.push(id);
                } else {
                    on_outcome(id, &outcome)?;
                }
            }
        }
        waiting = left;
        let now = Instant::now();
        if waiting.is_empty() || now >= end {
            return Ok(waiting);
        }
        sleep(POLL.min(end - now)).await;
    }
}
