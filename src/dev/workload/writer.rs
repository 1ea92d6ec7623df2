//! A writer of the workload: draws transactions, runs them over one connection, and notes how each
//! ended.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Shared, WorkloadError,
    insert::NumberedRows,
    plan::Plan,
    session::{Work, WriterSession, is_lasting},
};
use crate::dev::{
    checker::{Ledger, Nanos, Order, Row, Transaction, TransactionFate},
    random::Random,
};

/// A writer of the workload.
pub(super) struct Writer {
    shared: Arc<Shared>,
    number: u32,
    random: Random,
    ledger: Ledger,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, number: u32) -> Self {
        let random = Random::fork(shared.options.seed, number.into());
        Self { shared, number, random, ledger: Ledger::default() }
    }

    /// Writes until nothing is left to commit, or until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<Ledger, WorkloadError> {
        let mut session = WriterSession::open(&self.shared.options).await?;
        while !stop.is_cancelled() {
            if let Some(due) = self.shared.due() {
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = stop.cancelled() => break,
                }
            }
            let claimed = self.shared.claim(1_000);
            if claimed == 0 {
                break;
            }
            let events_max = u32::try_from(claimed).unwrap_or(u32::MAX);
            let plan = Plan::draw(&mut self.random, &self.shared.options, events_max);
            let kept = if plan.ending.commits() { plan.rows.len() as u64 } else { 0 };
            self.shared.unclaim(claimed.saturating_sub(kept));
            let committed = self.transact(&mut session, &plan).await?;
            self.shared.unclaim(kept.saturating_sub(committed));
            if session.is_broken() {
                session = WriterSession::open(&self.shared.options).await?;
            }
        }
        Ok(self.ledger)
    }

    /// Runs a transaction and returns how many events it committed.
    async fn transact(
        &mut self,
        session: &mut WriterSession,
        plan: &Plan,
    ) -> Result<u64, WorkloadError> {
        let shared = Arc::clone(&self.shared);
        let keys: Vec<i32> = match shared.options.order {
            Order::Serial => plan.keys().into_iter().filter_map(|k| k.try_into().ok()).collect(),
            Order::Overlap => Vec::new(),
        };
        let xid = match session.begin(&keys, plan.wait_before_insert).await {
            Ok(xid) => xid,
            Err(error) => return leave(session, error).await.map(|()| 0),
        };
        let begin = shared.now();
        let taken_back = (!plan.taken_back.is_empty())
            .then(|| NumberedRows::number(&plan.taken_back, plan.way, &shared));
        let work = Work {
            taken_back,
            rows: NumberedRows::number(&plan.rows, plan.way, &shared),
            ending: plan.ending,
            gid: format!("workload-{}", Uuid::new_v4()),
        };
        let fate = match session.finish(&work).await {
            Ok(()) if plan.ending.commits() => TransactionFate::Committed,
            Ok(()) => TransactionFate::RolledBack,
            Err(error) => self.find_out(session, error, &work, &xid).await?,
        };
        let end = shared.now();
        if let Some(rows) = work.taken_back {
            self.note(begin, end, TransactionFate::RolledBack, rows.ledger);
        }
        let committed =
            if fate == TransactionFate::Committed { work.rows.ledger.len() as u64 } else { 0 };
        self.note(begin, end, fate, work.rows.ledger);
        shared.progress.transactions.fetch_add(1, Relaxed);
        Ok(committed)
    }

    /// Finds out how a transaction ended whose COMMIT returned an error.
    async fn find_out(
        &self,
        session: &mut WriterSession,
        error: tokio_postgres::Error,
        work: &Work,
        xid: &str,
    ) -> Result<TransactionFate, WorkloadError> {
        if !session.is_broken() && error.as_db_error().is_some() {
            // The server refused one of the inserts, and so the COMMIT rolled the transaction back.
            return leave(session, error).await.map(|()| TransactionFate::RolledBack);
        }
        let Some(first) = work.rows.ledger.first() else { return Ok(TransactionFate::RolledBack) };
        let options = &self.shared.options;
        let deadline = Instant::now() + options.reconnect_timeout;
        // Postgres may be restarting: each try is a new connection.
        while Instant::now() < deadline {
            *session = WriterSession::open(options).await?;
            match session.has_committed(xid, &work.gid, first.id, options).await {
                Ok(true) => return Ok(TransactionFate::Committed),
                Ok(false) => return Ok(TransactionFate::RolledBack),
                Err(error) if is_lasting(&error) => return Err(WorkloadError::Statement(error)),
                Err(_) => {}
            }
        }
        Ok(TransactionFate::Unknown)
    }

    fn note(&mut self, begin: Nanos, end: Nanos, fate: TransactionFate, rows: Vec<Row>) {
        let progress = &self.shared.progress;
        let counter = match fate {
            TransactionFate::Committed => &progress.committed,
            TransactionFate::RolledBack | TransactionFate::Unknown => &progress.rolled_back,
        };
        counter.fetch_add(rows.len() as u64, Relaxed);
        self.ledger.transactions.push(Transaction { writer: self.number, begin, end, fate, rows });
    }
}

/// Gives up a transaction after an error. Fails when the next transaction would meet the same
/// error.
async fn leave(session: &WriterSession, error: tokio_postgres::Error) -> Result<(), WorkloadError> {
    if is_lasting(&error) {
        return Err(WorkloadError::Statement(error));
    }
    // A failed ROLLBACK means that the connection is lost; then the server rolls back by itself.
    drop(session.roll_back().await);
    Ok(())
}
