//! A session: the connection of one writer, with its prepared statements.

use std::time::Duration;

use futures_util::future::{join, join3, join4, try_join4};
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Error, NoTls, Statement};
use uuid::Uuid;

use super::{
    Options, WorkloadError,
    insert::NumberedRows,
    plan::{Ending, Way},
};
use crate::tasks;

/// The class of the workload's advisory locks. It keeps them apart from other advisory locks of the
/// database.
const LOCK_CLASS: i32 = 0x0057_4b4c;

/// A connection with the statements of the workload.
pub(super) struct WriterSession {
    client: Client,
    statements: WorkloadStatements,
}

struct WorkloadStatements {
    lock: Statement,
    emit: Statement,
    emit_many: Statement,
    insert: Statement,
}

/// The rows of one transaction, and how the transaction ends.
pub(super) struct Work {
    pub(super) rows: NumberedRows,
    pub(super) taken_back: Option<NumberedRows>,
    pub(super) ending: Ending,
    /// The name of the prepared transaction, for [`Ending::Prepare`].
    pub(super) gid: String,
}

impl WriterSession {
    /// Connects, and tries again until the time for retries is used up.
    pub(super) async fn open(options: &Options) -> Result<Self, WorkloadError> {
        let deadline = Instant::now() + options.reconnect_timeout;
        loop {
            match Self::connect(options).await {
                Ok(session) => return Ok(session),
                Err(error) if is_lasting(&error) => return Err(WorkloadError::Statement(error)),
                Err(source) if Instant::now() > deadline => {
                    return Err(WorkloadError::Unreachable {
                        reconnect_timeout: options.reconnect_timeout,
                        source,
                    });
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn connect(options: &Options) -> Result<Self, Error> {
        let (client, connection) = tokio_postgres::connect(&options.url, NoTls).await?;
        // An error of the connection is ignored here, because each statement over it fails with an
        // error too.
        tasks::drive(async move { drop(connection.await) });
        let prepare = async |text: &str| client.prepare(&in_schema(text, options)).await;
        // All statements are prepared in one round trip, because some tests cut connections by the
        // dozen.
        let (lock, emit, emit_many, insert) = try_join4(
            prepare(include_str!("sql/lock.sql")),
            prepare(include_str!("sql/emit.sql")),
            prepare(include_str!("sql/emit_many.sql")),
            prepare(include_str!("sql/insert.sql")),
        )
        .await?;
        let statements = WorkloadStatements { lock, emit, emit_many, insert };
        Ok(Self { client, statements })
    }

    /// Whether the connection is gone.
    pub(super) fn is_broken(&self) -> bool {
        self.client.is_closed()
    }

    /// Begins a transaction, draws its id and locks its keys. Without `wait` that takes one round
    /// trip; else the pause is between drawing the id and locking.
    pub(super) async fn begin(
        &self,
        keys: &[i32],
        wait: Option<Duration>,
    ) -> Result<String, Error> {
        let opening = self.client.batch_execute("BEGIN");
        let Some(wait) = wait else {
            let (opened, drawn) = join(opening, self.lock(keys)).await;
            return opened.and(drawn);
        };
        let (opened, drawn) = join(opening, self.lock(&[])).await;
        opened.and(drawn)?;
        sleep(wait).await;
        self.lock(keys).await
    }

    /// Draws the transaction's id, if it has none yet, and locks the keys.
    async fn lock(&self, keys: &[i32]) -> Result<String, Error> {
        self.client.query_one(&self.statements.lock, &[&LOCK_CLASS, &keys]).await?.try_get(0)
    }

    /// Inserts the rows and ends the transaction. That takes one round trip, unless the ending has
    /// a pause.
    pub(super) async fn finish(&self, work: &Work) -> Result<(), Error> {
        let client = &self.client;
        let insert = self.insert_all(work);
        let gid = &work.gid;
        match work.ending {
            Ending::Commit => both(join(insert, client.batch_execute("COMMIT")).await),
            Ending::Rollback => both(join(insert, client.batch_execute("ROLLBACK")).await),
            Ending::Fail => {
                let fail = client.batch_execute("SELECT 1 / 0");
                let (inserted, _, ended) =
                    join3(insert, fail, client.batch_execute("COMMIT")).await;
                both((inserted, ended))
            }
            Ending::CommitLate(hold) => {
                insert.await?;
                sleep(hold).await;
                client.batch_execute("COMMIT").await
            }
            Ending::Prepare(hold) => {
                let prepare = format!("PREPARE TRANSACTION '{gid}'");
                both(join(insert, client.batch_execute(&prepare)).await)?;
                sleep(hold).await;
                client.batch_execute(&format!("COMMIT PREPARED '{gid}'")).await
            }
        }
    }

    async fn insert_all(&self, work: &Work) -> Result<(), Error> {
        let Some(taken_back) = &work.taken_back else {
            return self.insert(&work.rows).await;
        };
        let (marked, inserted, returned, rest) = join4(
            self.client.batch_execute("SAVEPOINT before_taken_back"),
            self.insert(taken_back),
            self.client.batch_execute("ROLLBACK TO before_taken_back"),
            self.insert(&work.rows),
        )
        .await;
        marked.and(inserted).and(returned).and(rest)
    }

    async fn insert(&self, rows: &NumberedRows) -> Result<(), Error> {
        let statement = match rows.way {
            Way::Emit => &self.statements.emit,
            Way::EmitMany => &self.statements.emit_many,
            Way::Insert => &self.statements.insert,
        };
        self.client.query(statement, &rows.parameters()).await.map(|_| ())
    }

    /// Rolls back a transaction that failed.
    pub(super) async fn roll_back(&self) -> Result<(), Error> {
        self.client.batch_execute("ROLLBACK").await
    }

    /// Waits for the end of a transaction of an earlier connection, and returns whether it
    /// committed. If it is prepared, commits it first.
    pub(super) async fn has_committed(
        &self,
        xid: &str,
        gid: &str,
        event_id: Uuid,
        options: &Options,
    ) -> Result<bool, Error> {
        let client = &self.client;
        let deadline = Instant::now() + options.reconnect_timeout;
        loop {
            if client.query_one(include_str!("sql/prepared.sql"), &[&gid]).await?.try_get(0)? {
                client.batch_execute(&format!("COMMIT PREPARED '{gid}'")).await?;
            }
            // The statement fails when a server that has crashed has not given out this transaction
            // id again. The transaction is not running then.
            let status = client.query_one(include_str!("sql/in_progress.sql"), &[&xid]).await;
            let running = status.and_then(|row| row.try_get(0)).unwrap_or(false);
            if !running || Instant::now() > deadline {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        let exists = in_schema(include_str!("sql/exists.sql"), options);
        client.query_one(&exists, &[&event_id]).await?.try_get(0)
    }
}

/// Merges two results: the first error counts.
fn both((one, other): (Result<(), Error>, Result<(), Error>)) -> Result<(), Error> {
    one.and(other)
}

/// Whether trying again cannot help: the database answered with an error that does not pass by
/// itself.
pub(super) fn is_lasting(error: &Error) -> bool {
    // Classes of SQLSTATE that may pass: 08 connection, 40 serialization and deadlock, 53
    // resources, 57 operator intervention.
    error.code().is_some_and(|code| {
        !["08", "40", "53", "57"].iter().any(|class| code.code().starts_with(class))
    })
}

fn in_schema(statement: &str, options: &Options) -> String {
    let quoted = format!("\"{}\"", options.schema.replace('"', "\"\""));
    statement.replace("\"postrider\"", &quoted)
}
