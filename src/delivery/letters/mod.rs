//! Letters: the runs of loaded letters, and how an event leaves the fast path as a letter and comes
//! back to be published.

pub(super) mod run;
mod transfer;
