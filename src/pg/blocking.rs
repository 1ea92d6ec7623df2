//! Finds the session whose lock a slow statement waits for, by asking Postgres in another session.
//!
//! A `LockWatch` belongs to one session. While one of its statements is slow, a task reads again
//! and again which session blocks it. So a statement that ends by `lock_timeout` can name the
//! holder of the lock.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tokio_postgres::{Row, types::ToSql};

use super::{
    connect::{Connection, connect_unwatched},
    error::QueryError,
};
use crate::{config::DatabaseConfig, tasks};

/// Age at which a statement counts as slow. It is well below the `lock_timeout` of a session, so
/// that the statement still waits when the answer comes.
pub(super) const SLOW: Duration = Duration::from_millis(700);

/// Wait between two queries for the blocking session. It is well below the `lock_timeout` of a
/// session, so that a query runs while the statement still waits.
const READ_INTERVAL: Duration = Duration::from_millis(400);

/// Maximum time for which a failed statement waits for a running query for its blocking session.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// A Postgres session that holds a lock for which another session waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocking {
    /// Process id of the session on the server; 0 for a prepared transaction, which has no session.
    pub pid: i32,
    /// User of the session.
    pub user: String,
    /// Application name of the session.
    pub application: String,
    /// Start of the session's last statement, as ISO 8601; `None` where our user may not see it.
    pub since: Option<String>,
}

/// Beginning of the application name that every Postgres session of Postrider has.
const OURS: &str = "postrider/";

/// The process id that the server gives for a prepared transaction, which has no session.
const PREPARED: i32 = 0;

impl Blocking {
    /// Makes a blocking session of a row of `sql/find_blocking_sessions.sql`.
    ///
    /// # Errors
    /// When a column is missing.
    pub fn read(row: &Row) -> Result<Self, QueryError> {
        Ok(Self {
            pid: row.try_get("pid")?,
            user: row.try_get("usename")?,
            application: row.try_get("application_name")?,
            since: row.try_get("since")?,
        })
    }

    /// Whether the session belongs to this program, such as the session of a repair.
    pub fn is_ours(&self) -> bool {
        self.application.starts_with(OURS)
    }

    /// Remedy for operators: what to do about the blocking session.
    pub fn hint(&self) -> String {
        match self.pid {
            _ if self.is_ours() => "wait for its end: it is work of Postrider itself".to_owned(),
            PREPARED => {
                "commit or roll it back: SELECT gid, prepared, owner FROM pg_prepared_xacts"
                    .to_owned()
            }
            pid => format!("wait for its end, or end it: SELECT pg_terminate_backend({pid})"),
        }
    }
}

impl fmt::Display for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, user, application, since } = self;
        if *pid == PREPARED {
            return f.write_str("a prepared transaction");
        }
        write!(f, "session {pid} (user {user}, application \"{application}\"")?;
        if let Some(since) = since {
            write!(f, ", at work since {since}")?;
        }
        write!(f, ")")
    }
}

/// Search for the Postgres session that blocks the slow statements of one of our sessions.
#[derive(Debug)]
pub(super) struct LockWatch {
    database: DatabaseConfig,
    /// Process id, on the server, of our session whose slow statements are watched.
    pid: i32,
    state: Arc<Mutex<WatchState>>,
}

#[derive(Debug, Default)]
struct WatchState {
    /// Number of statements that are slow now.
    slow: u32,
    /// Whether a task is asking now which session blocks the slow statements.
    is_reading: bool,
    /// Time and content of the last answer that named a blocking session.
    found: Option<(Instant, Blocking)>,
}

/// A slow statement. While it exists, a task reads which session blocks it.
pub(super) struct Slow(Arc<Mutex<WatchState>>);

impl Drop for Slow {
    fn drop(&mut self) {
        let mut state = locked(&self.0);
        state.slow = state.slow.saturating_sub(1);
    }
}

impl LockWatch {
    pub(super) fn new(database: DatabaseConfig, pid: i32) -> Self {
        Self { database, pid, state: Arc::default() }
    }

    /// Starts a task that asks which session blocks a slow statement. A task that already runs for
    /// another statement of this session serves both.
    pub(super) fn begin(&self) -> Slow {
        let mut state = locked(&self.state);
        state.slow += 1;
        if !state.is_reading {
            state.is_reading = true;
            tasks::drive(watch(self.database.clone(), self.pid, Arc::clone(&self.state)));
        }
        Slow(Arc::clone(&self.state))
    }

    /// The session that blocked a slow statement which began at `began` and has failed since.
    pub(super) async fn found(&self, slow: &Slow, began: Instant) -> Option<Blocking> {
        let found = || {
            let state = locked(&slow.0);
            let found = state.found.as_ref().filter(|(at, _)| *at >= began);
            (found.map(|(_, blocking)| blocking.clone()), state.is_reading)
        };
        let waiting = async {
            loop {
                match found() {
                    (None, true) => sleep(Duration::from_millis(10)).await,
                    (found, _) => return found,
                }
            }
        };
        timeout(ANSWER_MAX, waiting).await.ok().flatten()
    }
}

fn locked(state: &Mutex<WatchState>) -> MutexGuard<'_, WatchState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks again and again which session blocks `pid`, until no statement of `pid` is slow any more.
async fn watch(database: DatabaseConfig, pid: i32, state: Arc<Mutex<WatchState>>) {
    if let Ok(connection) = connect_unwatched(&database, "blocking", &[]).await {
        loop {
            let Ok(answer) = read_blocker(&connection, pid).await else { break };
            if let Some(blocking) = answer {
                locked(&state).found = Some((Instant::now(), blocking));
            }
            if is_over(&state) {
                return;
            }
            sleep(READ_INTERVAL).await;
        }
    }
    locked(&state).is_reading = false;
}

/// Whether no statement is slow any more. The next slow statement then starts a new task.
fn is_over(state: &Mutex<WatchState>) -> bool {
    let mut state = locked(state);
    state.is_reading = state.slow > 0;
    !state.is_reading
}

async fn read_blocker(connection: &Connection, pid: i32) -> Result<Option<Blocking>, QueryError> {
    let parameters: [&(dyn ToSql + Sync); 1] = [&pid];
    let rows =
        connection.query(include_str!("sql/find_blocking_sessions.sql"), &parameters).await?;
    rows.first().map(Blocking::read).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocking(pid: i32, application: &str) -> Blocking {
        let (user, application) = ("app".to_owned(), application.to_owned());
        Blocking { pid, user, application, since: None }
    }

    /// Regression: the hint asked an operator to terminate the session in which Postrider was
    /// healing.
    #[test]
    fn nobody_is_told_to_end_our_own_work_or_a_session_that_does_not_exist() {
        assert!(blocking(7, "alembic").hint().contains("pg_terminate_backend(7)"));
        for (pid, application) in [(7, "postrider/repair"), (0, "")] {
            let hint = blocking(pid, application).hint();
            assert!(!hint.contains("pg_terminate_backend"), "{hint}");
        }
        assert_eq!(blocking(0, "").to_string(), "a prepared transaction");
    }
}
