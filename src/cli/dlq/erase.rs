//! `postrider dlq erase`: erases for the law's sake what is kept of one key.

use super::{Exit, Failure, Globals, actor, block_on, key, name, print, reason};
use crate::{
    config::error::Problem,
    event::AggregateKey,
    operate::letters::{self, Attribution, ErasedKey},
};

/// `postrider dlq erase`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The key, such as customer/c-17
    #[arg(value_name = "TYPE/ID", value_parser = key)]
    key: AggregateKey,
    /// Why, for the audit: 1 to 1,000 characters
    #[arg(long, value_name = "TEXT", value_parser = reason, required = true)]
    reason: Option<String>,
    /// Your name, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", value_parser = name)]
    actor: Option<String>,
    /// Say that it cannot be undone
    #[arg(long)]
    yes: bool,
}

/// Erases one key.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    if !args.yes {
        let text = "an erasure cannot be undone";
        let hint = "say --yes; `postrider dlq list --key` and `postrider why` show what there is";
        return Err(Failure::new(Exit::Usage, Problem::new(text).hint(hint)));
    }
    let loaded = globals.load_for_letters()?;
    let attribution =
        Attribution { actor: actor(args.actor.as_deref()), reason: args.reason.clone() };
    let erased =
        block_on(async { Ok(letters::erase(&loaded.config, &args.key, &attribution).await?) })?;
    let ErasedKey { rows, rows_left, letters, letters_left } = erased;
    print::line(&format!("erased {rows} rows of the outbox and {letters} letters"))?;
    if rows_left == 0 && letters_left == 0 {
        return Ok(Exit::Done);
    }
    print::to_stderr(&format!(
        "left alone: {rows_left} rows that are not settled and {letters_left} letters that are not \
         resolved; redrive or discard the letters, and run the same again"
    ));
    Ok(Exit::Failed)
}
