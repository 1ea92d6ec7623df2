//! Order: the lane of each key, the keys that are blocked, the events that go together, and the
//! position that moves over everything decided.

pub(super) mod batching;
pub(super) mod blocked;
pub(super) mod lanes;
pub(super) mod progress;
