//! Redrives or discards letters that are named by their ids.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::{Action, Attribution, LetterState, Redriven, follow, open};
use crate::{
    config::Config,
    operate::DatabaseError,
    outbox::operator::{Choice, LetterFate, OPERATOR_SETTINGS_FOR_IDS, Operator},
};

/// An act on letters, and the person who wants it.
#[derive(Debug, Clone)]
pub struct LetterAct {
    /// Redrive or discard.
    pub action: Action,
    /// The state of the letters to change.
    pub state: LetterState,
    /// Whether to change also letters that can never be published without an edit.
    pub hopeless: bool,
    /// The person who acts, and the reason.
    pub attribution: Attribution,
}

/// Letters that are named by their ids, and the act on them.
pub struct NamedLetters<'a> {
    operator: Operator,
    act: &'a LetterAct,
    ids: Vec<i64>,
}

/// Result of an act or a rehearsal: the letters that were changed or would be, and the others.
#[derive(Debug, Serialize)]
pub struct ActedOn {
    /// Ids of the letters that were changed, or in a rehearsal would be.
    pub changed: Vec<i64>,
    /// The letters that were not changed.
    pub left_alone: Vec<LeftAlone>,
    /// Time just before the act, by the database's clock.
    #[serde(skip)]
    pub since: SystemTime,
}

/// A letter that was left alone.
#[derive(Debug, Serialize)]
pub struct LeftAlone {
    /// Id of the letter.
    pub id: i64,
    /// The reason why the letter was left alone, and what to do instead.
    pub why: String,
}

impl<'a> NamedLetters<'a> {
    /// Opens a session for the letters; an id that is named twice counts once.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn open(
        config: &Config,
        act: &'a LetterAct,
        ids: &[i64],
    ) -> Result<Self, DatabaseError> {
        let operator = open(config, &OPERATOR_SETTINGS_FOR_IDS).await?;
        let mut seen = HashSet::new();
        let ids = ids.iter().copied().filter(|id| seen.insert(*id)).collect();
        Ok(Self { operator, act, ids })
    }

    /// Number of the named letters.
    pub fn count(&self) -> u64 {
        self.ids.len() as u64
    }

    /// Returns the letters that the act would change, and changes none.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn rehearse(&self) -> Result<ActedOn, DatabaseError> {
        let (since, before) = self.before().await?;
        let would = before.iter().filter(|(_, outcome)| self.act.may_change(outcome));
        let changed = would.map(|(id, _)| *id).collect();
        Ok(ActedOn::of((since, before), changed))
    }

    /// Changes the letters that may be changed.
    ///
    /// # Errors
    /// The errors of the session; a batch that was changed before stays changed.
    pub async fn act(&self) -> Result<ActedOn, DatabaseError> {
        let LetterAct { action, hopeless, attribution, .. } = self.act;
        let (since, before) = self.before().await?;
        let retrying = before
            .iter()
            .filter(|(_, outcome)| *action == Action::Redrive && *outcome == LetterFate::Retrying);
        let retrying: Vec<i64> = retrying.map(|(id, _)| *id).collect();
        let mut changed = Vec::new();
        for (state, ids) in
            [(LetterState::Dead, self.ids.clone()), (LetterState::Retrying, retrying)]
        {
            let mut above = Some(0).filter(|_| !ids.is_empty());
            let choice = Choice { ids: Some(ids), state, hopeless: *hopeless, ..Choice::default() };
            while let Some(seq) = above {
                let acted = self.operator.act(*action, &choice, seq, attribution).await?;
                changed.extend(acted.ids);
                above = acted.next;
            }
        }
        Ok(ActedOn::of((since, before), changed))
    }

    /// Reports the outcome of each changed letter as soon as it is known. Ends when all outcomes
    /// are known or the time is over. Returns the letters without an outcome.
    ///
    /// # Errors
    /// The errors of the session, and those of `on_outcome`.
    pub async fn follow<E: From<DatabaseError>>(
        &self,
        acted: &ActedOn,
        limit: Duration,
        on_outcome: impl FnMut(i64, &Redriven) -> Result<(), E>,
    ) -> Result<Vec<i64>, E> {
        follow::follow(&self.operator, &acted.changed, (acted.since, limit), on_outcome).await
    }

    /// The database's clock, and the state of each letter before the act.
    async fn before(&self) -> Result<(SystemTime, Vec<(i64, LetterFate)>), DatabaseError> {
        let since = self.operator.now().await?;
        Ok((since, self.operator.outcomes(&self.ids).await?))
    }
}

impl ActedOn {
    fn of((since, before): (SystemTime, Vec<(i64, LetterFate)>), changed: Vec<i64>) -> Self {
        let others = before.iter().filter(|(id, _)| !changed.contains(id));
        let left_alone = others.map(|(id, outcome)| LeftAlone { id: *id, why: why_not(outcome) });
        Self { left_alone: left_alone.collect(), changed, since }
    }
}

impl LetterAct {
    fn may_change(&self, outcome: &LetterFate) -> bool {
        match outcome {
            LetterFate::Dead => true,
            LetterFate::Hopeless { code } => self.hopeless && code != "unreadable_row",
            LetterFate::Retrying => self.action == Action::Redrive,
            LetterFate::Held
            | LetterFate::Resolved { .. }
            | LetterFate::OfRelay(_)
            | LetterFate::Unknown => false,
        }
    }
}

/// Reason why a letter was left alone.
fn why_not(outcome: &LetterFate) -> String {
    match outcome {
        LetterFate::Hopeless { code } if code == "unreadable_row" => {
            "its row still cannot be read: repair the table, or edit it with a payload, or discard it"
                .to_owned()
        }
        LetterFate::Hopeless { code } => format!(
            "it can never be published as it is ({code}): edit or discard it, or say --force"
        ),
        LetterFate::Dead => "taken by somebody else meanwhile".to_owned(),
        LetterFate::Retrying => "already being retried".to_owned(),
        LetterFate::Held => "not dead: it waits behind an earlier letter of its key".to_owned(),
        LetterFate::Resolved { resolution, by: None } => format!("already {resolution}"),
        LetterFate::Resolved { resolution, by: Some(by) } => format!("already {resolution} by {by}"),
        LetterFate::OfRelay(relay) => {
            format!("belongs to relay {relay}: say --route {relay}")
        }
        LetterFate::Unknown => "there is none".to_owned(),
    }
}
