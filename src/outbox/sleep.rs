//! Lets the relay sleep without missing an event. Opens the wake-up gate, and finds open
//! transactions that may have read it while it was closed.

use std::time::Duration;

use crate::{metrics::Query, outbox::Outbox, pg::error::QueryError};

impl Outbox {
    /// Listens for inserting transactions that notify. Call it once a session, before any sleep.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn listen(&self) -> Result<(), QueryError> {
        let listen = format!("LISTEN \"{}\"", self.schema.channel());
        self.connection.execute(&listen).await
    }

    /// Opens the wake-up gate for a time: inserting transactions notify the relay until that time
    /// is over, even if this process dies.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn open_wake_up_gate(&self, open_for: Duration) -> Result<(), QueryError> {
        self.set_gate(i64::try_from(open_for.as_secs().max(1)).unwrap_or(i64::MAX)).await
    }

    /// Closes the wake-up gate: inserting transactions stop notifying.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn close_wake_up_gate(&self) -> Result<(), QueryError> {
        self.set_gate(0).await
    }

    async fn set_gate(&self, seconds: i64) -> Result<(), QueryError> {
        self.connection
            .run_one(Query::Gate, &self.statements.open_gate, &[&seconds])
            .await
            .map(drop)
    }

    /// Whether a transaction that has inserted is still open: such a transaction may have read the
    /// wake-up gate while it was closed, and will not notify.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn has_open_writers(&self) -> Result<bool, QueryError> {
        let row =
            self.connection.run_one(Query::Gate, &self.statements.find_open_writers, &[]).await?;
        Ok(row.try_get::<_, i64>(0)? > 0)
    }

    /// Waits for a notification.
    ///
    /// # Cancel safety
    /// A notification that nobody waited for wakes the next call.
    pub async fn notified(&self) {
        self.connection.notified.notified().await;
    }
}
