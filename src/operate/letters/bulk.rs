//! Redrives or discards the letters that a filter chooses, batch by batch.

use std::time::{Duration, SystemTime};

use super::{Letter, LetterAct, LetterFilter, LetterState, Redriven, follow, open};
use crate::{
    config::Config,
    operate::DatabaseError,
    outbox::operator::{Choice, OPERATOR_SETTINGS, Operator},
};

/// Letters that a filter chooses, and the act on them.
pub struct ChosenLetters<'a> {
    operator: Operator,
    act: &'a LetterAct,
    choice: Choice,
    count: u64,
    hopeless: u64,
    /// The `seq` above which the next batch begins; `None` after the last batch.
    above: Option<i64>,
}

impl<'a> ChosenLetters<'a> {
    /// Opens a session and counts the letters that the filter chooses.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn open(
        config: &Config,
        act: &'a LetterAct,
        filter: &LetterFilter,
    ) -> Result<Self, DatabaseError> {
        let operator = open(config, &OPERATOR_SETTINGS).await?;
        let mut choice = filter.choice(&operator, act.state).await?;
        // A letter that dies, or dies again, from now on is not part of the choice.
        if act.state == LetterState::Dead {
            choice.until = Some(operator.now().await?);
        }
        choice.hopeless = act.hopeless;
        let count = operator.count(&choice).await?;
        let hopeless = if act.hopeless {
            0
        } else {
            let all = operator.count(&Choice { hopeless: true, ..choice.clone() }).await?;
            all.saturating_sub(count)
        };
        Ok(Self { operator, act, choice, count, hopeless, above: Some(0) })
    }

    /// Number of letters that the act would change.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Number of letters that the filter chooses and the act leaves alone. They can never be
    /// published without an edit.
    pub fn hopeless(&self) -> u64 {
        self.hopeless
    }

    /// The first of the chosen letters, in the order in which they would be changed.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn first(&self, limit: i64) -> Result<Vec<Letter>, DatabaseError> {
        Ok(self.operator.chosen(&self.choice, limit).await?)
    }

    /// The database's clock, for [`Self::follow`].
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn now(&self) -> Result<SystemTime, DatabaseError> {
        Ok(self.operator.now().await?)
    }

    /// Whether there may be another batch.
    pub fn has_more(&self) -> bool {
        self.above.is_some()
    }

    /// Changes the next batch, as a whole or not at all. Returns the ids of its letters.
    ///
    /// # Errors
    /// The errors of the session; the batches before stay changed.
    pub async fn change_batch(&mut self) -> Result<Vec<i64>, DatabaseError> {
        let Some(above) = self.above else { return Ok(Vec::new()) };
        let LetterAct { action, attribution, .. } = self.act;
        let acted = self.operator.act(*action, &self.choice, above, attribution).await?;
        self.above = acted.next;
        Ok(acted.ids)
    }

    /// Reports what became of each of these letters since a time, as soon as it is known. Ends when
    /// all outcomes are known, or after a duration: `times` has both. Returns the letters without
    /// an outcome.
    ///
    /// # Errors
    /// The errors of the session, and those of `on_outcome`.
    pub async fn follow<E: From<DatabaseError>>(
        &self,
        ids: &[i64],
        times: (SystemTime, Duration),
        on_outcome: impl FnMut(i64, &Redriven) -> Result<(), E>,
    ) -> Result<Vec<i64>, E> {
        follow::follow(&self.operator, ids, times, on_outcome).await
    }
}
