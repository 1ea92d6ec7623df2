//! Text for people on the two outputs.

use std::io::{self, Write as _};

/// Writes a line to the standard output.
pub(super) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Writes a line to the standard error; when even that is closed there is nobody to tell.
pub(super) fn to_stderr(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Writes a value as JSON.
pub(super) fn json(value: &serde_json::Value) -> io::Result<()> {
    line(&format!("{value:#}"))
}
