//! How the benchmark gets on, for somebody who watches it.

use std::io::Write as _;

/// A line about how it goes, on standard error.
pub(crate) fn note(text: &str) {
    // Nobody is there to be told that nobody listens.
    drop(writeln!(std::io::stderr(), "{text}"));
}
