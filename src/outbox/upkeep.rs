//! What keeps the tables small and people informed: depth, retention, the note for `status`.

use std::time::Duration;

use tokio_postgres::{Row, Statement};

use crate::{
    metrics::Query,
    pg::{connect::Connection, error::QueryError, schema::Schema},
};

/// The tables as the upkeep sees them, through a session of its own: off the data path.
pub struct Upkeep {
    connection: Connection,
    relay: String,
    depth: Statement,
    note: Statement,
    retain: Statement,
    processed_maintain: Statement,
    checkpoint: Statement,
}

/// How much is not settled.
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    /// Committed events that are not settled; exact up to 10,000, beyond it an upper bound.
    pub pending: u64,
    /// The age of the oldest of them, by its `occurred_at`.
    pub oldest_age_seconds: f64,
    /// Unresolved dead letters, 10,000 at most.
    pub dead: u64,
    /// Events that wait behind one of them, 10,000 at most.
    pub held: u64,
}

impl Depth {
    /// How many rows are counted one by one; beyond it the numbers are upper bounds.
    pub(super) const COUNT_MAX: i64 = 10_000;

    pub(super) fn read(row: &Row) -> Result<Self, QueryError> {
        let number = |name: &str| {
            row.try_get::<_, i64>(name).map(|number| u64::try_from(number).unwrap_or_default())
        };
        let counted = number("pending")?;
        let is_exact = counted < Self::COUNT_MAX.unsigned_abs();
        Ok(Self {
            pending: if is_exact { counted } else { number("pending_at_most")?.max(counted) },
            oldest_age_seconds: row
                .try_get::<_, Option<f64>>("oldest_age_seconds")?
                .unwrap_or_default()
                .max(0.0),
            dead: number("dead")?,
            held: number("held")?,
        })
    }
}

/// What a round of retention did.
#[derive(Debug, Clone, Copy)]
pub struct Retained {
    /// Turns emptied.
    pub emptied: i32,
    /// Rows that went with them at most.
    pub rows_at_most: i64,
}

impl Upkeep {
    /// Prepares the statements on a session.
    ///
    /// # Errors
    /// Class `Schema` means that `postrider migrate` has not run.
    pub async fn open(
        connection: Connection,
        schema: &Schema,
        relay: String,
    ) -> Result<Self, QueryError> {
        let prepare = |sql: &'static str| {
            let (connection, sql) = (&connection, schema.apply(sql));
            async move { connection.deadline(connection.client.prepare(&sql)).await }
        };
        Ok(Self {
            depth: prepare(include_str!("sql/depth.sql")).await?,
            note: prepare(include_str!("sql/note.sql")).await?,
            retain: prepare(include_str!("sql/retain.sql")).await?,
            processed_maintain: prepare(include_str!("sql/processed_maintain.sql")).await?,
            checkpoint: prepare(include_str!("sql/checkpoint.sql")).await?,
            connection,
            relay,
        })
    }

    /// How much is not settled; `None` before the relay's first start.
    ///
    /// # Errors
    /// As the session's.
    pub async fn depth(&self) -> Result<Option<Depth>, QueryError> {
        let client = &self.connection.client;
        let row = self
            .connection
            .timed(Query::Depth, client.query_opt(&self.depth, &[&self.relay, &Depth::COUNT_MAX]))
            .await?;
        row.as_ref().map(Depth::read).transpose()
    }

    /// Tells `postrider status` why nothing is published just now; `None` when events flow.
    ///
    /// # Errors
    /// As the session's.
    pub async fn note(&self, term: i64, text: Option<&str>) -> Result<(), QueryError> {
        let client = &self.connection.client;
        let text = text.map(|text| self.connection.storable(text));
        self.connection
            .deadline(client.execute(&self.note, &[&self.relay, &term, &text]))
            .await
            .map(drop)
    }

    /// Notes where the relay is; forgets what was noted longer ago than `kept`.
    ///
    /// # Errors
    /// As the session's.
    pub async fn checkpoint(&self, kept: Duration) -> Result<(), QueryError> {
        let client = &self.connection.client;
        self.connection
            .deadline(client.query_one(&self.checkpoint, &[&self.relay, &kept.as_secs_f64()]))
            .await
            .map(drop)
    }

    /// Empties the turns whose rows were settled longer ago than `retention`.
    ///
    /// # Errors
    /// As the session's.
    pub async fn retain(&self, retention: Duration) -> Result<Retained, QueryError> {
        let client = &self.connection.client;
        let row = self
            .connection
            .timed(Query::Retention, client.query_one(&self.retain, &[&retention.as_secs_f64()]))
            .await?;
        Ok(Retained {
            emptied: row.try_get("emptied")?,
            rows_at_most: row.try_get("rows_at_most")?,
        })
    }

    /// Forgets the consumers' dedup keys that are older than `retention`.
    ///
    /// # Errors
    /// As the session's.
    pub async fn forget_processed(&self, retention: Duration) -> Result<(), QueryError> {
        let client = &self.connection.client;
        self.connection
            .deadline(client.query_one(&self.processed_maintain, &[&retention.as_secs_f64()]))
            .await
            .map(drop)
    }

    /// Waits until the session has ended.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }
}
