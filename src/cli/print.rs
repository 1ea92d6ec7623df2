//! Prints text for people to standard output and standard error.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::{
    logging::{is_obeyed, printable},
    operate::Step,
};

/// Writes a line to the standard output.
pub(super) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Writes a text to the standard error, line by line, without control characters: the text may
/// quote a server. A closed standard error is ignored, because no other place is left.
pub(super) fn to_stderr(text: &str) {
    let lines: Vec<_> = text.lines().map(printable).collect();
    drop(writeln!(io::stderr().lock(), "{}", lines.join("\n")));
}

/// Replaces the line that shows the progress of a command; an empty text clears it.
pub(super) fn progress(text: &str) {
    drop(write!(io::stderr().lock(), "\r\x1b[K{text}"));
}

/// Asks a question on the standard error, because the standard output is for the result of the
/// command.
pub(super) fn prompt(text: &str) {
    let mut stderr = io::stderr().lock();
    drop(write!(stderr, "{text}").and_then(|()| stderr.flush()));
}

/// Prints a step of a long command as one line.
pub(super) fn step(step: Step) {
    to_stderr(&match step {
        Step::Read { messages, of } => {
            format!("read {} of {} messages of the stream", number(messages), number(of))
        }
        Step::PublishedAgain { events, of } => {
            format!("publishing again {} of {}", number(events), number(of))
        }
    });
}

/// Writes a value as JSON with its keys in alphabetical order. Characters that a terminal would
/// obey are escaped, except line breaks.
pub(super) fn json(value: &impl Serialize) -> io::Result<()> {
    let value = serde_json::to_value(value)?;
    line(&escaped(&format!("{value:#}")))
}

/// Escapes the characters of a JSON text that a terminal would obey. They occur only inside
/// strings. All of them are below U+10000, so four hexadecimal digits are enough.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_obeyed(c) && c != '\n' {
            text.extend(["\\u", &format!("{:04x}", u32::from(c))]);
        } else {
            text.push(c);
        }
    }
    text
}

/// A figure with its thousands separated.
pub(super) fn number(figure: u64) -> String {
    let digits = figure.to_string();
    let mut text = String::with_capacity(digits.len() + 6);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Rows as aligned columns; the width of the last one is not bounded.
pub(super) fn columns<const COUNT: usize>(rows: &[[String; COUNT]]) -> String {
    let mut widths = [0; COUNT];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; COUNT]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_and_moves_no_cursor() {
        let value = serde_json::json!({ "a": ["\u{9b}31m\u{202e}\n", "ä\u{7f}"] });
        let text = escaped(&format!("{value:#}"));
        assert!(!text.contains(|c| is_obeyed(c) && c != '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn columns_line_up_whatever_they_hold() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let text = columns(&[row(["id", "name", "error"]), row(["10", "größer", "a long one"])]);
        assert_eq!(text, "id  name    error\n10  größer  a long one");
    }
}
