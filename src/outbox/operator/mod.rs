//! Reads and changes letters for an operator, whether or not the relay runs.

mod act;
mod json;
mod read;
mod redriven;

use std::time::SystemTime;

use serde::Serialize;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    event::AggregateKey,
    outbox::with_columns,
    pg::{connect::Connection, error::QueryError, schema::Schema},
};

pub use act::{Acted, Action, Attribution, Edit, Erased, LetterFate, NewPayload};
pub use read::{AuditRow, LetterDetail, PayloadPart};
pub use redriven::Redriven;

/// Session settings of an operator. Custom plans drop filters that are not set. Joins go row by
/// row, so that the chosen letters and not the whole table are read. Right after a flood of letters
/// statistics are missing, and the planner would sort a million rows. So sorting is off, and an
/// index gives the order.
pub const OPERATOR_SETTINGS: [(&str, &str); 7] = [
    ("enable_seqscan", "off"),
    ("enable_sort", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
    ("plan_cache_mode", "force_custom_plan"),
    // The wait for a lock ends before the deadline of the statement, so that the error names the
    // lock.
    ("lock_timeout", "4s"),
];

/// Session settings for letters that are chosen by id. They are few, so they may be sorted.
pub const OPERATOR_SETTINGS_FOR_IDS: [(&str, &str); 7] = {
    let mut settings = OPERATOR_SETTINGS;
    settings[1] = ("enable_sort", "on");
    settings
};

/// Highest number of letters that is counted exactly. Above it, commands print "at least" this
/// number.
const COUNT_MAX: i64 = 100_000;

/// The letters of one relay, accessed through a separate session.
pub struct Operator {
    connection: Connection,
    schema: Schema,
    relay: String,
}

/// The reason for which an unresolved letter waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LetterState {
    /// The letter waits for an operator.
    #[default]
    Dead,
    /// The letter waits for an earlier one of its key.
    Held,
    /// The letter waits for the time of its next attempt.
    Retrying,
}

impl LetterState {
    /// Spelling of the state in the column `state`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Held => "held",
            Self::Retrying => "retrying",
        }
    }
}

/// Conditions that select letters. A letter must meet every condition that is set.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Event type.
    pub event_type: Option<String>,
    /// Key of the event.
    pub key: Option<AggregateKey>,
    /// Error code.
    pub error_code: Option<String>,
    /// Fingerprint: the error code and a hash of the error's text without its numbers and quoted
    /// parts.
    pub fingerprint: Option<String>,
    /// Earliest time of death, inclusive; for other letters, of their first failure.
    pub since: Option<SystemTime>,
    /// Latest time of death, inclusive.
    pub until: Option<SystemTime>,
    /// Ids of the letters.
    pub ids: Option<Vec<i64>>,
    /// State.
    pub state: LetterState,
    /// Whether to include letters that can never be published without an edit.
    pub hopeless: bool,
}

/// A letter in a list, without its payload. It is serialised as `--json` prints it.
#[derive(Debug, Clone, Serialize)]
pub struct Letter {
    /// Id of the letter.
    pub id: i64,
    /// Relay that owns the letter.
    pub relay: String,
    /// `dead`, `held` or `retrying`; for a resolved letter its last state.
    pub state: String,
    /// Time of death, as ISO 8601.
    pub dead_at: Option<String>,
    /// Time at which the event left the fast path, as ISO 8601.
    pub first_failed_at: String,
    /// Mark: time at which the relay loads the letters of the key, as ISO 8601.
    pub next_attempt_at: Option<String>,
    /// The reason as a word.
    pub error_code: String,
    /// The reason as a sentence.
    pub error: String,
    /// Error code and hash of the error's text, equal for similar failures.
    pub fingerprint: String,
    /// Number of attempts to publish the letter's event; a redrive sets it to 0.
    pub attempts: i32,
    /// Whether later events of the letter's key wait for this letter.
    pub holds: bool,
    /// Place of the event's row in the outbox.
    pub seq: i64,
    /// The event's id.
    pub event_id: Uuid,
    /// The event's type.
    pub event_type: String,
    /// Key of the event, serialised as `aggregate_type` and `aggregate_id`.
    #[serde(flatten, serialize_with = "json::key_parts")]
    pub key: Option<AggregateKey>,
    /// Size of the payload in bytes.
    pub payload_bytes: i64,
}

impl Letter {
    pub(super) fn read(row: &Row) -> Result<Self, QueryError> {
        let aggregate_type: Option<&str> = row.try_get("aggregate_type")?;
        let aggregate_id: Option<&str> = row.try_get("aggregate_id")?;
        let key = aggregate_type.zip(aggregate_id);
        Ok(Self {
            id: row.try_get("id")?,
            relay: row.try_get("relay")?,
            state: row.try_get("state")?,
            dead_at: row.try_get("dead_at")?,
            first_failed_at: row.try_get("first_failed_at")?,
            next_attempt_at: row.try_get("next_attempt_at")?,
            error_code: row.try_get("error_code")?,
            error: row.try_get("error")?,
            fingerprint: row.try_get("fingerprint")?,
            attempts: row.try_get("attempts")?,
            holds: row.try_get("holds")?,
            seq: row.try_get("seq")?,
            event_id: row.try_get("event_id")?,
            event_type: row.try_get("event_type")?,
            key: key.map(|(kind, id)| AggregateKey::new(kind, id)),
            payload_bytes: row.try_get("payload_size")?,
        })
    }
}

impl Operator {
    /// Reads and changes a relay's letters through this session.
    pub fn new(connection: Connection, schema: Schema, relay: String) -> Self {
        Self { connection, schema, relay }
    }

    /// The relay whose letters these are.
    pub fn relay(&self) -> &str {
        &self.relay
    }

    async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, QueryError> {
        let sql = self.schema.apply(&with_columns(sql));
        self.connection.query(&sql, parameters).await
    }
}

/// The conditions of a choice as the parameters `$2` to `$6` of the statements.
fn narrowing(choice: &Choice) -> [Option<&str>; 5] {
    let key = choice.key.as_ref();
    [
        choice.event_type.as_deref(),
        key.map(AggregateKey::aggregate_type),
        key.map(AggregateKey::aggregate_id),
        choice.error_code.as_deref(),
        choice.fingerprint.as_deref(),
    ]
}

#[cfg(test)]
impl Letter {
    /// A dead letter for tests.
    pub(crate) fn sample() -> Self {
        Self {
            id: 7,
            relay: "default".to_owned(),
            state: "dead".to_owned(),
            dead_at: Some("2026-11-27T10:00:01Z".to_owned()),
            first_failed_at: "2026-11-27T10:00:00Z".to_owned(),
            next_attempt_at: None,
            error_code: "subject_full".to_owned(),
            error: "the subject is full".to_owned(),
            fingerprint: "subject_full/a".to_owned(),
            attempts: 3,
            holds: true,
            seq: 41,
            event_id: Uuid::nil(),
            event_type: "order.placed".to_owned(),
            key: Some(AggregateKey::new("order", "o/1")),
            payload_bytes: 12,
        }
    }
}

#[cfg(test)]
mod tests {
    /// The parameters of a choice in statements, and the fields that replace them in SQL functions.
    const FIELDS: [(&str, &str); 10] = [
        ("$1::text", "relay"),
        ("$2::text", "event_type"),
        ("$3::text", "aggregate_type"),
        ("$4::text", "aggregate_id"),
        ("$5::text", "error_code"),
        ("$6::text", "fingerprint"),
        ("$7::timestamptz", "since"),
        ("$8::timestamptz", "until"),
        ("$9::bigint[]", "ids"),
        ("$10::text", "state"),
    ];

    /// Counting, listing, redriving and discarding must select the same letters.
    #[test]
    fn every_statement_about_a_choice_chooses_alike() {
        let condition = |statement: &'static str| {
            let (_, rest) = statement.split_once("WHERE (l.relay = ").expect("a choice");
            let words = rest.lines().map(str::trim).filter(|line| !line.starts_with("--"));
            let text = words.collect::<Vec<_>>().join(" ");
            let text = FIELDS.iter().fold(text, |text, (parameter, field)| {
                text.replace(parameter, &format!("wanted.{field}"))
            });
            let (text, _) = text.split_once(" OR l.id = ANY (wanted.ids))").expect("its end");
            text.replace("wanted.state", "'dead'")
        };
        let count = condition(include_str!("../sql/count_chosen_letters.sql"));
        assert!(count.contains("(l.state = 'dead') IS TRUE"), "{count}");
        assert!(count.contains("l.dead_at <= wanted.until"), "{count}");
        assert_eq!(count, condition(include_str!("../sql/list_chosen_letters.sql")));
        let redrive = include_str!("../../../migrations/functions/operator_redrive.sql");
        assert_eq!(count, condition(redrive));
        let discard = include_str!("../../../migrations/functions/operator_discard.sql");
        assert_eq!(count, condition(discard));
    }
}
