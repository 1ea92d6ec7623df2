//! What the stream has to hold, and what is done about events that it does not.

use std::sync::Arc;

use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    event::Seq,
    pg::{connect::Connection, error::QueryError, schema::Schema},
};

/// Bytes of a payload that a letter copies at most; a larger one stays in the outbox. A settlement
/// full of such letters is still written within the deadline of a statement.
pub const LETTER_BYTES_MAX: u64 = 256 << 10;

/// Events of one batch: each copies a row.
pub const RECONCILE_BATCH: usize = 256;

/// One relay's settled events, through a session of their own.
pub struct Settled {
    connection: Arc<Connection>,
    schema: Schema,
    relay: String,
}

impl Settled {
    /// Works through this session.
    pub fn new(connection: Connection, schema: Schema, relay: String) -> Self {
        Self { connection: Arc::new(connection), schema, relay }
    }

    /// Events that the stream has to hold, those after `above`, in the order of the outbox.
    ///
    /// # Errors
    /// As the session's, which wants [`super::ACCOUNTING_SETTINGS`].
    pub async fn page(&self, above: Seq, limit: usize) -> Result<Vec<(Uuid, Seq)>, QueryError> {
        let sql = self.schema.apply(include_str!("sql/settled_ids.sql"));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.connection.client.query(&sql, &[&self.relay, &above.0, &limit]).await?;
        rows.iter().map(|row| Ok((row.try_get("event_id")?, Seq(row.try_get("seq")?)))).collect()
    }

    /// Has events published again; [`RECONCILE_BATCH`] of them at most. Returns how many are.
    ///
    /// # Errors
    /// As the session's.
    pub async fn publish_again(&self, missing: &[i64], actor: &str) -> Result<u64, QueryError> {
        let sql = self.schema.apply(include_str!("sql/reconcile.sql"));
        let bytes_max = i64::try_from(LETTER_BYTES_MAX).unwrap_or(i64::MAX);
        let channel = self.schema.channel();
        let client = &self.connection.client;
        let row =
            client.query_one(&sql, &[&self.relay, &missing, &bytes_max, &actor, &channel]).await?;
        count(&row)
    }

    /// Asks a relay that waits for it to accept the stream as it is.
    ///
    /// # Errors
    /// As the session's.
    pub async fn ask_to_heal(&self) -> Result<(), QueryError> {
        let sql = self.schema.apply(include_str!("sql/heal_request.sql"));
        let channel = self.schema.channel();
        self.connection.client.query(&sql, &[&self.relay, &channel]).await?;
        Ok(())
    }
}

fn count(row: &Row) -> Result<u64, QueryError> {
    Ok(u64::try_from(row.try_get::<_, i64>("letters")?).unwrap_or_default())
}
