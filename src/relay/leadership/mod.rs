//! Leadership: which instance leads a relay, and how long its lease is trusted.
//!
//! The protocol is in `docs/leadership.md`.

mod acquire;
pub mod contract;
mod lateness;
pub(crate) mod process;
mod resume;
mod shards;
mod standby;
pub(super) mod turns;
pub mod watchdog;
