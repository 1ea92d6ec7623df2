//! The relays that have a position, and giving one up that nobody runs.

use tokio_postgres::Row;

use super::{Inspection, Rival, Upkeep, depth::COUNT_MAX, lease::rival};
use crate::pg::error::QueryError;

/// One relay that has a position.
#[derive(Debug, Clone, PartialEq)]
pub struct RelayRow {
    /// Its name.
    pub relay: String,
    /// Whether an instance runs it now.
    pub is_led: bool,
    /// Who ran it last, by their own account.
    pub holder: String,
    /// For how long it has written nothing, in seconds.
    pub idle_seconds: f64,
    /// How many events it is behind; an upper bound.
    pub behind_at_most: i64,
    /// Its unresolved letters; exact up to 10,000.
    pub letters: i64,
    /// The stream that it published to last.
    pub stream: Option<String>,
}

/// What became of the wish to give a relay up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenUp {
    /// It is gone, and so many letters were discarded.
    Gone(i64),
    /// There is no such relay.
    Unknown,
    /// An instance runs it.
    Led,
    /// So many letters are unresolved.
    HasLetters(i64),
}

impl RelayRow {
    /// Whether nobody runs it, none of ours, while it keeps rows in the outbox, for longer than these stay anyway.
    pub fn is_abandoned(&self, ours: &[String], retention_seconds: f64) -> bool {
        self.is_left(ours) && self.idle_seconds > retention_seconds
    }

    /// Whether it is another one that nobody runs, and that has letters.
    pub fn has_stranded_letters(&self, ours: &[String]) -> bool {
        !ours.contains(&self.relay) && !self.is_led && self.letters > 0
    }

    /// Whether it is another one that nobody runs, and that is behind.
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
    /// A relay of the same route that is led with another number of shards, if there is one.
    ///
    /// # Errors
    /// As the session's.
    pub async fn rival(&self, route: (&str, u32)) -> Result<Option<Rival>, QueryError> {
        rival(self.connection(), self.schema(), route).await
    }

    /// Every relay that has a position, by name; 1,000 at most.
    ///
    /// # Errors
    /// As the session's.
    pub async fn relays(&self) -> Result<Vec<RelayRow>, QueryError> {
        self.query(RELAYS, &[&COUNT_MAX]).await?.iter().map(RelayRow::read).collect()
    }

    /// Gives up the position of a relay that nobody runs, with its letters when that is wanted.
    ///
    /// # Errors
    /// As the session's.
    pub async fn forget_relay(
        &self,
        relay: &str,
        (actor, reason): (&str, Option<&str>),
        letters: Letters,
    ) -> Result<GivenUp, QueryError> {
        let discard = letters == Letters::Discard;
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

/// What becomes of the unresolved letters of a relay that is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    /// They stand against it.
    Keep,
    /// They are discarded, with a row of the audit each.
    Discard,
}

impl Upkeep {
    /// Every relay that has a position, by name; 1,000 at most.
    ///
    /// # Errors
    /// As the session's.
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
