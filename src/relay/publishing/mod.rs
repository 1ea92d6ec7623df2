//! Publishing: which events are handed over, and what the answers of the broker mean for them.

mod answers;
mod batches;
mod dispatch;
pub(super) mod readiness;
