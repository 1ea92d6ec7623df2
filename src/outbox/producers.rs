//! Finds roles that may not insert, sessions that wait for locks, and the sessions of a relay.

use tokio_postgres::Row;

use super::{Inspection, Upkeep};
use crate::pg::{blocking::Blocking, error::QueryError};

/// A role that is meant to insert events and would be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// The role that would be refused. `None` when every insert is refused while the relay sleeps.
    pub role: Option<String>,
    /// Privileges that are missing, with their objects.
    pub lacks: Vec<String>,
    /// Statements that grant the missing privileges.
    pub statements: Vec<String>,
}

/// A lock queue: sessions that wait for another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The session at the head, for which the others wait.
    pub by: Blocking,
    /// The table or sequence of the schema that is waited for; `None` for another object.
    pub object: Option<String>,
    /// Number of sessions of Postrider that wait for a lock of the session at the head.
    pub ours: u64,
    /// Number of sessions of applications that wait for a lock of the session at the head.
    pub others: u64,
}

const HINDERED: &str = include_str!("sql/find_hindered_producers.sql");
const QUEUE: &str = include_str!("sql/find_lock_holder.sql");

impl Hindrance {
    fn read(row: &Row) -> Result<Self, QueryError> {
        Ok(Self {
            role: row.try_get("role")?,
            lacks: row.try_get("lacks")?,
            statements: row.try_get("statements")?,
        })
    }
}

impl Queue {
    fn read(row: &Row) -> Result<Self, QueryError> {
        let count = |name| row.try_get::<_, i64>(name).map(i64::unsigned_abs);
        Ok(Self {
            by: Blocking::read(row)?,
            object: row.try_get("object")?,
            ours: count("ours")?,
            others: count("others")?,
        })
    }
}

impl Inspection {
    /// Roles that are meant to insert events and would be refused.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn hindered_producers(&self) -> Result<Vec<Hindrance>, QueryError> {
        self.query(HINDERED, &[]).await?.iter().map(Hindrance::read).collect()
    }

    /// The lock queue for a table or sequence of the schema, or the one in which an instance of
    /// this relay waits; `None` when nobody waits.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn queue(&self, relay: &str) -> Result<Option<Queue>, QueryError> {
        self.query(QUEUE, &[&relay]).await?.first().map(Queue::read).transpose()
    }

    /// Sessions of all instances of this relay, leaders and standbys, as text for people.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn instances(&self, relay: &str) -> Result<Vec<String>, QueryError> {
        let rows = self.query(include_str!("sql/list_instances.sql"), &[&relay]).await?;
        let name = |row: &Row| {
            let (pid, application): (i32, String) =
                (row.try_get("pid")?, row.try_get("application_name")?);
            Ok(format!("session {pid}, {application}"))
        };
        rows.iter().map(name).collect()
    }
}

impl Upkeep {
    /// Roles that are meant to insert events and would be refused.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn hindered_producers(&self) -> Result<Vec<Hindrance>, QueryError> {
        self.run(HINDERED, &[]).await?.iter().map(Hindrance::read).collect()
    }

    /// The lock queue for a table or sequence of the schema, or the one in which an instance of
    /// this relay waits; `None` when nobody waits.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn queue(&self) -> Result<Option<Queue>, QueryError> {
        self.run(QUEUE, &[&self.relay()]).await?.first().map(Queue::read).transpose()
    }
}
