//! Problems with the type of a value, described without showing a secret.

use figment::error::{Actual, Kind};

use super::{bounds, error::Problem, keys::is_secret};

/// The problem with the type of a value, from figment's error.
pub(super) fn problem(key: &str, kind: &Kind) -> Problem {
    let (found, expected) = match kind {
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            (Some(found), expected.clone())
        }
        Kind::Message(text) if !is_secret(key) => {
            return Problem::new(format!("{key} has a wrong value")).detail(text.clone());
        }
        Kind::Message(_)
        | Kind::UnknownVariant(..)
        | Kind::InvalidLength(..)
        | Kind::UnknownField(..)
        | Kind::MissingField(_)
        | Kind::DuplicateField(_)
        | Kind::ISizeOutOfRange(_)
        | Kind::USizeOutOfRange(_)
        | Kind::Unsupported(_)
        | Kind::UnsupportedKey(..) => (None, "another value".to_owned()),
    };
    let range = bounds::range_of(key);
    let expected = match (expected.as_str(), range) {
        ("u8" | "u16" | "u32" | "u64", Some(range)) => format!("a whole number, {range}"),
        ("a boolean", _) => "true or false".to_owned(),
        ("a string" | "option", _) => "a text in quotes".to_owned(),
        ("a sequence", _) => "a list of texts: [\"one\", \"two\"]".to_owned(),
        (text, _) => text.to_owned(),
    };
    let problem = Problem::new(format!("{key} takes {expected}"));
    match found {
        Some(found) if is_secret(key) => problem.detail(format!("found {}", kind_of(found))),
        Some(found) => problem.detail(format!("found {}", described(found))),
        None => problem,
    }
}

/// The type of a value without the value.
fn kind_of(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "true or false without quotes",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number without quotes",
        Actual::Char(_) | Actual::Str(_) | Actual::Bytes(_) => "a text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        Actual::Unit
        | Actual::Option
        | Actual::NewtypeStruct
        | Actual::Enum
        | Actual::UnitVariant
        | Actual::NewtypeVariant
        | Actual::TupleVariant
        | Actual::StructVariant
        | Actual::Other(_) => "another value",
    }
}

/// Describes a value that is not secret, shortened.
fn described(actual: &Actual) -> String {
    match actual {
        Actual::Bool(value) => format!("{value}"),
        Actual::Unsigned(value) => format!("the number {value}"),
        Actual::Signed(value) => format!("the number {value}"),
        Actual::Float(value) => format!("the number {value}"),
        Actual::Str(value) => shortened(value),
        Actual::Char(_)
        | Actual::Bytes(_)
        | Actual::Seq
        | Actual::Map
        | Actual::Unit
        | Actual::Option
        | Actual::NewtypeStruct
        | Actual::Enum
        | Actual::UnitVariant
        | Actual::NewtypeVariant
        | Actual::TupleVariant
        | Actual::StructVariant
        | Actual::Other(_) => kind_of(actual).to_owned(),
    }
}

/// A quoted text without control characters, cut to a readable length.
pub(super) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let cut: String = text.chars().take(CHARS_MAX).collect();
    let ellipsis = if cut.len() < text.len() { "…" } else { "" };
    format!("\"{}{ellipsis}\"", cut.escape_debug())
}
