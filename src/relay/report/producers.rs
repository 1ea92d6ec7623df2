//! Findings about obstacles that keep applications from inserting events.

use super::status::blocker;
use crate::{
    findings::{self, Finding},
    outbox::{Hindrance, Queue},
};

/// Findings about roles that lack privileges, and about sessions that wait for a lock.
pub fn findings(hindrances: &[Hindrance], queue: Option<&Queue>) -> Vec<Finding> {
    let refused = hindrances
        .iter()
        .map(|it| findings::refused(it.role.as_deref(), &it.lacks, &it.statements));
    let waiting = queue
        .filter(|queue| queue.others > 0)
        .map(|queue| findings::queued(&blocker(&queue.by), queue.object.as_deref(), queue.others));
    refused.chain(waiting).collect()
}
