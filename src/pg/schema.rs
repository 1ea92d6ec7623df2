//! The schema of the outbox tables, inserted into the text of each statement.

use crate::config::name::SchemaName;

/// Spelling of the schema in the `.sql` files. They use this text for nothing else.
const TOKEN: &str = "\"postrider\"";

/// A schema whose name needs no quoting, neither in an identifier nor in a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema(SchemaName);

impl Schema {
    /// Parses a name by the rules of [`SchemaName`].
    pub fn parse(text: &str) -> Option<Self> {
        SchemaName::parse(text).map(Self)
    }

    /// The name as it is, without quotes.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The text of a `.sql` file, with the name of this schema in the place of `"postrider"`.
    pub fn apply(&self, sql: &str) -> String {
        sql.replace(TOKEN, &format!("\"{}\"", self.as_str()))
    }

    /// The channel of notifications about a released lease.
    pub fn lease_channel(&self) -> String {
        format!("{}_lease", self.channel())
    }

    /// The channel that wakes this schema's relay.
    pub fn channel(&self) -> String {
        format!("postrider_{}", self.as_str())
    }
}

impl From<&SchemaName> for Schema {
    fn from(name: &SchemaName) -> Self {
        Self(name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_quoted_token_is_replaced() {
        let schema = Schema::parse("events_2").unwrap();
        let sql = r#"SELECT 1 FROM "postrider".outbox -- postrider_relay, 'postrider.wake'"#;
        let expected = r#"SELECT 1 FROM "events_2".outbox -- postrider_relay, 'postrider.wake'"#;
        assert_eq!(schema.apply(sql), expected);
        assert_eq!(schema.channel(), "postrider_events_2");
    }

    #[test]
    fn names_that_would_need_quoting_are_refused() {
        for name in ["", "x\"; DROP TABLE y--", "Upper", "a.b", "pg_x", "1a", &"a".repeat(41)] {
            assert_eq!(Schema::parse(name), None, "{name}");
        }
    }
}
