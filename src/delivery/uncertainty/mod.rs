//! Uncertainty: events that the log may contain without our knowing, and the scans that settle it.

pub(super) mod capabilities;
pub(super) mod last_values;
pub(super) mod predecessor;
pub(super) mod scan_result;
pub(super) mod sent_bound;
pub(super) mod uncertain;
