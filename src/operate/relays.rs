//! Lists the relays that have a position in this outbox, and removes one that nobody runs.

use std::borrow::Cow;

use serde::Serialize;

use super::{DatabaseError, inspect, leadership::RelayState};
use crate::{
    config::Config,
    outbox::{GivenUp, RelayRow, SESSION_SETTINGS},
    pg::error::QueryError,
};

pub use crate::outbox::LetterDisposal;

const PURPOSE: &str = "relay";

/// Relays that have a position.
#[derive(Debug, Serialize)]
pub struct RelayList {
    /// The relays, by name; at most 1,000.
    pub relays: Vec<ListedRelay>,
}

/// A relay in the list.
#[derive(Debug, Serialize)]
pub struct ListedRelay {
    /// Name of the relay.
    pub relay: String,
    /// State of the relay: running, not running, or abandoned.
    pub state: RelayState,
    /// Host and process of the last leader.
    pub holder: String,
    /// Seconds since the relay last wrote to the database.
    pub idle_seconds: f64,
    /// Upper bound of the events that the relay has still to decide.
    pub behind_at_most: i64,
    /// Number of unresolved letters of the relay; exact up to 10,000.
    pub letters: i64,
    /// The stream that the relay published to last.
    pub stream: Option<String>,
}

/// Result of removing the position of a relay.
#[derive(Debug, Serialize)]
pub struct ForgottenRelay {
    /// Name of the relay.
    pub relay: String,
    /// Number of its letters that were discarded.
    pub letters_discarded: i64,
}

/// Reason why a relay's position was not removed.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// Postgres did not answer, or refused the session or a statement.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// No relay has that name.
    #[error("there is no relay {0}")]
    Unknown(String),
    /// An instance runs the relay.
    #[error("an instance runs relay {0}")]
    Led(String),
    /// The relay has letters, and their discard was not requested.
    #[error("relay {relay} has {letters} unresolved letters")]
    HasLetters {
        /// Name of the relay.
        relay: String,
        /// Number of unresolved letters of the relay.
        letters: i64,
    },
}

impl From<QueryError> for ForgetError {
    fn from(error: QueryError) -> Self {
        Self::Database(error.into())
    }
}

impl ForgetError {
    /// Next step for a person; `None` when the error's text says it, or when the error may pass by
    /// itself.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(match self {
            Self::Database(error) => return error.hint(),
            Self::Unknown(_) => "postrider relay list",
            Self::Led(_) => "stop it first; postrider relay list shows when nobody runs it",
            Self::HasLetters { .. } => {
                "list them with postrider dlq list --route NAME; then redrive them and run the \
                 relay once, or say --discard-letters"
            }
        }))
    }
}

/// Lists the relays that have a position, abandoned ones too.
///
/// # Errors
/// The errors of the session.
pub async fn list(config: &Config) -> Result<RelayList, DatabaseError> {
    let rows = inspect(config, PURPOSE, &SESSION_SETTINGS).await?.relays().await?;
    let retention_seconds = config.relay.retention.0.as_secs_f64();
    let listed = |row: RelayRow| ListedRelay {
        state: if row.is_led {
            RelayState::Running
        } else if row.is_abandoned(&config.relay.siblings, retention_seconds) {
            RelayState::Abandoned
        } else {
            RelayState::NotRunning
        },
        relay: row.relay,
        holder: row.holder,
        idle_seconds: row.idle_seconds,
        behind_at_most: row.behind_at_most,
        letters: row.letters,
        stream: row.stream,
    };
    Ok(RelayList { relays: rows.into_iter().map(listed).collect() })
}

/// Removes the position of a relay that nobody runs. A relay that is later run under this name
/// begins with a new position.
///
/// # Errors
/// The errors of the session, and those of a relay that is led, has letters, or is not there.
pub async fn forget(
    config: &Config,
    relay: &str,
    (actor, reason): (&str, Option<&str>),
    letters: LetterDisposal,
) -> Result<ForgottenRelay, ForgetError> {
    let inspection = inspect(config, PURPOSE, &SESSION_SETTINGS).await?;
    let given_up = inspection.forget_relay(relay, (actor, reason), letters).await?;
    let relay = relay.to_owned();
    match given_up {
        GivenUp::Gone(letters_discarded) => Ok(ForgottenRelay { relay, letters_discarded }),
        GivenUp::Unknown => Err(ForgetError::Unknown(relay)),
        GivenUp::Led => Err(ForgetError::Led(relay)),
        GivenUp::HasLetters(letters) => Err(ForgetError::HasLetters { relay, letters }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_of_relays_is_serialised_under_the_names_that_programs_know() {
        let list = RelayList {
            relays: vec![ListedRelay {
                relay: "old".to_owned(),
                state: RelayState::NotRunning,
                holder: "host pid 7".to_owned(),
                idle_seconds: 1.5,
                behind_at_most: 3,
                letters: 2,
                stream: None,
            }],
        };
        let expected = json!({ "relays": [{
            "relay": "old",
            "state": "not_running",
            "holder": "host pid 7",
            "idle_seconds": 1.5,
            "behind_at_most": 3,
            "letters": 2,
            "stream": null,
        }] });
        assert_eq!(serde_json::to_value(list).unwrap(), expected);
    }
}
