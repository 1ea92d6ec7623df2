//! Counts all committed events for `postrider audit`, which proves that their numbers add up.
//!
//! At one moment, every row that the outbox retains is in exactly one of five places for one relay:
//!
//! ```text
//! committed = published + pending + dead + discarded + filtered
//! ```
//!
//! - *published*: settled and without a letter, or with a letter that was resolved as
//!   published. Only a scan of the stream shows whether the stream contains the event.
//! - *pending*: not settled and without a letter, or with a letter that is held or tried again.
//! - *dead*: with a letter that waits for an operator.
//! - *discarded*: with a letter that an operator gave up.
//! - *filtered*: without a letter, and the relay's filter leaves it out.
//!
//! A letter outlives its row, which retention deletes. A letter without its row is counted
//! separately and is in none of the five places. A letter of an unsettled row exists only while a
//! relay heals its stream.

use tokio_postgres::Row;

use super::Inspection;
use crate::pg::error::QueryError;

/// Session settings for [`Inspection::accounting`], whose duration grows with the outbox.
pub const ACCOUNTING_SETTINGS: [(&str, &str); 3] =
    [("statement_timeout", "0"), ("idle_in_transaction_session_timeout", "0"), ("jit", "off")];

/// Number of rows and letters with the same letter state, row state and filter result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountEntry {
    /// The letter's state, and how it was resolved; `None` for rows without a letter.
    pub letter: Option<(String, Option<String>)>,
    /// State of the row.
    pub row: RowState,
    /// Whether the relay's filter leaves the row out.
    pub is_filtered: bool,
    /// Number of rows or letters.
    pub count: u64,
}

/// State of an outbox row relative to the position and to retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState {
    /// The position has passed the row.
    Settled,
    /// The position has not passed the row.
    Unsettled,
    /// Retention has deleted the row; only its letter is left.
    Gone,
}

/// Counts of all committed rows and letters of one relay at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounting {
    /// An entry for each combination of letter state, row state and filter result that occurs.
    pub standings: Vec<AccountEntry>,
    /// Number of unresolved letters whose payload is lost: it was kept only in a row that is gone.
    pub payloads_lost: u64,
    /// Number of letters that were never edited, although their row now has another event id.
    pub strangers: u64,
}

/// The five places of a row, which the module describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowPlace {
    Published,
    Pending,
    Dead,
    Discarded,
    Filtered,
}

impl AccountEntry {
    fn is_without_row(&self) -> bool {
        self.letter.is_some() && self.row == RowState::Gone
    }

    fn is_resolved(&self) -> bool {
        self.letter.as_ref().is_some_and(|(_, resolution)| resolution.is_some())
    }

    /// The place of the counted rows; `None` for a resolution that this program does not recognise.
    fn place(&self) -> Option<RowPlace> {
        let letter =
            self.letter.as_ref().map(|(state, resolution)| (state.as_str(), resolution.as_deref()));
        match letter {
            None if self.is_filtered => Some(RowPlace::Filtered),
            None if self.row == RowState::Settled => Some(RowPlace::Published),
            None | Some(("held" | "retrying", None)) => Some(RowPlace::Pending),
            Some(("dead", None)) => Some(RowPlace::Dead),
            Some((_, Some("published"))) => Some(RowPlace::Published),
            Some((_, Some("discarded"))) => Some(RowPlace::Discarded),
            Some(_) => None,
        }
    }
}

impl Accounting {
    fn sum(&self, counts: impl Fn(&AccountEntry) -> bool) -> u64 {
        self.standings.iter().filter(|standing| counts(standing)).map(|it| it.count).sum()
    }

    fn at(&self, place: RowPlace) -> u64 {
        self.sum(|standing| standing.row != RowState::Gone && standing.place() == Some(place))
    }

    /// Rows that the outbox retains.
    pub fn committed(&self) -> u64 {
        self.sum(|standing| standing.row != RowState::Gone)
    }

    /// Retained rows that the position has passed.
    pub fn settled(&self) -> u64 {
        self.sum(|standing| standing.row == RowState::Settled)
    }

    /// Rows that should be in the stream, according to the position and the letters.
    pub fn published(&self) -> u64 {
        self.at(RowPlace::Published)
    }

    /// Rows that are still to be published.
    pub fn pending(&self) -> u64 {
        self.at(RowPlace::Pending)
    }

    /// Rows with a letter that waits for an operator.
    pub fn dead(&self) -> u64 {
        self.at(RowPlace::Dead)
    }

    /// Rows with a letter that an operator discarded.
    pub fn discarded(&self) -> u64 {
        self.at(RowPlace::Discarded)
    }

    /// Rows that the relay's filter leaves out.
    pub fn filtered(&self) -> u64 {
        self.at(RowPlace::Filtered)
    }

    /// Letters of a state and a resolution, with their row or without.
    pub fn letters(&self, state: &str, resolution: Option<&str>) -> u64 {
        self.sum(|standing| {
            standing.letter.as_ref().is_some_and(|(its_state, its_resolution)| {
                its_state == state && its_resolution.as_deref() == resolution
            })
        })
    }

    /// Resolved letters whose row retention has deleted.
    pub fn resolved_without_row(&self) -> u64 {
        self.sum(|standing| standing.is_without_row() && standing.is_resolved())
    }

    /// Unresolved letters whose row retention has deleted: such a letter has a copy of the payload.
    pub fn unresolved_without_row(&self) -> u64 {
        self.sum(|standing| standing.is_without_row() && !standing.is_resolved())
    }

    /// Letters of rows that the position has not passed.
    pub fn letters_unsettled(&self) -> u64 {
        self.sum(|standing| standing.letter.is_some() && standing.row == RowState::Unsettled)
    }

    /// Whether the five places sum up to the committed rows, and no letter has lost its event.
    pub fn is_balanced(&self) -> bool {
        let decided = self.published() + self.dead() + self.discarded() + self.filtered();
        self.committed() == decided + self.pending()
            && self.payloads_lost == 0
            && self.strangers == 0
    }
}

impl Inspection {
    /// Counts every committed row and every letter of a relay, exact and at one moment. The query
    /// has no deadline, so its session needs [`ACCOUNTING_SETTINGS`].
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn accounting(&self, relay: &str) -> Result<Accounting, QueryError> {
        let sql = self.schema().apply(include_str!("sql/account_events.sql"));
        let rows = self.connection().query_without_deadline(&sql, &[&relay]).await?;
        let number = |row: &Row, name: &str| {
            let number: i64 = row.try_get(name)?;
            Ok::<_, QueryError>(u64::try_from(number).unwrap_or_default())
        };
        let mut found = Accounting { standings: Vec::new(), payloads_lost: 0, strangers: 0 };
        for row in &rows {
            let state: Option<String> = row.try_get("state")?;
            let resolution: Option<String> = row.try_get("resolution")?;
            found.standings.push(AccountEntry {
                letter: state.map(|state| (state, resolution)),
                row: match (row.try_get("has_row")?, row.try_get("is_settled")?) {
                    (false, _) => RowState::Gone,
                    (true, false) => RowState::Unsettled,
                    (true, true) => RowState::Settled,
                },
                is_filtered: row.try_get("is_filtered")?,
                count: number(row, "count")?,
            });
            found.payloads_lost += number(row, "payloads_lost")?;
            found.strangers += number(row, "strangers")?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(letter: Option<(&str, Option<&str>)>, row: RowState, count: u64) -> AccountEntry {
        let owned = |text: &str| text.to_owned();
        let letter = letter.map(|(state, resolution)| (owned(state), resolution.map(owned)));
        AccountEntry { letter, row, is_filtered: false, count }
    }

    #[test]
    fn every_row_is_in_one_of_five_places() {
        use RowState::{Gone, Settled, Unsettled};
        let standings = vec![
            standing(None, Settled, 1),
            standing(None, Unsettled, 2),
            standing(Some(("held", None)), Settled, 4),
            standing(Some(("retrying", None)), Settled, 8),
            standing(Some(("dead", None)), Settled, 16),
            standing(Some(("dead", Some("discarded"))), Settled, 32),
            standing(Some(("retrying", Some("published"))), Unsettled, 128),
            standing(Some(("dead", None)), Gone, 64),
            AccountEntry { is_filtered: true, ..standing(None, Settled, 256) },
            AccountEntry { is_filtered: true, ..standing(None, Unsettled, 512) },
        ];
        let accounting = Accounting { standings, payloads_lost: 0, strangers: 0 };
        assert_eq!((accounting.committed(), accounting.settled()), (959, 317));
        assert_eq!((accounting.published(), accounting.pending()), (129, 14));
        assert_eq!((accounting.dead(), accounting.discarded()), (16, 32));
        assert_eq!(accounting.filtered(), 768);
        assert_eq!(accounting.letters("dead", None), 80);
        assert_eq!(
            (accounting.unresolved_without_row(), accounting.resolved_without_row()),
            (64, 0)
        );
        assert_eq!(accounting.letters_unsettled(), 128);
        assert!(accounting.is_balanced());
    }

    #[test]
    fn what_stands_nowhere_is_seen() {
        let unknown = vec![standing(Some(("dead", Some("eaten"))), RowState::Settled, 1)];
        let accounting = Accounting { standings: unknown, payloads_lost: 0, strangers: 0 };
        assert!(!accounting.is_balanced());
        let lost = Accounting { standings: Vec::new(), payloads_lost: 1, strangers: 0 };
        assert!(!lost.is_balanced());
    }
}
