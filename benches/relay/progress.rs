//! Reports the progress of the benchmark to the person who runs it.

use std::io::Write as _;

/// Writes a line about the progress to standard error.
pub(crate) fn note(text: &str) {
    // A failed write is ignored, because an error message could not be shown either.
    drop(writeln!(std::io::stderr(), "{text}"));
}
