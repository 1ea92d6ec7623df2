//! How the benchmark gets on, for somebody who watches it.

use std::io::Write as _;

/// A line about how it goes, on standard error.
pub(crate) fn note(text: &str) {
    // Without a listener nobody receives the error either.
    drop(writeln!(std::io::stderr(), "{text}"));
}
