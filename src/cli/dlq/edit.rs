//! `postrider dlq edit`: changes a dead letter in place, under a new event id.

use std::{fs, path::PathBuf};

use super::{Exit, Failure, Globals, actor, block_on, name, print, reason};
use crate::{
    config::{Config, error::Problem},
    operate::letters::{self, Attribution, EditError, EditedLetter, LetterChanges},
};

/// `postrider dlq edit`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(in crate::cli) struct Args {
    /// The letter's id
    #[arg(value_name = "ID")]
    id: i64,
    #[command(flatten)]
    changes: ChangeArgs,
    /// Why, for the audit: 1 to 1,000 characters
    #[arg(long, value_name = "TEXT", value_parser = reason, required = true)]
    reason: Option<String>,
    /// Your name, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", value_parser = name)]
    actor: Option<String>,
    /// Have it tried again at once
    #[arg(long)]
    redrive: bool,
    /// Check the change, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments that say what to change.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct ChangeArgs {
    /// The new payload
    #[arg(long, value_name = "TEXT", conflicts_with = "payload_file")]
    payload: Option<String>,
    /// A file with the new payload, taken byte for byte
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
    /// Set a header
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Remove a header
    #[arg(long, value_name = "NAME")]
    remove_header: Vec<String>,
    /// The new subject; empty: the one that the route makes
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// The new event type
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Changes a letter.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let loaded = globals.load_for_letters()?;
    let changes = LetterChanges { redrive: args.redrive, ..args.changes.read()? };
    block_on(async { apply(letters::route_of(&loaded, args.id).await?, changes, args).await })
}

async fn apply(config: &Config, changes: LetterChanges, args: &Args) -> Result<Exit, Failure> {
    if args.dry_run {
        letters::rehearse_edit(config, args.id, changes).await?;
        print::line(&format!("would change letter {}", args.id))?;
        return Ok(Exit::Done);
    }
    let attribution =
        Attribution { actor: actor(args.actor.as_deref()), reason: args.reason.clone() };
    let edited = letters::edit(config, args.id, changes, &attribution).await?;
    let EditedLetter { id, event_id, replaces, redriven } = edited;
    print::line(&format!("changed letter {id}: event {event_id} replaces {replaces}"))?;
    if redriven {
        print::line("redriven 1 dead letter")?;
    } else {
        print::line(&format!("next: postrider dlq redrive {id}"))?;
    }
    Ok(Exit::Done)
}

impl ChangeArgs {
    fn read(&self) -> Result<LetterChanges, Failure> {
        let payload = match (&self.payload, &self.payload_file) {
            (None, None) => None,
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(path)) => Some(fs::read(path).map_err(|error| {
                let text = format!("could not read {}: {error}", path.display());
                Failure::new(Exit::Failed, Problem::new(text))
            })?),
        };
        Ok(LetterChanges {
            payload,
            set_headers: self.header.clone(),
            remove_headers: self.remove_header.clone(),
            subject: self.subject.clone(),
            event_type: self.event_type.clone(),
            redrive: false,
        })
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        let exit = match &error {
            EditError::Database(error) => error.into(),
            EditError::Unknown(_)
            | EditError::OfRelay { .. }
            | EditError::Resolved { .. }
            | EditError::NotDead { .. }
            | EditError::PayloadGone
            | EditError::NoHeader(_)
            | EditError::Headers(_)
            | EditError::NotJson(_)
            | EditError::Template(_)
            | EditError::Refused(_)
            | EditError::Taken(_) => Exit::Failed,
        };
        Self::said(exit, &error, error.hint())
    }
}
