//! Letters: the events that left the fast path, and what an operator asks and does about them.

mod listed;

pub use listed::ListedLetter;
