//! The loop of the producing half: from the outbox to the stream.

pub mod status;
