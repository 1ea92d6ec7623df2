//! Reads pages for a route with a filter: events outside of the filter never leave the database.
//!
//! A page is read in stretches, which are ranges of `seq`. A stretch has at most as many rows
//! as one statement can read within its deadline, however few of them the route takes. The page
//! says how far the outbox was read, so that no row is read twice.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio_postgres::{Row, types::ToSql};

use super::{Inspection, Outbox, Page, PageLimits};
use crate::{
    event::{Filter, Position, Seq},
    metrics::Query,
    pg::{error::QueryError, session::Prepared},
};

/// Maximum number of `seq` values that one statement reads.
const STRETCH_MAX: usize = 50_000;

/// Number of empty stretches after which a page is returned without an event. The position can then
/// settle the range that was read.
const EMPTY_STRETCHES_MAX: usize = 8;

/// Time after which a page is returned without an event, even when unread rows are left.
const LONG: Duration = Duration::from_millis(500);

/// Type of an event whose own type cannot be read (migrations/functions/salvage.sql).
const UNREADABLE: &str = "unreadable";

/// Beginning of a placeholder in a statement's `.sql` file, where the condition of a filter is put.
/// The alias of the row follows: `true /* filter o */` is the placeholder for the row `o`.
const MARK: &str = "true /* filter ";

/// The text of a statement with the filter in the place of `true /* filter r */`. In `true /*
/// filter r up to 7 */` parameter 7 is also the highest `seq` to read.
pub(super) fn with_filter(sql: &str, filter: &Filter) -> String {
    let mut whole = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once(MARK) {
        let Some((mark, after)) = after.split_once(" */") else { break };
        let (row, bound) = match mark.split_once(" up to ") {
            Some((row, parameter)) => (row, Some(parameter)),
            None => (mark, None),
        };
        whole.push_str(before);
        if filter.takes_all() {
            whole.push_str("true");
        } else {
            if let Some(parameter) = bound {
                whole.extend([row, ".seq <= $", parameter, "::bigint AND "]);
            }
            whole.extend(["(", &filter.sql(row), ")"]);
        }
        rest = after;
    }
    whole.push_str(rest);
    whole
}

/// State that only the reading with a filter needs.
#[derive(Debug)]
pub(super) struct Filtered {
    pub(super) filter: Filter,
    /// The statement that reads the highest `seq` that was drawn.
    ceiling: Prepared,
    /// Whether more rows may wait than one page reads.
    is_behind: AtomicBool,
}

impl Filtered {
    pub(super) fn new(filter: Filter, ceiling: Prepared) -> Self {
        Self { filter, ceiling, is_behind: AtomicBool::new(true) }
    }

    /// Whether more rows may wait than one page reads, which is assumed at the start. A poll then
    /// reads no rows, because it might read very many and discard them.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Notes a page that was read: whether it is the last one for now.
    pub(super) fn has_read(&self, page: &Page) {
        self.is_behind.store(!page.complete, Ordering::Relaxed);
    }

    /// Notes that a poll found more rows than it returns.
    pub(super) fn fell_behind(&self) {
        self.is_behind.store(true, Ordering::Relaxed);
    }
}

/// A change of a relay's filter since its last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterChange {
    /// The waiting events that the new filter leaves out; `None` when they could not be counted in
    /// time.
    pub passed_over: Option<PassedOver>,
}

/// Count of the waiting events that a relay's present filter takes and its new filter leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedOver {
    /// Number of the events that the new filter leaves out, among the first 1,000 that wait.
    pub counted: i64,
    /// Whether no more than 1,000 events wait, so that `counted` is exact.
    pub is_all: bool,
}

impl PassedOver {
    /// Whether it is certain that the new filter leaves no waiting event out.
    pub fn is_none(self) -> bool {
        self.is_all && self.counted == 0
    }
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { counted, is_all: true } => write!(f, "{counted} events that wait"),
            Self { counted, is_all: false } => {
                write!(f, "{counted} of the first 1,000 events that wait, and maybe more")
            }
        }
    }
}

const COUNT: &str = include_str!("sql/count_passed_over.sql");

impl Inspection {
    /// Counts the waiting events of a relay that `filter` would leave out; `None` when `filter` is
    /// the present one, or the relay has only just begun.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn passed_over(
        &self,
        relay: &str,
        filter: &Filter,
    ) -> Result<Option<PassedOver>, QueryError> {
        let filter = filter.json().map(|filter| filter.to_string());
        counted(&self.query(COUNT, &[&relay, &filter]).await?)
    }
}

fn counted(rows: &[Row]) -> Result<Option<PassedOver>, QueryError> {
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(PassedOver { counted: row.try_get("counted")?, is_all: row.try_get("is_all")? }))
}

impl Outbox {
    /// Stores the filter of this relay. Returns the change when the stored filter was another one.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn note_filter(&self, term: i64) -> Result<Option<FilterChange>, QueryError> {
        let filter = self.filtered.as_ref().and_then(|filtered| filtered.filter.json());
        let filter = filter.map(|filter| filter.to_string());
        let count = self.schema.apply(COUNT);
        let passed_over = match self.connection.query(&count, &[&self.relay, &filter]).await {
            Ok(rows) => counted(&rows)?,
            // When counting takes too long, the relay goes on without the number.
            Err(error) if error.is_given_up() => None,
            Err(error) => return Err(error),
        };
        let sql = self.schema.apply(include_str!("sql/note_filter.sql"));
        let number = passed_over.map(|passed_over| passed_over.counted);
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.relay, &term, &filter, &number];
        let rows = self.connection.query(&sql, &parameters).await?;
        let changed = rows.first().map(|row| row.try_get("changed")).transpose()?;
        Ok((changed == Some(true)).then_some(FilterChange { passed_over }))
    }

    /// Reads a page of the events that the filter takes, from the cursor on.
    pub(super) async fn filtered_page(
        &self,
        filtered: &Filtered,
        cursor: &Position,
        late: Option<&str>,
        limits: PageLimits,
    ) -> Result<Page, QueryError> {
        let (began, mut limits) = (Instant::now(), limits);
        let row = self.connection.run_one(Query::Fetch, &filtered.ceiling, &[]).await?;
        // The target snapshot was taken before the highest drawn `seq` (the ceiling) was read. So
        // no row of the snapshot has a higher `seq`, unless somebody has set the sequence back.
        let mut ceiling: i64 = row.try_get(0)?;
        let mut cursor = cursor.clone();
        let mut empty = 0;
        // A stretch is a range of `seq` that one statement reads. The first one has the late rows
        // too, which may lie below the floor. When a row of it cannot be read, it is read again
        // from the bookmark on, in smaller stretches, until that row is found.
        let mut begins_at = cursor.bookmark.max(cursor.floor);
        loop {
            limits.events = self.limits.page.at_most(limits.events);
            let from = cursor.bookmark.max(begins_at).0;
            let stretch = self.limits.stretch.at_most(STRETCH_MAX);
            let length = i64::try_from(stretch).unwrap_or(i64::MAX);
            let mut to = from.saturating_add(length).min(ceiling).max(from);
            let mut is_last = to >= ceiling;
            let read = self.page_once(&cursor, late, limits, Some(Seq(to))).await;
            self.limits.stretch.learn(stretch, &read);
            self.limits.page.learn(read.as_ref().map_or(limits.events, Vec::len), &read);
            let mut page = match read {
                Err(error)
                    if error.is_of_a_row() && (stretch > 1 || begins_at > cursor.bookmark) =>
                {
                    begins_at = cursor.bookmark;
                    continue;
                }
                Err(error) if error.is_of_a_row() => {
                    let events = self.next_unreadable(&cursor, late, &error).await?;
                    let page = Page { events, complete: false, read_to: None };
                    let mut page = self.fill(page, limits).await?;
                    page.read_to = page.events.last().map(|event| event.seq);
                    // An event whose type cannot be read passes every filter, so that at least one
                    // route reports it.
                    page.events.retain(|event| {
                        event.event_type == UNREADABLE || filtered.filter.takes(event)
                    });
                    return Ok(page);
                }
                Err(error) => return Err(error),
                Ok(events) => {
                    let is_full = events.len() >= limits.events;
                    if events.is_empty() || is_last && !is_full {
                        // The next row may have a far higher `seq`: millions of numbers may be
                        // unused, or somebody may have set the sequence back.
                        let beyond = Position { bookmark: Seq(to), ..cursor.clone() };
                        let next = match self.next_row(&beyond, late, i64::MAX).await {
                            // Some row above this stretch cannot be read. The next stretches find
                            // that row.
                            Err(error) if error.is_of_a_row() => Some(to.saturating_add(1)),
                            next => next?,
                        };
                        is_last = next.is_none();
                        if let Some(seq) = next {
                            (to, ceiling) =
                                (to.max(seq - 1), ceiling.max(seq.saturating_add(length)));
                        }
                    }
                    let complete = is_last && !is_full;
                    let read_to = (!is_full).then_some(Seq(to));
                    Page { events, complete, read_to }
                }
            };
            empty += usize::from(page.events.is_empty());
            let is_long = empty >= EMPTY_STRETCHES_MAX || began.elapsed() >= LONG;
            if page.events.is_empty() && !is_last && !is_long {
                cursor.bookmark = Seq(to);
                continue;
            }
            let count = page.events.len();
            page = self.fill(page, limits).await?;
            if page.events.len() < count {
                page.read_to = None;
            }
            return Ok(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Pattern, Rules};

    #[test]
    fn a_filter_stands_where_the_statement_has_its_mark() {
        let sql = "WHERE true /* filter r up to 7 */\nAND x AND true /* filter n */";
        assert_eq!(with_filter(sql, &Filter::default()), "WHERE true\nAND x AND true");
        let types = Pattern::parse("a").into_iter().collect();
        let filter = Filter::Rules(Rules { types, ..Rules::default() });
        assert_eq!(
            with_filter(sql, &filter),
            "WHERE r.seq <= $7::bigint AND ((r.event_type = 'a'))\nAND x AND ((n.event_type = 'a'))"
        );
    }
}
