//! Repairs whose duration grows with the rows: healing a stream, accepting a restored database.
//!
//! Each repair has a separate session, so that no other statement of the relay waits behind it.

use tokio_postgres::Row;

use super::Authority;
use crate::pg::{
    error::QueryError,
    schema::Schema,
    session::{Connection, Parameters},
};

/// Session settings for repairs, which have no deadline. A repair that a crash of the server loses
/// is done again, so no repair waits for the disk.
pub const REPAIR_SETTINGS: [(&str, &str); 3] =
    [("statement_timeout", "0"), ("jit", "off"), ("synchronous_commit", "off")];

/// Condition under which a stream is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealWhen {
    /// The relay heals at once, without a request of an operator.
    AtOnce,
    /// The relay heals only when an operator has requested it.
    Asked,
}

/// Result of a healing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Healed {
    /// Number of letters that the relay tries again.
    pub letters: i64,
    /// Upper bound for the published events that are lost for good, because the outbox no longer
    /// has them.
    pub lost: i64,
}

/// A session that repairs one relay's position.
pub struct Repair {
    pub(super) connection: Connection,
    pub(super) schema: Schema,
    pub(super) relay: String,
}

impl Repair {
    /// Repairs through this session, which must have the settings of [`REPAIR_SETTINGS`].
    pub fn new(connection: Connection, schema: Schema, relay: String) -> Self {
        Self { connection, schema, relay }
    }

    /// Accepts a stream by its creation time and last sequence. With [`HealWhen::AtOnce`] the
    /// position goes back to a checkpoint at which the stream had lost nothing. With
    /// [`HealWhen::Asked`] an operator must have requested it, after making letters of the missing
    /// events. `None` when nothing was done. A new holding must begin afterwards.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn heal(
        &self,
        authority: &Authority,
        created: Option<i64>,
        last_seq: u64,
        when: HealWhen,
    ) -> Result<Option<Healed>, QueryError> {
        let last_seq = i64::try_from(last_seq).unwrap_or(i64::MAX);
        let sql = match when {
            HealWhen::Asked => include_str!("sql/accept_stream.sql"),
            HealWhen::AtOnce => include_str!("sql/heal_stream.sql"),
        };
        let row = self.row(sql, &[&self.relay, &authority.term, &created, &last_seq]).await?;
        let Some(letters) = row.try_get("letters")? else { return Ok(None) };
        Ok(Some(Healed { letters, lost: row.try_get("lost")? }))
    }

    /// Accepts a database that was restored into another cluster: the relay will publish every
    /// retained row that is not settled. Returns the number of rows; `None` when the term is lost.
    ///
    /// # Errors
    /// The errors of the session. The duration grows with the rows of the outbox, which are all
    /// rewritten.
    pub async fn rescan(&self, term: i64) -> Result<Option<i64>, QueryError> {
        let row = self.row(include_str!("sql/rescan_outbox.sql"), &[&self.relay, &term]).await?;
        Ok(row.try_get(0)?)
    }

    async fn row(&self, sql: &str, parameters: &Parameters<'_>) -> Result<Row, QueryError> {
        let rows =
            self.connection.query_without_deadline(&self.schema.apply(sql), parameters).await?;
        rows.into_iter().next().ok_or(QueryError::NoRow)
    }
}
