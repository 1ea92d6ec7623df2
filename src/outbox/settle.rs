//! Writes a settlement: the position and the letters that it passes over, in one statement.

use std::time::Duration;

use thiserror::Error;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::{
    delivery::{Certainty, Fate, OnDead, Retry, Settlement, StreamMark},
    event::{EventId, Position, Seq},
    metrics::Query,
    outbox::{DeadLetter, Outbox, dead::dead_letters},
    pg::error::QueryError,
};

/// Error code and text of a held letter.
const HELD: (&str, &str) = ("held", "waits behind an earlier letter of its key");

/// Term, stream and settings with which settlements and records of letters are written.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The fencing number of our holding.
    pub term: i64,
    /// Name of the stream that acknowledged the events.
    pub stream: String,
    /// Creation time of that stream in nanoseconds since the Unix epoch; `None` when unknown.
    pub stream_created: Option<i64>,
    /// Number of events settled as published by this position so far.
    pub published: i64,
    /// Whether a dead letter blocks its key.
    pub on_dead: OnDead,
    /// Maximum bytes of a payload that a letter copies; a larger one stays in the outbox.
    pub letter_bytes_max: u64,
    /// Length of the lease from the settlement on, which also renews the lease.
    pub lease: Duration,
}

impl Authority {
    /// The count of published events once this settlement is written.
    pub fn published_with(&self, settlement: &Settlement) -> i64 {
        let published = i64::try_from(settlement.published).unwrap_or(i64::MAX);
        self.published.saturating_add(published)
    }
}

/// Reason why a settlement was not written.
#[derive(Debug, Error)]
pub enum SettleError {
    /// Another instance leads this relay; nothing was written.
    #[error("another instance took this relay over (our term {term} is not the last)")]
    TermLost {
        /// The term of the attempt.
        term: i64,
    },
    /// The statement failed; it may be tried again.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Result of a settlement.
#[derive(Debug, Default)]
pub struct Written {
    /// The new fence, when the statement returns one. Rows of transactions that begin later have a
    /// higher `seq`.
    pub fence: Option<Seq>,
    /// Dead letters of the settlement, up to the requested number.
    pub dead: Vec<DeadLetter>,
}

impl Outbox {
    /// Maximum number of letters that one settlement may have.
    pub fn letters_max(&self) -> usize {
        self.limits.letters.at_most(usize::MAX)
    }

    /// Writes a settlement. Writing the same settlement again changes nothing.
    ///
    /// Returns the dead letters that the settlement wrote, at most `named_max` of them.
    ///
    /// # Errors
    /// [`SettleError::TermLost`] is final for this holding.
    pub async fn settle(
        &self,
        settlement: &Settlement,
        authority: &Authority,
        named_max: usize,
    ) -> Result<Written, SettleError> {
        if settlement.letters.is_empty() {
            let fence = self.settle_position(settlement, authority).await?;
            Ok(Written { fence, dead: Vec::new() })
        } else {
            let dead = self.settle_letters(settlement, authority, named_max).await?;
            Ok(Written { fence: None, dead })
        }
    }

    async fn settle_position(
        &self,
        settlement: &Settlement,
        authority: &Authority,
    ) -> Result<Option<Seq>, SettleError> {
        let row = PositionRow::of(&self.relay, settlement, authority);
        let rows = self
            .connection
            .run(Query::Settle, &self.statements.settle_position, &row.parameters())
            .await?;
        match rows.first() {
            Some(row) => Ok(row.try_get::<_, Option<i64>>(0).map_err(QueryError::from)?.map(Seq)),
            None => Err(SettleError::TermLost { term: authority.term }),
        }
    }

    async fn settle_letters(
        &self,
        settlement: &Settlement,
        authority: &Authority,
        named_max: usize,
    ) -> Result<Vec<DeadLetter>, SettleError> {
        let letter_bytes_max = i64::try_from(authority.letter_bytes_max).unwrap_or(i64::MAX);
        let named_max = i64::try_from(named_max).unwrap_or(i64::MAX);
        let row = PositionRow::of(&self.relay, settlement, authority);
        let columns = LetterColumns::of(settlement, authority.on_dead);
        let texts: Vec<_> =
            columns.texts.iter().map(|text| self.connection.storable(text)).collect();
        let letters: [&(dyn ToSql + Sync); 9] = [
            &letter_bytes_max,
            &named_max,
            &columns.seqs,
            &columns.states,
            &columns.holds,
            &columns.codes,
            &texts,
            &columns.attempts,
            &columns.waits,
        ];
        let parameters = [&row.parameters()[..], &letters].concat();
        let rows =
            self.connection.run(Query::Settle, &self.statements.settle_letters, &parameters).await;
        self.limits.letters.learn(settlement.letters.len(), &rows);
        dead_letters(&rows?, "settled", authority.term)
    }
}

/// The position as the columns of its row. They are the first parameters of the statements
/// `settle_position.sql` and `settle_letters.sql`.
struct PositionRow<'a> {
    relay: &'a str,
    position: &'a Position,
    snapshot: &'a str,
    target: &'a str,
    authority: &'a Authority,
    stream_seq: i64,
    stream_event_id: Option<Uuid>,
    stream_floor: i64,
    lease_seconds: f64,
    published: i64,
}

impl<'a> PositionRow<'a> {
    fn of(relay: &'a str, settlement: &'a Settlement, authority: &'a Authority) -> Self {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let StreamMark { acked, event_id, floor } = settlement.stream;
        let position = &settlement.position;
        Self {
            relay,
            position,
            snapshot: position.settled.as_str(),
            target: position.target.as_str(),
            authority,
            stream_seq: number(acked),
            stream_event_id: event_id.map(|EventId(id)| id),
            stream_floor: number(floor),
            lease_seconds: authority.lease.as_secs_f64(),
            published: authority.published_with(settlement),
        }
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 14] {
        [
            &self.relay,
            &self.authority.term,
            &self.snapshot,
            &self.position.floor.0,
            &self.target,
            &self.position.target_floor.0,
            &self.position.bookmark.0,
            &self.authority.stream,
            &self.authority.stream_created,
            &self.stream_seq,
            &self.stream_event_id,
            &self.stream_floor,
            &self.lease_seconds,
            &self.published,
        ]
    }
}

/// Letters as parallel arrays, the parameters of a statement.
#[derive(Default)]
struct LetterColumns<'a> {
    seqs: Vec<i64>,
    states: Vec<&'static str>,
    holds: Vec<bool>,
    codes: Vec<&'a str>,
    texts: Vec<&'a str>,
    attempts: Vec<i32>,
    waits: Vec<Option<f64>>,
}

impl<'a> LetterColumns<'a> {
    fn of(settlement: &'a Settlement, on_dead: OnDead) -> Self {
        let mut columns = Self::default();
        for letter in &settlement.letters {
            columns.seqs.push(letter.seq.0);
            columns.push(&letter.fate, on_dead);
        }
        columns
    }

    fn push(&mut self, fate: &'a Fate, on_dead: OnDead) {
        let (state, holds, (code, text), attempts, wait) = match fate {
            Fate::Dead { reason, attempts } => {
                let holds = on_dead == OnDead::Hold;
                ("dead", holds, (reason.code, reason.text.as_str()), *attempts, None)
            }
            // The letter may still be published. So the later events of its key wait, whatever
            // `on_dead` says.
            Fate::Retrying(Retry { reason, attempts, wait }) => {
                let failure = (reason.code, reason.text.as_str());
                ("retrying", true, failure, *attempts, Some(wait.as_secs_f64()))
            }
            Fate::Held(Certainty::Known) => ("held", true, HELD, 0, None),
            Fate::Held(Certainty::Suspected) => ("held", true, HELD, 0, Some(0.0)),
        };
        self.states.push(state);
        self.holds.push(holds);
        self.codes.push(code);
        self.texts.push(text);
        self.attempts.push(i32::try_from(attempts).unwrap_or(i32::MAX));
        self.waits.push(wait);
    }
}
