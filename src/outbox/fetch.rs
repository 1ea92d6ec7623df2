//! Reads rows that became visible: a poll takes the current snapshot, and pages read up to it.

use tokio_postgres::types::ToSql;

use crate::{
    event::{Event, Payload, Position, Seq, Snapshot},
    metrics::Query,
    outbox::{Outbox, Statements, filtered::Filtered, row},
    pg::error::QueryError,
};

/// Maximum rows of a poll, however many a page may have. A poll with more rows is discarded, and
/// pages read the rows again.
const POLL_ROWS_MAX: usize = 1_000;

/// The bounds of a page.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// Maximum number of rows.
    pub events: usize,
    /// Maximum number of bytes; the row that crosses the bound is still returned.
    pub bytes: usize,
    /// Maximum number of bytes of a single payload: a larger one stays in the database.
    pub event_bytes: u64,
}

impl PageLimits {
    /// The maximum number of rows, and the maximum bytes of a payload that the page returns with
    /// its row. Together all returned payloads stay within the byte bound, whatever their sizes
    /// are.
    fn of_a_page(&self) -> (i64, i32) {
        let inline = self.bytes.checked_div(self.events).unwrap_or_default();
        let inline = inline.min(usize::try_from(self.event_bytes).unwrap_or(usize::MAX));
        let rows = i64::try_from(self.events).unwrap_or(i64::MAX);
        (rows, i32::try_from(inline).unwrap_or(i32::MAX))
    }
}

/// Rows in ascending order of `seq`.
#[derive(Debug)]
pub struct Page {
    /// The rows. Each is boxed: an event is large and moves often.
    pub events: Vec<Box<Event>>,
    /// Whether the page reaches the target snapshot, so that no row up to it is left to read.
    pub complete: bool,
    /// Highest `seq` that was read, when that is beyond the last row because the filter left rows
    /// out.
    pub read_to: Option<Seq>,
}

impl Outbox {
    /// Polls: takes a new target snapshot and reads the new rows up to it in one round trip.
    /// Everything up to `settled` must have been read. The page is `None` when there are more new
    /// rows than one page has, or when the statement takes or may take too long.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn poll(
        &self,
        settled: &Snapshot,
        limits: PageLimits,
    ) -> Result<(Snapshot, Option<Page>), QueryError> {
        let limits = PageLimits { events: limits.events.min(POLL_ROWS_MAX), ..limits };
        let is_behind = self.filtered.as_ref().is_some_and(Filtered::is_behind);
        if is_behind || self.limits.page.at_most(limits.events) < limits.events {
            return Ok((self.target().await?, None));
        }
        let (rows, inline) = PageLimits { events: limits.events + 1, ..limits }.of_a_page();
        let snapshot = settled.as_str();
        let parameters: [&(dyn ToSql + Sync); 3] = [&snapshot, &rows, &inline];
        let Statements { poll_outbox, poll_outbox_late, .. } = &self.statements;
        let statement = if settled.has_open() { poll_outbox_late } else { poll_outbox };
        let (mut target, mut events) = (None, Vec::new());
        let read = self.connection.each(statement, &parameters, |row| {
            match &target {
                None => target = Some(Snapshot::new(row::snapshot(&row)?)),
                Some(_) => events.push(Box::new(row::readable(&row)?)),
            }
            Ok(())
        });
        let read = self.connection.timed(Query::Fetch, read).await;
        self.limits.page.learn(if read.is_ok() { events.len() } else { limits.events }, &read);
        if read.as_ref().is_err_and(QueryError::is_of_a_row) {
            // Some row cannot be read. Pages, which are smaller, will find it, so the poll takes
            // only the target.
            return Ok((self.target().await?, None));
        }
        read?;
        // The first row of the answer has the snapshot. Without it, the poll reports that there is
        // nothing new.
        let Some(target) = target else { return Ok((settled.clone(), None)) };
        let mut page = Page { events, complete: true, read_to: None };
        if page.events.len() > limits.events {
            if let Some(filtered) = &self.filtered {
                filtered.fell_behind();
            }
            return Ok((target, None));
        }
        page.events.sort_unstable_by_key(|event| event.seq);
        Ok((target, Some(self.fill(page, limits).await?)))
    }

    /// Takes the current snapshot as the target, without reading rows, when a poll would take too
    /// long.
    async fn target(&self) -> Result<Snapshot, QueryError> {
        let row = self.connection.run_one(Query::Fetch, &self.statements.read_target, &[]).await?;
        Ok(Snapshot::new(row.try_get(0)?))
    }

    /// The transactions that were open at `settled`, have ended since, and have rows. The result is
    /// an array literal of Postgres, which the caller passes to [`Outbox::page`] as it is.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn late(&self, settled: &Snapshot) -> Result<Option<String>, QueryError> {
        if !settled.has_open() {
            return Ok(None);
        }
        let (late, settled) = (&self.statements.find_late_transactions, settled.as_str());
        Ok(self.connection.run_one(Query::Fetch, late, &[&settled]).await?.try_get(0)?)
    }

    /// Reads a page from the cursor on.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn page(
        &self,
        cursor: &Position,
        late: Option<&str>,
        limits: PageLimits,
    ) -> Result<Page, QueryError> {
        let mut limits = PageLimits { events: self.limits.page.at_most(limits.events), ..limits };
        if let Some(filtered) = &self.filtered {
            let page = self.filtered_page(filtered, cursor, late, limits).await?;
            filtered.has_read(&page);
            return Ok(page);
        }
        loop {
            let read = self.page_once(cursor, late, limits, None).await;
            self.limits.page.learn(read.as_ref().map_or(limits.events, Vec::len), &read);
            let events = match read {
                Err(error) if error.is_of_a_row() && limits.events > 1 => {
                    limits.events = self.limits.page.at_most(limits.events - 1);
                    continue;
                }
                Err(error) if error.is_of_a_row() => {
                    self.next_unreadable(cursor, late, &error).await?
                }
                read => read?,
            };
            let complete = events.len() < limits.events;
            return self.fill(Page { events, complete, read_to: None }, limits).await;
        }
    }

    /// Reads the rows of a page by one statement, without a second attempt. For a relay with a
    /// filter, `to` is the highest `seq` to read.
    pub(super) async fn page_once(
        &self,
        cursor: &Position,
        late: Option<&str>,
        limits: PageLimits,
        to: Option<Seq>,
    ) -> Result<Vec<Box<Event>>, QueryError> {
        let (rows, inline) = limits.of_a_page();
        let (settled, target) = (cursor.settled.as_str(), cursor.target.as_str());
        let mut parameters: Vec<&(dyn ToSql + Sync)> =
            vec![&settled, &target, &cursor.bookmark.0, &cursor.floor.0, &rows, &inline];
        let statement = match &late {
            None => &self.statements.read_page,
            Some(late) => {
                parameters.push(late);
                &self.statements.read_page_late
            }
        };
        if let Some(to) = &to {
            parameters.push(&to.0);
        }
        // Rows are converted one by one, so that the driver's copy is freed before the next event
        // is built.
        let mut events = Vec::new();
        let read = self.connection.each(statement, &parameters, |row| {
            events.push(Box::new(row::readable(&row)?));
            Ok(())
        });
        self.connection.timed(Query::Fetch, read).await?;
        Ok(events)
    }

    /// Keeps the events of a page that fit into the limits. Then reads the payloads that the page's
    /// statement did not return.
    pub(super) async fn fill(
        &self,
        mut page: Page,
        limits: PageLimits,
    ) -> Result<Page, QueryError> {
        let room = fitting(&page.events, limits);
        page.complete &= room == page.events.len();
        page.events.truncate(room);
        let read = self.read_left_out(&mut page.events, limits.event_bytes).await;
        if read.is_err() {
            self.limits.page.learn(page.events.len(), &read);
        }
        read?;
        self.salvage(&mut page.events).await?;
        Ok(page)
    }

    /// Reads the payloads that were too large for the page and can be published.
    pub(super) async fn read_left_out(
        &self,
        events: &mut [Box<Event>],
        limit: u64,
    ) -> Result<(), QueryError> {
        let left_out: Vec<i64> = events
            .iter()
            .filter(|event| matches!(event.payload, Payload::Oversize { bytes } if bytes <= limit))
            .map(|event| event.seq.0)
            .collect();
        if left_out.is_empty() {
            return Ok(());
        }
        match self.read_payloads(events, &left_out).await {
            Err(error) if error.is_of_a_row() => {
                self.read_payloads_one_by_one(events, &left_out).await
            }
            read => read,
        }
    }

    pub(super) async fn read_payloads(
        &self,
        events: &mut [Box<Event>],
        left_out: &[i64],
    ) -> Result<(), QueryError> {
        let parameters: [&(dyn ToSql + Sync); 1] = [&left_out];
        let read = self.connection.each(&self.statements.read_payloads, &parameters, |row| {
            let seq = Seq(row.try_get(0)?);
            let event = events.iter_mut().find(|event| event.seq == seq);
            if let (Some(event), Some(bytes)) = (event, row::bytes_of(&row, (1, 2))?) {
                event.payload = Payload::Bytes(bytes);
            }
            Ok(())
        });
        self.connection.timed(Query::Fetch, read).await
    }
}

/// Number of leading events whose payloads fit into `limits.bytes`, plus the event that crosses the
/// bound.
fn fitting(events: &[Box<Event>], limits: PageLimits) -> usize {
    let mut sum = 0;
    let crossing = events.iter().position(|event| {
        sum += match event.payload {
            Payload::Oversize { bytes } if bytes <= limits.event_bytes => {
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }
            Payload::Bytes(_)
            | Payload::Null
            | Payload::Both
            | Payload::Unreadable { .. }
            | Payload::Oversize { .. } => event.payload.len(),
        };
        sum >= limits.bytes
    });
    crossing.map_or(events.len(), |index| index + 1)
}
