//! What the stream has to hold, and what is done about events that it does not.

use tokio_postgres::{Row, types::ToSql};
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

/// A settled event.
#[derive(Debug, Clone, Copy)]
pub struct SettledEvent {
    /// Its id; of a letter that was edited, the letter's.
    pub id: Uuid,
    /// Its place in the outbox.
    pub seq: Seq,
    /// Where it has to be.
    pub due: Due,
}

/// Where a settled event has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It is a letter that was not published.
    Nowhere,
    /// In the stream.
    InStream,
    /// In the stream, unless that has dropped it by its limits.
    InStreamUnlessDropped,
}

/// One relay's settled events, through a session of their own.
pub struct Settled {
    connection: Connection,
    schema: Schema,
    relay: String,
}

impl Settled {
    /// Works through this session.
    pub fn new(connection: Connection, schema: Schema, relay: String) -> Self {
        Self { connection, schema, relay }
    }

    /// Settled events after `above`, in the order of the outbox, beside a stream that begins with
    /// `first_seq`; fewer than `limit` only at the end.
    ///
    /// # Errors
    /// As the session's, which wants [`super::ACCOUNTING_SETTINGS`].
    pub async fn page(
        &self,
        above: Seq,
        limit: usize,
        first_seq: u64,
    ) -> Result<Vec<SettledEvent>, QueryError> {
        let sql = self.schema.apply(include_str!("sql/list_settled_events.sql"));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let first_seq = i64::try_from(first_seq).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.relay, &above.0, &limit, &first_seq];
        let rows = self.connection.query_patiently(&sql, &parameters).await?;
        let read = |row: &Row| {
            Ok(SettledEvent {
                id: row.try_get("event_id")?,
                seq: Seq(row.try_get("seq")?),
                due: match (row.try_get("is_expected")?, row.try_get("may_be_dropped")?) {
                    (false, _) => Due::Nowhere,
                    (true, false) => Due::InStream,
                    (true, true) => Due::InStreamUnlessDropped,
                },
            })
        };
        rows.iter().map(read).collect()
    }

    /// Has events published again; [`RECONCILE_BATCH`] of them at most. Returns how many are.
    ///
    /// # Errors
    /// As the session's.
    pub async fn publish_again(&self, missing: &[i64], actor: &str) -> Result<u64, QueryError> {
        let sql = self.schema.apply(include_str!("sql/reconcile_events.sql"));
        let bytes_max = i64::try_from(LETTER_BYTES_MAX).unwrap_or(i64::MAX);
        let channel = self.schema.channel();
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&self.relay, &missing, &bytes_max, &actor, &channel];
        let rows = self.connection.query_patiently(&sql, &parameters).await?;
        count(rows.first().ok_or(QueryError::NoRow)?)
    }

    /// Asks a relay that waits for it to accept the stream as it is.
    ///
    /// # Errors
    /// As the session's.
    pub async fn ask_to_heal(&self, actor: &str) -> Result<(), QueryError> {
        let sql = self.schema.apply(include_str!("sql/request_healing.sql"));
        let channel = self.schema.channel();
        self.connection.query_patiently(&sql, &[&self.relay, &actor, &channel]).await?;
        Ok(())
    }
}

fn count(row: &Row) -> Result<u64, QueryError> {
    Ok(u64::try_from(row.try_get::<_, i64>("letters")?).unwrap_or_default())
}
