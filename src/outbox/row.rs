//! Converts a row of a page into an event. Payloads stay opaque, and times need no arithmetic that
//! can overflow.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use tokio_postgres::{
    Column, Row,
    types::{FromSql, Type},
};
use uuid::Uuid;

use crate::{
    event::{AggregateKey, Event, EventId, Payload, Seq},
    pg::error::{QueryError, describe},
};

/// Unparsed bytes of a `json` or `bytea` column.
struct RawPayload(Bytes);

impl<'a> FromSql<'a> for RawPayload {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Bytes::copy_from_slice(raw)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSON || *ty == Type::BYTEA
    }
}

/// A `timestamptz` as sent: microseconds since 2000, or one of two infinities.
struct Micros(i64);

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

impl Micros {
    /// The point in time; `None` for an infinity or a year that RFC 3339 cannot express.
    fn timestamp(&self) -> Option<Timestamp> {
        const UNIX_2000: i64 = 946_684_800_000_000;
        const UNIX_YEAR_0: i64 = -62_167_219_200_000_000;
        let micros = self.0.checked_add(UNIX_2000)?;
        // Years before Christ need a sign, which RFC 3339 does not have.
        (micros >= UNIX_YEAR_0).then(|| Timestamp::from_microsecond(micros).ok())?
    }
}

/// Reads one row of a page or of a poll, which have the same columns.
pub(super) fn event(row: &Row) -> Result<Event, tokio_postgres::Error> {
    let aggregate_type: Option<&str> = row.try_get(6)?;
    let aggregate_id: Option<&str> = row.try_get(7)?;
    let key = (aggregate_type.is_some() || aggregate_id.is_some())
        .then(|| AggregateKey::new(aggregate_type.unwrap_or(""), aggregate_id.unwrap_or("")));
    Ok(Event {
        seq: Seq(row.try_get(0)?),
        id: EventId(row.try_get(1)?),
        occurred_at: row.try_get::<_, Micros>(2)?.timestamp(),
        event_type: row.try_get(3)?,
        event_version: row.try_get::<_, Option<_>>(4)?.unwrap_or(1),
        kind: text_or(row, 5, "domain")?,
        key,
        aggregate_version: row.try_get(8)?,
        source: row.try_get(9)?,
        subject: row.try_get(10)?,
        content_type: text_or(row, 11, "application/json")?,
        headers: row.try_get(12)?,
        correlation_id: row.try_get(13)?,
        causation_id: row.try_get(14)?,
        actor: row.try_get(15)?,
        payload: payload(row)?,
    })
}

/// Reads one row of a page or of a poll. For a row whose values cannot be read, the event has only
/// the `seq` and the reason.
pub(super) fn readable(row: &Row) -> Result<Event, tokio_postgres::Error> {
    event(row).or_else(|error| Ok(unreadable(Seq(row.try_get(0)?), &describe(&error))))
}

/// An event for a row of which only the `seq` can be read.
pub(super) fn unreadable(seq: Seq, reason: &str) -> Event {
    Event {
        seq,
        id: EventId(Uuid::nil()),
        occurred_at: None,
        event_type: String::new(),
        event_version: 1,
        kind: Cow::Borrowed("domain"),
        key: None,
        aggregate_version: None,
        source: None,
        subject: None,
        content_type: Cow::Borrowed("application/json"),
        headers: None,
        correlation_id: None,
        causation_id: None,
        actor: None,
        payload: Payload::Unreadable { reason: reason.into() },
    }
}

/// The snapshot in the first row of a poll.
pub(super) fn snapshot(row: &Row) -> Result<String, tokio_postgres::Error> {
    row.try_get(3)
}

/// Verifies that [`event`] can read the columns of a page. An application may add columns to the
/// table and may shorten a text. A column of another type would make every read fail.
pub(super) fn verify(columns: &[Column]) -> Result<(), QueryError> {
    type Accepts = fn(&Type) -> bool;
    let text: Accepts = <String as FromSql>::accepts;
    let (integer, bigint): (Accepts, Accepts) =
        (<i32 as FromSql>::accepts, <i64 as FromSql>::accepts);
    let wanted: [(Accepts, &'static str, &[&str]); 6] = [
        (bigint, "bigint", &["seq", "aggregate_version"]),
        (<Uuid as FromSql>::accepts, "uuid", &["event_id"]),
        (<Micros as FromSql>::accepts, "timestamptz", &["occurred_at"]),
        (integer, "integer", &["event_version", "payload_size"]),
        (|ty| *ty == Type::JSON, "json", &["payload"]),
        (|ty| *ty == Type::BYTEA, "bytea", &["payload_binary"]),
    ];
    for column in columns {
        let named = wanted.iter().find(|(_, _, names)| names.contains(&column.name()));
        let (accepts, wanted) =
            named.map_or((text, "text"), |(accepts, wanted, _)| (*accepts, *wanted));
        if !accepts(column.type_()) {
            return Err(QueryError::Shape {
                column: column.name().to_owned(),
                found: column.type_().name().to_owned(),
                wanted,
            });
        }
    }
    Ok(())
}

/// Reads a text column. A null stands for the usual value, which the statement does not send.
fn text_or(
    row: &Row,
    column: usize,
    usual: &'static str,
) -> Result<Cow<'static, str>, tokio_postgres::Error> {
    let text: Option<String> = row.try_get(column)?;
    Ok(text.map_or(Cow::Borrowed(usual), Cow::Owned))
}

fn payload(row: &Row) -> Result<Payload, tokio_postgres::Error> {
    let left_out: Option<i32> = row.try_get(16)?;
    match left_out.map(u64::try_from) {
        None => Ok(bytes_of(row, (17, 18))?.map_or(Payload::Null, Payload::Bytes)),
        Some(Ok(bytes)) => Ok(Payload::Oversize { bytes }),
        Some(Err(_)) => Ok(Payload::Both),
    }
}

/// The payload in one of the two columns; `None` when neither has one.
pub(super) fn bytes_of(
    row: &Row,
    (json, binary): (usize, usize),
) -> Result<Option<Bytes>, tokio_postgres::Error> {
    let json: Option<RawPayload> = row.try_get(json)?;
    let binary: Option<RawPayload> = row.try_get(binary)?;
    Ok(json.or(binary).map(|RawPayload(bytes)| bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_cannot_be_written_are_left_out() {
        let last_before_christ = -63_113_904_000_000_001;
        for infinite in [i64::MAX, i64::MIN, 9_223_371_331_199_999_999, last_before_christ] {
            assert_eq!(Micros(infinite).timestamp(), None);
        }
        let text = |micros| Micros(micros).timestamp().map(|time| time.to_string());
        assert_eq!(text(last_before_christ + 1).as_deref(), Some("0000-01-01T00:00:00Z"));
        let time = Micros(0).timestamp().map(|time| time.to_string());
        assert_eq!(time.as_deref(), Some("2000-01-01T00:00:00Z"));
    }
}
