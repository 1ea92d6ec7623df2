//! Finds due letters, loads the letters of their keys, and writes what became of them.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio_postgres::Row;

use super::{Authority, DeadLetter, Outbox, PageLimits, SettleError, dead::dead_letters, row};
use crate::{
    delivery::{
        KeyLetters, LetterChange, LetterId, LetterReadiness, Mark, Record, RecordsPart, Retry,
        StoredLetter,
    },
    event::{AggregateKey, Payload},
    metrics::Query,
    pg::error::QueryError,
};

/// Maximum number of due letters that one statement returns.
const DUE_MAX: i64 = 256;

/// Maximum number of letters that one page of blocked keys reads, so that the statement ends within
/// its deadline.
const BLOCKED_PAGE: usize = 5_000;

/// Maximum number of letters of one key that one statement loads.
const RUN_MAX: i64 = 64;

/// Maximum payload bytes of the letters of one key that one statement loads. The letter that
/// crosses the bound is still loaded.
const RUN_BYTES: i64 = 256 << 10;

/// Maximum number of keys whose letters are loaded at the same time, which bounds the memory of a
/// load.
const KEYS_AT_ONCE: usize = 16;

/// A letter whose mark is due.
#[derive(Debug, Clone)]
pub struct DueLetter {
    /// Mark of the letter, with its id.
    pub mark: Mark,
    /// Key of the letter; `None` for a letter without a key.
    pub key: Option<AggregateKey>,
}

/// Due letters, and the time until the next mark.
#[derive(Debug, Clone)]
pub struct DueLetters {
    /// The due letters, the longest waiting first.
    pub due: Vec<DueLetter>,
    /// Time until the first mark that is still in the future; `None` when there is no such mark.
    pub next_in: Option<Duration>,
}

/// A page of the blocked keys.
#[derive(Debug)]
pub struct BlockedKeys {
    /// The blocked keys. A key appears once for each of its letters that block it.
    pub keys: Vec<AggregateKey>,
    /// The letter after which the next page begins; `None` when this was the last.
    pub next: Option<LetterId>,
}

impl Outbox {
    /// Reads a page of the keys that a letter blocks. The page has letters with an id above
    /// `after`.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn blocked_keys(&self, after: LetterId) -> Result<BlockedKeys, QueryError> {
        let blocked = &self.statements.load_blocked_keys;
        let size = self.limits.blocked_keys.at_most(BLOCKED_PAGE);
        let limit = i64::try_from(size).unwrap_or(i64::MAX);
        let rows =
            self.connection.run(Query::Letters, blocked, &[&self.relay, &after.0, &limit]).await;
        self.limits.blocked_keys.learn(size, &rows);
        let rows = rows?;
        let last =
            rows.last().filter(|_| rows.len() >= size).map(|row| row.try_get(0).map(LetterId));
        let keys = rows.iter().map(blocked_key).filter_map(Result::transpose);
        Ok(BlockedKeys { keys: keys.collect::<Result<_, _>>()?, next: last.transpose()? })
    }

    /// Reads the due letters. `wait_max` is the longest wait of the retry policy.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn due_letters(&self, wait_max: Duration) -> Result<DueLetters, QueryError> {
        let wait_max = wait_max.as_secs_f64();
        let rows = self
            .connection
            .run(
                Query::Letters,
                &self.statements.find_due_letters,
                &[&self.relay, &DUE_MAX, &wait_max],
            )
            .await?;
        let next_in = match rows.first() {
            Some(row) => row.try_get::<_, Option<f64>>("next_in")?,
            None => None,
        };
        let due = rows.iter().map(due).filter_map(Result::transpose).collect::<Result<_, _>>()?;
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds.max(0.0)).ok();
        Ok(DueLetters { due, next_in: next_in.and_then(seconds) })
    }

    /// Loads the letters of some keys, and stops after the bytes and letters of `limits`. Keys that
    /// were not loaded keep their marks, so the next load has them.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn load_letters(
        &self,
        keys: Vec<(Option<AggregateKey>, Vec<Mark>)>,
        limits: PageLimits,
        wait_max: Duration,
    ) -> Result<Vec<KeyLetters>, QueryError> {
        let mut loaded = Vec::with_capacity(keys.len());
        let (mut bytes, mut letters) = (0, 0);
        let mut keys = keys.into_iter().peekable();
        while keys.peek().is_some() && bytes < limits.bytes && letters < limits.events {
            let some: Vec<_> = keys.by_ref().take(KEYS_AT_ONCE).collect();
            let reading = some.iter().map(|(_, marks)| self.run_of(marks, wait_max));
            let runs = try_join_all(reading).await?;
            for ((key, marks), mut run) in some.into_iter().zip(runs) {
                if bytes >= limits.bytes {
                    return Ok(loaded);
                }
                // A large payload stayed in the outbox. Such payloads are read one by one while
                // there is memory for them.
                self.read_large_head(&mut run, limits.event_bytes).await?;
                letters += run.len();
                bytes += run.iter().map(|letter| letter.event.footprint()).sum::<usize>();
                loaded.push(KeyLetters { marks, key, letters: run });
            }
        }
        Ok(loaded)
    }

    async fn run_of(
        &self,
        marks: &[Mark],
        wait_max: Duration,
    ) -> Result<Vec<StoredLetter>, QueryError> {
        let Some(Mark { id: LetterId(id), .. }) = marks.first() else { return Ok(Vec::new()) };
        let rows = self
            .connection
            .run(
                Query::Letters,
                &self.statements.load_letters,
                &[id, &RUN_MAX, &RUN_BYTES, &wait_max.as_secs_f64()],
            )
            .await?;
        Ok(rows.iter().map(stored).collect::<Result<Vec<_>, _>>()?)
    }

    /// Cuts the run before its first letter with a large payload. When that is the first letter of
    /// the run, reads its payload from the outbox, and leaves this letter alone in the run.
    async fn read_large_head(
        &self,
        run: &mut Vec<StoredLetter>,
        limit: u64,
    ) -> Result<(), QueryError> {
        let large = run.iter().position(
            |letter| matches!(letter.event.payload, Payload::Oversize { bytes } if bytes <= limit),
        );
        if let Some(at) = large {
            run.truncate(at.max(1));
            if let Some(first) = run.first_mut().filter(|_| at == 0) {
                self.read_left_out(std::slice::from_mut(&mut first.event), limit).await?;
            }
        }
        Ok(())
    }

    /// Maximum number of records that one statement writes.
    pub fn records_max(&self) -> usize {
        self.limits.records.at_most(usize::MAX)
    }

    /// Writes what became of letters. Writing the same records again changes nothing.
    ///
    /// At most `named_max` of the letters that became dead are returned.
    ///
    /// # Errors
    /// [`SettleError::TermLost`] is final for this holding.
    pub async fn record_letters(
        &self,
        part: &RecordsPart,
        authority: &Authority,
        named_max: usize,
    ) -> Result<Vec<DeadLetter>, SettleError> {
        let named_max = i64::try_from(named_max).unwrap_or(i64::MAX);
        let columns = RecordColumns::of(&part.records);
        let texts: Vec<_> =
            columns.texts.iter().map(|text| self.connection.storable(text)).collect();
        let rows = self
            .connection
            .run(
                Query::Letters,
                &self.statements.record_letters,
                &[
                    &self.relay,
                    &authority.term,
                    &columns.ids,
                    &columns.changes,
                    &columns.stream_seqs,
                    &columns.codes,
                    &texts,
                    &columns.attempts,
                    &columns.holds,
                    &columns.waits,
                    &columns.loads,
                    &columns.seen,
                    &named_max,
                ],
            )
            .await;
        self.limits.records.learn(part.covers(), &rows);
        dead_letters(&rows?, "ours", authority.term)
    }
}

fn blocked_key(row: &Row) -> Result<Option<AggregateKey>, QueryError> {
    let aggregate_type: Option<&str> = row.try_get(1)?;
    let aggregate_id: Option<&str> = row.try_get(2)?;
    Ok(key_of(aggregate_type, aggregate_id))
}

fn due(row: &Row) -> Result<Option<DueLetter>, QueryError> {
    let Some(id) = row.try_get::<_, Option<i64>>("id")?.map(LetterId) else { return Ok(None) };
    let aggregate_type: Option<&str> = row.try_get("aggregate_type")?;
    let aggregate_id: Option<&str> = row.try_get("aggregate_id")?;
    let key = key_of(aggregate_type, aggregate_id);
    Ok(Some(DueLetter { mark: Mark { id, at: row.try_get("at")? }, key }))
}

/// The key that a letter may block; `None` for a letter with only half of an aggregate.
fn key_of(aggregate_type: Option<&str>, aggregate_id: Option<&str>) -> Option<AggregateKey> {
    let (kind, id) = aggregate_type.zip(aggregate_id)?;
    (!kind.is_empty() && !id.is_empty()).then(|| AggregateKey::new(kind, id))
}

fn stored(row: &Row) -> Result<StoredLetter, tokio_postgres::Error> {
    let event = Box::new(row::event(row)?);
    let readiness = match row.try_get::<_, &str>("state")? {
        "dead" => LetterReadiness::Dead,
        "retrying" if !row.try_get::<_, bool>("is_due")? => LetterReadiness::NotDue,
        _ => LetterReadiness::Ready,
    };
    Ok(StoredLetter {
        id: LetterId(row.try_get("id")?),
        readiness,
        attempts: u32::try_from(row.try_get::<_, i32>("attempts")?).unwrap_or_default(),
        holds: row.try_get("holds")?,
        event,
    })
}

/// Records as parallel arrays, the parameters of a statement.
#[derive(Default)]
struct RecordColumns<'a> {
    ids: Vec<i64>,
    changes: Vec<&'static str>,
    stream_seqs: Vec<i64>,
    codes: Vec<&'a str>,
    texts: Vec<&'a str>,
    attempts: Vec<i32>,
    holds: Vec<bool>,
    waits: Vec<f64>,
    loads: Vec<bool>,
    seen: Vec<Option<i64>>,
}

impl<'a> RecordColumns<'a> {
    fn of(records: &'a [Record]) -> Self {
        let mut columns = Self::default();
        for Record { id: LetterId(id), change, load } in records {
            columns.ids.push(*id);
            columns.loads.push(*load);
            columns.push(change);
        }
        columns
    }

    fn push(&mut self, change: &'a LetterChange) {
        let (mut stream_seq, mut code, mut text, mut attempts) = (0, "", "", 0);
        let (mut holds, mut wait, mut seen) = (false, 0.0, None);
        self.changes.push(match change {
            LetterChange::Published { stream_seq: at } => {
                stream_seq = i64::try_from(*at).unwrap_or(i64::MAX);
                "published"
            }
            LetterChange::Dead { reason, attempts: tries, holds: holding } => {
                (code, text, attempts, holds) = (reason.code, &reason.text, *tries, *holding);
                "dead"
            }
            LetterChange::Retrying(Retry { reason, attempts: tries, wait: how_long }) => {
                (code, text, attempts) = (reason.code, &reason.text, *tries);
                wait = how_long.as_secs_f64();
                "retrying"
            }
            LetterChange::Held => "held",
            LetterChange::Seen { at } => {
                seen = *at;
                "seen"
            }
        });
        self.stream_seqs.push(stream_seq);
        self.codes.push(code);
        self.texts.push(text);
        self.attempts.push(i32::try_from(attempts).unwrap_or(i32::MAX));
        self.holds.push(holds);
        self.waits.push(wait);
        self.seen.push(seen);
    }
}
