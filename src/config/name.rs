//! Validated names of schemas and relays.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value::parse_text;

/// Bytes of a schema name at most: `postrider_<schema>` is a notification channel, and Postgres
/// allows a channel's name 63 bytes.
pub const SCHEMA_BYTES_MAX: usize = 40;

/// Bytes of a relay's name at most: it is part of `application_name`, which Postgres cuts at 63.
pub const RELAY_NAME_BYTES_MAX: usize = 40;

/// The name of the schema: a plain lower-case identifier that needs no quotes in psql.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaName(String);

impl SchemaName {
    /// Parses a name: lower-case letters, digits and `_`, not starting with a digit or `pg_`.
    pub fn parse(text: &str) -> Option<Self> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        let is_plain = text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
        let is_ours = !text.starts_with("pg_") && text.len() <= SCHEMA_BYTES_MAX;
        (starts_well && is_plain && is_ours).then(|| Self(text.to_owned()))
    }

    /// The name as it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for SchemaName {
    fn default() -> Self {
        Self("postrider".to_owned())
    }
}

impl<'de> Deserialize<'de> for SchemaName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a schema name of 1 to 40 lower-case letters, digits and \"_\", \
                        not starting with a digit or \"pg_\"";
        parse_text(deserializer, expected, Self::parse)
    }
}

/// The relay's name, which identifies its row in the position table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayName(String);

impl RelayName {
    /// Parses a name: letters, digits, `-`, `_` and `.`.
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        let is_short = (1..=RELAY_NAME_BYTES_MAX).contains(&text.len());
        (is_plain && is_short).then(|| Self(text.to_owned()))
    }

    /// The name as it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RelayName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl<'de> Deserialize<'de> for RelayName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a name of 1 to 40 letters, digits, \"-\", \"_\" and \".\"";
        parse_text(deserializer, expected, Self::parse)
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for RelayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SchemaName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for RelayName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_that_would_need_quotes_or_be_cut_is_refused() {
        let long = "s".repeat(SCHEMA_BYTES_MAX + 1);
        for text in
            ["", "x\"; drop table y--", "a.b", "Post", "1st", "pg_outbox", "großes", "a b", &long]
        {
            assert_eq!(SchemaName::parse(text), None, "{text}");
        }
        assert!(SchemaName::parse(&"s".repeat(SCHEMA_BYTES_MAX)).is_some());
        assert!(SchemaName::parse("_events_2").is_some());
    }

    #[test]
    fn relay_name_is_short_and_plain() {
        for text in ["", "a b", "a/b", "ä", &"n".repeat(RELAY_NAME_BYTES_MAX + 1)] {
            assert_eq!(RelayName::parse(text), None, "{text}");
        }
        assert!(RelayName::parse("billing-eu.1").is_some());
    }
}
