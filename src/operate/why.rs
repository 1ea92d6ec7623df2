//! Finds out why the events of one key wait, and the next step.

use serde::Serialize;

use super::{DatabaseError, contract, inspect, leadership::Leadership};
use crate::{
    config::Config,
    event::AggregateKey,
    findings::{self, Finding},
    outbox::{SESSION_SETTINGS, WaitingKey},
};

pub use crate::outbox::WaitingLetter;

/// Age in seconds, inclusive, from which a pending row needs an explanation. A younger one is about
/// to be taken by a running relay.
const SOON_SECONDS: f64 = 10.0;

/// The reasons why events of one key wait, and the next step.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
pub struct KeyStatus {
    /// The relay's name.
    pub relay: String,
    /// The type of the aggregate.
    pub aggregate_type: String,
    /// The id of the aggregate.
    pub aggregate_id: String,
    /// Whether an event of the key waits.
    pub waits: bool,
    /// The unresolved letter that the other events of the key wait for.
    pub letter: Option<WaitingLetter>,
    /// Number of rows of the key in the outbox that are not settled.
    pub pending: i64,
    /// Age in seconds of the unsettled row of the key with the lowest `seq`.
    pub oldest_age_seconds: Option<f64>,
    /// Whether all rows of the key were counted.
    pub pending_is_exact: bool,
    /// Reason why the relay publishes no event of any key; `None` when nothing hinders it.
    pub blocked: Option<String>,
    /// Change that a person should make before the letter for which the others wait is tried again.
    pub first: Option<&'static str>,
    /// The next command; `None` when there is nothing to do.
    pub next: Option<String>,
    /// The key that the aggregate's type and id are parts of.
    #[serde(skip)]
    pub key: AggregateKey,
    /// Whether the pending rows have just come, so that a running relay is about to take them.
    #[serde(skip)]
    pub is_soon: bool,
}

/// Finds the reasons why the events of a key of the configured relay wait.
///
/// # Errors
/// The errors of the session.
pub async fn why(config: &Config, key: &AggregateKey) -> Result<KeyStatus, DatabaseError> {
    let inspection = inspect(config, "why", &SESSION_SETTINGS).await?;
    let relay = config.relay.name.as_str();
    let waiting = inspection.waiting(relay, key).await?;
    let leadership = Leadership::ask(&inspection, relay).await?;
    let obstacle = findings::of(&leadership.facts()).into_iter().find(findings::is_obstacle);
    let obstacle = match obstacle {
        Some(obstacle) => Some(obstacle),
        None => contract::broken(&inspection, relay).await?.into_iter().next(),
    };
    let is_run = leadership.is_run();
    Ok(KeyAnswers { waiting: &waiting, is_run, obstacle }.status(leadership.relay, key))
}

/// The answers of the database.
struct KeyAnswers<'a> {
    waiting: &'a WaitingKey,
    /// Whether an instance of the relay runs.
    is_run: bool,
    /// The finding that keeps the relay from publishing any event.
    obstacle: Option<Finding>,
}

impl KeyAnswers<'_> {
    fn status(&self, relay: String, key: &AggregateKey) -> KeyStatus {
        let WaitingKey { letter, pending, oldest_age_seconds, is_more } = self.waiting;
        let is_held = letter.as_ref().is_some_and(|head| head.letter.holds);
        KeyStatus {
            relay,
            aggregate_type: key.aggregate_type().to_owned(),
            aggregate_id: key.aggregate_id().to_owned(),
            waits: is_held || *pending > 0,
            letter: letter.clone(),
            pending: *pending,
            oldest_age_seconds: *oldest_age_seconds,
            pending_is_exact: !is_more,
            blocked: self.blocked(),
            first: self.remedy(),
            next: self.next(),
            key: key.clone(),
            is_soon: self.is_soon(),
        }
    }

    fn blocked(&self) -> Option<String> {
        if !self.is_run {
            return Some("no relay runs".to_owned());
        }
        let Finding { code, cause, .. } = self.obstacle.as_ref()?;
        Some(format!("{}: {cause}", code.as_str()))
    }

    fn next(&self) -> Option<String> {
        match &self.waiting.letter {
            Some(head) if head.letter.state == "dead" && head.is_hopeless => {
                // A letter of this kind fails at each attempt in the same way, until it is edited.
                Some(format!("postrider dlq edit {}", head.letter.id))
            }
            Some(head) if head.letter.state == "dead" => {
                Some(format!("postrider dlq redrive {}", head.letter.id))
            }
            None if self.waiting.pending == 0 => None,
            _ if !self.is_run => Some("postrider run".to_owned()),
            _ => match &self.obstacle {
                Some(obstacle) => Some(obstacle.next.clone()),
                None if self.waiting.letter.is_none() && !self.is_soon() => {
                    Some("postrider status".to_owned())
                }
                None => None,
            },
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        let head = self.waiting.letter.as_ref().filter(|head| !head.is_hopeless)?;
        // The person who redrove the letter may have removed the cause already.
        if head.letter.state != "dead" && head.letter.attempts == 0 {
            return None;
        }
        findings::remedy(&head.letter.error_code)
    }

    fn is_soon(&self) -> bool {
        self.waiting.oldest_age_seconds.is_none_or(|age| age < SOON_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::outbox::operator::Letter;

    #[test]
    fn the_letter_in_front_is_serialised_with_the_keys_of_a_list_and_its_own() {
        let head = WaitingLetter {
            letter: Letter::sample(),
            last_failed_at: "2026-11-27T10:00:01Z".to_owned(),
            next_attempt_in_seconds: None,
            is_hopeless: false,
            behind: 2,
        };
        let waiting =
            WaitingKey { letter: Some(head), pending: 0, oldest_age_seconds: None, is_more: false };
        let answers = KeyAnswers { waiting: &waiting, is_run: false, obstacle: None };
        let status = answers.status("default".to_owned(), &AggregateKey::new("order", "o/1"));
        let expected = json!({
            "relay": "default",
            "aggregate_type": "order",
            "aggregate_id": "o/1",
            "waits": true,
            "letter": {
                "id": 7,
                "relay": "default",
                "state": "dead",
                "dead_at": "2026-11-27T10:00:01Z",
                "first_failed_at": "2026-11-27T10:00:00Z",
                "next_attempt_at": null,
                "error_code": "subject_full",
                "error": "the subject is full",
                "fingerprint": "subject_full/a",
                "attempts": 3,
                "holds": true,
                "seq": 41,
                "event_id": "00000000-0000-0000-0000-000000000000",
                "event_type": "order.placed",
                "aggregate_type": "order",
                "aggregate_id": "o/1",
                "payload_bytes": 12,
                "last_failed_at": "2026-11-27T10:00:01Z",
                "next_attempt_in_seconds": null,
                "behind": 2,
            },
            "pending": 0,
            "oldest_age_seconds": null,
            "pending_is_exact": true,
            "blocked": "no relay runs",
            "first": "purge the subject, or raise max_msgs_per_subject of the stream",
            "next": "postrider dlq redrive 7",
        });
        assert_eq!(serde_json::to_value(status).unwrap(), expected);
    }
}
