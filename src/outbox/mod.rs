//! What the relay may do to the outbox tables: each method is one statement, or one transaction.

mod accounting;
mod fetch;
mod inspect;
mod letters;
pub mod operator;
mod reconcile;
mod relays;
mod row;
mod settle;
mod sleep;
mod unreadable;
mod upkeep;
mod why;

use std::{collections::HashSet, sync::Arc};

use tokio_postgres::{Row, Statement, types::ToSql};

use crate::{
    delivery::StreamMark,
    event::{EventId, Position, Seq, Snapshot},
    metrics::Query,
    pg::{connect::Connection, error::QueryError, schema::Schema},
};

pub use accounting::{ACCOUNTING_SETTINGS, Accounting, RowState, Standing};
pub use fetch::{Page, PageLimits};
pub use inspect::{Inspection, MissingPrivilege, Progress};
pub use letters::{BlockedKeys, Due, DueLetters};
pub use reconcile::{Due as SettledDue, LETTER_BYTES_MAX, RECONCILE_BATCH, Settled, SettledEvent};
pub use relays::{GivenUp, Letters, RelayRow};
pub use settle::{Authority, SettleError};
pub use upkeep::{Forgotten, Retained, Upkeep};
pub use why::{Waiting, WaitingLetter};

/// The planner settings of a session that reads the outbox: no statistics, stale or missing, may
/// turn a range of an index into a scan of the settled rows.
pub const SESSION_SETTINGS: [(&str, &str); 8] = [
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    ("enable_hashjoin", "off"),
    ("jit", "off"),
    // A page is never worth starting processes for.
    ("max_parallel_workers_per_gather", "0"),
    ("plan_cache_mode", "force_generic_plan"),
    // A lost settlement costs a retry that the stream recognises; waiting for the disk costs more.
    ("synchronous_commit", "off"),
];

/// The outbox as one relay sees it through one session.
pub struct Outbox {
    connection: Connection,
    relay: String,
    schema: Schema,
    statements: Statements,
    page_rows: fetch::PageRows,
}

struct Statements {
    lock: Statement,
    lock_holder: Statement,
    acquire: Statement,
    blocked_keys: Statement,
    target: Statement,
    look: Statement,
    look_late: Statement,
    late: Statement,
    page: Statement,
    page_late: Statement,
    payloads: Statement,
    settle: Statement,
    settle_letters: Statement,
    letters_due: Statement,
    letters_run: Statement,
    letters_record: Statement,
    gate_set: Statement,
    writers: Statement,
    rescan: Statement,
    heal: Statement,
    accept: Statement,
    lettered: Statement,
}

/// What taking the position told.
#[derive(Debug)]
pub struct Acquired {
    /// The fencing number of this holding.
    pub term: i64,
    /// How far everything is settled.
    pub position: Position,
    /// What begins from now on has a higher `seq` than this.
    pub fence: Seq,
    /// What was known of the stream at the last settlement.
    pub stream: StreamMark,
    /// The stream's name and when it was created, as of then.
    pub stream_identity: Option<(String, String)>,
    /// Whether rows are read again that were settled once.
    pub course: Course,
    /// Where the position was made.
    pub origin: Origin,
    /// Whether inserting transactions can notify.
    pub notifies: bool,
}

/// Whether a position goes over its rows for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It does: every letter is of a row that it has passed.
    Onward,
    /// It was put back to heal a stream: letters may be of rows that it has not passed again.
    Again,
}

/// When a stream is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealWhen {
    /// Now.
    AtOnce,
    /// When an operator has asked for it.
    Asked,
}

/// Where a position was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// In this cluster.
    Here,
    /// In another one, from which this database was restored: it means nothing here.
    AnotherCluster,
}

/// Who has the right to run this relay.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The server's process id of that session.
    pub pid: i32,
    /// What that session calls itself.
    pub application_name: Option<String>,
}

impl Holder {
    fn read(row: &Row) -> Result<Self, QueryError> {
        let (pid, application_name) = (row.try_get("pid")?, row.try_get("application_name")?);
        Ok(Self { pid, application_name })
    }
}

impl Outbox {
    /// Prepares the statements on a session.
    ///
    /// # Errors
    /// Class `Schema` means that `postrider migrate` has not run.
    pub async fn open(
        connection: Connection,
        schema: Schema,
        relay: String,
    ) -> Result<Arc<Self>, QueryError> {
        macro_rules! prepare {
            ($file:literal) => {
                connection
                    .deadline(connection.client.prepare(&schema.apply(include_str!($file))))
                    .await?
            };
        }
        // First, so that a column of another type is told by its name, and not by a UNION.
        let page = prepare!("sql/page.sql");
        row::verify(&page)?;
        let statements = Statements {
            lock: prepare!("sql/lock.sql"),
            lock_holder: prepare!("sql/lock_holder.sql"),
            acquire: prepare!("sql/acquire.sql"),
            blocked_keys: prepare!("sql/blocked_keys.sql"),
            target: prepare!("sql/target.sql"),
            look: prepare!("sql/look.sql"),
            look_late: prepare!("sql/look_late.sql"),
            late: prepare!("sql/late.sql"),
            page,
            page_late: prepare!("sql/page_late.sql"),
            payloads: prepare!("sql/payloads.sql"),
            settle: prepare!("sql/settle.sql"),
            settle_letters: prepare!("sql/settle_letters.sql"),
            letters_due: prepare!("sql/letters_due.sql"),
            letters_run: prepare!("sql/letters_run.sql"),
            letters_record: prepare!("sql/letters_record.sql"),
            gate_set: prepare!("sql/gate_set.sql"),
            writers: prepare!("sql/writers.sql"),
            rescan: prepare!("sql/rescan.sql"),
            heal: prepare!("sql/heal.sql"),
            accept: prepare!("sql/accept.sql"),
            lettered: prepare!("sql/lettered.sql"),
        };
        let page_rows = fetch::PageRows::unlimited();
        Ok(Arc::new(Self { connection, relay, schema, statements, page_rows }))
    }

    /// Waits until the session has ended.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Tries to take the right to run this relay, for as long as the session lives.
    ///
    /// # Errors
    /// As the session's.
    pub async fn lock(&self) -> Result<bool, QueryError> {
        let client = &self.connection.client;
        let row = self
            .connection
            .timed(Query::Lock, client.query_one(&self.statements.lock, &[&self.relay]))
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Who has that right.
    ///
    /// # Errors
    /// As the session's.
    pub async fn holder(&self) -> Result<Option<Holder>, QueryError> {
        let client = &self.connection.client;
        let row = self
            .connection
            .deadline(client.query_opt(&self.statements.lock_holder, &[&self.relay]))
            .await?;
        match row {
            None => Ok(None),
            Some(row) => Holder::read(&row).map(Some),
        }
    }

    /// Takes the position under a new term. The lock must be held.
    ///
    /// # Errors
    /// As the session's.
    pub async fn acquire(&self, holder: &str) -> Result<Acquired, QueryError> {
        let client = &self.connection.client;
        let row = self
            .connection
            .timed(Query::Lock, client.query_one(&self.statements.acquire, &[&self.relay, &holder]))
            .await?;
        let snapshot = |name: &str| row.try_get(name).map(Snapshot::new);
        let seq = |name: &str| row.try_get(name).map(Seq);
        Ok(Acquired {
            term: row.try_get("term")?,
            position: Position {
                settled: snapshot("snapshot")?,
                floor: seq("floor")?,
                target: snapshot("target")?,
                target_floor: seq("target_floor")?,
                bookmark: seq("bookmark")?,
            },
            fence: seq("fence")?,
            stream: StreamMark {
                acked: row.try_get::<_, i64>("stream_seq")?.unsigned_abs(),
                event_id: row.try_get::<_, Option<_>>("stream_event_id")?.map(EventId),
                floor: row.try_get::<_, i64>("stream_floor")?.unsigned_abs(),
            },
            stream_identity: row
                .try_get::<_, Option<String>>("stream_name")?
                .zip(row.try_get::<_, Option<String>>("stream_created")?),
            course: if row.try_get("healing")? { Course::Again } else { Course::Onward },
            origin: if row.try_get::<_, i64>("system_id")? == row.try_get::<_, i64>("cluster_id")? {
                Origin::Here
            } else {
                Origin::AnotherCluster
            },
            notifies: row.try_get("notifies")?,
        })
    }

    /// Letters of rows that the position has not passed; there are some only after a healing.
    ///
    /// # Errors
    /// As the session's.
    pub async fn lettered(&self) -> Result<HashSet<Seq>, QueryError> {
        let client = &self.connection.client;
        let rows = self
            .connection
            .deadline(client.query(&self.statements.lettered, &[&self.relay]))
            .await?;
        rows.iter().map(|row| Ok(Seq(row.try_get(0)?))).collect()
    }

    /// Takes a stream that was created then and ends there now for what it is: at once, by putting the
    /// position back to where it still had everything; or when an operator has asked for it, who has
    /// made letters of what is missing. Returns how many letters are tried again; `None` when nothing
    /// was done. Another holding has to begin after it, with another session.
    ///
    /// # Errors
    /// As the session's.
    pub async fn heal(
        &self,
        authority: &Authority,
        created: &str,
        last_seq: u64,
        when: HealWhen,
    ) -> Result<Option<i64>, QueryError> {
        let client = &self.connection.client;
        let last_seq = i64::try_from(last_seq).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&self.relay, &authority.term, &created, &last_seq];
        let row = match when {
            HealWhen::Asked => {
                let accept = client.query_one(&self.statements.accept, &parameters);
                self.connection.deadline(accept).await?
            }
            HealWhen::AtOnce => {
                // It takes as long as there are letters, and the session is not used after it.
                self.connection.deadline(client.batch_execute("SET statement_timeout = 0")).await?;
                client.query_one(&self.statements.heal, &parameters).await?
            }
        };
        Ok(row.try_get(0)?)
    }

    /// Accepts a database that was restored into another cluster: every retained row that was not
    /// settled will be published. Returns how many there are; `None` when the term is lost.
    ///
    /// # Errors
    /// As the session's. It takes as long as rewriting the outbox takes, without a deadline, and
    /// leaves a session without one: open another.
    pub async fn rescan(&self, term: i64) -> Result<Option<i64>, QueryError> {
        let client = &self.connection.client;
        self.connection.deadline(client.batch_execute("SET statement_timeout = 0")).await?;
        let row = client.query_one(&self.statements.rescan, &[&self.relay, &term]).await?;
        Ok(row.try_get(0)?)
    }
}
