//! Filter: the choice of a route's events, by the columns that describe an event.
//!
//! The relay applies a filter in SQL, so that Postgres never sends it the events that the route
//! leaves out. This module makes the same decision for an event in memory, and a property test
//! compares the two.

use std::fmt;

use serde_json::{Map, Value, json};

use super::{Event, Shard};

/// Most bytes of a pattern or of a name in a filter.
pub const FILTER_TEXT_BYTES_MAX: usize = 200;

/// Filter: the condition by which a route takes an event or leaves it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// The events that fit the rules of a route.
    Rules(Rules),
    /// The events that fit the rules of none of these routes, so that no route takes them.
    NoneOf(Vec<Rules>),
}

/// The rules of a route. An event has to fit all of them; a rule without an entry fits every event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The type of the event matches one of these.
    pub types: Vec<Pattern>,
    /// The type of the event matches none of these.
    pub except_types: Vec<Pattern>,
    /// The kind of the event is one of these.
    pub kinds: Vec<String>,
    /// The aggregate type of the event is one of these. An event without a key has no aggregate
    /// type, so it is none of them.
    pub aggregates: Vec<String>,
    /// The event is of this shard.
    pub shard: Option<Shard>,
}

/// A pattern for the type of an event. A `*` at its end stands for any further text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// Exactly this text.
    Exact(String),
    /// Every text that begins with this one.
    Prefix(String),
}

impl Pattern {
    /// Parses a pattern: a text of 1 to 200 bytes without control characters and backslashes, with
    /// one `*` at most, at the end.
    pub fn parse(text: &str) -> Option<Self> {
        if !is_filter_text(text) {
            return None;
        }
        match text.strip_suffix('*') {
            Some(prefix) => (!prefix.contains('*')).then(|| Self::Prefix(prefix.to_owned())),
            None => (!text.contains('*')).then(|| Self::Exact(text.to_owned())),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
        }
    }

    /// Whether some text matches both patterns.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other)) => one == other,
            (Self::Exact(exact), Self::Prefix(prefix))
            | (Self::Prefix(prefix), Self::Exact(exact)) => exact.starts_with(prefix.as_str()),
            (Self::Prefix(one), Self::Prefix(other)) => {
                one.starts_with(other.as_str()) || other.starts_with(one.as_str())
            }
        }
    }

    /// Whether every text that matches `other` matches this pattern too.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(one), Self::Exact(other)) => one == other,
            (Self::Exact(_), Self::Prefix(_)) => false,
            (Self::Prefix(prefix), Self::Exact(text) | Self::Prefix(text)) => {
                text.starts_with(prefix.as_str())
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// Whether this text is allowed as a pattern or as a name in a filter: 1 to 200 bytes without
/// control characters and backslashes.
pub fn is_filter_text(text: &str) -> bool {
    let is_plain = !text.contains(|c: char| c.is_control() || c == '\\');
    (1..=FILTER_TEXT_BYTES_MAX).contains(&text.len()) && is_plain
}

impl Default for Filter {
    fn default() -> Self {
        Self::Rules(Rules::default())
    }
}

impl Filter {
    /// Whether the filter takes the event.
    pub fn takes(&self, event: &Event) -> bool {
        match self {
            Self::Rules(rules) => rules.take(event),
            Self::NoneOf(routes) => !routes.iter().any(|rules| rules.take(event)),
        }
    }

    /// Whether the filter takes every event.
    pub fn takes_all(&self) -> bool {
        match self {
            Self::Rules(rules) => rules.is_empty(),
            Self::NoneOf(routes) => routes.is_empty(),
        }
    }

    /// The filter as JSON, as it is stored with the position. `None` for a filter that takes every
    /// event.
    pub fn json(&self) -> Option<Value> {
        match self {
            Self::Rules(rules) => (!rules.is_empty()).then(|| rules.json()),
            Self::NoneOf(routes) => {
                let routes: Vec<_> = routes.iter().map(Rules::json).collect();
                (!self.takes_all()).then(|| json!({ "none_of": routes }))
            }
        }
    }

    /// The filter as an SQL condition on a row of the outbox that has the alias `row`. The
    /// condition is true or false, and never null.
    pub fn sql(&self, row: &str) -> String {
        match self {
            Self::Rules(rules) => rules.sql(row),
            Self::NoneOf(routes) => {
                let none: Vec<_> =
                    routes.iter().map(|rules| format!("NOT ({})", rules.sql(row))).collect();
                joined(&none, " AND ")
            }
        }
    }
}

impl Filter {
    /// How many shards share the route; 1 for a route without shards.
    pub fn shards(&self) -> i32 {
        match self {
            Self::Rules(Rules { shard: Some(shard), .. }) => {
                i32::try_from(shard.count).unwrap_or(i32::MAX)
            }
            Self::Rules(_) | Self::NoneOf(_) => 1,
        }
    }
}

impl Rules {
    /// Whether there is no rule, so that every event is taken.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the event fits all rules.
    fn take(&self, event: &Event) -> bool {
        let kind = Some(event.kind.as_ref());
        let aggregate = event.key.as_ref().map(super::AggregateKey::aggregate_type);
        let named = |names: &[String], name: Option<&str>| {
            names.is_empty() || name.is_some_and(|name| names.iter().any(|known| known == name))
        };
        let matched = |patterns: &[Pattern]| {
            patterns.iter().any(|pattern| pattern.matches(&event.event_type))
        };
        (self.types.is_empty() || matched(&self.types))
            && !matched(&self.except_types)
            && named(&self.kinds, kind)
            && named(&self.aggregates, aggregate)
            && self.shard.is_none_or(|shard| shard.takes(event.key.as_ref(), event.seq))
    }

    /// Whether no event can meet the rules.
    pub fn takes_nothing(&self) -> bool {
        let all = Pattern::Prefix(String::new());
        let excluded = |pattern: &Pattern| self.except_types.iter().any(|it| it.covers(pattern));
        excluded(&all) || !self.types.is_empty() && self.types.iter().all(excluded)
    }

    /// Whether some event may fit both sets of rules. `false` is certain, while `true` may be
    /// wrong.
    pub fn may_overlap(&self, other: &Self) -> bool {
        let names = |one: &[String], other: &[String]| {
            one.is_empty() || other.is_empty() || one.iter().any(|name| other.contains(name))
        };
        names(&self.kinds, &other.kinds)
            && names(&self.aggregates, &other.aggregates)
            && self.types_may_overlap(other)
    }

    fn types_may_overlap(&self, other: &Self) -> bool {
        let all = [Pattern::Prefix(String::new())];
        let types = |rules: &Self| {
            if rules.types.is_empty() { all.to_vec() } else { rules.types.clone() }
        };
        let excluded = |pattern: &Pattern, rules: &Self| {
            rules.except_types.iter().any(|except| except.covers(pattern))
        };
        types(self).iter().any(|one| {
            types(other).iter().any(|two| {
                // When two patterns overlap, one of them covers the other. So both routes may take
                // the events that match the narrower pattern.
                let narrower = if one.covers(two) { two } else { one };
                one.overlaps(two) && !excluded(narrower, self) && !excluded(narrower, other)
            })
        })
    }

    fn json(&self) -> Value {
        let patterns = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect();
        let rules: [(&str, Vec<String>); 4] = [
            ("types", patterns(&self.types)),
            ("except_types", patterns(&self.except_types)),
            ("kinds", self.kinds.clone()),
            ("aggregates", self.aggregates.clone()),
        ];
        let rules = rules.into_iter().filter(|(_, names)| !names.is_empty());
        let mut object: Map<_, _> =
            rules.map(|(rule, names)| (rule.to_owned(), json!(names))).collect();
        if let Some(Shard { index, count }) = self.shard {
            object.insert("shard".to_owned(), json!([index, count]));
        }
        Value::Object(object)
    }

    fn sql(&self, row: &str) -> String {
        let matched = |patterns: &[Pattern]| {
            let conditions = patterns.iter().map(|pattern| match pattern {
                Pattern::Exact(text) => format!("{row}.event_type = {}", quoted(text)),
                Pattern::Prefix(prefix) => {
                    format!("pg_catalog.starts_with({row}.event_type, {})", quoted(prefix))
                }
            });
            format!("({})", conditions.collect::<Vec<_>>().join(" OR "))
        };
        let named = |column: &str, names: &[String]| {
            let names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
            format!("coalesce({row}.{column} IN ({}), false)", names.join(", "))
        };
        let mut conditions = Vec::new();
        if !self.types.is_empty() {
            conditions.push(matched(&self.types));
        }
        if !self.except_types.is_empty() {
            conditions.push(format!("NOT {}", matched(&self.except_types)));
        }
        if !self.kinds.is_empty() {
            conditions.push(named("kind", &self.kinds));
        }
        if !self.aggregates.is_empty() {
            conditions.push(named("aggregate_type", &self.aggregates));
        }
        conditions.extend(self.shard.map(|shard| shard.sql(row)));
        joined(&conditions, " AND ")
    }
}

fn joined(conditions: &[String], with: &str) -> String {
    if conditions.is_empty() { "true".to_owned() } else { conditions.join(with) }
}

/// Quotes a text as an SQL literal. The text has no backslash, so the literal means the same under
/// either value of `standard_conforming_strings`.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::parse(text).unwrap()).collect()
    }

    fn types(types: &[&str], except: &[&str]) -> Rules {
        Rules { types: patterns(types), except_types: patterns(except), ..Rules::default() }
    }

    #[test]
    fn pattern_has_one_star_at_most_and_at_its_end() {
        assert_eq!(Pattern::parse("order.*"), Some(Pattern::Prefix("order.".to_owned())));
        assert_eq!(Pattern::parse("*"), Some(Pattern::Prefix(String::new())));
        assert_eq!(Pattern::parse("order"), Some(Pattern::Exact("order".to_owned())));
        let long = "x".repeat(FILTER_TEXT_BYTES_MAX + 1);
        for wrong in ["", "*.created", "a*b", "a**", "a\\b", "a\nb", long.as_str()] {
            assert_eq!(Pattern::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn rules_overlap_unless_no_event_can_meet_both() {
        let order = types(&["order.*"], &[]);
        for (other, overlap) in [
            (types(&["invoice.*"], &[]), false),
            (types(&["order.created"], &[]), true),
            (types(&["order*"], &[]), true),
            (types(&[], &["order.*"]), false),
            (types(&[], &["order*"]), false),
            (types(&[], &["order.created"]), true),
            (types(&["order.created"], &["order.created"]), false),
            (types(&[], &[]), true),
            (Rules { kinds: vec!["event".to_owned()], ..types(&["order.*"], &[]) }, true),
        ] {
            assert_eq!(order.may_overlap(&other), overlap, "{other:?}");
            assert_eq!(other.may_overlap(&order), overlap, "{other:?}");
        }
        let of = |kind: &str| Rules { kinds: vec![kind.to_owned()], ..Rules::default() };
        assert!(!of("event").may_overlap(&of("command")));
    }

    #[test]
    fn rules_take_nothing_when_what_is_excluded_covers_what_is_taken() {
        for (rules, takes_nothing) in [
            (types(&["order.created"], &["order.*"]), true),
            (types(&[], &["*"]), true),
            (types(&["order.*"], &["order.created"]), false),
            (types(&["a", "b"], &["a"]), false),
            (types(&[], &[]), false),
        ] {
            assert_eq!(rules.takes_nothing(), takes_nothing, "{rules:?}");
        }
    }

    #[test]
    fn condition_is_quoted_and_never_null() {
        let rules = Rules {
            kinds: vec!["it's".to_owned()],
            aggregates: vec!["order".to_owned()],
            ..types(&["a.*", "b"], &["a.x"])
        };
        assert_eq!(
            Filter::Rules(rules.clone()).sql("r"),
            "(pg_catalog.starts_with(r.event_type, 'a.') OR r.event_type = 'b') AND NOT \
             (r.event_type = 'a.x') AND coalesce(r.kind IN ('it''s'), false) AND \
             coalesce(r.aggregate_type IN ('order'), false)"
        );
        let none = Filter::NoneOf(vec![rules, Rules::default()]);
        assert!(none.sql("r").ends_with("false)) AND NOT (true)"), "{}", none.sql("r"));
        let json = none.json().unwrap();
        assert_eq!(json["none_of"][0]["types"], json!(["a.*", "b"]));
        assert_eq!(json["none_of"][1], json!({}));
        assert_eq!(Filter::default().json(), None);
    }
}
