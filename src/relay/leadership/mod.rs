//! Leadership: which instance leads a relay, and how long its lease is trusted.
//!
//! The protocol is in `docs/leadership.md`.

mod acquire;
pub mod contract;
pub(crate) mod process;
mod resume;
mod shards;
mod standby;
mod trust;
pub(super) mod turns;
pub mod watchdog;
