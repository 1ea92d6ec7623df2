//! Lists the relays that have a position, and removes relays that no instance leads.

use tokio_postgres::Row;

use super::{Inspection, Rival, Upkeep, depth::COUNT_MAX, lease::rival};
use crate::pg::error::QueryError;

/// A relay that has a position.
#[derive(Debug, Clone, PartialEq)]
pub struct RelayRow {
    /// Name of the relay.
    pub relay: String,
    /// Whether an instance leads the relay now.
    pub is_led: bool,
    /// Host and process of the last leader.
    pub holder: String,
    /// Seconds since the relay last wrote to the database.
    pub idle_seconds: f64,
    /// Upper bound for the number of events that the relay has still to decide.
    pub behind_at_most: i64,
    /// Number of unresolved letters, exact up to 10,000.
    pub letters: i64,
    /// The stream that the relay published to last.
    pub stream: Option<String>,
}

/// Result of a request to give a relay up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenUp {
    /// The relay is removed, and this number of letters was discarded.
    Gone(i64),
    /// No relay has this name.
    Unknown,
    /// An instance leads the relay.
    Led,
    /// The relay has this number of unresolved letters.
    HasLetters(i64),
}

impl RelayRow {
    /// Whether this relay is not among `ours`, has no leader, has events left, and has written
    /// nothing for longer than the retention.
    pub fn is_abandoned(&self, ours: &[String], retention_seconds: f64) -> bool {
        self.is_left(ours) && self.idle_seconds > retention_seconds
    }

    /// Whether this relay is not among `ours`, has no leader, and has letters.
    pub fn has_stranded_letters(&self, ours: &[String]) -> bool {
        !ours.contains(&self.relay) && !self.is_led && self.letters > 0
    }

    /// Whether this relay is not among `ours`, has no leader, and has events left.
    pub fn is_left(&self, ours: &[String]) -> bool {
        !ours.contains(&self.relay) && !self.is_led && self.behind_at_most > 0
    }

    fn read(row: &Row) -> Result<Self, QueryError> {
        Ok(Self {
            relay: row.try_get("relay")?,
            is_led: row.try_get("is_led")?,
            holder: row.try_get("holder")?,
            idle_seconds: row.try_get("idle_seconds")?,
            behind_at_most: row.try_get("behind_at_most")?,
            letters: row.try_get("letters")?,
            stream: row.try_get("stream_name")?,
        })
    }
}

const RELAYS: &str = include_str!("sql/list_relays.sql");

impl Inspection {
    /// A relay of the same route that is led with another number of shards; `None` when there is
    /// none.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn rival(&self, route: (&str, i32)) -> Result<Option<Rival>, QueryError> {
        rival(self.connection(), self.schema(), route).await
    }

    /// All relays that have a position, by name; at most 1,000.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn relays(&self) -> Result<Vec<RelayRow>, QueryError> {
        self.query(RELAYS, &[&COUNT_MAX]).await?.iter().map(RelayRow::read).collect()
    }

    /// Removes the position of a relay that no instance leads. `letters` says what happens to its
    /// unresolved letters.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn forget_relay(
        &self,
        relay: &str,
        (actor, reason): (&str, Option<&str>),
        letters: LetterDisposal,
    ) -> Result<GivenUp, QueryError> {
        let discard = letters == LetterDisposal::Discard;
        let sql = include_str!("sql/forget_relay.sql");
        let rows = self.query(sql, &[&relay, &actor, &reason, &discard]).await?;
        let Some(row) = rows.first() else { return Ok(GivenUp::Unknown) };
        let letters = row.try_get("letters")?;
        Ok(match row.try_get("outcome")? {
            "forgotten" => GivenUp::Gone(letters),
            "led" => GivenUp::Led,
            "letters" => GivenUp::HasLetters(letters),
            _ => GivenUp::Unknown,
        })
    }
}

/// Treatment of the unresolved letters of a relay that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterDisposal {
    /// Unresolved letters prevent the removal.
    Keep,
    /// Unresolved letters are discarded, with an audit row each.
    Discard,
}

impl Upkeep {
    /// All relays that have a position, by name; at most 1,000.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn relays(&self) -> Result<Vec<RelayRow>, QueryError> {
        self.run(RELAYS, &[&COUNT_MAX]).await?.iter().map(RelayRow::read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_runs_and_is_behind_for_longer_than_the_retention_is_abandoned() {
        let row = RelayRow {
            relay: "old".to_owned(),
            is_led: false,
            holder: "pid 1".to_owned(),
            idle_seconds: 100.0,
            behind_at_most: 1,
            letters: 0,
            stream: None,
        };
        assert!(row.is_abandoned(&["default".to_owned()], 99.0));
        assert!(!row.is_abandoned(&["default".to_owned()], 101.0));
        assert!(!row.is_abandoned(&["old".to_owned()], 99.0));
        assert!(
            !RelayRow { is_led: true, ..row.clone() }.is_abandoned(&["default".to_owned()], 99.0)
        );
        assert!(!RelayRow { behind_at_most: 0, ..row }.is_abandoned(&["default".to_owned()], 99.0));
    }
}
