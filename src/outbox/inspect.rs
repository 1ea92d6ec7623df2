//! What the command line asks of the tables: how far a relay is, who runs it, what died.

use std::time::SystemTime;

use tokio_postgres::{Row, types::ToSql};

use super::{Holder, upkeep::Depth};
use crate::pg::{connect::Connection, error::QueryError, schema::Schema};

/// The tables as a person looks at them, through a session of their own.
pub struct Inspection {
    connection: Connection,
    schema: Schema,
}

/// How far one relay has come.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The fencing number of the last holding.
    pub term: i64,
    /// Who held it.
    pub holder: String,
    /// Since when, as ISO 8601.
    pub acquired_at: String,
    /// When the position was last written, as ISO 8601.
    pub updated_at: String,
    /// The same as an age, by the database's clock.
    pub updated_seconds_ago: f64,
    /// The stream that the last acknowledgement came from.
    pub stream: Option<String>,
    /// Its sequence.
    pub stream_seq: i64,
    /// Why nothing is published, in the relay's own words.
    pub note: Option<String>,
}

/// One dead letter, without its payload.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its id, which pages go on from.
    pub id: i64,
    /// The relay that gave it up.
    pub relay: String,
    /// When, as ISO 8601.
    pub dead_at: String,
    /// The reason as a word.
    pub error_code: String,
    /// The reason as a sentence.
    pub error: String,
    /// How often it was tried.
    pub attempts: i32,
    /// Whether later events of its key wait for it.
    pub holds: bool,
    /// Its place in the outbox.
    pub seq: i64,
    /// The event's id.
    pub event_id: uuid::Uuid,
    /// The event's type.
    pub event_type: String,
    /// What the event is about.
    pub aggregate: Option<(String, String)>,
    /// The payload's size.
    pub payload_bytes: i64,
}

/// A privilege that the relay lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPrivilege {
    /// On what.
    pub object: String,
    /// Which.
    pub privilege: String,
}

impl Inspection {
    /// Looks through this session.
    pub fn new(connection: Connection, schema: Schema) -> Self {
        Self { connection, schema }
    }

    /// The session, for what needs nothing of ours.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How far a relay has come; `None` when it has never run.
    ///
    /// # Errors
    /// As the session's.
    pub async fn progress(&self, relay: &str) -> Result<Option<Progress>, QueryError> {
        let rows = self.query(include_str!("sql/position.sql"), &[&relay]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Progress {
            term: row.try_get("term")?,
            holder: row.try_get("holder")?,
            acquired_at: row.try_get("acquired_at")?,
            updated_at: row.try_get("updated_at")?,
            updated_seconds_ago: row.try_get("updated_seconds_ago")?,
            stream: row.try_get("stream_name")?,
            stream_seq: row.try_get("stream_seq")?,
            note: row.try_get("note")?,
        }))
    }

    /// Who runs a relay now.
    ///
    /// # Errors
    /// As the session's.
    pub async fn holder(&self, relay: &str) -> Result<Option<Holder>, QueryError> {
        let rows = self.query(include_str!("sql/lock_holder.sql"), &[&relay]).await?;
        rows.first().map(Holder::read).transpose()
    }

    /// How much a relay has not settled; `None` when it has never run.
    ///
    /// # Errors
    /// As the session's.
    pub async fn depth(&self, relay: &str) -> Result<Option<Depth>, QueryError> {
        let rows = self.query(include_str!("sql/depth.sql"), &[&relay, &Depth::COUNT_MAX]).await?;
        rows.first().map(Depth::read).transpose()
    }

    /// Dead letters, the newest first, older than the letter `after`; `None` when there is no such
    /// letter.
    ///
    /// # Errors
    /// As the session's.
    pub async fn dead_letters(
        &self,
        relay: &str,
        after: Option<i64>,
        limit: i64,
    ) -> Result<Option<Vec<DeadLetter>>, QueryError> {
        let mut died_at: Option<SystemTime> = None;
        if let Some(after) = after {
            let rows = self.query(include_str!("sql/dead_letter_time.sql"), &[&after]).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            died_at = Some(row.try_get("dead_at")?);
        }
        let sql = include_str!("sql/dead_letters.sql");
        let rows = self.query(sql, &[&relay, &died_at, &after, &limit]).await?;
        rows.iter().map(DeadLetter::read).collect::<Result<_, _>>().map(Some)
    }

    /// What the relay needs and this session's role may not do.
    ///
    /// # Errors
    /// As the session's; class `Schema` when the tables are not there.
    pub async fn missing_privileges(&self) -> Result<Vec<MissingPrivilege>, QueryError> {
        let rows = self.query(include_str!("sql/privileges.sql"), &[]).await?;
        let read = |row: &Row| {
            Ok(MissingPrivilege {
                object: row.try_get("object")?,
                privilege: row.try_get("privilege")?,
            })
        };
        rows.iter().map(read).collect()
    }

    async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, QueryError> {
        let sql = self.schema.apply(sql);
        self.connection.deadline(self.connection.client.query(&sql, parameters)).await
    }
}

impl DeadLetter {
    fn read(row: &Row) -> Result<Self, QueryError> {
        let aggregate_type: Option<String> = row.try_get("aggregate_type")?;
        let aggregate_id: Option<String> = row.try_get("aggregate_id")?;
        Ok(Self {
            id: row.try_get("id")?,
            relay: row.try_get("relay")?,
            dead_at: row.try_get("dead_at_text")?,
            error_code: row.try_get("error_code")?,
            error: row.try_get("error")?,
            attempts: row.try_get("attempts")?,
            holds: row.try_get("holds")?,
            seq: row.try_get("seq")?,
            event_id: row.try_get("event_id")?,
            event_type: row.try_get("event_type")?,
            aggregate: aggregate_type.zip(aggregate_id),
            payload_bytes: row.try_get("payload_size")?,
        })
    }
}
