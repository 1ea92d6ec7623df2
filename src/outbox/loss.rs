//! Losses beyond what the outbox retains: events that were published and that no healing can
//! restore.

use tokio_postgres::Row;

use super::Inspection;
use crate::pg::error::QueryError;

/// Losses of one relay that nobody has acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// How many times the stream has lost something for good.
    pub losses: u64,
    /// Events that are gone, at most.
    pub events: u64,
    /// When the first was noticed, as ISO 8601.
    pub noticed_at: Option<String>,
}

impl Losses {
    pub(super) fn read(row: &Row) -> Result<Self, QueryError> {
        let number = |name| row.try_get::<_, i64>(name).map(|n| u64::try_from(n).unwrap_or(0));
        Ok(Self {
            losses: number("losses")?,
            events: number("events")?,
            noticed_at: row.try_get("noticed_at")?,
        })
    }

    /// What a person reads about them; `None` when there are none.
    pub fn text(&self) -> Option<String> {
        let since = self.noticed_at.as_deref().unwrap_or("an unknown time");
        (self.losses > 0).then(|| {
            format!(
                "at most {} published events are gone from the stream and from the outbox (noticed at \
                 {since}); restore them from a backup or accept it, then: postrider audit \
                 --acknowledge-loss --reason …",
                self.events
            )
        })
    }
}

impl Inspection {
    /// Losses of a relay that nobody has acknowledged.
    ///
    /// # Errors
    /// As the session's.
    pub async fn losses(&self, relay: &str) -> Result<Losses, QueryError> {
        let rows = self.query(include_str!("sql/count_losses.sql"), &[&relay]).await?;
        rows.first().map(Losses::read).transpose().map(Option::unwrap_or_default)
    }

    /// Notes that a person has seen the losses of a relay. Returns how many there were.
    ///
    /// # Errors
    /// As the session's.
    pub async fn acknowledge_loss(
        &self,
        relay: &str,
        actor: &str,
        reason: &str,
    ) -> Result<u64, QueryError> {
        let sql = include_str!("sql/acknowledge_loss.sql");
        let rows = self.query(sql, &[&relay, &actor, &reason]).await?;
        let losses = rows.first().map(|row| row.try_get::<_, i64>("losses")).transpose()?;
        Ok(losses.and_then(|losses| u64::try_from(losses).ok()).unwrap_or_default())
    }
}
