//! Reading for a route that does not take every event: what is left out never leaves the database.
//!
//! A page of such a route is looked for in stretches of `seq`, so that no statement looks at more rows
//! than can be looked at within its deadline, however few of them the route takes. How far it was
//! looked comes with the page, so that nothing is looked at again.

use std::time::{Duration, Instant};

use tokio_postgres::{Row, types::ToSql};

use super::{Inspection, Outbox, Page, PageLimits};
use crate::{
    event::{Filter, Position, Seq},
    metrics::Query,
    pg::{error::QueryError, session::Prepared},
};

/// The places in the order of `seq` that one statement looks at, at most.
const STRETCH_MAX: usize = 50_000;

/// Stretches without an event of the route after which a page is returned all the same, so that what
/// was looked at is settled.
const EMPTY_STRETCHES_MAX: usize = 8;

/// How long it may be looked for rows before it is said that there are none so far.
const LONG: Duration = Duration::from_millis(500);

/// Events that wait and are passed over, as far as they are counted
/// (`migrations/functions/passed_over.sql`).
pub const PASSED_OVER_MAX: i64 = 10_000;

/// The type of an event whose own cannot be read (migrations/functions/salvage.sql).
const UNREADABLE: &str = "unreadable";

/// The mark in a statement's file where a filter belongs, up to the alias of the row.
const MARK: &str = "true /* filter ";

/// The text of a statement with the filter where its file has `true /* filter r */`. In `true
/// /* filter r up to 7 */` the parameter of that number bounds the stretch too.
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

/// What reading for a filter needs besides what all readers need.
#[derive(Debug)]
pub(super) struct Filtered {
    pub(super) filter: Filter,
    /// The statement that reads the last `seq` that was drawn.
    ceiling: Prepared,
}

impl Filtered {
    pub(super) fn new(filter: Filter, ceiling: Prepared) -> Self {
        Self { filter, ceiling }
    }
}

/// A change of a relay's filter since its last run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterChange {
    /// The number of events that waited and are passed over now, up to [`PASSED_OVER_MAX`]; `None`
    /// when they could not be counted in time.
    pub passed_over: Option<i64>,
}

const COUNT: &str = include_str!("sql/count_passed_over.sql");

impl Inspection {
    /// The number of events that wait for a relay that it would not publish with this filter, up to
    /// [`PASSED_OVER_MAX`].
    ///
    /// # Errors
    /// As the session's.
    pub async fn passed_over(&self, relay: &str, filter: &Filter) -> Result<i64, QueryError> {
        let filter = filter.json().map(|filter| filter.to_string());
        Ok(counted(&self.query(COUNT, &[&relay, &filter]).await?)?.unwrap_or(0))
    }
}

fn counted(rows: &[Row]) -> Result<Option<i64>, QueryError> {
    let count = rows.first().map(|row| row.try_get::<_, Option<i64>>("passed_over"));
    Ok(count.transpose()?.flatten())
}

impl Outbox {
    /// Writes down the filter of this relay. Returns the change, when it took something else before.
    ///
    /// # Errors
    /// As the session's.
    pub async fn note_filter(&self, term: i64) -> Result<Option<FilterChange>, QueryError> {
        let filter = self.filtered.as_ref().and_then(|filtered| filtered.filter.json());
        let filter = filter.map(|filter| filter.to_string());
        let count = self.schema.apply(COUNT);
        let passed_over = match self.connection.query(&count, &[&self.relay, &filter]).await {
            Ok(rows) => counted(&rows)?,
            // A count is no reason for not leading.
            Err(error) if error.is_given_up() => None,
            Err(error) => return Err(error),
        };
        let sql = self.schema.apply(include_str!("sql/note_filter.sql"));
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.relay, &term, &filter, &passed_over];
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
        // The snapshot up to which is read was taken before: no row of it has a higher place, unless
        // somebody has set the sequence back.
        let mut ceiling: i64 = row.try_get(0)?;
        let mut cursor = cursor.clone();
        let mut empty = 0;
        // Where late rows may lie below the floor, the first stretch has them all; to find one that
        // cannot be read, it begins at the bookmark.
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
            self.limits.page.learn(limits.events, &read);
            let mut page = match read {
                Err(error)
                    if error.is_of_a_row() && (stretch > 1 || begins_at > cursor.bookmark) =>
                {
                    begins_at = cursor.bookmark;
                    continue;
                }
                Err(error) if error.is_of_a_row() => {
                    let events = self.next_unreadable(&cursor, late, &error).await?;
                    let page = Page { events, complete: false, looked_to: None };
                    let mut page = self.fill(page, limits).await?;
                    page.looked_to = page.events.last().map(|event| event.seq);
                    // One of which not even the type can be read is everybody's.
                    page.events.retain(|event| {
                        event.event_type == UNREADABLE || filtered.filter.takes(event)
                    });
                    return Ok(page);
                }
                Err(error) => return Err(error),
                Ok(events) => {
                    let is_full = events.len() >= limits.events;
                    if events.is_empty() || is_last && !is_full {
                        // Numbers may be missing by the million, and the sequence may be set back.
                        let beyond = Position { bookmark: Seq(to), ..cursor.clone() };
                        let next = match self.next_row(&beyond, late, i64::MAX).await {
                            // Some row beyond cannot be read: the next stretches find out which.
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
                    let looked_to = (!is_full).then_some(Seq(to));
                    Page { events, complete, looked_to }
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
                page.looked_to = None;
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
