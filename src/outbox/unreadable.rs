//! Finds rows that the database cannot read, and reads the columns of them that it can.

use tokio_postgres::types::ToSql;

use super::{Outbox, row, with_columns};
use crate::{
    event::{Event, Payload, Position, Seq},
    pg::error::QueryError,
};

impl Outbox {
    /// Finds the row because of which a page of one row failed with `error`. If readable rows come
    /// before that row, returns the first of them.
    ///
    /// # Errors
    /// The errors of the session.
    pub(super) async fn next_unreadable(
        &self,
        cursor: &Position,
        late: Option<&str>,
        error: &QueryError,
    ) -> Result<Vec<Box<Event>>, QueryError> {
        match self.next_row(cursor, late, i64::MAX).await {
            Err(error) if error.is_of_a_row() => {}
            found => return Ok(vec![unreadable(found?, error)?]),
        }
        // The block of some row is damaged, so not even its transaction number can be read. Other
        // partitions may have readable rows with a lower `seq`, which come first.
        let (bookmark, floor) = (cursor.bookmark.0, cursor.floor.0);
        let parameters: [&(dyn ToSql + Sync); 3] = [&bookmark, &floor, &late];
        let row = self.query_rarely(include_str!("sql/find_damaged_row.sql"), &parameters).await?;
        let damaged: Option<i64> = row.try_get(0)?;
        let below = damaged.ok_or(QueryError::RowGone)?;
        match self.row_below(cursor, late, below).await {
            Ok(None) => Ok(vec![unreadable(damaged, error)?]),
            Ok(Some(event)) => Ok(vec![event]),
            Err(other) if other.is_of_a_row() => {
                Ok(vec![unreadable(self.next_row(cursor, late, below).await?, &other)?])
            }
            Err(other) => Err(other),
        }
    }

    /// The `seq` of the first row from the cursor on whose `seq` is lower than `below`.
    pub(super) async fn next_row(
        &self,
        cursor: &Position,
        late: Option<&str>,
        below: i64,
    ) -> Result<Option<i64>, QueryError> {
        let (settled, target) = (cursor.settled.as_str(), cursor.target.as_str());
        let (bookmark, floor) = (cursor.bookmark.0, cursor.floor.0);
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&settled, &target, &bookmark, &floor, &late, &below];
        let row = self.query_rarely(include_str!("sql/find_next_row.sql"), &parameters).await?;
        Ok(row.try_get(0)?)
    }

    /// The first row from the cursor on whose `seq` is lower than `below`.
    async fn row_below(
        &self,
        cursor: &Position,
        late: Option<&str>,
        below: i64,
    ) -> Result<Option<Box<Event>>, QueryError> {
        let (settled, target) = (cursor.settled.as_str(), cursor.target.as_str());
        let (bookmark, floor) = (cursor.bookmark.0, cursor.floor.0);
        let (rows, inline) = (1_i64, 0_i32);
        let parameters: [&(dyn ToSql + Sync); 8] =
            [&settled, &target, &bookmark, &floor, &rows, &inline, &late, &below];
        let sql = self.schema.apply(&with_columns(include_str!("sql/read_page_below.sql")));
        let rows = self.connection.query(&sql, &parameters).await?;
        Ok(rows.first().map(row::readable).transpose()?.map(Box::new))
    }

    /// Completes unreadable events with the columns that can be read.
    pub(super) async fn salvage(&self, events: &mut [Box<Event>]) -> Result<(), QueryError> {
        let unreadable =
            events.iter_mut().filter(|event| matches!(event.payload, Payload::Unreadable { .. }));
        for event in unreadable {
            let parameters: [&(dyn ToSql + Sync); 1] = [&event.seq.0];
            let row = self.query_rarely(include_str!("sql/salvage_row.sql"), &parameters).await?;
            let payload = event.payload.clone();
            **event = Event { payload, ..row::event(&row)? };
        }
        Ok(())
    }

    /// Reads payloads one by one, after one of them could not be read.
    pub(super) async fn read_payloads_one_by_one(
        &self,
        events: &mut [Box<Event>],
        left_out: &[i64],
    ) -> Result<(), QueryError> {
        for seq in left_out {
            match self.read_payloads(events, &[*seq]).await {
                Err(error) if error.is_of_a_row() => {
                    let reason = error.to_string().into();
                    if let Some(event) = events.iter_mut().find(|event| event.seq.0 == *seq) {
                        event.payload = Payload::Unreadable { reason };
                    }
                }
                read => read?,
            }
        }
        Ok(())
    }

    /// Runs a statement that is too rare to be prepared, and returns its first row.
    async fn query_rarely(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<tokio_postgres::Row, QueryError> {
        let sql = self.schema.apply(sql);
        self.connection.query(&sql, parameters).await?.into_iter().next().ok_or(QueryError::NoRow)
    }
}

/// An event of which only the `seq` could be read. Without a `seq` the row has disappeared
/// meanwhile, which is an error.
fn unreadable(seq: Option<i64>, reason: &QueryError) -> Result<Box<Event>, QueryError> {
    let seq = seq.map(Seq).ok_or(QueryError::RowGone)?;
    Ok(Box::new(row::unreadable(seq, &reason.to_string())))
}
