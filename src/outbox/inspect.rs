//! Queries of the command line about relays: position, leader, sessions and privileges.

use tokio_postgres::{Row, types::ToSql};

use super::{ForeignPosition, Leader, LeaderSession, depth::Measuring, with_columns};
use crate::{
    delivery::LEASE_MAX,
    metrics::Depth,
    pg::{connect::Connection, error::QueryError, schema::Schema},
};

/// The outbox tables, for a person who inspects them through a separate session.
pub struct Inspection {
    connection: Connection,
    schema: Schema,
    measuring: Measuring,
}

/// Position of one relay, and the circumstances in which it was last written.
#[derive(Debug, Clone)]
pub struct RelayProgress {
    /// The fencing number of the last holding.
    pub term: i64,
    /// Host and process of the last leader.
    pub holder: String,
    /// Start of the last holding, as ISO 8601.
    pub acquired_at: String,
    /// Time of the last write of the position, as ISO 8601.
    pub updated_at: String,
    /// Age of the last write in seconds, by the database's clock.
    pub updated_seconds_ago: f64,
    /// The stream that the last acknowledgement came from.
    pub stream: Option<String>,
    /// Creation time of the stream in nanoseconds since the Unix epoch; `None` when unknown.
    pub stream_created: Option<i64>,
    /// Stream sequence of the last acknowledgement.
    pub stream_seq: i64,
    /// The reason why nothing is published, as the relay gave it; `None` when events flow.
    pub note: Option<String>,
    /// Report of the relay under this term, as JSON; `None` before its first report.
    pub report: Option<String>,
    /// Age in seconds of that report; without a report, of the acquisition of the lease.
    pub silent_seconds: f64,
}

/// A limit on the number of sessions that this user may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimit {
    /// The limit's name, as text for a person.
    pub what: String,
    /// Maximum number of sessions.
    pub max: i64,
    /// Current number of sessions, the one that asks included.
    pub now: i64,
}

/// A privilege that the relay lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingPrivilege {
    /// Object of the privilege.
    pub object: String,
    /// Name of the privilege.
    pub privilege: String,
    /// The statement that grants the privilege.
    pub statement: String,
}

impl Inspection {
    /// Inspects through this session.
    pub fn new(connection: Connection, schema: Schema) -> Self {
        Self { connection, schema, measuring: Measuring::default() }
    }

    /// The session, for statements that use none of Postrider's tables.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The limits on the number of sessions of this user.
    ///
    /// # Errors
    /// The errors of the session.
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

    /// The position of a relay; `None` when it has never run.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn progress(&self, relay: &str) -> Result<Option<RelayProgress>, QueryError> {
        let rows = self.query(include_str!("sql/read_position.sql"), &[&relay]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(RelayProgress {
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

    /// The current leader of a relay; `None` when nobody leads.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn leader(&self, relay: &str) -> Result<Option<Leader>, QueryError> {
        let longest = LEASE_MAX.as_secs_f64();
        let rows = self.query(include_str!("sql/read_lease.sql"), &[&relay, &longest]).await?;
        let leader = rows.first().map(Leader::read).transpose()?;
        // A leader whose session has ended counts as none: it has crashed, or is about to notice
        // the loss.
        Ok(leader.filter(|leader| leader.leads() && leader.session != LeaderSession::Gone))
    }

    /// Says whether a position that another cluster made is valid in this one. `None` when this
    /// cluster made it, or when there is no position.
    ///
    /// # Errors
    /// The errors of the session.
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

    /// Measures how much a relay has not settled; `None` when it has never run.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn depth(&self, relay: &str) -> Result<Option<Depth>, QueryError> {
        self.measuring.depth(&self.connection, &self.schema, relay).await
    }

    /// The privileges that the relay needs and this session's role lacks.
    ///
    /// # Errors
    /// The errors of the session; class `Schema` when the tables are not there.
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
