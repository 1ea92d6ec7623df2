//! The statements of a relay on the outbox tables: each method is one statement or one transaction.

mod accounting;
mod columns;
mod contract;
mod dead;
mod depth;
mod fetch;
mod filtered;
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
mod row_limit;
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
use crate::{
    event::{Filter, Seq},
    metrics::Depth,
};

pub use accounting::{ACCOUNTING_SETTINGS, AccountEntry, Accounting, RowState};
pub use columns::with_columns;
pub use contract::{Broken, Remedy, Repaired};
pub use dead::DeadLetter;
pub use fetch::{Page, PageLimits};
pub use filtered::{FilterChange, PassedOver};
pub use inspect::{Inspection, MissingPrivilege, RelayProgress, SessionLimit};
pub use lease::{
    Acquired, Candidate, Course, ForeignPosition, Leader, LeaderSession, LeaseEnd, PositionOrigin,
    Rival,
};
pub use letters::{BlockedKeys, DueLetter, DueLetters};
pub use loss::Losses;
pub use producers::{Hindrance, Queue};
pub use reconcile::{LETTER_BYTES_MAX, RECONCILE_BATCH, Settled, SettledDue, SettledEvent};
pub use relays::{GivenUp, LetterDisposal, RelayRow};
pub use repair::{HealWhen, Healed, REPAIR_SETTINGS, Repair};
pub use row_limit::RowLimits;
pub use scan::RecognisedEvent;
pub use settle::{Authority, SettleError, Written};
pub use upkeep::{Forgotten, Retained, Upkeep};
pub use why::{WaitingKey, WaitingLetter};

/// The planner settings of a session that reads the outbox. With stale or missing statistics the
/// planner would otherwise turn an index range into a scan of the settled rows.
pub const SESSION_SETTINGS: [(&str, &str); 12] = [
    // A relay sends a statement every few seconds. So the server may end a session that has been
    // silent for a minute.
    ("idle_session_timeout", "60000"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    ("enable_hashjoin", "off"),
    // Nested loops and index scans must be allowed, whatever the settings of the role or database
    // are.
    ("enable_nestloop", "on"),
    ("enable_indexscan", "on"),
    ("enable_indexonlyscan", "on"),
    ("jit", "off"),
    // A page is too small to be worth parallel worker processes.
    ("max_parallel_workers_per_gather", "0"),
    ("plan_cache_mode", "force_generic_plan"),
    // Settlements do not wait for the disk, which would cost more than it saves: when a crash of
    // Postgres loses one, its events are published again, and the stream recognises their ids.
    ("synchronous_commit", "off"),
];

/// The outbox as one relay sees it through one session.
pub struct Outbox {
    connection: Connection,
    relay: String,
    schema: Schema,
    statements: Statements,
    measuring: depth::Measuring,
    limits: Arc<RowLimits>,
    /// State for a filter; `None` for a relay that takes every event.
    filtered: Option<filtered::Filtered>,
}

struct Statements {
    read_lease: Prepared,
    renew_lease: Prepared,
    release_lease: Prepared,
    acquire_lease: Prepared,
    load_blocked_keys: Prepared,
    read_target: Prepared,
    poll_outbox: Prepared,
    poll_outbox_late: Prepared,
    find_late_transactions: Prepared,
    read_page: Prepared,
    read_page_late: Prepared,
    read_payloads: Prepared,
    settle_position: Prepared,
    settle_letters: Prepared,
    find_due_letters: Prepared,
    load_letters: Prepared,
    record_letters: Prepared,
    open_gate: Prepared,
    find_open_writers: Prepared,
    find_lettered_rows: Prepared,
    recognise_events: Prepared,
    take_over_position: Prepared,
}

impl Outbox {
    /// Prepares the statements on a session.
    ///
    /// # Errors
    /// Class `Schema` means that `postrider migrate` has not run.
    pub async fn open(
        connection: Connection,
        schema: Schema,
        (relay, filter): (String, Filter),
        limits: Arc<RowLimits>,
    ) -> Result<Arc<Self>, QueryError> {
        macro_rules! prepare {
            ($file:literal) => {{
                let sql = schema.apply(&with_columns(include_str!($file)));
                connection.prepare(filtered::with_filter(&sql, &filter)).await?
            }};
        }
        // The statement `read_page` is prepared first. For a column of an unexpected type, its
        // error names the column; that of another statement names only a UNION.
        let read_page = prepare!("sql/read_page.sql");
        row::verify(read_page.columns().unwrap_or_default())?;
        let statements = Statements {
            read_lease: prepare!("sql/read_lease.sql"),
            renew_lease: prepare!("sql/renew_lease.sql"),
            release_lease: prepare!("sql/release_lease.sql"),
            acquire_lease: prepare!("sql/acquire_lease.sql"),
            load_blocked_keys: prepare!("sql/load_blocked_keys.sql"),
            read_target: prepare!("sql/read_target.sql"),
            poll_outbox: prepare!("sql/poll_outbox.sql"),
            poll_outbox_late: prepare!("sql/poll_outbox_late.sql"),
            find_late_transactions: prepare!("sql/find_late_transactions.sql"),
            read_page,
            read_page_late: prepare!("sql/read_page_late.sql"),
            read_payloads: prepare!("sql/read_payloads.sql"),
            settle_position: prepare!("sql/settle_position.sql"),
            settle_letters: prepare!("sql/settle_letters.sql"),
            find_due_letters: prepare!("sql/find_due_letters.sql"),
            load_letters: prepare!("sql/load_letters.sql"),
            record_letters: prepare!("sql/record_letters.sql"),
            open_gate: prepare!("sql/open_gate.sql"),
            find_open_writers: prepare!("sql/find_open_writers.sql"),
            find_lettered_rows: prepare!("sql/find_lettered_rows.sql"),
            recognise_events: prepare!("sql/recognise_events.sql"),
            take_over_position: prepare!("sql/take_over_position.sql"),
        };
        let measuring = depth::Measuring::default();
        let filtered = if filter.takes_all() {
            None
        } else {
            let ceiling = prepare!("sql/read_ceiling.sql");
            Some(filtered::Filtered::new(filter, ceiling))
        };
        Ok(Arc::new(Self { connection, relay, schema, statements, measuring, limits, filtered }))
    }

    /// Measures how much is not published; `None` before the relay's first start. A standby
    /// measures in this session, because it has no other.
    ///
    /// # Errors
    /// The errors of the session.
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

    /// Whether a pooler shares the session with other clients. A shared session receives no
    /// notifications.
    pub fn sharing(&self) -> Sharing {
        self.connection.sharing()
    }

    /// Rows that have a letter and that the position has not passed. Such rows exist only after a
    /// healing.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn lettered(&self) -> Result<HashSet<Seq>, QueryError> {
        let rows = self
            .connection
            .deadline(self.connection.rows(&self.statements.find_lettered_rows, &[&self.relay]))
            .await?;
        rows.iter().map(|row| Ok(Seq(row.try_get(0)?))).collect()
    }
}
