//! Serialises fields of a letter whose JSON differs from their Rust type.

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::event::AggregateKey;

/// The two parts of a key; both are null without a key.
#[derive(Serialize)]
struct KeyParts<'a> {
    aggregate_type: Option<&'a str>,
    aggregate_id: Option<&'a str>,
}

/// Serialises a key as its two parts.
#[expect(clippy::ref_option, reason = "serde passes the field as it is")]
pub(super) fn key_parts<S: Serializer>(
    key: &Option<AggregateKey>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let key = key.as_ref();
    let parts = KeyParts {
        aggregate_type: key.map(AggregateKey::aggregate_type),
        aggregate_id: key.map(AggregateKey::aggregate_id),
    };
    parts.serialize(serializer)
}

/// Serialises a text as the JSON that it contains, or as null when it is no JSON.
pub(super) fn parsed<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str(text).unwrap_or(Value::Null).serialize(serializer)
}
