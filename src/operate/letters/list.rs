//! Lists letters page by page, and finds letters of relays that nobody runs.

use std::borrow::Cow;

use serde::Serialize;

use super::{Letter, LetterFilter, LetterState, PURPOSE, open};
use crate::{
    config::Config,
    findings,
    operate::{DatabaseError, inspect},
    outbox::{SESSION_SETTINGS, operator::OPERATOR_SETTINGS},
    pg::error::QueryError,
};

/// A page of letters, the newest first.
#[derive(Debug, Serialize)]
pub struct LetterPage {
    /// Letters of the page.
    pub letters: Vec<Letter>,
    /// The last letter of this page, after which the next page begins; `None` on the last page.
    pub next: Option<i64>,
}

/// Letters of a relay that nobody runs and that is not in the configuration.
#[derive(Debug, Serialize)]
pub struct StrandedLetters {
    /// The relay's name.
    pub relay: String,
    /// Number of unresolved letters of the relay; exact up to 10,000.
    pub letters: i64,
    /// The problem in one sentence.
    pub cause: String,
}

/// Reason why a page of letters cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Postgres did not answer, or refused the session or a statement.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The letter after which the page should begin does not exist.
    #[error("no {}letter has the id {id}", if *.state == LetterState::Dead { "dead " } else { "" })]
    NothingBefore {
        /// The letter's id.
        id: i64,
        /// The state of the letters that were asked for.
        state: LetterState,
    },
}

impl From<QueryError> for ListError {
    fn from(error: QueryError) -> Self {
        Self::Database(error.into())
    }
}

impl ListError {
    /// Next step for a person; `None` when the error's text says it, or when the error may pass by
    /// itself.
    pub fn hint(&self) -> Option<Cow<'static, str>> {
        match self {
            Self::Database(error) => error.hint(),
            Self::NothingBefore { .. } => Some(Cow::Borrowed("begin without --after")),
        }
    }
}

/// Lists at most `limit` letters of the configured relay that are in a state, after the letter
/// `after`.
///
/// # Errors
/// The errors of the session, and that there is no letter `after`.
pub async fn list(
    config: &Config,
    (state, filter): (LetterState, &LetterFilter),
    after: Option<i64>,
    limit: u16,
) -> Result<LetterPage, ListError> {
    let operator = open(config, &OPERATOR_SETTINGS).await?;
    let choice = filter.choice(&operator, state).await?;
    // A letter more than the page has shows whether another page follows.
    let found = operator.letters((state, &choice), after, i64::from(limit) + 1).await?;
    let Some(mut letters) = found else {
        return Err(ListError::NothingBefore { id: after.unwrap_or_default(), state });
    };
    let has_more = letters.len() > usize::from(limit);
    letters.truncate(usize::from(limit));
    let next = letters.last().filter(|_| has_more).map(|letter| letter.id);
    Ok(LetterPage { letters, next })
}

/// Letters of relays that nobody runs and that are not in the configuration. They appear after a
/// relay's name was changed.
///
/// # Errors
/// The errors of the session.
pub async fn stranded(config: &Config) -> Result<Vec<StrandedLetters>, DatabaseError> {
    let relays = inspect(config, PURPOSE, &SESSION_SETTINGS).await?.relays().await?;
    let stranded =
        relays.into_iter().filter(|row| row.has_stranded_letters(&config.relay.siblings));
    let letters = stranded.map(|row| StrandedLetters {
        cause: findings::stranded(&row.relay, row.letters).cause,
        relay: row.relay,
        letters: row.letters,
    });
    Ok(letters.collect())
}
