//! Erases the stored data of one key, as a law may demand.

use serde::Serialize;

use super::{Attribution, open};
use crate::{
    config::Config, event::AggregateKey, operate::DatabaseError,
    outbox::operator::OPERATOR_SETTINGS,
};

/// Rows and letters of a key that were erased, and those that stay.
#[derive(Debug, Default, Serialize)]
pub struct ErasedKey {
    /// Number of rows of the outbox that were erased.
    pub rows: u64,
    /// Number of rows that are not settled, and stay.
    pub rows_left: u64,
    /// Number of letters that were erased.
    pub letters: u64,
    /// Number of letters that are not resolved, and stay.
    pub letters_left: u64,
}

/// Erases what the outbox and the letters of the configured relay keep of a key.
///
/// # Errors
/// The errors of the session; what was erased before stays erased.
pub async fn erase(
    config: &Config,
    key: &AggregateKey,
    attribution: &Attribution,
) -> Result<ErasedKey, DatabaseError> {
    let operator = open(config, &OPERATOR_SETTINGS).await?;
    let (mut sum, mut above) = (ErasedKey::default(), Some(0));
    while let Some(seq) = above {
        let erased = operator.erase(key, seq, attribution).await?;
        sum.rows += erased.rows;
        sum.rows_left += erased.rows_left;
        sum.letters += erased.letters;
        sum.letters_left += erased.letters_left;
        above = erased.next;
    }
    Ok(sum)
}
