//! What the command line asks of the tables: how far a relay is, who runs it.

use tokio_postgres::{Row, types::ToSql};

use super::{ForeignPosition, Leader, LeaderSession, depth::Measuring, with_columns};
use crate::{
    delivery::LEASE_MAX,
    metrics::Depth,
    pg::{connect::Connection, error::QueryError, schema::Schema},
};

/// The tables as a person inspects them, through a session of their own.
pub struct Inspection {
    connection: Connection,
    schema: Schema,
    measuring: Measuring,
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
    /// When it was created, in nanoseconds since the Unix epoch, when that is known.
    pub stream_created: Option<i64>,
    /// Its sequence.
    pub stream_seq: i64,
    /// Why nothing is published, in the relay's own words.
    pub note: Option<String>,
    /// What the relay found out itself under this term, as JSON.
    pub report: Option<String>,
    /// How long ago it said so, or took the position.
    pub silent_seconds: f64,
}

/// A bound of the sessions that this user may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimit {
    /// The limit, for a person.
    pub what: String,
    /// Sessions at most.
    pub max: i64,
    /// Sessions now, the one that asks included.
    pub now: i64,
}

/// A privilege that the relay lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPrivilege {
    /// On what.
    pub object: String,
    /// Which.
    pub privilege: String,
    /// The statement that grants it.
    pub statement: String,
}

impl Inspection {
    /// Inspects through this session.
    pub fn new(connection: Connection, schema: Schema) -> Self {
        Self { connection, schema, measuring: Measuring::default() }
    }

    /// The session, for what needs nothing of ours.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The bounds of the sessions that this user may have.
    ///
    /// # Errors
    /// As the session's.
    pub async fn session_limits(&self) -> Result<Vec<SessionLimit>, QueryError> {
        let rows = self.query(include_str!("sql/find_session_limits.sql"), &[]).await?;
        let limit = |row: &Row| {
            Ok(SessionLimit {
                what: row.try_get("what")?,
                max: row.try_get("sessions_max")?,
                now: row.try_get("sessions")?,
            })
        };
        rows.iter().map(limit).collect()
    }

    /// How far a relay has come; `None` when it has never run.
    ///
    /// # Errors
    /// As the session's.
    pub async fn progress(&self, relay: &str) -> Result<Option<Progress>, QueryError> {
        let rows = self.query(include_str!("sql/read_position.sql"), &[&relay]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Progress {
            term: row.try_get("term")?,
            holder: row.try_get("holder")?,
            acquired_at: row.try_get("acquired_at")?,
            updated_at: row.try_get("updated_at")?,
            updated_seconds_ago: row.try_get("updated_seconds_ago")?,
            stream: row.try_get("stream_name")?,
            stream_created: row.try_get("stream_created_ns")?,
            stream_seq: row.try_get("stream_seq")?,
            note: row.try_get("note")?,
            report: row.try_get("report")?,
            silent_seconds: row.try_get("silent_seconds")?,
        }))
    }

    /// Who leads a relay now.
    ///
    /// # Errors
    /// As the session's.
    pub async fn leader(&self, relay: &str) -> Result<Option<Leader>, QueryError> {
        let longest = LEASE_MAX.as_secs_f64();
        let rows = self.query(include_str!("sql/read_lease.sql"), &[&relay, &longest]).await?;
        let leader = rows.first().map(Leader::read).transpose()?;
        // A leader whose session has ended has crashed, or is about to notice.
        Ok(leader.filter(|leader| leader.leads() && leader.session != LeaderSession::Gone))
    }

    /// How a relay's position stands in this cluster; `None` when it was made here, or there is
    /// none.
    ///
    /// # Errors
    /// As the session's.
    pub async fn foreign_position(
        &self,
        relay: &str,
    ) -> Result<Option<ForeignPosition>, QueryError> {
        let rows = self.query(include_str!("sql/compare_cluster.sql"), &[&relay]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(match (row.try_get("is_foreign")?, row.try_get("fits")?) {
            (false, _) => None,
            (true, true) => Some(ForeignPosition::Upgraded),
            (true, false) => Some(ForeignPosition::Restored),
        })
    }

    /// How much a relay has not settled; `None` when it has never run.
    ///
    /// # Errors
    /// As the session's.
    pub async fn depth(&self, relay: &str) -> Result<Option<Depth>, QueryError> {
        self.measuring.depth(&self.connection, &self.schema, relay).await
    }

    /// What the relay needs and this session's role may not do.
    ///
    /// # Errors
    /// As the session's; class `Schema` when the tables are not there.
    pub async fn missing_privileges(&self) -> Result<Vec<MissingPrivilege>, QueryError> {
        let mut rows = self.query(include_str!("sql/find_missing_usage.sql"), &[]).await?;
        if rows.is_empty() {
            rows = self.query(include_str!("sql/find_missing_privileges.sql"), &[]).await?;
        }
        let read = |row: &Row| {
            Ok(MissingPrivilege {
                object: row.try_get("object")?,
                privilege: row.try_get("privilege")?,
                statement: row.try_get("statement")?,
            })
        };
        rows.iter().map(read).collect()
    }

    pub(super) async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, QueryError> {
        let sql = self.schema.apply(&with_columns(sql));
        self.connection.query(&sql, parameters).await
    }
}
