//! Reads and acknowledges losses: published events that no healing can restore from the outbox.

use tokio_postgres::Row;

use super::Inspection;
use crate::pg::error::QueryError;

/// Losses of one relay that no operator has acknowledged.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// Number of incidents in which the stream lost events that the outbox no longer has.
    pub losses: u64,
    /// Upper bound for the number of lost events.
    pub events: u64,
    /// Time at which the first of these losses was noticed, as ISO 8601.
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

    /// Description for a person; `None` without losses.
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
    /// The losses of a relay that no operator has acknowledged.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn losses(&self, relay: &str) -> Result<Losses, QueryError> {
        let rows = self.query(include_str!("sql/count_losses.sql"), &[&relay]).await?;
        rows.first().map(Losses::read).transpose().map(Option::unwrap_or_default)
    }

    /// Records that an operator has acknowledged the losses of a relay. Returns the number of
    /// incidents.
    ///
    /// # Errors
    /// The errors of the session.
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
