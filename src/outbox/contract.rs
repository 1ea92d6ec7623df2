//! Detects and repairs violations of the conditions that the relay's reading of the outbox relies
//! on.

use tokio_postgres::Row;

use super::{Inspection, Outbox, Repair};
use crate::pg::{error::QueryError, session::Parameters};

/// Remedy for a broken condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The relay repairs the condition and reads again the rows that it may have passed over.
    Repair,
    /// The relay repairs the condition; no row was passed over.
    Restore,
    /// No event is lost and events flow, but an operator should act.
    Warn,
    /// The relay does not run until an operator has acted.
    Refuse,
}

/// A broken condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Name of the condition, for logs.
    pub code: String,
    /// Reaction of the relay to the broken condition.
    pub remedy: Remedy,
    /// Text that says how the tables differ from what the condition requires.
    pub problem: String,
    /// Text that tells an operator how to repair the condition by hand.
    pub fix: String,
}

impl Broken {
    /// Code of the broken condition that the outbox has rows of another Postgres cluster, which the
    /// relay cannot read.
    pub const FOREIGN_ROWS: &str = "foreign_rows";

    fn read(row: &Row) -> Result<Self, QueryError> {
        Ok(Self {
            code: row.try_get("code")?,
            remedy: match row.try_get("remedy")? {
                "repair" => Remedy::Repair,
                "wake" => Remedy::Restore,
                "warn" => Remedy::Warn,
                _ => Remedy::Refuse,
            },
            problem: row.try_get("problem")?,
            fix: row.try_get("fix")?,
        })
    }
}

/// Result of a repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// Number of rows that got a new `seq`, because another row or letter had the same one.
    /// Includes rows renumbered to keep their order.
    pub renumbered: i64,
    /// The relays that were put back to their last position at which every condition held.
    pub put_back: Vec<String>,
    /// The relays that may have passed rows over: they have no such position, or one too far back.
    pub uncertain: Vec<String>,
}

impl Outbox {
    /// The broken conditions. Unless one has the remedy `Repair` or `Refuse`, the position is
    /// recorded as sound: a later repair goes back to it.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn verify_contract(&self) -> Result<Vec<Broken>, QueryError> {
        let sql = self.schema.apply(include_str!("sql/verify_conditions.sql"));
        let rows = self.connection.query(&sql, &[&self.relay]).await?;
        rows.iter().map(Broken::read).collect()
    }

    /// Repairs the triggers that wake a sleeping relay, unless another session is using the tables.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn restore_wake(&self) -> Result<(), QueryError> {
        let sql = self.schema.apply(include_str!("sql/repair_contract.sql"));
        self.connection.query(&sql, &[]).await.map(drop)
    }
}

impl Repair {
    /// Repairs the sequence and the triggers, and puts each position back to the last one that was
    /// recorded as sound. Every term increases, so the caller must acquire the lease again.
    ///
    /// # Errors
    /// The errors of the session; class `Transient` while open transactions keep the sequence from
    /// being altered. The duration grows with the number of rows that get a new `seq`.
    pub async fn repair_contract(&self) -> Result<Repaired, QueryError> {
        let row = self.one(include_str!("sql/repair_contract.sql"), &[]).await?;
        Ok(Repaired {
            renumbered: row.try_get("renumbered")?,
            put_back: row.try_get("put_back")?,
            uncertain: row.try_get("uncertain")?,
        })
    }

    /// Gives rows from another cluster transaction numbers of this one, so that the relay reads
    /// them. Returns the number of rows.
    ///
    /// # Errors
    /// The errors of the session. The duration grows with the number of these rows.
    pub async fn adopt_rows(&self) -> Result<i64, QueryError> {
        let row = self.one(include_str!("sql/adopt_rows.sql"), &[]).await?;
        Ok(row.try_get("adopted")?)
    }

    async fn one(&self, sql: &str, parameters: &Parameters<'_>) -> Result<Row, QueryError> {
        let sql = self.schema.apply(sql);
        let rows = self.connection.query_without_deadline(&sql, parameters).await?;
        rows.into_iter().next().ok_or(QueryError::NoRow)
    }
}

impl Inspection {
    /// The broken conditions. Unless one has the remedy `Repair` or `Refuse`, the position is
    /// recorded as sound.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn verify_contract(&self, relay: &str) -> Result<Vec<Broken>, QueryError> {
        let rows = self.query(include_str!("sql/verify_conditions.sql"), &[&relay]).await?;
        rows.iter().map(Broken::read).collect()
    }

    /// Repairs the triggers that wake a sleeping relay, unless another session is using the tables.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn restore_wake(&self) -> Result<(), QueryError> {
        self.query(include_str!("sql/repair_contract.sql"), &[]).await.map(drop)
    }

    /// The broken conditions of a relay.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn broken_contract(&self, relay: &str) -> Result<Vec<Broken>, QueryError> {
        let rows = self.query(include_str!("sql/find_broken_conditions.sql"), &[&relay]).await?;
        rows.iter().map(Broken::read).collect()
    }
}
