//! Reads settled events that the stream should contain, and makes letters of those that it lacks.

use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    event::Seq,
    pg::{connect::Connection, error::QueryError, schema::Schema},
};

/// Maximum bytes of a payload that a letter copies; a larger one stays in the outbox. A settlement
/// full of such letters is still written within the deadline of a statement.
pub const LETTER_BYTES_MAX: u64 = 256 << 10;

/// Maximum number of events for which one statement makes letters: it copies the row of each.
pub const RECONCILE_BATCH: usize = 256;

/// A settled event.
#[derive(Debug, Clone, Copy)]
pub struct SettledEvent {
    /// Id of the event, or of its letter when that was edited.
    pub id: Uuid,
    /// Number of the event's row in the outbox.
    pub seq: Seq,
    /// Whether the stream should contain the event.
    pub due: SettledDue,
}

/// Whether the stream should contain a settled event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettledDue {
    /// Not in the stream: its letter was not published, or the event is outside of the filter.
    Nowhere,
    /// In the stream.
    InStream,
    /// In the stream, unless a limit of the stream has removed it.
    InStreamUnlessDropped,
}

/// The settled events of one relay, read through a separate session.
pub struct Settled {
    connection: Connection,
    schema: Schema,
    relay: String,
}

impl Settled {
    /// Reads and writes through this session.
    pub fn new(connection: Connection, schema: Schema, relay: String) -> Self {
        Self { connection, schema, relay }
    }

    /// Settled events above the `seq` `above`, in ascending order, for a stream whose first
    /// sequence is `first_seq`. Fewer than `limit` events come only at the end.
    ///
    /// # Errors
    /// The errors of the session, which needs [`super::ACCOUNTING_SETTINGS`].
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
        let rows = self.connection.query_without_deadline(&sql, &parameters).await?;
        let read = |row: &Row| {
            Ok(SettledEvent {
                id: row.try_get("event_id")?,
                seq: Seq(row.try_get("seq")?),
                due: match (row.try_get("is_expected")?, row.try_get("may_be_dropped")?) {
                    (false, _) => SettledDue::Nowhere,
                    (true, false) => SettledDue::InStream,
                    (true, true) => SettledDue::InStreamUnlessDropped,
                },
            })
        };
        rows.iter().map(read).collect()
    }

    /// Makes letters of missing events, so that the relay publishes them again. `missing` has at
    /// most [`RECONCILE_BATCH`] events. Returns the number of letters.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn publish_again(&self, missing: &[i64], actor: &str) -> Result<u64, QueryError> {
        let sql = self.schema.apply(include_str!("sql/reconcile_events.sql"));
        let bytes_max = i64::try_from(LETTER_BYTES_MAX).unwrap_or(i64::MAX);
        let channel = self.schema.channel();
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&self.relay, &missing, &bytes_max, &actor, &channel];
        let rows = self.connection.query_without_deadline(&sql, &parameters).await?;
        count(rows.first().ok_or(QueryError::NoRow)?)
    }

    /// Asks a relay to accept the stream as it is. Only a relay that waits for an operator takes
    /// the request.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn ask_to_heal(&self, actor: &str) -> Result<(), QueryError> {
        let sql = self.schema.apply(include_str!("sql/request_healing.sql"));
        let channel = self.schema.channel();
        self.connection.query_without_deadline(&sql, &[&self.relay, &actor, &channel]).await?;
        Ok(())
    }
}

fn count(row: &Row) -> Result<u64, QueryError> {
    Ok(u64::try_from(row.try_get::<_, i64>("letters")?).unwrap_or_default())
}
