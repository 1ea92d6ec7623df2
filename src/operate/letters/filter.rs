//! Filter by which a command selects letters.

use std::{str::FromStr, time::Duration};

use jiff::Timestamp;

use crate::{
    event::AggregateKey,
    outbox::operator::{Choice, LetterState, Operator},
    pg::error::QueryError,
};

/// Conditions that a letter must meet; a condition that is not set selects every letter.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// Event type that a letter must have.
    pub event_type: Option<String>,
    /// Key that a letter's event must have.
    pub key: Option<AggregateKey>,
    /// Error code that a letter must have.
    pub error_code: Option<String>,
    /// Fingerprint of the error that a letter must have. Errors that differ only in numbers or
    /// quoted names share it.
    pub fingerprint: Option<String>,
    /// Earliest time at which a letter died, inclusive. For letters that are not dead, it bounds
    /// the first failure.
    pub since: Option<Since>,
}

impl LetterFilter {
    /// Whether no condition is set.
    pub fn is_empty(&self) -> bool {
        let Self { event_type, key, error_code, fingerprint, since } = self;
        event_type.is_none()
            && key.is_none()
            && error_code.is_none()
            && fingerprint.is_none()
            && since.is_none()
    }

    /// The conditions for letters in `state`. An age is subtracted from the time of the database's
    /// clock.
    pub(super) async fn choice(
        &self,
        operator: &Operator,
        state: LetterState,
    ) -> Result<Choice, QueryError> {
        let since = match &self.since {
            None => None,
            Some(Since::At(time)) => Some((*time).into()),
            // An age that reaches back before the beginning of the clock sets no bound.
            Some(Since::Ago(age)) => operator.now().await?.checked_sub(*age),
        };
        Ok(Choice {
            event_type: self.event_type.clone(),
            key: self.key.clone(),
            error_code: self.error_code.clone(),
            fingerprint: self.fingerprint.clone(),
            since,
            until: None,
            ids: None,
            state,
            hopeless: true,
        })
    }
}

/// The earliest time that a filter selects.
#[derive(Debug, Clone)]
pub enum Since {
    /// Time that is given as a duration before now.
    Ago(Duration),
    /// Time that is given as a point in time.
    At(Timestamp),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(age) = humantime::parse_duration(text) {
            return Ok(Self::Ago(age));
        }
        let time = text.parse().map_err(|_| {
            "write an age such as 2h or 30min, or a time such as 2026-11-21T03:00:00Z".to_owned()
        })?;
        Ok(Self::At(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_age_or_a_time_with_its_zone() {
        assert!(matches!("2h".parse(), Ok(Since::Ago(age)) if age.as_secs() == 7_200));
        assert!(matches!("2026-11-21T03:00:00+01:00".parse(), Ok(Since::At(_))));
        for text in ["", "yesterday", "2026-11-21", "2026-11-21T03:00:00", "-2h"] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }
}
