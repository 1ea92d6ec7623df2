//! Letters: the events that left the fast path, and what an operator asks and does about them.
//!
//! All questions and acts go through the database, so they work while the daemon is down. An act
//! wakes a running daemon, which then loads the changed letters.

mod act;
mod base64;
mod bulk;
mod edit;
mod erase;
mod filter;
mod follow;
mod list;
mod show;

use super::DatabaseError;
use crate::{
    config::{Config, load::Loaded},
    outbox::operator::{OPERATOR_SETTINGS, Operator},
    pg::{connect::connect, schema::Schema},
};

pub use crate::outbox::operator::{
    Action, Attribution, AuditRow, Letter, LetterState, PayloadPart, Redriven,
};
pub use act::{ActedOn, LeftAlone, LetterAct, NamedLetters};
pub use bulk::ChosenLetters;
pub use edit::{EditError, EditedLetter, LetterChanges, edit, rehearse_edit};
pub use erase::{ErasedKey, erase};
pub use filter::{LetterFilter, Since};
pub use follow::FOLLOWED_MAX;
pub use list::{LetterPage, ListError, StrandedLetters, list, stranded};
pub use show::{ShowError, ShownExtent, ShownLetter, ShownPayload, is_truncated, show};

const PURPOSE: &str = "dlq";

/// The configuration of the route that a letter belongs to; of the first route when no route has
/// it.
///
/// # Errors
/// The errors of the session.
pub async fn route_of(loaded: &Loaded, id: i64) -> Result<&Config, DatabaseError> {
    if loaded.routes.len() == 1 {
        return Ok(&loaded.config);
    }
    let operator = open(&loaded.config, &OPERATOR_SETTINGS).await?;
    let relay = operator.letter(id).await?.map(|found| found.letter.relay);
    let configs = loaded.routes.iter().map(|route| &route.config);
    let mut of_it = configs.filter(|config| Some(config.relay.name.as_str()) == relay.as_deref());
    Ok(of_it.next().unwrap_or(&loaded.config))
}

/// Opens a session for work on the letters of the configured relay.
async fn open(config: &Config, settings: &[(&str, &str)]) -> Result<Operator, DatabaseError> {
    let connection = connect(&config.database, PURPOSE, settings).await?;
    let schema = Schema::from(&config.database.schema);
    Ok(Operator::new(connection, schema, config.relay.name.as_str().to_owned()))
}
