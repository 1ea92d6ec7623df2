//! Writes back what was decided: the position and the letters it passes over, in one statement.

use thiserror::Error;

use crate::{
    delivery::{Letter, OnDead, Settlement},
    event::Seq,
    metrics::Query,
    outbox::Outbox,
    pg::error::QueryError,
};

/// What a held letter says about itself.
const HELD: (&str, &str) = ("held", "waits behind a dead letter of its key");

/// Under which right and for which stream a settlement is written.
#[derive(Debug, Clone)]
pub struct Authority {
    /// The fencing number of our holding.
    pub term: i64,
    /// The stream that acknowledged.
    pub stream: String,
    /// When that stream was created.
    pub stream_created: String,
    /// Whether a dead letter holds the later events of its key.
    pub on_dead: OnDead,
    /// Bytes of a payload that a letter copies at most; a larger one stays in the outbox.
    pub letter_bytes_max: u64,
}

/// Why a settlement was not written.
#[derive(Debug, Error)]
pub enum SettleError {
    /// Somebody else took the relay over; nothing was written.
    #[error("another instance took this relay over (our term {term} is not the last)")]
    TermLost {
        /// The term under which we tried.
        term: i64,
    },
    /// The statement failed; it may be tried again.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Outbox {
    /// Writes a settlement. Doing it again changes nothing.
    ///
    /// Returns the new fence, when this tells one: what begins later has a higher `seq`.
    ///
    /// # Errors
    /// [`SettleError::TermLost`] is final for this holding.
    pub async fn settle(
        &self,
        settlement: &Settlement,
        authority: &Authority,
    ) -> Result<Option<Seq>, SettleError> {
        if settlement.letters.is_empty() {
            self.settle_position(settlement, authority).await
        } else {
            self.settle_letters(settlement, authority).await
        }
    }

    async fn settle_position(
        &self,
        settlement: &Settlement,
        authority: &Authority,
    ) -> Result<Option<Seq>, SettleError> {
        let position = &settlement.position;
        let stream_seq = i64::try_from(settlement.stream_seq).unwrap_or(i64::MAX);
        let row = self
            .connection
            .timed(
                Query::Settle,
                self.connection.client.query_opt(
                    &self.statements.settle,
                    &[
                        &self.relay,
                        &authority.term,
                        &position.settled.as_str(),
                        &position.floor.0,
                        &position.target.as_str(),
                        &position.target_floor.0,
                        &position.bookmark.0,
                        &authority.stream,
                        &authority.stream_created,
                        &stream_seq,
                    ],
                ),
            )
            .await?;
        match row {
            Some(row) => Ok(row.try_get::<_, Option<i64>>(0).map_err(QueryError::from)?.map(Seq)),
            None => Err(SettleError::TermLost { term: authority.term }),
        }
    }

    async fn settle_letters(
        &self,
        settlement: &Settlement,
        authority: &Authority,
    ) -> Result<Option<Seq>, SettleError> {
        let position = &settlement.position;
        let stream_seq = i64::try_from(settlement.stream_seq).unwrap_or(i64::MAX);
        let holds = authority.on_dead == OnDead::Hold;
        let letter_bytes_max = i64::try_from(authority.letter_bytes_max).unwrap_or(i64::MAX);
        let letters = &settlement.letters;
        let seqs: Vec<i64> = letters.iter().map(|letter| letter.seq.0).collect();
        let states: Vec<&str> = letters.iter().map(state).collect();
        let codes: Vec<&str> = letters.iter().map(|letter| told(letter).0).collect();
        let texts: Vec<_> =
            letters.iter().map(|letter| self.connection.storable(told(letter).1)).collect();
        let row = self
            .connection
            .timed(
                Query::Settle,
                self.connection.client.query_one(
                    &self.statements.settle_letters,
                    &[
                        &self.relay,
                        &authority.term,
                        &position.settled.as_str(),
                        &position.floor.0,
                        &position.target.as_str(),
                        &position.target_floor.0,
                        &position.bookmark.0,
                        &authority.stream,
                        &authority.stream_created,
                        &stream_seq,
                        &seqs,
                        &states,
                        &holds,
                        &codes,
                        &texts,
                        &letter_bytes_max,
                    ],
                ),
            )
            .await?;
        match row.try_get::<_, i64>("settled").map_err(QueryError::from)? {
            0 => Err(SettleError::TermLost { term: authority.term }),
            _ => Ok(None),
        }
    }
}

fn state(letter: &Letter) -> &'static str {
    if letter.rejection.is_some() { "dead" } else { "held" }
}

fn told(letter: &Letter) -> (&str, &str) {
    letter.rejection.as_ref().map_or(HELD, |rejection| (rejection.code, &rejection.text))
}
