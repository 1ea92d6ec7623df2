//! Letters: the runs of loaded letters, and the way of an event from the fast path and back.

pub(super) mod run;
mod transfer;
