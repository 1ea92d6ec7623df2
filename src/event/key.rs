//! The ordering key of an event: the aggregate that the event is about.

use std::{fmt, sync::Arc};

/// The aggregate that an event is about. Events of one key are published in order, one at a time.
///
/// Clones share one text, so that lanes, blocked keys and events cost one allocation together.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct AggregateKey {
    /// The key as `type/id`. The field `type_bytes` distinguishes `a/b` + `c` from `a` + `b/c`.
    text: Arc<str>,
    type_bytes: usize,
}

impl AggregateKey {
    /// Makes the key of an aggregate.
    pub fn new(aggregate_type: &str, aggregate_id: &str) -> Self {
        let text = [aggregate_type, "/", aggregate_id].concat();
        Self { text: text.into(), type_bytes: aggregate_type.len() }
    }

    /// The kind of aggregate, such as `order`.
    pub fn aggregate_type(&self) -> &str {
        self.text.get(..self.type_bytes).unwrap_or_default()
    }

    /// The id of the aggregate among those of its type, such as `o-1`.
    pub fn aggregate_id(&self) -> &str {
        self.text.get(self.type_bytes + 1..).unwrap_or_default()
    }

    /// The key as `type/id`, for texts and for the header `ce-partitionkey`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for AggregateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AggregateKey({})", self.text)
    }
}

impl fmt::Display for AggregateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_a_part_does_not_merge_two_keys() {
        assert_ne!(AggregateKey::new("a/b", "c"), AggregateKey::new("a", "b/c"));
        let key = AggregateKey::new("order", "1/2");
        assert_eq!((key.aggregate_type(), key.aggregate_id()), ("order", "1/2"));
    }
}
