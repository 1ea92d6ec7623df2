//! A session with Postgres: running statements, their deadlines, and the end of the session.
//!
//! A session is *own* when Postgres started it for this connection. It is *shared* when a pooler
//! lends it for one transaction at a time. On a shared session no state may outlive the
//! transaction: each statement runs unnamed, in a separate transaction that begins with our
//! settings.

use std::{
    borrow::Cow,
    pin::pin,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::{Duration, Instant},
};

use futures_util::{TryStreamExt as _, future::join};
use tokio::sync::Notify;
use tokio_postgres::{
    Client, Row, RowStream, Statement,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    blocking::{LockWatch, SLOW, Slow},
    error::{BlockedStatement, QueryError, describe_refusal, is_given_up},
    parameters::parameter_types,
};
use crate::{
    config::{DatabaseConfig, latest::Replacements},
    metrics::{Query, QueryDurations},
    tasks,
};

/// Additional wait for an answer beyond the server's `statement_timeout`. When both are alive the
/// server gives up first, and the session stays usable.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// Maximum time of a request to cancel a statement.
const CANCEL_MAX: Duration = Duration::from_secs(1);

/// Parameter values of a statement, in order.
pub type Parameters<'a> = [&'a (dyn ToSql + Sync)];

/// Whether a Postgres session is ours alone, or shared with other clients of a pooler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Postgres started the session for this connection: settings, prepared statements and `LISTEN`
    /// stay.
    Own,
    /// A pooler may lend the session to another client after each transaction.
    Shared,
}

/// A session with Postgres. Dropping it ends the session.
pub struct Connection {
    /// Client of the driver. Statements go through the methods below, each of which sets a
    /// deadline.
    pub(super) client: Client,
    /// Watch for sessions that block statements. `None` on a shared session, and on the session of
    /// the watch itself.
    pub(super) lock_watch: Option<LockWatch>,
    /// Id of the server process of this session; behind a pooler, of the one that ran the first
    /// statement.
    pub(super) pid: Option<i32>,
    /// Notified of every NOTIFY on a channel that the session listens to.
    pub notified: Arc<Notify>,
    pub(super) closed: CancellationToken,
    /// Token that is cancelled to end the session, when a reload has changed the database's
    /// settings.
    pub(super) end: CancellationToken,
    /// Reason for the end of the session, in the words of the driver.
    pub(super) ending: Arc<OnceLock<String>>,
    /// Reason for the end of the session, as the server gave it to a statement.
    pub(super) reason: OnceLock<String>,
    pub(super) query_timeout: Duration,
    pub(super) queries: Option<QueryDurations>,
    /// The database's encoding; `None` when the server or a pooler did not report it.
    pub(super) encoding: Option<String>,
    /// Whether the server has `transaction_timeout`, which ends a transaction that takes too long.
    pub(super) limits_transactions: bool,
    pub(super) sharing: Sharing,
    /// Text that begins the transaction of a statement on a shared session, with our settings.
    pub(super) begin: String,
    pub(super) connector: MakeRustlsConnect,
    /// Time at which the last statement of this session ended. The server began the next statement
    /// in the pipeline then.
    pub(super) last_end: RwLock<Instant>,
    pub(super) _abandon: DropGuard,
}

/// A statement that can be run on the session that prepared it.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The statement as the server has prepared it; `None` on a shared session.
    own: Option<Statement>,
    sql: String,
    types: Vec<Type>,
}

impl Connection {
    /// Whether the session is ours alone, or shared with other clients of a pooler.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// Waits for a statement, at most `query_timeout` and a second. The time of a
    /// statement begins when the previous one on this session has ended.
    ///
    /// # Errors
    ///
    /// After [`QueryError::Timeout`] the server may or may not have carried the statement out: drop
    /// the connection. The server has been asked to cancel the statement.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the statement: the server may still carry it out.
    pub async fn deadline<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, QueryError> {
        let after = self.query_timeout.saturating_add(DEADLINE_SLACK);
        let mut began = Instant::now();
        let mut statement = pin!(statement);
        let mut slow = None;
        loop {
            // A slow statement may be waiting for a lock.
            let asks = self.lock_watch.as_ref().filter(|_| slow.is_none() && SLOW < after);
            let until = began + asks.map_or(after, |_| SLOW);
            let answer = tokio::time::timeout_at(until.into(), &mut statement).await;
            if let Ok(answer) = answer {
                self.ended();
                return match answer {
                    Ok(answer) => Ok(answer),
                    Err(error) => Err(self.explained(error, slow.as_ref(), began).await),
                };
            }
            let before = *self.last_end.read().unwrap_or_else(PoisonError::into_inner);
            match asks {
                _ if before > began => began = before,
                Some(lock_watch) => slow = Some(lock_watch.begin()),
                None => {
                    self.cancel();
                    return Err(QueryError::Timeout { after });
                }
            }
        }
    }

    /// The error, extended by the session whose lock the statement waited for.
    async fn explained(
        &self,
        error: tokio_postgres::Error,
        slow: Option<&Slow>,
        began: Instant,
    ) -> QueryError {
        self.keep_reason(&error);
        let (Some(lock_watch), Some(slow)) = (&self.lock_watch, slow) else { return error.into() };
        if !is_given_up(&error) {
            return error.into();
        }
        match lock_watch.found(slow, began).await {
            Some(by) => QueryError::Blocked(Box::new(BlockedStatement { by, error })),
            None => error.into(),
        }
    }

    /// Keeps the reason for which the server ended the session: only the running statement receives
    /// it.
    fn keep_reason(&self, error: &tokio_postgres::Error) {
        let fatal = error.as_db_error().filter(|it| ["FATAL", "PANIC"].contains(&it.severity()));
        if let Some(reason) = fatal {
            // The first fatal error is the reason why the session ended. `set` ignores the later
            // ones, which follow from it.
            drop(self.reason.set(describe_refusal(reason)));
        }
    }

    /// Lets the session end when a reload replaces the settings of the database.
    pub(super) fn until(self, mut replaced: Replacements<DatabaseConfig>) -> Self {
        let (closed, end) = (self.closed.clone(), self.end.clone());
        tasks::drive(async move {
            tokio::select! {
                () = replaced.next() => end.cancel(),
                () = closed.cancelled() => {}
            }
        });
        self
    }

    /// Waits for a statement as [`deadline`](Self::deadline) does, and measures its duration.
    ///
    /// # Errors
    ///
    /// The errors of `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the statement: the server may still carry it out.
    pub async fn timed<T>(
        &self,
        query: Query,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, QueryError> {
        let started = Instant::now();
        let answer = self.deadline(statement).await;
        if let Some(queries) = &self.queries {
            queries.queried(query, started.elapsed());
        }
        answer
    }

    /// Prepares a statement. Each `$n` of it has a cast, `$1::text`, which says its type.
    ///
    /// # Errors
    ///
    /// Errors of `deadline`; class `Schema` when an object of the statement is missing. On a shared
    /// session that error comes when the statement runs.
    pub async fn prepare(&self, sql: String) -> Result<Prepared, QueryError> {
        let types = parameter_types(&sql)?;
        let own = match self.sharing {
            Sharing::Own => Some(self.deadline(self.client.prepare(&sql)).await?),
            Sharing::Shared => None,
        };
        Ok(Prepared { own, sql, types })
    }

    /// Runs a prepared statement and passes each row to `take` as it comes.
    ///
    /// # Errors
    ///
    /// The errors of the driver; wrap it into [`deadline`](Self::deadline) or
    /// [`timed`](Self::timed).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the statement: the server may still carry it out.
    pub async fn each(
        &self,
        statement: &Prepared,
        parameters: &Parameters<'_>,
        mut take: impl FnMut(Row) -> Result<(), tokio_postgres::Error>,
    ) -> Result<(), tokio_postgres::Error> {
        let mut collect = async |rows: RowStream| {
            let mut rows = pin!(rows);
            while let Some(row) = rows.try_next().await? {
                take(row)?;
            }
            Ok(())
        };
        if let Some(own) = &statement.own {
            return collect(self.client.query_raw(own, parameters.iter().copied()).await?).await;
        }
        let types = statement.types.iter().cloned();
        let pairs = parameters.iter().copied().zip(types);
        let reading =
            async { collect(self.client.query_typed_raw(&statement.sql, pairs).await?).await };
        Box::pin(self.in_transaction(reading)).await
    }

    /// Runs a prepared statement to its end.
    ///
    /// # Errors
    ///
    /// The same as for [`each`](Self::each).
    ///
    /// # Cancel safety
    ///
    /// The same as for [`each`](Self::each).
    pub async fn rows(
        &self,
        statement: &Prepared,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let mut rows = Vec::new();
        self.each(statement, parameters, |row| {
            rows.push(row);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Runs a prepared statement within its deadline, and measures its duration.
    ///
    /// # Errors
    ///
    /// The errors of `deadline`.
    ///
    /// # Cancel safety
    ///
    /// The same as for [`each`](Self::each).
    pub async fn run(
        &self,
        query: Query,
        statement: &Prepared,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        self.timed(query, self.rows(statement, parameters)).await
    }

    /// Runs a prepared statement that always returns a row, and returns the first row.
    ///
    /// # Errors
    ///
    /// The errors of `deadline`; [`QueryError::NoRow`] when no row is returned.
    ///
    /// # Cancel safety
    ///
    /// The same as for [`each`](Self::each).
    pub async fn run_one(
        &self,
        query: Query,
        statement: &Prepared,
        parameters: &Parameters<'_>,
    ) -> Result<Row, QueryError> {
        let rows = self.run(query, statement, parameters).await?;
        rows.into_iter().next().ok_or(QueryError::NoRow)
    }

    /// Runs a statement once, without preparing it. Each `$n` of it has a cast, which says its
    /// type.
    ///
    /// # Errors
    ///
    /// The errors of `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the statement: the server may still carry it out.
    pub async fn query(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        let types = parameter_types(sql)?;
        self.deadline(self.query_typed(sql, &types, parameters)).await
    }

    /// Runs a statement once, without preparing it and without a deadline.
    ///
    /// # Errors
    ///
    /// The errors of the session. The session's `statement_timeout` has to be long enough.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the statement: the server may still carry it out.
    pub async fn query_without_deadline(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        let types = parameter_types(sql)?;
        let began = Instant::now();
        let (rows, slow) = self.watched(self.query_typed(sql, &types, parameters)).await;
        self.ended();
        match rows {
            Ok(rows) => Ok(rows),
            Err(error) => Err(self.explained(error, slow.as_ref(), began).await),
        }
    }

    /// Runs some work in this session. When it takes long, a watch for the blocking session begins
    /// and is returned with the result.
    async fn watched<T>(&self, work: impl Future<Output = T>) -> (T, Option<Slow>) {
        let mut work = pin!(work);
        if let Ok(done) = tokio::time::timeout(SLOW, &mut work).await {
            return (done, None);
        }
        let slow = self.lock_watch.as_ref().map(LockWatch::begin);
        (work.await, slow)
    }

    /// Runs statements without a result, such as `LISTEN`, within one deadline.
    ///
    /// # Errors
    ///
    /// The errors of `deadline`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the statement: the server may still carry it out.
    pub async fn execute(&self, sql: &str) -> Result<(), QueryError> {
        self.deadline(self.client.batch_execute(sql)).await
    }

    async fn query_typed(
        &self,
        sql: &str,
        types: &[Type],
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let pairs = parameters.iter().copied().zip(types.iter().cloned());
        let pairs = pairs.collect::<Vec<_>>();
        let reading = self.client.query_typed(sql, &pairs);
        match self.sharing {
            Sharing::Own => reading.await,
            Sharing::Shared => Box::pin(self.in_transaction(reading)).await,
        }
    }

    /// Runs one statement in a transaction with our settings. `BEGIN`, the statement and `COMMIT`
    /// take one round trip together.
    async fn in_transaction<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        // Each future sends its message when it is first polled. They are polled in this order:
        // `BEGIN`, the statement, `COMMIT`.
        let work = join(statement, self.client.batch_execute("COMMIT"));
        let (begun, (answer, committed)) = join(self.client.batch_execute(&self.begin), work).await;
        begun?;
        let answer = answer?;
        committed.map(|()| answer)
    }

    fn ended(&self) {
        *self.last_end.write().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Asks the server to cancel the running statement of this session.
    fn cancel(&self) {
        let (token, connector) = (self.client.cancel_token(), self.connector.clone());
        tasks::drive(async move {
            let asked = tokio::time::timeout(CANCEL_MAX, token.cancel_query(connector)).await;
            if !matches!(asked, Ok(Ok(()))) {
                tracing::debug!(
                    "could not reach Postgres to cancel a statement; it may run until its timeout"
                );
            }
        });
    }

    /// This session, which now measures the durations of its [timed](Self::timed) statements.
    #[must_use]
    pub fn measured(mut self, queries: QueryDurations) -> Self {
        self.queries = Some(queries);
        self
    }

    /// The text in a form that the database accepts. A database without Unicode would refuse the
    /// whole statement for a character that it lacks, so for it everything but ASCII is escaped.
    pub fn storable<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let is_unicode = self.encoding.as_deref().is_none_or(|encoding| encoding == "UTF8");
        if is_unicode || text.is_ascii() {
            return Cow::Borrowed(text);
        }
        let escape =
            |c: char| if c.is_ascii() { c.to_string() } else { c.escape_unicode().to_string() };
        Cow::Owned(text.chars().map(escape).collect())
    }

    /// Waits until the session has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Reason for the end of the session; `None` while it is open.
    pub fn ending(&self) -> Option<&str> {
        self.reason.get().or_else(|| self.ending.get()).map(String::as_str)
    }
}

impl Prepared {
    /// The columns of the statement's rows. `None` on a session that a pooler shares: there nothing
    /// is prepared, and the columns come with each result.
    pub fn columns(&self) -> Option<&[tokio_postgres::Column]> {
        self.own.as_ref().map(Statement::columns)
    }
}
