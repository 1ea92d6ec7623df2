//! What the relay may do to the outbox tables: each method is one statement, or one transaction.

mod accounting;
mod contract;
mod dead;
mod depth;
mod fetch;
mod inspect;
mod lease;
mod letters;
mod loss;
pub mod operator;
mod producers;
mod reconcile;
mod relays;
mod repair;
mod row;
mod scan;
mod settle;
mod sleep;
mod unreadable;
mod upkeep;
mod why;

use std::{collections::HashSet, sync::Arc};

use crate::pg::{
    error::QueryError,
    schema::Schema,
    session::{Connection, Prepared, Sharing},
};
use crate::{event::Seq, metrics::Depth};

pub use accounting::{ACCOUNTING_SETTINGS, Accounting, RowState, Standing};
pub use contract::{Broken, Remedy, Repaired};
pub use dead::DeadLetter;
pub use fetch::{Page, PageLimits};
pub use inspect::{Inspection, MissingPrivilege, Progress};
pub use lease::{
    Acquired, Candidate, Course, ForeignPosition, Leader, LeaderSession, LeaseEnd, Origin,
};
pub use letters::{BlockedKeys, Due, DueLetters};
pub use loss::Losses;
pub use producers::{Hindrance, Queue};
pub use reconcile::{Due as SettledDue, LETTER_BYTES_MAX, RECONCILE_BATCH, Settled, SettledEvent};
pub use relays::{GivenUp, Letters, RelayRow};
pub use repair::{HealWhen, Healed, REPAIR_SETTINGS, Repair};
pub use scan::Ours;
pub use settle::{Authority, SettleError, Written};
pub use upkeep::{Forgotten, Retained, Upkeep};
pub use why::{Waiting, WaitingLetter};

/// The planner settings of a session that reads the outbox: no statistics, stale or missing, may
/// turn a range of an index into a scan of the settled rows.
pub const SESSION_SETTINGS: [(&str, &str); 12] = [
    // A relay asks every few seconds: the server ends a session of which nothing is heard.
    ("idle_session_timeout", "60000"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    ("enable_hashjoin", "off"),
    // What is left must be possible, whatever the role's or a neighbour's settings are.
    ("enable_nestloop", "on"),
    ("enable_indexscan", "on"),
    ("enable_indexonlyscan", "on"),
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
    measuring: depth::Measuring,
    page_rows: fetch::PageRows,
}

struct Statements {
    lease: Prepared,
    renew: Prepared,
    release: Prepared,
    acquire: Prepared,
    blocked_keys: Prepared,
    target: Prepared,
    look: Prepared,
    look_late: Prepared,
    late: Prepared,
    page: Prepared,
    page_late: Prepared,
    payloads: Prepared,
    settle: Prepared,
    settle_letters: Prepared,
    letters_due: Prepared,
    letters_run: Prepared,
    letters_record: Prepared,
    gate_set: Prepared,
    writers: Prepared,
    lettered: Prepared,
    ours: Prepared,
    take_over_upgrade: Prepared,
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
                connection.prepare(schema.apply(include_str!($file))).await?
            };
        }
        // First, so that a column of another type is told by its name, and not by a UNION.
        let page = prepare!("sql/page.sql");
        row::verify(page.columns().unwrap_or_default())?;
        let statements = Statements {
            lease: prepare!("sql/lease.sql"),
            renew: prepare!("sql/renew.sql"),
            release: prepare!("sql/release.sql"),
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
            lettered: prepare!("sql/lettered.sql"),
            ours: prepare!("sql/ours.sql"),
            take_over_upgrade: prepare!("sql/take_over_upgrade.sql"),
        };
        let page_rows = fetch::PageRows::unlimited();
        let measuring = depth::Measuring::default();
        Ok(Arc::new(Self { connection, relay, schema, statements, measuring, page_rows }))
    }

    /// How much is not published; `None` before the relay's first start. For a standby, which has
    /// one session only.
    ///
    /// # Errors
    /// As the session's.
    pub async fn depth(&self) -> Result<Option<Depth>, QueryError> {
        self.measuring.depth(&self.connection, &self.schema, &self.relay).await
    }

    /// Waits until the session has ended.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Whose the session is: a shared one hears no notifications.
    pub fn sharing(&self) -> Sharing {
        self.connection.sharing()
    }

    /// Letters of rows that the position has not passed; there are some only after a healing.
    ///
    /// # Errors
    /// As the session's.
    pub async fn lettered(&self) -> Result<HashSet<Seq>, QueryError> {
        let rows = self
            .connection
            .deadline(self.connection.rows(&self.statements.lettered, &[&self.relay]))
            .await?;
        rows.iter().map(|row| Ok(Seq(row.try_get(0)?))).collect()
    }
}
