//! Repairs that take as long as there are rows: healing a stream, accepting a restored database.
//!
//! Each runs on a session of its own, so that no other statement of the relay waits behind it.

use tokio_postgres::Row;

use super::Authority;
use crate::pg::{
    error::QueryError,
    schema::Schema,
    session::{Connection, Parameters},
};

/// The settings of a session for repairs, which may take as long as there are rows. One that is lost
/// would be made again, so that none waits for the disk.
pub const REPAIR_SETTINGS: [(&str, &str); 3] =
    [("statement_timeout", "0"), ("jit", "off"), ("synchronous_commit", "off")];

/// When a stream is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealWhen {
    /// Now.
    AtOnce,
    /// When an operator has asked for it.
    Asked,
}

/// What a healing has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Healed {
    /// Letters that are tried again.
    pub letters: i64,
    /// Published events that are gone for good, at most: the outbox no longer has them.
    pub lost: i64,
}

/// Repairs of one relay's position.
pub struct Repair {
    pub(super) connection: Connection,
    pub(super) schema: Schema,
    pub(super) relay: String,
}

impl Repair {
    /// Works through this session, which wants [`REPAIR_SETTINGS`].
    pub fn new(connection: Connection, schema: Schema, relay: String) -> Self {
        Self { connection, schema, relay }
    }

    /// Takes a stream that was created then and ends there now for what it is: at once, by putting the
    /// position back to where it still had everything; or when an operator has asked for it, who has
    /// made letters of what is missing. `None` when nothing was done. Another holding has to begin
    /// after it.
    ///
    /// # Errors
    /// As the session's.
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

    /// Accepts a database that was restored into another cluster: every retained row that was not
    /// settled will be published. Returns how many there are; `None` when the term is lost.
    ///
    /// # Errors
    /// As the session's. It takes as long as rewriting the outbox takes.
    pub async fn rescan(&self, term: i64) -> Result<Option<i64>, QueryError> {
        let row = self.row(include_str!("sql/rescan_outbox.sql"), &[&self.relay, &term]).await?;
        Ok(row.try_get(0)?)
    }

    async fn row(&self, sql: &str, parameters: &Parameters<'_>) -> Result<Row, QueryError> {
        let rows = self.connection.query_patiently(&self.schema.apply(sql), parameters).await?;
        rows.into_iter().next().ok_or(QueryError::NoRow)
    }
}
