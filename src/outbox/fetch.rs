//! Reads what became visible: a look at the present snapshot, then pages up to it.

use crate::{
    event::{Event, Position, Snapshot},
    metrics::Query,
    outbox::{Outbox, row},
    pg::error::QueryError,
};

/// Where the reader may go next.
#[derive(Debug, Clone)]
pub struct Look {
    /// The present snapshot.
    pub target: Snapshot,
    /// Transactions that were open at the last target and have ended with rows since; a literal
    /// that is passed back to [`Outbox::page`].
    pub late: Option<String>,
}

/// The bounds of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// Rows at most.
    pub events: usize,
    /// Bytes at most; the row that crosses the bound still comes.
    pub bytes: usize,
    /// Bytes of a single payload at most: a larger one stays in the database.
    pub event_bytes: u64,
}

/// Some rows in the order of their `seq`.
#[derive(Debug)]
pub struct Page {
    /// The rows.
    pub events: Vec<Event>,
    /// Whether there are no more up to the target.
    pub complete: bool,
}

impl Outbox {
    /// Looks where the reader may go next, with everything up to `settled` read.
    ///
    /// # Errors
    /// As the session's.
    pub async fn look(&self, settled: &Snapshot) -> Result<Look, QueryError> {
        let client = &self.connection.client;
        let row = self
            .connection
            .timed(Query::Fetch, client.query_one(&self.statements.target, &[&settled.as_str()]))
            .await?;
        Ok(Look { target: Snapshot::new(row.try_get(0)?), late: row.try_get(1)? })
    }

    /// Reads a page from the cursor on.
    ///
    /// # Errors
    /// As the session's.
    pub async fn page(
        &self,
        cursor: &Position,
        late: Option<&str>,
        limits: PageLimits,
    ) -> Result<Page, QueryError> {
        let bound = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (events, bytes) = (bound(limits.events), bound(limits.bytes));
        let event_bytes = i64::try_from(limits.event_bytes).unwrap_or(i64::MAX);
        let (settled, target) = (cursor.settled.as_str(), cursor.target.as_str());
        let client = &self.connection.client;
        let rows = match late {
            None => {
                self.connection
                    .timed(
                        Query::Fetch,
                        client.query(
                            &self.statements.page,
                            &[
                                &settled,
                                &target,
                                &cursor.bookmark.0,
                                &cursor.floor.0,
                                &events,
                                &event_bytes,
                                &bytes,
                            ],
                        ),
                    )
                    .await?
            }
            Some(late) => {
                self.connection
                    .timed(
                        Query::Fetch,
                        client.query(
                            &self.statements.page_late,
                            &[
                                &settled,
                                &target,
                                &cursor.bookmark.0,
                                &cursor.floor.0,
                                &events,
                                &event_bytes,
                                &bytes,
                                &late,
                            ],
                        ),
                    )
                    .await?
            }
        };
        // The last column is the running sum of sizes: once it reaches the bound, the page was cut.
        let cut = match rows.last() {
            Some(last) => last.try_get::<_, i64>(19)? >= bytes,
            None => false,
        };
        let complete = rows.len() < limits.events && !cut;
        let events = rows.iter().map(row::event).collect::<Result<_, _>>()?;
        Ok(Page { events, complete })
    }
}
