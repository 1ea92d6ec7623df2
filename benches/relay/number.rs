//! Formats numbers for people.

use crate::measure::float;

/// Formats a number with about three significant digits, and with commas between thousands.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if !(0.0005..1.0).contains(&size) => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, _)| {
        (whole, text.get(whole.len()..).unwrap_or_default())
    });
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

/// Formats a count, with commas between thousands.
pub(crate) fn number_of(count: u64) -> String {
    let text = number(float(count));
    text.split('.').next().unwrap_or_default().to_owned()
}
