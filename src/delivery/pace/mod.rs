//! Pace: how much may be in flight, when publishing pauses, how long a retry waits, and whether
//! atomic batches are faster.

pub(super) mod backoff;
pub(super) mod breaker;
pub(super) mod trial;
pub(super) mod window;
