//! Repairs that take as long as there are rows: healing a stream, accepting a restored database.
//!
//! Each runs on a session of its own, so that no other statement of the relay waits behind it.

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

/// Repairs of one relay's position.
pub struct Repair {
    connection: Connection,
    schema: Schema,
    relay: String,
}

impl Repair {
    /// Works through this session, which wants [`REPAIR_SETTINGS`].
    pub fn new(connection: Connection, schema: Schema, relay: String) -> Self {
        Self { connection, schema, relay }
    }

    /// Takes a stream that was created then and ends there now for what it is: at once, by putting the
    /// position back to where it still had everything; or when an operator has asked for it, who has
    /// made letters of what is missing. Returns how many letters are tried again; `None` when nothing
    /// was done. Another holding has to begin after it.
    ///
    /// # Errors
    /// As the session's.
    pub async fn heal(
        &self,
        authority: &Authority,
        created: &str,
        last_seq: u64,
        when: HealWhen,
    ) -> Result<Option<i64>, QueryError> {
        let last_seq = i64::try_from(last_seq).unwrap_or(i64::MAX);
        let sql = match when {
            HealWhen::Asked => include_str!("sql/accept.sql"),
            HealWhen::AtOnce => include_str!("sql/heal.sql"),
        };
        self.number(sql, &[&self.relay, &authority.term, &created, &last_seq]).await
    }

    /// Accepts a database that was restored into another cluster: every retained row that was not
    /// settled will be published. Returns how many there are; `None` when the term is lost.
    ///
    /// # Errors
    /// As the session's. It takes as long as rewriting the outbox takes.
    pub async fn rescan(&self, term: i64) -> Result<Option<i64>, QueryError> {
        self.number(include_str!("sql/rescan.sql"), &[&self.relay, &term]).await
    }

    async fn number(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Option<i64>, QueryError> {
        let rows = self.connection.query_patiently(&self.schema.apply(sql), parameters).await?;
        Ok(rows.first().ok_or(QueryError::NoRow)?.try_get(0)?)
    }
}
