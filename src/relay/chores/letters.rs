//! Retention of letters: resolved letters and audit rows that are old are deleted, some at a time.

use tracing::info;

use super::ChoreSettings;
use crate::{outbox::Upkeep, pg::error::QueryError};

/// Maximum number of statements in one run of this chore. Each deletes some thousand rows. The next
/// run follows in a minute.
const ROUND: usize = 20;

pub(super) async fn forget(session: &Upkeep, settings: &ChoreSettings) -> Result<(), QueryError> {
    let (mut letters, mut audits) = (0, 0);
    for _ in 0..ROUND {
        let gone = session.forget(settings.letter_retention, settings.audit_retention).await?;
        letters += gone.letters;
        audits += gone.audits;
        if !gone.is_full {
            break;
        }
    }
    if letters > 0 || audits > 0 {
        info!(
            letters,
            audits,
            "deleted resolved letters and rows of the table audit that are older than their retention"
        );
    }
    Ok(())
}
