//! Names the session whose lock a statement waits for, asked through a session of its own.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::types::ToSql;

use super::{
    connect::{Connection, connect},
    error::QueryError,
};
use crate::config::Database;

/// A statement that takes longer than this is asked about: below the `lock_timeout` of a session, so
/// that it still waits.
const SLOW: Duration = Duration::from_secs(1);

/// A session whose lock another one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocking {
    /// The server's process id.
    pub pid: i32,
    /// Whose it is.
    pub user: String,
    /// What it calls itself.
    pub application: String,
    /// When its last statement began, as ISO 8601; `None` where our user may not see it.
    pub since: Option<String>,
}

/// The server's process id of a session; behind a pooler that shares sessions it says little.
///
/// # Errors
/// As the session's.
pub async fn pid_of(connection: &Connection) -> Result<i32, QueryError> {
    let rows = connection.query("SELECT pg_catalog.pg_backend_pid()", &[]).await?;
    Ok(rows.first().ok_or(QueryError::NoRow)?.try_get(0)?)
}

/// Does some work in the session `pid`, and finds out whose lock it waits for when it is slow.
pub async fn watched<T>(
    database: &Database,
    pid: i32,
    work: impl Future<Output = T>,
) -> (T, Option<Blocking>) {
    tokio::pin!(work);
    tokio::select! {
        done = &mut work => return (done, None),
        () = sleep(SLOW) => {}
    }
    let asked = async { ask(database, pid).await.ok().flatten() };
    tokio::join!(work, asked)
}

async fn ask(database: &Database, pid: i32) -> Result<Option<Blocking>, String> {
    let connection = connect(database, "blocking", &[]).await.map_err(|error| error.to_string())?;
    let statement = include_str!("sql/blocking.sql");
    let parameters: [&(dyn ToSql + Sync); 1] = [&pid];
    let rows = connection.query(statement, &parameters).await.map_err(|error| error.to_string())?;
    let Some(row) = rows.first() else { return Ok(None) };
    let text = |name: &str| row.try_get(name).map_err(|error| error.to_string());
    Ok(Some(Blocking {
        pid: row.try_get("pid").map_err(|error| error.to_string())?,
        user: text("usename")?,
        application: text("application_name")?,
        since: row.try_get("since").map_err(|error| error.to_string())?,
    }))
}
