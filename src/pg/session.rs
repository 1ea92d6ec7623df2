//! One session with Postgres: how statements run on it, how long each may take, how it ends.
//!
//! A session is *own* when Postgres started it for this connection, or *shared* when a pooler lends
//! it for one transaction at a time. On a shared session nothing may outlive the transaction: each
//! statement runs unnamed, in a transaction of its own that begins with our settings.

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

use super::error::{QueryError, describe_refusal};
use crate::{
    config::{Database, latest::Replacements},
    metrics::{Query, QueryDurations},
    tasks,
};

/// How much longer than the server's `statement_timeout` an answer is waited for: when both are
/// alive the server gives up first, and the session stays usable.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// How long a request to cancel a statement may take.
const CANCEL_MAX: Duration = Duration::from_secs(1);

/// The values that a statement gets, in order.
pub type Parameters<'a> = [&'a (dyn ToSql + Sync)];

/// Whose a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Postgres started it for this connection: settings, prepared statements and `LISTEN` stay.
    Own,
    /// A pooler may give it to somebody else after each transaction.
    Shared,
}

/// One session. Dropping it ends the session.
pub struct Connection {
    /// The driver's half. Statements of the program go through the methods of `Connection`.
    pub client: Client,
    /// Notified of every NOTIFY that the session listens for.
    pub notified: Arc<Notify>,
    pub(super) closed: CancellationToken,
    /// Cancelled to end the session for the settings that a reload brought.
    pub(super) end: CancellationToken,
    /// What the driver knows of the session's end.
    pub(super) ending: Arc<OnceLock<String>>,
    /// What the server told a statement about it.
    pub(super) reason: OnceLock<String>,
    pub(super) query_timeout: Duration,
    pub(super) queries: Option<QueryDurations>,
    /// The database's encoding; `None` when the server or a pooler did not report it.
    pub(super) encoding: Option<String>,
    /// Whether the server can end a transaction for its length.
    pub(super) limits_transactions: bool,
    pub(super) sharing: Sharing,
    /// Opens the transaction of one statement on a shared session.
    pub(super) begin: String,
    pub(super) connector: MakeRustlsConnect,
    /// When the last statement ended. The next one in the pipeline began then.
    pub(super) last_end: RwLock<Instant>,
    pub(super) _abandon: DropGuard,
}

/// One statement, ready to run on the session that prepared it.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The server's handle, on an own session.
    own: Option<Statement>,
    sql: String,
    types: Vec<Type>,
}

impl Connection {
    /// Whose the session is.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// Waits for a statement, but no longer than `query_timeout` and a little. The time of a
    /// statement begins when the one before it on this session has ended.
    ///
    /// # Errors
    ///
    /// After [`QueryError::Timeout`] nobody knows what the server did: drop the connection. The
    /// server has been asked to cancel the statement.
    ///
    /// # Cancel safety
    ///
    /// As that of the statement: the server may still carry it out.
    pub async fn deadline<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, QueryError> {
        let after = self.query_timeout.saturating_add(DEADLINE_SLACK);
        let mut began = Instant::now();
        let mut statement = pin!(statement);
        loop {
            let answer = tokio::time::timeout_at((began + after).into(), &mut statement).await;
            if let Ok(answer) = answer {
                self.ended();
                return answer.map_err(|error| {
                    self.keep_reason(&error);
                    QueryError::from(error)
                });
            }
            let before = *self.last_end.read().unwrap_or_else(PoisonError::into_inner);
            if before <= began {
                self.cancel();
                return Err(QueryError::Timeout { after });
            }
            began = before;
        }
    }

    /// A session that the server ends while a statement runs says why to the statement only.
    fn keep_reason(&self, error: &tokio_postgres::Error) {
        let fatal = error.as_db_error().filter(|it| ["FATAL", "PANIC"].contains(&it.severity()));
        if let Some(reason) = fatal {
            // The first reason is the cause of what follows.
            drop(self.reason.set(describe_refusal(reason)));
        }
    }

    /// The same session, which ends when the settings of the database are replaced by a reload.
    pub(super) fn until(self, mut replaced: Replacements<Database>) -> Self {
        let (closed, end) = (self.closed.clone(), self.end.clone());
        tasks::drive(async move {
            tokio::select! {
                () = replaced.next() => end.cancel(),
                () = closed.cancelled() => {}
            }
        });
        self
    }

    /// As [`deadline`](Self::deadline), and counts how long the statement took.
    ///
    /// # Errors
    ///
    /// As `deadline`.
    ///
    /// # Cancel safety
    ///
    /// As that of the statement: the server may still carry it out.
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
    /// As `deadline`; class `Schema` when what it names is missing. On a shared session that shows
    /// when it runs.
    pub async fn prepare(&self, sql: String) -> Result<Prepared, QueryError> {
        let types = parameter_types(&sql)?;
        let own = match self.sharing {
            Sharing::Own => Some(self.deadline(self.client.prepare(&sql)).await?),
            Sharing::Shared => None,
        };
        Ok(Prepared { own, sql, types })
    }

    /// Runs a prepared statement and hands each row to `take` as it comes.
    ///
    /// # Errors
    ///
    /// As the driver's; wrap it into [`deadline`](Self::deadline) or [`timed`](Self::timed).
    ///
    /// # Cancel safety
    ///
    /// As that of the statement: the server may still carry it out.
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
    /// As [`each`](Self::each).
    ///
    /// # Cancel safety
    ///
    /// As [`each`](Self::each).
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

    /// Runs a prepared statement within its deadline, and counts how long it took.
    ///
    /// # Errors
    ///
    /// As `deadline`.
    ///
    /// # Cancel safety
    ///
    /// As [`each`](Self::each).
    pub async fn run(
        &self,
        query: Query,
        statement: &Prepared,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        self.timed(query, self.rows(statement, parameters)).await
    }

    /// As [`run`](Self::run), for a statement that always gives a row.
    ///
    /// # Errors
    ///
    /// As `deadline`; [`QueryError::NoRow`] when it gives none.
    ///
    /// # Cancel safety
    ///
    /// As [`each`](Self::each).
    pub async fn run_one(
        &self,
        query: Query,
        statement: &Prepared,
        parameters: &Parameters<'_>,
    ) -> Result<Row, QueryError> {
        let rows = self.run(query, statement, parameters).await?;
        rows.into_iter().next().ok_or(QueryError::NoRow)
    }

    /// Runs a statement once, without preparing it. Each `$n` of it has a cast, which says its type.
    ///
    /// # Errors
    ///
    /// As `deadline`.
    ///
    /// # Cancel safety
    ///
    /// As that of the statement: the server may still carry it out.
    pub async fn query(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        let types = parameter_types(sql)?;
        self.deadline(self.query_typed(sql, &types, parameters)).await
    }

    /// As [`query`](Self::query), for as long as it takes.
    ///
    /// # Errors
    ///
    /// As the session's. The session's `statement_timeout` has to allow it.
    ///
    /// # Cancel safety
    ///
    /// As that of the statement: the server may still carry it out.
    pub async fn query_patiently(
        &self,
        sql: &str,
        parameters: &Parameters<'_>,
    ) -> Result<Vec<Row>, QueryError> {
        let types = parameter_types(sql)?;
        let rows = self.query_typed(sql, &types, parameters).await;
        self.ended();
        Ok(rows?)
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

    /// Runs one statement in a transaction with our settings, all three in one flight.
    async fn in_transaction<T>(
        &self,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        // Each future sends its message when it is polled first, and they are polled in this order.
        let work = join(statement, self.client.batch_execute("COMMIT"));
        let (begun, (answer, committed)) = join(self.client.batch_execute(&self.begin), work).await;
        begun?;
        let answer = answer?;
        committed.map(|()| answer)
    }

    fn ended(&self) {
        *self.last_end.write().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Asks the server to give up what it is doing for this session.
    fn cancel(&self) {
        let (token, connector) = (self.client.cancel_token(), self.connector.clone());
        tasks::drive(async move {
            let asked = tokio::time::timeout(CANCEL_MAX, token.cancel_query(connector)).await;
            if !matches!(asked, Ok(Ok(()))) {
                tracing::debug!("the server was not reached to cancel a statement");
            }
        });
    }

    /// The same session, whose [timed](Self::timed) statements are measured.
    #[must_use]
    pub fn measured(mut self, queries: QueryDurations) -> Self {
        self.queries = Some(queries);
        self
    }

    /// The text as the database can take it: one that does not keep Unicode would refuse the whole
    /// statement for a character that it lacks, so there everything but ASCII is escaped.
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

    /// Why the session ended, once it has.
    pub fn ending(&self) -> Option<&str> {
        self.reason.get().or_else(|| self.ending.get()).map(String::as_str)
    }
}

impl Prepared {
    /// The columns of the answer, where the server has described them: on an own session.
    pub fn columns(&self) -> Option<&[tokio_postgres::Column]> {
        self.own.as_ref().map(Statement::columns)
    }
}

/// The types of a statement's parameters, from the casts that follow them.
fn parameter_types(sql: &str) -> Result<Vec<Type>, QueryError> {
    let code = without_comments(sql);
    let mut types: Vec<Option<Type>> = Vec::new();
    for (at, _) in code.match_indices('$') {
        let rest = code.get(at + 1..).unwrap_or_default();
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (number, rest) = rest.split_at(digits);
        let Some(index) = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1))
        else {
            continue;
        };
        if types.len() <= index {
            types.resize(index + 1, None);
        }
        let cast = rest.strip_prefix("::").and_then(cast_type);
        if let Some(slot) = types.get_mut(index).filter(|slot| slot.is_none()) {
            *slot = cast;
        }
    }
    let missing = |number: usize| QueryError::Untyped { number };
    types.into_iter().zip(1..).map(|(found, number)| found.ok_or_else(|| missing(number))).collect()
}

/// The statement without its comments, which name parameters too.
fn without_comments(sql: &str) -> String {
    let code = |line: &'_ str| line.split_once("--").map_or(line, |(code, _)| code).to_owned();
    sql.lines().map(code).collect::<Vec<_>>().join("\n")
}

/// The type that a cast names.
fn cast_type(text: &str) -> Option<Type> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '.';
    let end = text.find(|letter: char| !is_name(letter)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let is_array = rest.starts_with("[]");
    let (scalar, array) = match name.trim_start_matches("pg_catalog.") {
        "text" => (Type::TEXT, Type::TEXT_ARRAY),
        "bigint" | "int8" => (Type::INT8, Type::INT8_ARRAY),
        "integer" | "int" | "int4" => (Type::INT4, Type::INT4_ARRAY),
        "smallint" | "int2" => (Type::INT2, Type::INT2_ARRAY),
        "boolean" | "bool" => (Type::BOOL, Type::BOOL_ARRAY),
        "float8" => (Type::FLOAT8, Type::FLOAT8_ARRAY),
        "timestamptz" => (Type::TIMESTAMPTZ, Type::TIMESTAMPTZ_ARRAY),
        "uuid" => (Type::UUID, Type::UUID_ARRAY),
        "jsonb" => (Type::JSONB, Type::JSONB_ARRAY),
        "json" => (Type::JSON, Type::JSON_ARRAY),
        "bytea" => (Type::BYTEA, Type::BYTEA_ARRAY),
        _ => return None,
    };
    Some(if is_array { array } else { scalar })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn parameters_have_the_types_of_their_first_casts() {
        let sql = "-- $4 is no parameter\nSELECT $1::text, $2, $2::bigint[], $3::text::pg_snapshot";
        let types = parameter_types(sql).unwrap();
        assert_eq!(types, [Type::TEXT, Type::INT8_ARRAY, Type::TEXT]);
        let error = parameter_types("SELECT $1::text, $2").unwrap_err();
        assert!(error.to_string().contains("$2"), "{error}");
    }

    #[test]
    fn every_statement_says_the_types_of_its_parameters() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut seen = 0;
        let mut directories = vec![root.join("outbox"), root.join("pg")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "sql") {
                    seen += 1;
                    let types = parameter_types(&fs::read_to_string(&path).unwrap());
                    assert!(types.is_ok(), "{}: {types:?}", path.display());
                }
            }
        }
        assert!(seen > 40, "{seen}");
    }
}
